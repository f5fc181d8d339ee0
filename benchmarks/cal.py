"""CAL's crops of a batch against a plain loop over its images: the same boxes, the same crops.

The loop does what a reader of the paper would write down first: for each image, resize the map, compare it
with a share of its maximum, the outermost pixels, the padding, `interpolate` of that region.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks.harness import Ratio, paired
from fgvc.errors import FgvcError
from fgvc.methods.attention_crop import attention_crops

BATCH, CELLS_PX = 16, 16
#: As in a training step, in the middle of its range.
SHARE, PADDING = 0.5, 0.1
#: Both sample the same places, whose coordinates are rounded otherwise.
SAME_CROPS = 1e-3


def _box(attention: Tensor, side: int) -> tuple[int, int, int, int]:
    """(y0, x0, y1, x1) of one map [h, w]."""
    resized = interpolate(attention[None, None], (side, side), mode="bilinear", align_corners=True)
    places = (resized[0, 0] >= SHARE * attention.max()).nonzero()
    low, high = places.amin(dim=0).tolist(), places.amax(dim=0).tolist()
    y0, x0 = (max(int(place - PADDING * side), 0) for place in low)
    y1, x1 = (min(int(place + PADDING * side), side) for place in high)
    return y0, x0, y1, x1


def one_by_one(images: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Crops and boxes of a batch, image by image."""
    crops, boxes = [], []
    for image, attention in zip(images, maps, strict=True):
        y0, x0, y1, x1 = _box(attention, image.shape[-1])
        region = image[None, :, y0:y1, x0:x1]
        crops.append(interpolate(region, image.shape[-2:], mode="bilinear", align_corners=True))
        boxes.append((y0, x0, y1, x1))
    return torch.cat(crops), torch.tensor(boxes)


def run() -> Iterator[Ratio]:
    """Below 1.0: the batch is faster. Raises FgvcError when boxes or crops differ."""
    for size in (224, 448):
        torch.manual_seed(0)
        images = torch.randn(BATCH, 3, size, size)
        # Sparse, as maps after a ReLU are: boxes of many sizes.
        maps = torch.rand(BATCH, size // CELLS_PX, size // CELLS_PX) ** 16
        ours, reference = attention_crops(images, maps, SHARE, PADDING), one_by_one(images, maps)
        difference = float((ours[0] - reference[0]).abs().max())
        if not torch.equal(ours[1], reference[1]) or difference > SAME_CROPS:
            raise FgvcError(f"crops of a batch and of its images one by one differ by {difference:g}")
        yield paired(
            f"cal, {size} px, batch {BATCH}: crops / one by one (differ by {difference:.0e})",
            lambda images=images, maps=maps: attention_crops(images, maps, SHARE, PADDING),
            lambda images=images, maps=maps: one_by_one(images, maps),
        )
