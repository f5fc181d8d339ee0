"""Attention computed in the open, through buffers that exist already.

Maps [S, S] are large: what makes unfused attention slow is less the arithmetic than memory that is asked for
anew in every layer, and passes over it. Here products write where they are told to, a few maps at a time, so
that a map is still in the cache when it is read again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fgvc.backbones.precision import without_autocast

#: Bytes of the maps that are worked on at once: a few MiB stay in a CPU's cache, a GPU wants long launches.
_AT_ONCE = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}


def attend_into(maps: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(q·kᵀ·scale)·v, which leaves the maps behind.

    Args:
        maps: [B, H, S, S], written to; contiguous, in the type of q.
        q, k, v: [B, H, S, d].

    Returns [B, H, S, d].
    """
    attended = torch.empty_like(v, memory_format=torch.contiguous_format)
    if len(v) == 1:  # as timm's block wants it next, tokens before heads: no copy there
        attended = torch.empty_like(v.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
    flat = (
        maps.flatten(0, 1),
        (q * scale).flatten(0, 1),
        k.flatten(0, 1),
        v.flatten(0, 1),
        attended.flatten(0, 1),
    )
    for some_maps, some_q, some_k, some_v, some_out in zip(
        *(torch.split(tensor, _maps_at_once(maps)) for tensor in flat), strict=True
    ):
        _softmax_of_product(some_q, some_k, some_maps)
        _product(some_maps, some_v, some_out)
    return attended


def remade_weighted_rows(q: Tensor, k: Tensor, scale: float, weights: Tensor) -> Tensor:
    """weights·softmax(q·kᵀ·scale) for each map, in float32 at least, in a buffer of bounded size.

    Args:
        q, k: [B, H, S, d].
        weights: [B, H, S].

    Returns [B, H, S].
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    with without_autocast(q):
        q, k = (q.to(wide) * scale).flatten(0, 1), k.to(wide).flatten(0, 1)
        count, length, _ = k.shape
        rows = weights.to(wide).flatten(0, 1)[:, None]
        summed = torch.zeros_like(rows)
        at_once = max(1, _elements_at_once(q) // length)
        maps, height = max(1, at_once // length), min(length, at_once)
        buffer = torch.empty(min(maps, count), height, length, dtype=wide, device=q.device)
        for first in range(0, count, maps):
            some = slice(first, first + maps)
            for top in range(0, length, height):
                some_q, some_rows = q[some, top : top + height], rows[some, :, top : top + height]
                part = buffer[: len(some_q), : some_q.shape[1]]
                _softmax_of_product(some_q, k[some], part)
                summed[some] += some_rows @ part
    return summed.view_as(weights)


def _softmax_of_product(q: Tensor, k: Tensor, maps: Tensor) -> None:
    """softmax(q·kᵀ) [n, r, S] into ``maps``."""
    # In place on a CPU, whose kernel goes row by row; elsewhere nothing promises that this is possible.
    scores = maps if maps.device.type in ("cpu", "meta") else torch.empty_like(maps)
    _product(q, k.transpose(1, 2), scores)
    torch.softmax(scores, dim=-1, out=maps)


def _product(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Batched matrix product. A batch of one is a product that fills all threads by itself."""
    if len(left) == 1:
        torch.mm(left[0], right[0], out=out[0])
    else:
        torch.bmm(left, right, out=out)


def _maps_at_once(maps: Tensor) -> int:
    return max(1, _elements_at_once(maps) // (maps.shape[-2] * maps.shape[-1]))


def _elements_at_once(like: Tensor) -> int:
    return _AT_ONCE.get(like.device.type, _AT_ONCE["cuda"]) // like.element_size()
