"""IELT, SC4001 and PIM against timm's plain ViT, iSQRT-COV against timm's ResNet: inference, a training step.

The necessary ratio is that of the multiply-accumulates of the forward passes; each name says it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from benchmarks.harness import Ratio
from benchmarks.models import CLASSES, beside
from benchmarks.token_methods import SHAPES, against_plain_vit
from fgvc import create_model
from fgvc.backbones.timm_models import timm

CNN = "resnet18"
METHODS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("ielt", "ielt", {}),
    ("sc4001, three scales", "sc4001", {"extra_blocks": "vit"}),
    ("sc4001, merged tokens", "sc4001", {"extra_blocks": "vit", "merge_inattentive": True}),
    ("pim, fpn 128", "pim", {"fpn_size": 128}),
    ("pim, fpn 512", "pim", {"fpn_size": 512}),
)


def run() -> Iterator[Ratio]:
    """Goal: at most 1.1 times the necessary ratio."""
    for title, method, options in METHODS:
        for size, batch in SHAPES:
            yield from against_plain_vit(title, method, options, size, batch)
    for size, batch in SHAPES:
        yield from _covariance(size, batch)


def _covariance(size: int, batch: int) -> Iterator[Ratio]:
    torch.manual_seed(0)
    images = torch.randn(batch, 3, size, size)
    shape: dict[str, Any] = {"backbone": CNN, "num_classes": CLASSES, "image_size": size}
    ours, plain = create_model("isqrtcov", **shape), create_model("cnn", **shape)
    theirs: nn.Module = timm.create_model(CNN, num_classes=CLASSES)
    ratio = (ours.closed_form_macs() or 0) / (plain.closed_form_macs() or 1)
    name = f"isqrtcov on {CNN}, {size} px, batch {batch} (necessary {ratio:.2f})"
    yield from beside(name, ours, theirs, images)
