"""Lets torchvision (and so timm) be imported beside a torch build that cannot load its compiled operators.

torchvision registers shape functions for ``torchvision::nms`` and ``torchvision::qnms`` when it is imported;
where its binary does not fit the installed torch (a CPU build beside a CUDA wheel, say), the two operators
are unknown and the import fails with "operator torchvision::nms does not exist". Declaring their schemas is
enough: fgvc-bench uses neither `torchvision.ops` nor its image decoder.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

# The declarations live as long as this object does.
_declared: torch.library.Library | None = None


def ensure_torchvision_ops() -> bool:
    """Declare the missing operators, once. Call before ``import torchvision`` or ``import timm``.

    Returns True when torchvision's own operators are there and nothing was declared.
    """
    global _declared
    if _declared is not None:
        return False
    if hasattr(torch.ops.torchvision, "nms") or _load_compiled_operators():
        return True
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    _declared = library
    return False


def _load_compiled_operators() -> bool:
    """Load torchvision's binary as torchvision would, without importing torchvision."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    for binary in sorted(Path(spec.origin).parent.glob("_C*.so")):
        try:
            torch.ops.load_library(str(binary))  # type: ignore[no-untyped-call]
        except OSError:
            continue
        return hasattr(torch.ops.torchvision, "nms")
    return False
