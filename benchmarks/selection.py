"""Choosing tokens alone: vectors through the layers against whole products, on the same maps, same answers.

The references do what the papers' formulas say: multiply maps, take both softmaxes whole and sort.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce

import torch
from torch import Tensor

from benchmarks.harness import Ratio, paired
from fgvc.backbones.attention import QueriesAndKeys
from fgvc.backbones.attention_chain import KeptMaps, chained_cls_row, rollout
from fgvc.errors import FgvcError
from fgvc.methods.ffvt import mutual_attention
from fgvc.methods.token_selection import gather_tokens

LAYERS, HEADS, WIDTH, BATCH, CHOSEN = 12, 3, 64, 4, 12


def whole_psm(maps: list[Tensor]) -> Tensor:
    """(A_n·…·A_0)[:, :, 0], [B, H, S]."""
    return reduce(torch.matmul, reversed(maps))[:, :, 0]


def whole_rollout(maps: list[Tensor]) -> Tensor:
    """The CLS row of the product of (mean over heads + I) / row sums, [B, S]."""
    mixed = [layer.mean(dim=1) + torch.eye(layer.shape[-1]) for layer in maps]
    return reduce(torch.matmul, reversed([layer / layer.sum(dim=-1, keepdim=True) for layer in mixed]))[:, 0]


def whole_maws(maps: list[Tensor], scores: list[Tensor], tokens: Tensor) -> Tensor:
    """Tokens [B, L·m, D] by mutual attention, from both softmaxes whole, all tokens sorted."""
    chosen = []
    for layer, raw in zip(maps, scores, strict=True):
        both = layer.mean(dim=1)[:, 0] * raw.softmax(dim=-2).mean(dim=1)[:, :, 0]
        for b, row in enumerate(both.argsort(dim=-1, descending=True)[:, :CHOSEN]):
            chosen.append(tokens[b, row])
    return torch.stack(chosen).unflatten(0, (LAYERS, BATCH)).transpose(0, 1).flatten(1, 2)


def short_maws(layers: list[QueriesAndKeys], tokens: Tensor) -> Tensor:
    chosen = [gather_tokens(tokens, mutual_attention(one).topk(CHOSEN).indices) for one in layers]
    return torch.cat(chosen, dim=1)


def run() -> Iterator[Ratio]:
    """Goals at 785 tokens: 1/40 for the chain of TransFG, 1/20 for rollout and for FFVT's choice."""
    for length in (197, 785):
        yield from _at(length)


def _at(length: int) -> Iterator[Ratio]:
    """Raises FgvcError when the two ways do not choose the same."""
    torch.manual_seed(0)
    random = [torch.randn(2, BATCH, HEADS, length, WIDTH) for _ in range(LAYERS)]
    layers = [QueriesAndKeys(q, k, WIDTH**-0.5) for q, k in random]
    scores = [layer.q @ layer.k.mT * layer.scale for layer in layers]
    maps = [raw.softmax(dim=-1) for raw in scores]
    kept, tokens = [KeptMaps(layer) for layer in maps], torch.randn(BATCH, length, HEADS * WIDTH)
    pairs: tuple[tuple[str, Callable[[], Tensor], Callable[[], Tensor]], ...] = (
        ("chain of rows / product of maps", lambda: chained_cls_row(kept), lambda: whole_psm(maps)),
        ("rollout of rows / of maps", lambda: rollout(kept), lambda: whole_rollout(maps)),
        (
            "maws by row and column / by maps",
            lambda: short_maws(layers, tokens),
            lambda: whole_maws(maps, scores, tokens),
        ),
    )
    for name, ours, reference in pairs:
        _same(name, ours(), reference())
        yield paired(f"{length} tokens, {LAYERS} layers, batch {BATCH}: {name}", ours, reference)


def _same(name: str, ours: Tensor, reference: Tensor) -> None:
    if not torch.allclose(ours, reference, rtol=1e-3, atol=1e-7) or not torch.equal(
        ours.argmax(-1), reference.argmax(-1)
    ):
        raise FgvcError(f"{name}: the two do not choose the same")
