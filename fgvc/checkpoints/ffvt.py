"""FFVT checkpoints of Markin-Wang/FFVT at 9e44d1b, with feature fusion or without."""

from __future__ import annotations

from torch import nn

from fgvc.checkpoints.jeonsworld_vit import NORM_EPS, encoder_spec, smoothed_cross_entropy, take_encoder
from fgvc.checkpoints.ledger import Ledger, Settings
from fgvc.checkpoints.loading import load
from fgvc.checkpoints.registry import upstream
from fgvc.methods.ffvt import FFVT, FFVTOptions


@upstream("ffvt")
def ffvt(ledger: Ledger, settings: Settings) -> nn.Module:
    """`FFVT`; where the config does not say ``feature_fusion``, the names of the tensors do."""
    fused = bool(ledger.names("transformer.encoder.ff_last_layer."))
    fusion = bool(settings.get("feature_fusion", fused))
    last_block, last_norm = ("ff_last_layer", "ff_encoder_norm") if fusion else (None, "encoder_norm")
    vit = take_encoder(ledger, last_block, last_norm)
    settings.agree("patch_size", vit["patch_embed.proj.weight"].shape[-1])
    head = {f"head.{kind}": ledger.take(f"head.{kind}") for kind in ("weight", "bias")}
    options = FFVTOptions(
        num_token=settings.get("num_token", FFVTOptions.num_token),
        feature_fusion=fusion,
        norm_eps=settings.get("ln_eps", NORM_EPS),
    )
    model = FFVT(encoder_spec(vit, settings, len(head["head.weight"])), options)
    model.classification_loss = smoothed_cross_entropy(settings)
    return load(model, {f"backbone.vit.{name}": tensor for name, tensor in vit.items()} | head)
