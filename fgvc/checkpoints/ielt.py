"""IELT checkpoints of mobulan/IELT at b185111."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fgvc.checkpoints.jeonsworld_vit import NORM_EPS, encoder_spec, take_block, take_encoder
from fgvc.checkpoints.ledger import Ledger, Settings
from fgvc.checkpoints.loading import load
from fgvc.checkpoints.registry import upstream
from fgvc.errors import FgvcError
from fgvc.methods.ielt import IELT, IELTOptions

_SHARED = "encoder.clr_encoder.clr_layer."


@upstream("ielt")
def ielt(ledger: Ledger, settings: Settings) -> nn.Module:
    """`IELT`, which starts from the initial numbers of tokens a layer, as upstream's does when reloaded.

    Its training log prints the numbers that it ended with: ``select_num`` in the config, a list, takes them.
    """
    drop_shared_block(ledger)
    vit = take_encoder(ledger, "clr_layer", "clr_encoder.clr_norm", prefix="")
    settings.agree("patch_size", vit["patch_embed.proj.weight"].shape[-1])
    state = {f"backbone.vit.{name}": tensor for name, tensor in vit.items()}
    state |= {
        f"key_layer.{name}": tensor for name, tensor in take_block(ledger, "encoder.key_layer.").items()
    }
    state |= take_key_norm_and_head(ledger)
    options = IELTOptions(norm_eps=settings.get("ln_eps", NORM_EPS), **voting_options(settings))
    model = IELT(encoder_spec(vit, settings, len(state["head.weight"])), options)
    return load_ielt(model, state, settings)


def drop_shared_block(ledger: Ledger) -> None:
    """Account for the refining block's second name."""
    for name in ledger.names(_SHARED):
        ledger.drop(name, "the same module as encoder.clr_layer")


def take_key_norm_and_head(ledger: Ledger) -> dict[str, Tensor]:
    """The tensors that IELT and SC4001 name alike."""
    state = {f"key_norm.{kind}": ledger.take(f"encoder.key_norm.{kind}") for kind in ("weight", "bias")}
    return state | {f"head.{kind}": ledger.take(f"head.{kind}") for kind in ("weight", "bias")}


def voting_options(settings: Settings) -> dict[str, Any]:
    """Options by upstream's names; the warm-up, which it has in epochs, only where it is none."""
    default = IELTOptions()
    return {
        "vote_perhead": settings.get("vote_perhead", default.vote_perhead),
        "total_num": settings.get("total_num", default.total_num),
        "dynamic_warm_steps": 0 if settings.get("update_warm") == 0 else default.dynamic_warm_steps,
        "dynamic_intervals": "upstream",
        "complement_weight": settings.get("loss_alpha", default.complement_weight),
    }


def load_ielt(model: IELT, state: dict[str, Tensor], settings: Settings) -> nn.Module:
    """Load tensors under our names, and what upstream's files do not hold as it begins with.

    Raises FgvcError for a ``select_num`` that does not fit.
    """
    model.weights_loaded()
    model.classification_loss = nn.CrossEntropyLoss(label_smoothing=float(settings.get("smooth_value", 0.0)))
    selection = model.selection
    rates = selection.rates
    numbers = settings.get("select_num")
    if numbers is not None:
        rates = torch.tensor([float(number) for number in numbers]) / selection.total
        if rates.shape != selection.rates.shape or rates.min() < 0:
            raise FgvcError(
                f"select_num has {len(numbers)} numbers for {len(selection.rates)} layers, or negative ones",
                key="select_num",
                cure="give one number of tokens a layer before the last",
            )
    return load(model, state | {"selection.rates": rates, "selection.steps": selection.steps})
