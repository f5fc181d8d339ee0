"""What methods read of the product of many layers' attention maps: its CLS row, a vector at a time.

A row of A_n·…·A_1·A_0 needs no product of two maps: v ← v·A_l from the top layer down is O(S²) a layer where
the whole product is O(S³). Every map but the top one is needed in full, after all layers have run. In
inference they are therefore kept while the blocks run, for a few images at a time, in one buffer that all
groups of images share; what does not fit, and all of training, is made again from queries and keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from fgvc.backbones.attention import AttentionRecorder
from fgvc.backbones.attention_products import attend_into

#: Where the maps below the top come from; `run_and_read` says what each means.
Attention = Literal["auto", "kept", "recomputed"]
ATTENTIONS = ("auto", "kept", "recomputed")

#: Bytes that kept maps may take, and bytes from which on another image in the group gains nothing.
_MOST_KEPT = {"cpu": 96 * 2**20, "cuda": 1024 * 2**20}
_ENOUGH_KEPT = {"cpu": 28 * 2**20, "cuda": 1024 * 2**20}


class LayerAttention(Protocol):
    """The attention of one layer, however it is held. Vectors are [B, H, S], in float32 at least."""

    def cls_row(self) -> Tensor: ...

    def weighted_rows(self, weights: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class KeptMaps:
    """Maps [B, H, S, S] as they are."""

    maps: Tensor

    def cls_row(self) -> Tensor:
        """How the CLS token attends to every token, [B, H, S]."""
        return self.maps[:, :, 0]

    def weighted_rows(self, weights: Tensor) -> Tensor:
        """Σ_i weights_i · A[i], [B, H, S] → [B, H, S]."""
        rows = weights.flatten(0, 1)[:, None] @ self.maps.flatten(0, 1)
        return rows.view_as(weights)


def chained_cls_row(layers: Sequence[LayerAttention]) -> Tensor:
    """The CLS row of the product of all maps, per head: (A_n·…·A_0)[:, :, 0], [B, H, S].

    Source: part selection of TransFG (TACJu/TransFG at 9336fba, models/modeling.py): a row of the product
    instead of the product.
    """
    row = layers[-1].cls_row()
    for layer in reversed(layers[:-1]):
        row = layer.weighted_rows(row)
    return row


def rollout(layers: Sequence[LayerAttention]) -> Tensor:
    """The CLS row of attention rollout, [B, S]: of Â_n·…·Â_0 with Â = (mean over heads of A + I) / row sums.

    Rows of a softmax sum to one, hence those of A + I to two.

    Source: Abnar & Zuidema, Quantifying Attention Flow in Transformers, ACL 2020.
    """
    top = layers[-1].cls_row()
    row = top.mean(dim=1)
    row[:, 0] += 1
    for layer in reversed(layers[:-1]):
        row = row / 2
        row = row + layer.weighted_rows(row[:, None].expand_as(top)).mean(dim=1)
    return row / 2


def run_and_read(
    blocks: Sequence[nn.Module],
    tokens: Tensor,
    read: Callable[[Sequence[LayerAttention]], Tensor],
    attention: Attention = "auto",
) -> tuple[Tensor, Tensor]:
    """Run the blocks, and let ``read`` look at the attention of all of them, from the first to the last.

    Args:
        blocks: timm blocks, as `AttentionRecorder` takes them.
        tokens: [B, S, D].
        read: gets one `LayerAttention` a block for some of the images, and returns a tensor of theirs,
            [b, …]. Runs without gradient. What it is given is overwritten afterwards.
        attention: ``kept``: in inference the maps below the top are kept, for one image at a time if need be.
            ``recomputed``: fused attention everywhere; `read`'s products make the maps again, which costs
            S²·D multiply-accumulates a layer. ``auto``: kept as far as 96 MiB (on a GPU: 1 GiB) go. With
            gradients, under autocast, in half precision, and where timm's attention is not fused:
            recomputed, whatever was asked for.

    Returns the tokens after the last block [B, S, D] and what ``read`` returned [B, …].

    Raises FgvcError for blocks with another attention than timm's.
    """
    AttentionRecorder(blocks)
    if torch.is_grad_enabled():
        return _run_group(blocks, tokens, read, None)
    plan = _Plan.of(blocks, tokens, attention)
    buffer = plan.buffer(tokens) if plan.kept_layers else None
    done = [_run_group(blocks, group, read, buffer) for group in torch.split(tokens, plan.images)]
    if len(done) == 1:
        return done[0]
    return torch.cat([after for after, _ in done]), torch.cat([seen for _, seen in done])


def _run_group(
    blocks: Sequence[nn.Module],
    tokens: Tensor,
    read: Callable[[Sequence[LayerAttention]], Tensor],
    buffer: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """One group of images; ``buffer`` [layers, images, H, S, S]: for the maps of the last layers but one."""
    kept = [] if buffer is None else [KeptMaps(maps[: len(tokens)]) for maps in buffer]
    first_kept = len(blocks) - 1 - len(kept)
    recorded = [*blocks[:first_kept], blocks[-1]]
    with AttentionRecorder(recorded).recording() as layers:
        for block in blocks[:first_kept]:
            tokens = block(tokens)
        for block, layer in zip(blocks[first_kept:-1], kept, strict=True):
            with _Keeping(layer.maps):
                tokens = block(tokens)
        tokens = blocks[-1](tokens)
    with torch.no_grad():
        seen: list[LayerAttention] = [*layers[:-1], *kept, layers[-1]]
        return tokens, read(seen)


class _Keeping(TorchFunctionMode):
    """Inside, attention writes its map down; everything else in a block stays timm's."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self._maps = maps

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        q, k, v = args  # the backbones here have neither masks nor dropout inside of attention
        return attend_into(self._maps, q, k, v, q.shape[-1] ** -0.5)


@dataclass(frozen=True)
class _Plan:
    """How many images run at a time, and the maps of how many layers are kept meanwhile."""

    images: int
    kept_layers: int
    heads: int

    @classmethod
    def of(cls, blocks: Sequence[nn.Module], tokens: Tensor, attention: Attention) -> _Plan:
        count, length, width = (int(n) for n in tokens.shape)
        heads = _attention_of(blocks[0]).num_heads
        most, enough = (_for_device(limit, tokens) for limit in (_MOST_KEPT, _ENOUGH_KEPT))
        below_top = len(blocks) - 1
        layer_bytes = heads * length**2 * tokens.element_size()
        # Counting MACs has no memory to save: what is counted is the method, not what memory makes of it.
        counting = tokens.is_meta or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        if attention == "recomputed" or not _can_keep(blocks, tokens):
            kept_layers = 0
        elif attention == "kept" or counting:
            kept_layers = below_top
        else:
            kept_layers = min(below_top, most // layer_bytes)
        if kept_layers == below_top:
            images = enough // max(1, below_top * layer_bytes)
        else:  # queries, keys and values of the other layers stay as well
            images = most // (len(blocks) * 3 * length * width * tokens.element_size())
            images = 1 if kept_layers else images
        groups = -(-count // max(1, images))
        return cls(-(-count // max(1, groups)), kept_layers, heads)  # of one size, as far as that goes

    def buffer(self, tokens: Tensor) -> Tensor:
        """[layers, images, H, S, S], with whatever the memory holds."""
        shape = (self.kept_layers, self.images, self.heads, int(tokens.shape[1]), int(tokens.shape[1]))
        if tokens.device.type != "cpu":
            return tokens.new_empty(shape)
        # NumPy asks Linux for huge pages, torch does not: 74 MiB are touched first in 5 ms instead of 32.
        return torch.from_numpy(np.empty(shape, dtype=str(tokens.dtype).removeprefix("torch.")))


def _can_keep(blocks: Sequence[nn.Module], tokens: Tensor) -> bool:
    device = tokens.device.type
    exact = tokens.dtype in (torch.float32, torch.float64)
    if torch.amp.is_autocast_available(device):
        exact = exact and not torch.is_autocast_enabled(device)
    return exact and all(_attention_of(block).fused_attn for block in blocks)


def _attention_of(block: nn.Module) -> Any:
    """timm's `Attention`, as `AttentionRecorder` has made sure."""
    return block.attn


def _for_device(limits: dict[str, int], tokens: Tensor) -> int:
    return limits.get(tokens.device.type, limits["cpu"])
