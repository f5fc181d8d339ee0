"""One encoder block of a ViT with modules beside its two branches, for parameter-efficient methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.layers import DropPath
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from fgvc.errors import FgvcError

#: Takes the normalised tokens [B, S, D] that a branch reads; its result [B, S, D] is added to the stream.
Branch = Callable[[Tensor], Tensor]


def check_blocks(blocks: nn.Sequential) -> None:
    """Raise FgvcError unless every block is timm's pre-norm block of one attention and one MLP."""
    for block in blocks:
        if not isinstance(block, Block):
            raise FgvcError(
                f"the blocks of this backbone ({type(block).__name__}) take no modules beside their branches",
                cure="use a ViT with timm's plain blocks (vit_…, deit_…, dinov2)",
            )


def run_block(
    block: nn.Module,
    tokens: Tensor,
    beside_attention: Branch | None = None,
    beside_mlp: Branch | None = None,
) -> Tensor:
    """A block's output [B, S, D], with what is given added beside its branches.

    With z = LN1(x), x ← x + Attn(z) + beside_attention(z); with z = LN2(x), x ← x + MLP(z) + beside_mlp(z).
    Each norm is computed once; layer scale and stochastic depth act on the block's own branches only, and the
    attention stays fused. Source: the adapter path "convpass" (ConvPass, arXiv 2207.07039, §3.2; ILA, §1.3
    of its specification).

    Args:
        block: one that `check_blocks` takes.
        tokens: [B, S, D].
    """
    layers: Any = block
    normed = layers.norm1(tokens)
    after = tokens + layers.drop_path1(layers.ls1(layers.attn(normed)))
    if beside_attention is not None:
        after = after + beside_attention(normed)
    normed = layers.norm2(after)
    output: Tensor = after + layers.drop_path2(layers.ls2(layers.mlp(normed)))
    if beside_mlp is not None:
        output = output + beside_mlp(normed)
    return output


def stochastic_depth(block: nn.Module) -> float:
    """The drop rate of a block's branches."""
    return float(getattr(getattr(block, "drop_path2", None), "drop_prob", None) or 0.0)


def branch_drop(dropout: float, depth: float) -> nn.Module:
    """What acts in training on the result of a module beside a branch: dropout, stochastic depth, or both.

    Args:
        dropout: rate of dropping single values.
        depth: rate of dropping the whole result of an image.
    """
    parts: list[nn.Module] = [nn.Dropout(dropout)] if dropout > 0 else []
    return nn.Sequential(*parts, *([DropPath(depth)] if depth > 0 else []))
