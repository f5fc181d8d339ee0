"""Regions of high attention: masks, the boxes around them, crops of the boxes, images without them.

All images of a batch at once: no loop over images, and no value is read back from the device.

Source: raoyongming/CAL at 0ba9d50, ``utils.py`` (batch_augment, after WS-DAN); written from a description of
what that code computes, and compared with its outputs (tests/methods/test_golden_cal.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgvc.methods.similarity_crop import crop_and_resize


def attended(maps: Tensor, share: float | Tensor, size: tuple[int, int]) -> Tensor:
    """Where a map reaches a share of its maximum.

    Args:
        maps: [B, h, w], one for each image, float32 or better.
        share: θ / max(map), one for all or [B].
        size: (H, W) of the image, to which maps are resized (bilinear, aligned corners).

    Returns bool [B, H, W]. A map of zeros is attended everywhere, as its threshold is 0 as well.
    """
    threshold = share * maps.amax(dim=(1, 2))
    resized = nn.functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=True)[:, 0]
    return resized >= threshold[:, None, None]


def boxes_of(masks: Tensor, padding: float) -> Tensor:
    """The padded box around the True pixels of each mask.

    A side runs from max(int(first − p·S), 0) to min(int(last + p·S), S), exclusive, where first and last are
    its outermost True pixels, S its length and p the padding. So without padding the last row and column are
    lost, as upstream. Where that leaves nothing (a mask of one pixel, or an empty one), a box has one pixel;
    upstream stops with an error there.

    Args:
        masks: bool [B, H, W].
        padding: share of the image's side.

    Returns [B, 4], (y0, x0, y1, x1) in pixels, half-open, int64.
    """
    sides = []
    for dim in (2, 1):
        hit = masks.any(dim=dim)
        size = hit.shape[1]
        places = torch.arange(size, device=hit.device)
        first = torch.where(hit, places, size - 1).amin(dim=1)
        last = torch.where(hit, places, 0).amax(dim=1)
        # The rounding of these sums is upstream's: in double precision, which not every device has.
        exact = torch.arange(size, dtype=torch.float64)
        starts = (exact - padding * size).long().clamp(min=0).to(hit.device)
        stops = (exact + padding * size).long().clamp(max=size).to(hit.device)
        start = starts[first]
        sides.append((start, torch.maximum(stops[last], start + 1)))
    (y0, y1), (x0, x1) = sides
    return torch.stack([y0, x0, y1, x1], dim=1)


def attention_crops(
    images: Tensor, maps: Tensor, share: float | Tensor, padding: float
) -> tuple[Tensor, Tensor]:
    """The attended box of each image, resized to the image's size (bilinear, aligned corners), and the boxes.

    Arguments as of `attended` and `boxes_of`; images [B, 3, H, W].
    """
    height, width = images.shape[-2:]
    boxes = boxes_of(attended(maps, share, (height, width)), padding)
    return crop_and_resize(images, boxes), boxes


def attention_drops(images: Tensor, maps: Tensor, share: float | Tensor) -> Tensor:
    """Images [B, 3, H, W] with 0 wherever the map is attended; arguments as of `attended`."""
    height, width = images.shape[-2:]
    return images.masked_fill(attended(maps, share, (height, width))[:, None], 0)
