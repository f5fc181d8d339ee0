"""Building timm models, ours among them."""

from __future__ import annotations

from functools import partial
from typing import Any

import timm
import torch
from timm.layers import Attention, DropPath, Mlp
from timm.models import VisionTransformer, register_model
from timm.models.vision_transformer import Block, _create_vision_transformer
from torch import nn

from fgvc.errors import FgvcError, UnknownNameError

# timm looks for this name in the module of a registered model.
default_cfgs: dict[str, dict[str, Any]] = {
    "vit_pico_patch16_224": {
        "input_size": (3, 224, 224),
        "num_classes": 1000,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
}


@register_model  # type: ignore[untyped-decorator]
def vit_pico_patch16_224(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """ViT-Pico/16: width 128, depth 4, 2 heads, 0.9 M parameters. Small enough to train on two CPU cores."""
    shape = {"patch_size": 16, "embed_dim": 128, "depth": 4, "num_heads": 2}
    return _create_vision_transformer("vit_pico_patch16_224", pretrained=pretrained, **{**shape, **kwargs})


def base_name(backbone: str) -> str:
    """The architecture in a timm name: ``resnet101`` of ``resnet101.a1h_in1k``."""
    return backbone.partition(".")[0]


def backbone_names() -> list[str]:
    """Every architecture that timm knows, ours included."""
    return list(timm.list_models())


def build_timm(backbone: str, **kwargs: Any) -> nn.Module:
    """A timm model without its classifier and without pre-trained weights.

    Args:
        backbone: timm name, with or without a weights tag.
        kwargs: timm's arguments (``img_size``, ``drop_path_rate`` …).

    Raises UnknownNameError for a name that timm does not know, FgvcError for arguments it refuses.
    """
    name = base_name(backbone)
    if not timm.is_model(name):
        raise UnknownNameError("backbone", name, backbone_names(), listing="fgvc list backbones")
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, **kwargs)  # type: ignore[no-any-return]
    except (TypeError, AssertionError, ValueError) as error:
        shown = ", ".join(f"{key}={value}" for key, value in kwargs.items())
        raise FgvcError(f"timm cannot build '{name}' with {shown}: {error}") from error


def encoder_block(
    width: int,
    heads: int,
    mlp_ratio: float,
    *,
    norm_eps: float,
    qkv_bias: bool = True,
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
) -> nn.Module:
    """A pre-norm block as in timm's ViTs, [B, L, D] → [B, L, D], for methods that add one of their own."""
    return Block(  # type: ignore[no-any-return]
        width,
        heads,
        mlp_ratio,
        qkv_bias=qkv_bias,
        proj_drop=dropout,
        drop_path=stochastic_depth,
        norm_layer=partial(nn.LayerNorm, eps=norm_eps),
    )


def draw_block(block: nn.Module, *, xavier_attention: bool = False) -> None:
    """Draw the weights of a timm encoder block as code bases do that descend from jeonsworld's ViT.

    The two layers of the MLP: Xavier-uniform weights, biases N(0, 1e-6²). Everything else: torch's defaults.
    Source: TACJu/TransFG at 9336fba, models/modeling.py (class Mlp; the attention keeps nn.Linear's own).

    Args:
        xavier_attention: the layers of the attention are drawn as those of the MLP, query, key and value each
            as a layer of its own (arkel23/DownSamplingInterLayerAdapter at 9b2248c, which draws every linear
            layer so).
    """
    for module in block.modules():
        if isinstance(module, (nn.Linear, nn.LayerNorm)):
            module.reset_parameters()
    for module in block.modules():
        if isinstance(module, Mlp):
            for layer in (module.fc1, module.fc2):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.normal_(layer.bias, std=1e-6)
        if xavier_attention and isinstance(module, Attention):
            with torch.no_grad():
                for part in (*module.qkv.weight.chunk(3), module.proj.weight):
                    nn.init.xavier_uniform_(part)
            for layer in (module.qkv, module.proj):
                if layer.bias is not None:
                    nn.init.normal_(layer.bias, std=1e-6)


def set_uniform_stochastic_depth(model: nn.Module, rate: float) -> None:
    """Give every residual branch of a ViT the same drop rate (timm's default grows from 0).

    Source: GLSim code base at 99cc474, transformer.py: one rate for all blocks.
    """
    for block in model.blocks if isinstance(model, VisionTransformer) else ():
        for branch in ("drop_path1", "drop_path2"):
            if hasattr(block, branch):
                setattr(block, branch, DropPath(rate) if rate > 0 else nn.Identity())


def set_norm_eps(model: nn.Module, eps: float) -> None:
    """Give every norm of a ViT the same eps (timm's ViTs have 1e-6, the GLSim code base has 1e-12)."""
    for module in model.modules():
        if hasattr(module, "normalized_shape"):  # LayerNorm and RMSNorm, torch's and timm's
            module.eps = eps  # type: ignore[assignment]


def parameter_count(module: nn.Module, trainable_only: bool = False) -> int:
    """Number of scalars in the parameters (buffers do not count)."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable_only)


def module_device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
