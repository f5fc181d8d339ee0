"""MACs of a plain ViT from its geometry alone, for the closed forms of the methods.

With S tokens of width D a block costs 4·S·D² (query, key, value, projection), 2·S²·D (scores and their use)
and 8·S·D² (an MLP four times as wide as its input). Source: the definitions in Dosovitskiy et al., An Image
is Worth 16×16 Words, ICLR 2021, appendix A.
"""

from __future__ import annotations

from typing import Any

from timm.layers import PatchEmbed
from torch import nn

from fgvc.backbones.tokens import TokenBackbone


def embedding_macs(backbone: TokenBackbone) -> int:
    """Patch embedding of one image: 3·P²·D for each of the N patches."""
    height, width = backbone.grid
    return 3 * backbone.patch_size**2 * backbone.width * height * width


def block_macs(backbone: TokenBackbone, tokens: int | None = None) -> int:
    """One encoder block over ``tokens`` tokens (default: the whole sequence, num_prefix + N)."""
    height, width = backbone.grid
    s = backbone.num_prefix + height * width if tokens is None else tokens
    d = backbone.width
    return 4 * s * d**2 + 2 * s**2 * d + s * _mlp_macs_per_token(backbone)


def encoder_macs(backbone: TokenBackbone) -> int:
    """One pass of one image through embedding and all blocks."""
    return embedding_macs(backbone) + backbone.depth * block_macs(backbone)


def is_plain(backbone: TokenBackbone) -> bool:
    """Whether the formulas hold: plain patches, and blocks of one attention and one MLP of two layers."""
    mlp = getattr(backbone.blocks[0], "mlp", None)
    two_layers = all(isinstance(getattr(mlp, name, None), nn.Linear) for name in ("fc1", "fc2"))
    return two_layers and isinstance(backbone.vit.patch_embed, PatchEmbed)


def _mlp_macs_per_token(backbone: TokenBackbone) -> int:
    """8·D² for the usual MLP; read from its widths, as ratios vary and gated MLPs halve in between."""
    mlp: Any = backbone.blocks[0].mlp
    return int(sum(layer.in_features * layer.out_features for layer in (mlp.fc1, mlp.fc2)))
