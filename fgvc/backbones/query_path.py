"""Extra queries beside a block's tokens: they read its keys and values, and no token reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.models.vision_transformer import Attention
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from fgvc.backbones.blocks import check_blocks
from fgvc.errors import FgvcError


def check_query_blocks(blocks: nn.Sequential) -> None:
    """Raise FgvcError unless `run_with_queries` takes every block."""
    check_blocks(blocks)
    for block in blocks:
        attention = block.attn
        if not isinstance(attention, Attention) or getattr(attention, "gate", None) is not None:
            raise FgvcError(
                f"the attention of this backbone ({type(attention).__name__}) takes no other queries",
                cure="use a ViT with timm's plain attention (vit_…, deit_…, dinov2)",
            )


def run_with_queries(block: nn.Module, tokens: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens after a block [B, S, D], and queries after it [B, q, D].

    The block itself runs as it is, so that tokens are to the bit what they are without queries. These go
    through the same norms, projections and MLP; their attention is over the block's S tokens alone:
    z = Q + proj(softmax(W_q·LN1(Q)·Kᵀ/√d)·V), then z + MLP(LN2(z)), with the block's layer scale and dropout.
    Where the block is frozen and no token carries a gradient, there is none but on the queries' path.
    Source: VQT (arXiv 2212.03220, §3.2).

    Args:
        block: one that `check_query_blocks` takes.
        tokens: [B, S, D].
        queries: [B, q, D].
    """
    layers: Any = block
    joint: list[Tensor] = []
    hook = layers.attn.qkv.register_forward_hook(lambda _layer, _given, result: joint.append(result))
    try:
        after: Tensor = block(tokens)
    finally:
        hook.remove()
    read = queries + layers.drop_path1(layers.ls1(_attend(layers.attn, layers.norm1(queries), joint[0])))
    return after, read + layers.drop_path2(layers.ls2(layers.mlp(layers.norm2(read))))


def _attend(attention: Any, queries: Tensor, joint: Tensor) -> Tensor:
    """Attention of normalised queries [B, q, D] over the tokens whose joint projection is [B, S, 3·D]."""
    width, shape = attention.attn_dim, (attention.num_heads, attention.head_dim)
    bias = attention.qkv.bias
    projected = linear(queries, attention.qkv.weight[:width], None if bias is None else bias[:width])
    query = projected.reshape(*queries.shape[:2], *shape).transpose(1, 2)
    key, value = joint.reshape(*joint.shape[:2], 3, *shape).permute(2, 0, 3, 1, 4)[1:]
    mixed = scaled_dot_product_attention(
        attention.q_norm(query),
        attention.k_norm(key),
        value,
        dropout_p=attention.attn_drop.p if attention.training else 0.0,
    )
    mixed = attention.norm(mixed.transpose(1, 2).flatten(2))
    return attention.proj_drop(attention.proj(mixed))  # type: ignore[no-any-return]


def query_macs(blocks: Sequence[nn.Module] | nn.Sequential, tokens: int, queries: int) -> int:
    """Of the queries' path of one image: q·(2·D² + 2·S·D + 8·D²) a block, with the MLP's own widths."""
    total = 0
    for block in blocks:
        layers: Any = block
        width = layers.attn.attn_dim
        mlp = layers.mlp.fc1.weight.numel() + layers.mlp.fc2.weight.numel()
        total += queries * (2 * width**2 + 2 * tokens * width + mlp)
    return total
