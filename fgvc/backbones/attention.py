"""What methods read of the attention of timm's blocks, without giving up fused attention.

A fused kernel never writes its map [S, S] down. Most methods need one row or column of it, and those follow
from queries and keys alone, which a hook on the joint projection sees. q, k, v are [B, H, S, d], in the
order of timm's ``qkv``; the map of a layer is A = softmax(q·kᵀ·scale) over keys.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from timm.layers import Attention
from torch import Tensor, nn

from fgvc.backbones.attention_products import remade_weighted_rows
from fgvc.backbones.precision import without_autocast
from fgvc.errors import FgvcError

T = TypeVar("T")


@dataclass(frozen=True)
class QueriesAndKeys:
    """Of one attention layer: q, k [B, H, S, d], normalised where the model does so, and its scale."""

    q: Tensor
    k: Tensor
    scale: float

    def cls_row(self) -> Tensor:
        """How the CLS token attends to every token: A[:, :, 0], [B, H, S], in O(S·d)."""
        return self._scores(self.q[:, :, :1], self.k).softmax(dim=-1)[:, :, 0]

    def cls_column(self) -> Tensor:
        """Each token's share among all queries that attend to CLS, [B, H, S], in O(S·d).

        Column 0 of softmax(q·kᵀ·scale) taken over *queries*, not a column of the map.
        """
        return self._scores(self.k[:, :, :1], self.q).softmax(dim=-1)[:, :, 0]

    def map(self) -> Tensor:
        """The whole map A, [B, H, S, S]: for looking at a network, never on a method's way to its logits."""
        return self._scores(self.q, self.k).softmax(dim=-1)

    def weighted_rows(self, weights: Tensor) -> Tensor:
        """Σ_i weights_i · A[i], [B, H, S] → [B, H, S]: the map is made again, a few rows at a time."""
        return remade_weighted_rows(self.q, self.k, self.scale, weights)

    def _wide(self) -> torch.dtype:
        return torch.promote_types(self.q.dtype, torch.float32)

    def _scores(self, q: Tensor, k: Tensor) -> Tensor:
        """In float32 at least, whatever the autocast: what follows ranks tokens, half precision ties them."""
        with without_autocast(q):
            return q.to(self._wide()) @ k.to(self._wide()).transpose(-2, -1) * self.scale


class AttentionRecorder:
    """Queries and keys of chosen layers, recorded while the blocks run as they are.

    Args:
        blocks: timm blocks with ``attn`` of timm's `Attention`.

    Raises FgvcError for blocks with another attention.

    Example:
        >>> recorder = AttentionRecorder(backbone.blocks[-3:])
        >>> with recorder.recording() as layers:
        ...     tokens = backbone(images)
        >>> layers[-1].cls_row()
    """

    def __init__(self, blocks: Sequence[nn.Module] | nn.Sequential) -> None:
        self._layers: list[Attention] = []
        for block in blocks:
            attention = getattr(block, "attn", None)
            if not isinstance(attention, Attention):
                raise FgvcError(
                    f"the attention of {type(block).__name__} cannot be recorded",
                    cure="use a backbone with timm's plain blocks (vit_…, deit_…, dinov2)",
                )
            self._layers.append(attention)

    def recording(self) -> contextlib.AbstractContextManager[list[QueriesAndKeys]]:
        """The list fills in the order in which the layers run."""
        return self._noting(lambda layer: layer)

    def reading(
        self, read: Callable[[QueriesAndKeys], Tensor]
    ) -> contextlib.AbstractContextManager[list[Tensor]]:
        """As `recording`, but only what ``read`` makes of a layer stays; it runs without gradient."""
        return self._noting(torch.no_grad()(read))

    @contextlib.contextmanager
    def _noting(self, note: Callable[[QueriesAndKeys], T]) -> Iterator[list[T]]:
        seen: list[T] = []

        def keep(attention: Attention) -> object:
            def hook(_module: nn.Module, _given: object, qkv: Tensor) -> None:
                seen.append(note(queries_and_keys(attention, qkv)))

            return hook

        handles = [layer.qkv.register_forward_hook(keep(layer)) for layer in self._layers]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()


def queries_and_keys(attention: Attention, qkv: Tensor) -> QueriesAndKeys:
    """Split the joint projection [B, S, 3·H·d] of a layer."""
    parts = qkv.reshape(*qkv.shape[:2], 3, attention.num_heads, attention.head_dim)
    q, k, _ = parts.permute(2, 0, 3, 1, 4).unbind(0)
    return QueriesAndKeys(attention.q_norm(q), attention.k_norm(k), attention.scale)
