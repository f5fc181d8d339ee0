"""Tensor names of the ViT that arkel23 wrote for GLSim and ILA (at 99cc474 and 9b2248c), as timm's."""

from __future__ import annotations

import torch
from torch import Tensor

from fgvc.checkpoints.ledger import Ledger, Settings

#: Without these the code computes something else.
_PLAIN: dict[str, tuple[object, ...]] = {
    "pos_embedding_type": ("learned",),
    "encoder_norm": (True,),
    "shared_patchifier": (False,),
    "head_norm": (False,),
    "head_act": (False,),
    "num_channels": (3,),
    "hidden_act": ("gelu",),
}

#: Defaults of configs.py: eps of every LayerNorm, dropout after the attention projection and the MLP.
NORM_EPS = 1e-12
HIDDEN_DROPOUT = 0.1


def require_plain_vit(settings: Settings) -> None:
    """Raise FgvcError for settings that change what the ViT computes."""
    for key, supported in _PLAIN.items():
        settings.require(key, *supported)


def take_encoder(ledger: Ledger, *, has_cls: bool = True) -> dict[str, Tensor]:
    """Embedding, blocks and last norm under the names of timm's VisionTransformer.

    Args:
        has_cls: False: there is no CLS token, as with the code's heads on patches.
    """
    state = {"cls_token": ledger.take("class_token")} if has_cls else {}
    state |= {
        "pos_embed": ledger.take("positional_embedding.pos_embedding"),
        "patch_embed.proj.weight": ledger.take("patch_embedding.weight"),
        "patch_embed.proj.bias": ledger.take("patch_embedding.bias"),
        "norm.weight": ledger.take("encoder_norm.weight"),
        "norm.bias": ledger.take("encoder_norm.bias"),
    }
    depth = len({name.split(".")[2] for name in ledger.names("encoder.blocks.")})
    for i in range(depth):
        block = take_block(ledger, f"encoder.blocks.{i}.")
        state |= {f"blocks.{i}.{name}": tensor for name, tensor in block.items()}
    return state


def take_block(ledger: Ledger, prefix: str) -> dict[str, Tensor]:
    """One block's tensors: query, key and value become one layer; the rest is renamed."""
    block: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        parts = [ledger.take(f"{prefix}attn.proj_{part}.{kind}") for part in "qkv"]
        block[f"attn.qkv.{kind}"] = torch.cat(parts)
        for theirs, ours in (
            ("proj", "attn.proj"),
            ("pwff.fc1", "mlp.fc1"),
            ("pwff.fc2", "mlp.fc2"),
            ("norm1", "norm1"),
            ("norm2", "norm2"),
        ):
            block[f"{ours}.{kind}"] = ledger.take(f"{prefix}{theirs}.{kind}")
    return block
