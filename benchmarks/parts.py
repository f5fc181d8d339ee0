"""IELT, SC4001 and PIM against timm's plain ViT, iSQRT-COV against timm's ResNet: inference, a training step.

The necessary ratio is that of the multiply-accumulates of the forward passes; each name says it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import Ratio, paired
from benchmarks.models import CLASSES, inference, training_step
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
    images, targets = torch.randn(batch, 3, size, size), torch.arange(batch) % CLASSES
    shape: dict[str, Any] = {"backbone": CNN, "num_classes": CLASSES, "image_size": size}
    ours, plain = create_model("isqrtcov", **shape), create_model("cnn", **shape)
    theirs: nn.Module = timm.create_model(CNN, num_classes=CLASSES)
    ratio = (ours.closed_form_macs() or 0) / (plain.closed_form_macs() or 1)
    name = f"isqrtcov on {CNN}, {size} px, batch {batch} (necessary {ratio:.2f})"

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
