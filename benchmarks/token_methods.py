"""TransFG and FFVT against timm's plain ViT: inference and a training step, at the shapes of `models`.

What a method has to do is less than the plain pass (its last block sees few tokens) or more (overlapping
patches). The necessary ratio is that of the multiply-accumulates of the two; each name says it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import Ratio, paired
from benchmarks.models import CLASSES, inference, training_step
from fgvc import create_model
from fgvc.backbones.timm_models import timm

BACKBONE = "vit_tiny_patch16_224"
SHAPES = ((224, 8), (448, 2))
METHODS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("transfg, no overlap", "transfg", {"patch_stride": 16}),
    ("transfg, overlap 12", "transfg", {"patch_stride": 12}),
    ("ffvt", "ffvt", {}),
)


def run() -> Iterator[Ratio]:
    """Goal: at most 1.1 times the necessary ratio."""
    for title, method, options in METHODS:
        for size, batch in SHAPES:
            yield from _both(title, method, options, size, batch)


def _both(title: str, method: str, options: dict[str, Any], size: int, batch: int) -> Iterator[Ratio]:
    torch.manual_seed(0)
    images, targets = torch.randn(batch, 3, size, size), torch.arange(batch) % CLASSES
    shape: dict[str, Any] = {"backbone": BACKBONE, "num_classes": CLASSES, "image_size": size}
    ours, plain = create_model(method, **shape, **options), create_model("vit", **shape)
    theirs: nn.Module = timm.create_model(BACKBONE, num_classes=CLASSES, img_size=size)
    ratio = (ours.closed_form_macs() or 0) / (plain.closed_form_macs() or 1)
    name = f"{title}, {size} px, batch {batch} (necessary {ratio:.2f})"

    def our_loss(model: nn.Module, x: Tensor) -> Tensor:
        terms: dict[str, Tensor] = model.loss(model(x), targets)  # type: ignore[operator]
        return terms["total"]

    def their_loss(model: nn.Module, x: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(x), targets)

    yield paired(f"{name}: inference", inference(ours, images), inference(theirs, images))
    yield paired(
        f"{name}: training step",
        training_step(ours, images, our_loss),
        training_step(theirs, images, their_loss),
    )
