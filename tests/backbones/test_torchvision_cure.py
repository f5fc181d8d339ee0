"""timm can be imported, whether or not torchvision's compiled operators fit the installed torch."""

from __future__ import annotations

import subprocess
import sys


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_timm_can_be_imported_after_the_backbones() -> None:
    code = "import fgvc.backbones, timm; print(timm.create_model('test_vit').num_classes)"
    assert python(code) == "1000"


def test_without_the_binary_the_operators_are_declared_once() -> None:
    """As on a CPU build of torch beside a CUDA wheel of torchvision: the binary cannot be loaded."""
    code = """
from fgvc import torchvision_ops as cure
cure._load_compiled_operators = lambda: False
print(cure.ensure_torchvision_ops(), cure.ensure_torchvision_ops(), cure._declared is not None)
import torch, torchvision
print(all(hasattr(torch.ops.torchvision, name) for name in ("nms", "qnms")))
"""
    assert python(code).split() == ["False", "False", "True", "True"]


def test_operators_that_are_there_are_left_alone() -> None:
    """An operator of another library stands for torchvision's own: it must be the one that answers."""
    code = """
import torch
own = torch.library.Library("torchvision", "DEF")
own.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
own.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
own.impl("nms", lambda dets, scores, iou_threshold: scores + 1, "CPU")
from fgvc import torchvision_ops as cure
print(cure.ensure_torchvision_ops(), cure._declared)
import torchvision
print(torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5).item())
"""
    assert python(code).split() == ["True", "None", "1.0"]
