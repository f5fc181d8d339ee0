"""What all models of arkel23/DownSamplingInterLayerAdapter (at 9b2248c) share: encoder, head, geometry.

Its ViT has the names of GLSim's (`glsim_vit`); the head is a module of its own.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fgvc.checkpoints.glsim_vit import HIDDEN_DROPOUT, NORM_EPS, require_plain_vit, take_encoder
from fgvc.checkpoints.ledger import Ledger, Settings
from fgvc.checkpoints.loading import vit_spec
from fgvc.methods import ModelSpec

State = dict[str, Tensor]

#: What may be added to the ViT, and the value that leaves it out.
_ADDED: dict[str, object] = {
    "prompt": False,
    "adapter": False,
    "ila": False,
    "selector": False,
    "dynamic_anchor": False,
}


def require_added(settings: Settings, classifier: str = "cls", **added: tuple[object, ...]) -> None:
    """Raise FgvcError for settings with which the code computes something else.

    Args:
        classifier: the only head that the caller builds.
        added: what the caller knows to add to the ViT (``prompt``, ``adapter``, ``ila``, ``selector``,
            ``dynamic_anchor``), and as what; whatever is not named must be off.
    """
    require_plain_vit(settings)
    settings.require("classifier", classifier)
    for key, off in _ADDED.items():
        settings.require(key, *added.get(key, ()), off)


def take_vit(ledger: Ledger, *, has_cls: bool = True) -> State:
    """Embedding, blocks and last norm, under the names of a method's ``backbone``."""
    encoder = take_encoder(ledger, has_cls=has_cls)
    return {f"backbone.vit.{name}": tensor for name, tensor in encoder.items()}


def take_head(ledger: Ledger) -> State:
    """The linear classifier, which is called ``head.head`` in the code and ``head`` in its GLSim models."""
    theirs = "head.head" if "head.head.weight" in ledger else "head"
    return {f"head.{kind}": ledger.take(f"{theirs}.{kind}") for kind in ("weight", "bias")}


def ila_repo_spec(vit: State, settings: Settings, num_classes: int) -> ModelSpec:
    """The geometry of what `take_vit` returned.

    Raises FgvcError when config and shapes contradict each other.
    """
    state = {name.removeprefix("backbone.vit."): tensor for name, tensor in vit.items()}
    width = len(state["patch_embed.proj.bias"])
    has_cls = "cls_token" in state
    # Without CLS, timm would look for a norm behind its mean pooling.
    more: dict[str, Any] = {} if has_cls else {"class_token": False, "global_pool": "avg", "fc_norm": False}
    return vit_spec(
        state,
        settings,
        num_classes=num_classes,
        heads=settings.get("num_attention_heads", max(width // 64, 1)),
        prefix_in_positions=int(has_cls),
        default_dropout=HIDDEN_DROPOUT,
        **more,
    )


def norm_eps(settings: Settings) -> float:
    """Of every LayerNorm."""
    return float(settings.get("layer_norm_eps", NORM_EPS))
