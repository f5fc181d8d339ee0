"""Global-local similarity, the box around the patches that it ranks first, and the crop of that box.

Everything is one batched expression: no loop over images, and no value is read back from the device.

Source: Rios et al., Global-Local Similarity for Efficient Fine-Grained Image Recognition with Vision
Transformers, arXiv 2407.12891; arkel23/GLSim at 99cc474 for the metrics' definitions and the box.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

METRICS = ("cos", "l1", "l2")
CROP_ENDS = ("upstream", "inclusive")


def similarity(global_token: Tensor, patches: Tensor, metric: str) -> Tensor:
    """How similar each patch token is to the token that stands for the whole image.

    Args:
        global_token: [B, D].
        patches: [B, N, D].
        metric: ``cos``, the cosine (high = similar); ``l1`` and ``l2``, the mean absolute and the mean
            squared difference (low = similar).

    Returns [B, N] in float32, also under autocast: ranks are decided by small differences. The sums run over
    D of one image at a time and not through a matrix product, whose rounding may depend on the batch.
    """
    one, many = global_token.float()[:, None], patches.float()
    if metric == "cos":
        return nn.functional.cosine_similarity(many, one, dim=-1)
    if metric == "l1":
        return (many - one).abs().mean(dim=-1)
    return (many - one).square().mean(dim=-1)


def most_similar(scores: Tensor, metric: str, count: int) -> Tensor:
    """Indices [B, count] of the patches that `similarity` [B, N] ranks first, the best one first."""
    return scores.topk(count, dim=1, largest=metric == "cos").indices


def random_patches(images: Tensor, num_patches: int, count: int, *, training: bool) -> Tensor:
    """Indices [B, count] drawn uniformly from 0 … num_patches − 1, with replacement.

    In training they come from torch's generator. In evaluation they are a hash of the image's own
    values, so that a prediction depends neither on a generator nor on the batch that the image came in.

    Upstream draws from 0 … count − 1, that is always among the first patches of the first row (quirk Q3).
    """
    if training:
        return torch.randint(num_patches, (len(images), count), device=images.device)
    values = (images.detach().float().flatten(1) * 2**20).long()
    keys = values.sum(dim=1, keepdim=True)  # of integers: exact in any order
    return _splitmix64(keys + _WEYL * torch.arange(1, count + 1, device=images.device)).remainder(num_patches)


#: The constants of splitmix64 as signed integers.
_WEYL = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIERS = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64))


def _splitmix64(keys: Tensor) -> Tensor:
    """The mixing function of Steele et al., Fast Splittable Pseudorandom Number Generators (2014).

    int64 of any shape; products wrap. Dividing stands for its shifts, with the sign shifted in.
    """
    for shift, multiplier in _MULTIPLIERS:
        keys = (keys ^ keys.div(2**shift, rounding_mode="floor")) * multiplier
    return keys ^ keys.div(2**31, rounding_mode="floor")


def boxes_around(indices: Tensor, grid: tuple[int, int], patch_size: int, end: str) -> Tensor:
    """The box around patches.

    Args:
        indices: [B, O], row-major positions on the patch grid.
        grid: (h, w) in patches.
        patch_size: side of a patch in pixels.
        end: ``inclusive``: up to the end of the last row and column chosen. ``upstream``: up to their start
            (quirk Q1: the last row and column are lost unless they are the first as well).

    Returns [B, 4], (y0, x0, y1, x1) in pixels, half-open, int64.
    """
    height, width = grid
    rows, columns = indices.div(width, rounding_mode="floor"), indices.remainder(width)
    sides = []
    for places, cells in ((rows, height), (columns, width)):
        first, last = places.amin(dim=1) * patch_size, places.amax(dim=1) * patch_size
        stop = last + patch_size if end == "inclusive" else torch.maximum(last, first + patch_size)
        sides.append((first, stop.clamp(max=cells * patch_size)))
    (y0, y1), (x0, x1) = sides
    return torch.stack([y0, x0, y1, x1], dim=1)


def crop_and_resize(images: Tensor, boxes: Tensor) -> Tensor:
    """Cut one box out of each image and resize it to the image's size, bilinearly with aligned corners.

    Args:
        images: [B, C, H, W]; gradients flow into them.
        boxes: [B, 4], (y0, x0, y1, x1) in pixels, half-open.

    Returns [B, C, H, W]: the first and the last sample lie on the centres of the box's outer pixels, as in
    ``interpolate(image[:, y0:y1, x0:x1], (H, W), mode="bilinear", align_corners=True)``.
    """
    height, width = images.shape[-2:]
    y0, x0, y1, x1 = boxes.float().unbind(dim=1)
    rows = _sample_places(y0, y1, height)[:, :, None].expand(-1, -1, width)
    columns = _sample_places(x0, x1, width)[:, None, :].expand(-1, height, -1)
    # In float32: half precision cannot tell the pixels of a large image apart.
    crops = nn.functional.grid_sample(
        images.float(),
        torch.stack([columns, rows], dim=-1),
        mode="bilinear",
        padding_mode="border",  # for what rounding puts outside
        align_corners=True,
    )
    return crops.to(images.dtype)


def _sample_places(start: Tensor, stop: Tensor, size: int) -> Tensor:
    """``size`` places from pixel ``start`` to pixel ``stop − 1`` (each [B]), where −1 … 1 is 0 … size − 1.

    torch's affine grid has the same values, from a product of matrices that are mostly zeros.
    """
    steps = torch.linspace(0, 1, size, device=start.device)
    pixels = start[:, None] + steps * (stop - 1 - start)[:, None]
    return pixels * (2 / (size - 1)) - 1
