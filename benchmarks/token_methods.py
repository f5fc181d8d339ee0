"""TransFG and FFVT against timm's plain ViT: inference and a training step, at the shapes of `models`.

What a method has to do is less than the plain pass (its last block sees few tokens) or more (overlapping
patches). The necessary ratio is that of the multiply-accumulates of the two; each name says it. A plain ViT
on overlapping patches shows what of a method's time is not its own: attention's share grows with the square
of the tokens, and a multiply-accumulate of attention takes longer than one of a linear layer. One whose
attention is not fused shows what it costs to have all maps at all, which TransFG needs and FFVT does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import Ratio, paired
from benchmarks.models import CLASSES, beside, inference, training_step
from fgvc import create_model
from fgvc.backbones.closed_form import encoder_macs
from fgvc.backbones.timm_models import timm
from fgvc.backbones.tokens import TokenBackbone

BACKBONE = "vit_tiny_patch16_224"
SHAPES = ((224, 8), (448, 2))
METHODS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("transfg, no overlap", "transfg", {"patch_stride": 16}),
    ("transfg, overlap 12", "transfg", {"patch_stride": 12}),
    ("ffvt", "ffvt", {}),
)


class PlainViT(nn.Module):
    """timm's blocks and a linear head, on patches that may overlap, and with unfused attention if need be."""

    def __init__(self, size: int, stride: int, *, fused: bool) -> None:
        super().__init__()
        self.backbone = TokenBackbone(BACKBONE, size, patch_stride=stride)
        for block in self.backbone.blocks:
            block.attn.fused_attn = fused
        self.head = nn.Linear(self.backbone.width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone.cls(self.backbone(images)))  # type: ignore[no-any-return]


def run() -> Iterator[Ratio]:
    """Goal: at most 1.1 times the necessary ratio."""
    for size, batch in SHAPES:
        for stride, fused in ((16, False), (12, True), (12, False)):
            yield from _plain(size, batch, stride, fused)
    for title, method, options in METHODS:
        for size, batch in SHAPES:
            yield from against_plain_vit(title, method, options, size, batch)


def _plain(size: int, batch: int, stride: int, fused: bool) -> Iterator[Ratio]:
    torch.manual_seed(0)
    images, targets = torch.randn(batch, 3, size, size), torch.arange(batch) % CLASSES
    ours = PlainViT(size, stride, fused=fused)
    theirs: nn.Module = timm.create_model(BACKBONE, num_classes=CLASSES, img_size=size)
    plain = TokenBackbone(BACKBONE, size)
    kind = ("no overlap" if stride == 16 else f"overlap {stride}") + ("" if fused else ", unfused")
    name = f"vit, {kind}, {size} px, batch {batch}"
    name += f" (necessary {encoder_macs(ours.backbone) / encoder_macs(plain):.2f})"

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(x), targets)

    yield paired(f"{name}: inference", inference(ours, images), inference(theirs, images))
    yield paired(
        f"{name}: training step", training_step(ours, images, loss), training_step(theirs, images, loss)
    )


def against_plain_vit(
    title: str, method: str, options: dict[str, Any], size: int, batch: int
) -> Iterator[Ratio]:
    """Inference and a training step of a method on `BACKBONE`, beside those of timm's ViT."""
    torch.manual_seed(0)
    images = torch.randn(batch, 3, size, size)
    shape: dict[str, Any] = {"backbone": BACKBONE, "num_classes": CLASSES, "image_size": size}
    ours, plain = create_model(method, **shape, **options), create_model("vit", **shape)
    theirs: nn.Module = timm.create_model(BACKBONE, num_classes=CLASSES, img_size=size)
    ratio = (ours.closed_form_macs() or 0) / (plain.closed_form_macs() or 1)
    name = f"{title}, {size} px, batch {batch} (necessary {ratio:.2f})"
    yield from beside(name, ours, theirs, images)
