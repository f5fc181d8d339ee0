"""SC4001 checkpoints of edward62740/SC4001-Project at cb581f1, on DINOv2."""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fgvc.checkpoints.ielt import (
    drop_shared_block,
    load_ielt,
    take_key_norm_and_head,
    voting_options,
)
from fgvc.checkpoints.ledger import Ledger, Settings
from fgvc.checkpoints.loading import vit_spec
from fgvc.checkpoints.registry import upstream
from fgvc.methods.sc4001 import SC4001, SC4001Options

#: Added to the target grid before the ratio is taken, against rounding (DINOv2's own code).
_OFFSET = 0.1


@upstream("sc4001")
def sc4001(ledger: Ledger, settings: Settings) -> nn.Module:
    """`SC4001` that takes the token before each chosen one, as that code does.

    Positions for another grid than the image's (14 × 14, for 32 × 32 patches) are resized as it does at run
    time; ``image_size`` in the config says for which (default 448).
    """
    drop_shared_block(ledger)
    for name in ledger.names("encoder.backbone."):
        ledger.drop(name, "encoder.layer has the same tensors, or the forward pass reads none of it")
    vit = _take_encoder(ledger)
    vit["pos_embed"] = _fitted(vit["pos_embed"], settings, vit["patch_embed.proj.weight"].shape[-1])
    state = {f"backbone.vit.{name}": tensor for name, tensor in vit.items()}
    prefix = "encoder.key_layer."
    state |= {name.removeprefix("encoder."): ledger.take(name) for name in ledger.names(prefix)}
    state |= take_key_norm_and_head(ledger)
    width = vit["cls_token"].shape[-1]
    settings.agree("patch_size", vit["patch_embed.proj.weight"].shape[-1])
    settings.agree("mlp_dim", vit["blocks.0.mlp.fc1.weight"].shape[0])
    spec = vit_spec(
        vit,
        settings,
        num_classes=len(state["head.weight"]),
        heads=settings.get("num_heads", max(width // 64, 1)),
        init_values=1e-5 if "blocks.0.ls1.gamma" in vit else None,
        qkv_bias="blocks.0.attn.qkv.bias" in vit,
    )
    options = SC4001Options(
        **voting_options(settings),
        norm_eps=settings.get("trunk_ln_eps", 1e-6),
        dilations=settings.get("dilations", (1, 2, 4)),
        merge_inattentive=settings.get("merge_inattentive", False),
        upstream_index_shift=True,
    )
    settings.require("clr_key_ln_eps", 1e-5)
    settings.require("clr_key_qkv_bias", False)
    return load_ielt(SC4001(spec, options), state, settings)


def _take_encoder(ledger: Ledger) -> dict[str, Tensor]:
    """Embedding, blocks, and the refining block and norm as the last, under timm's names."""
    layers, refining = "encoder.layer.", "encoder.clr_layer."
    depth = len({name.removeprefix(layers).split(".")[0] for name in ledger.names(layers)})
    state = {name: ledger.take(name) for name in ("cls_token", "pos_embed")}
    state |= {f"patch_embed.proj.{k}": ledger.take(f"embeddings.proj.{k}") for k in ("weight", "bias")}
    state |= {f"blocks.{n.removeprefix(layers)}": ledger.take(n) for n in ledger.names(layers)}
    state |= {f"blocks.{depth}.{n.removeprefix(refining)}": ledger.take(n) for n in ledger.names(refining)}
    return state | {f"norm.{k}": ledger.take(f"encoder.clr_encoder.clr_norm.{k}") for k in ("weight", "bias")}


def _fitted(positions: Tensor, settings: Settings, patch: int) -> Tensor:
    """Positions [1, 1 + M², D] for the image's patches: bicubic, without antialiasing, by (g + 0.1) / M."""
    grid, side = int(settings.get("image_size", 448)) // patch, isqrt(positions.shape[1] - 1)
    if grid == side:
        return positions
    square = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = (grid + _OFFSET) / side
    resized = interpolate(square, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([positions[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)
