"""GLSim's step over a batch against a plain reference that takes one image after the other, same loss.

The reference does what a reader of the paper would write down first: for each image, the encoder, the
similarity of its CLS token with each patch, the box, `interpolate` of the region, the encoder again.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, interpolate

from benchmarks.harness import Ratio, Work, paired
from fgvc import create_model
from fgvc.errors import FgvcError
from fgvc.methods.glsim import GLSim

BACKBONE, CLASSES, BATCH = "vit_tiny_patch16_224", 200, 8
#: Both sum the same numbers in another order.
SAME_LOSS = 1e-4


def _box(model: GLSim, tokens: Tensor) -> tuple[int, int, int, int]:
    """(y0, x0, y1, x1) of one image's tokens [S, D]."""
    cls, patches = tokens[0], tokens[model.backbone.num_prefix :]
    scores = cosine_similarity(cls[None], patches)
    side, patch = model.backbone.grid[1], model.backbone.patch_size
    chosen = [divmod(int(i), side) for i in scores.topk(model.options.top_k).indices]
    rows, columns = [r for r, _ in chosen], [c for _, c in chosen]
    y0, x0 = patch * min(rows), patch * min(columns)
    return y0, x0, max(patch * max(rows), y0 + patch), max(patch * max(columns), x0 + patch)


def one_by_one(model: GLSim, images: Tensor, targets: Tensor) -> Tensor:
    """The mean loss of a batch, image by image."""
    losses = []
    for image, target in zip(images, targets, strict=True):
        tokens = model.backbone(image[None])
        with torch.no_grad():
            y0, x0, y1, x1 = _box(model, tokens[0])
            region = image[None, :, y0:y1, x0:x1]
            crop = interpolate(region, image.shape[-2:], mode="bilinear", align_corners=True)
        again = model.backbone(crop)
        rows = model.aggregator(torch.stack([tokens[:, 0], again[:, 0]], dim=1))
        losses.append(cross_entropy(model.head(rows[:, 0]), target[None]))
    return torch.stack(losses).mean()


def _step(model: GLSim, batched: bool, images: Tensor, targets: Tensor) -> Work:
    def work() -> Tensor:
        model.zero_grad(set_to_none=True)
        loss = model.loss(model(images), targets)["total"] if batched else one_by_one(model, images, targets)
        loss.backward()
        return loss.detach()

    return work


def run() -> Iterator[Ratio]:
    """Below 1.0: the batch is faster. Raises FgvcError when the two losses differ."""
    for size in (224, 448):
        torch.manual_seed(0)
        model = create_model(
            "glsim",
            backbone="vit_tiny_patch16_224",
            num_classes=CLASSES,
            image_size=size,
            head_init="default",
        )
        assert isinstance(model, GLSim)
        images, targets = torch.randn(BATCH, 3, size, size), torch.arange(BATCH)
        ours, reference = (_step(model, batched, images, targets) for batched in (True, False))
        difference = abs(float(ours()) - float(reference()))  # type: ignore[arg-type]
        if difference > SAME_LOSS:
            raise FgvcError(f"the losses of a batch and of its images one by one differ by {difference:g}")
        yield paired(
            f"glsim, {size} px, batch {BATCH}: step / one by one (losses differ by {difference:.0e})",
            ours,
            reference,
        )
