"""MACs of a plain ViT from its geometry alone, and of a CNN layer by layer, for the methods' closed forms.

With S tokens of width D a block costs 4·S·D² (query, key, value, projection), 2·S²·D (scores and their use)
and 8·S·D² (an MLP four times as wide as its input). Source: the definitions in Dosovitskiy et al., An Image
is Worth 16×16 Words, ICLR 2021, appendix A.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn
from torch.func import functional_call

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


@dataclass(frozen=True)
class LayerSum:
    """MACs of one image's pass through the convolutions and linear layers of a network.

    Attributes:
        macs: their sum.
        cells: h·w of what the network returned, where that is a feature map [B, C, h, w], else 1.
    """

    macs: int
    cells: int


def layer_sum(network: nn.Module, image_size: int) -> LayerSum | None:
    """The sum of the layers' formulas at the map sizes that a pass over shapes alone shows.

    None for a network with attention, whose products stand between layers.
    """
    if any(hasattr(m, "fused_attn") or isinstance(m, nn.MultiheadAttention) for m in network.modules()):
        return None
    costs: list[int] = []

    def add(layer: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
        costs.append(_layer_macs(layer, given[0], result))

    layers = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)]
    handles = [layer.register_forward_hook(add) for layer in layers]
    state = {n: t.to("meta") for n, t in (*network.named_parameters(), *network.named_buffers())}
    # Two images: a batch norm that trains refuses one.
    images = torch.empty(2, 3, image_size, image_size, device="meta")
    try:
        with torch.no_grad():
            result = functional_call(network, state, (images,))
    finally:
        for handle in handles:
            handle.remove()
    shape = result.shape if isinstance(result, Tensor) else ()
    return LayerSum(sum(costs), prod(shape[2:]))


def _layer_macs(layer: nn.Module, given: Tensor, result: Tensor) -> int:
    """One image's share of a layer that read ``given`` [B, …] and wrote ``result`` [B, …]."""
    if isinstance(layer, nn.Linear):
        return given[0].numel() * layer.out_features
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    return result[0].numel() * prod(layer.kernel_size) * layer.in_channels // layer.groups
