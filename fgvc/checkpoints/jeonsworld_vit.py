"""Tensor names of jeonsworld's ViT-pytorch, which TransFG, FFVT, IELT, SIM-Trans and VPT share, as timm's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fgvc.checkpoints.ledger import Ledger, Settings
from fgvc.checkpoints.loading import vit_spec
from fgvc.methods import ModelSpec

#: Dropout after the position embedding and in the MLP (configs.py).
DROPOUT = 0.1
NORM_EPS = 1e-6

_RENAMED = (
    ("attn.out", "attn.proj"),
    ("ffn.fc1", "mlp.fc1"),
    ("ffn.fc2", "mlp.fc2"),
    ("attention_norm", "norm1"),
    ("ffn_norm", "norm2"),
)


def take_encoder(
    ledger: Ledger, last_block: str | None, last_norm: str, prefix: str = "transformer."
) -> dict[str, Tensor]:
    """Embedding, blocks and last norm under the names of timm's VisionTransformer.

    Args:
        last_block: name below ``transformer.encoder.`` of the block after the numbered ones
            (``part_layer``); None: there is no other.
        last_norm: name there of the last norm (``part_norm``).
        prefix: what stands before ``embeddings.`` and ``encoder.``; IELT has nothing there.
    """
    embeddings, encoder = f"{prefix}embeddings.", f"{prefix}encoder."
    state = {
        "cls_token": ledger.take(f"{embeddings}cls_token"),
        "pos_embed": ledger.take(f"{embeddings}position_embeddings"),
        "patch_embed.proj.weight": ledger.take(f"{embeddings}patch_embeddings.weight"),
        "patch_embed.proj.bias": ledger.take(f"{embeddings}patch_embeddings.bias"),
        "norm.weight": ledger.take(f"{encoder}{last_norm}.weight"),
        "norm.bias": ledger.take(f"{encoder}{last_norm}.bias"),
    }
    layers = f"{encoder}layer."
    numbered = {name.removeprefix(layers).split(".")[0] for name in ledger.names(layers)}
    places = [f"layer.{i}" for i in range(len(numbered))] + ([last_block] if last_block else [])
    for i, place in enumerate(places):
        block = take_block(ledger, f"{encoder}{place}.")
        state |= {f"blocks.{i}.{name}": tensor for name, tensor in block.items()}
    return state


def take_block(ledger: Ledger, prefix: str) -> dict[str, Tensor]:
    """One block's tensors: query, key and value become one layer; the rest is renamed."""
    block: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        parts = [ledger.take(f"{prefix}attn.{part}.{kind}") for part in ("query", "key", "value")]
        block[f"attn.qkv.{kind}"] = torch.cat(parts)
        block |= {f"{ours}.{kind}": ledger.take(f"{prefix}{theirs}.{kind}") for theirs, ours in _RENAMED}
    return block


def encoder_spec(state: dict[str, Tensor], settings: Settings, num_classes: int, **more: Any) -> ModelSpec:
    """The geometry of what `take_encoder` returned, checked against the config's names for it.

    Args:
        more: as of `vit_spec`.

    Raises FgvcError when config and shapes contradict each other.
    """
    settings.agree("mlp_dim", state["blocks.0.mlp.fc1.weight"].shape[0])
    width = state["cls_token"].shape[-1]
    return vit_spec(
        state,
        settings,
        num_classes=num_classes,
        heads=settings.get("num_heads", max(width // 64, 1)),
        default_dropout=DROPOUT,
        **more,
    )


def smoothed_cross_entropy(settings: Settings) -> nn.CrossEntropyLoss:
    """What upstream trains with (``smoothing_value``)."""
    return nn.CrossEntropyLoss(label_smoothing=float(settings.get("smoothing_value", 0.0)))
