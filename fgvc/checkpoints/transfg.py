"""TransFG checkpoints of TACJu/TransFG at 9336fba."""

from __future__ import annotations

from torch import nn

from fgvc.checkpoints.jeonsworld_vit import NORM_EPS, encoder_spec, smoothed_cross_entropy, take_encoder
from fgvc.checkpoints.ledger import Ledger, Settings
from fgvc.checkpoints.loading import load
from fgvc.checkpoints.registry import upstream
from fgvc.methods.transfg import TransFG, TransFGOptions

_SLIDE_STEP = 12


@upstream("transfg")
def transfg(ledger: Ledger, settings: Settings) -> nn.Module:
    """`TransFG`; its patches overlap where ``split`` is ``overlap`` (the code's default is not to)."""
    settings.require("split", "overlap", "non-overlap")
    overlaps = settings.get("split", "non-overlap") == "overlap"
    stride = settings.get("slide_step", _SLIDE_STEP) if overlaps else None
    vit = take_encoder(ledger, "part_layer", "part_norm")
    settings.agree("patch_size", vit["patch_embed.proj.weight"].shape[-1])
    head = {f"head.{kind}": ledger.take(f"part_head.{kind}") for kind in ("weight", "bias")}
    options = TransFGOptions(
        patch_stride=stride,
        contrast_margin=settings.get("contrastive_margin", TransFGOptions.contrast_margin),
        norm_eps=settings.get("ln_eps", NORM_EPS),
    )
    spec = encoder_spec(vit, settings, len(head["head.weight"]), patch_stride=stride)
    model = TransFG(spec, options)
    model.classification_loss = smoothed_cross_entropy(settings)
    return load(model, {f"backbone.vit.{name}": tensor for name, tensor in vit.items()} | head)
