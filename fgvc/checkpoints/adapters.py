"""Adapters of arkel23/DownSamplingInterLayerAdapter at 9b2248c, ConvPass of JieShibo/PETL-ViT at 026e4f1."""

from __future__ import annotations

from typing import Any

from torch import nn

from fgvc.checkpoints.ila_vit import (
    State,
    ila_repo_spec,
    norm_eps,
    require_added,
    take_head,
    take_vit,
)
from fgvc.checkpoints.ledger import Ledger, Settings
from fgvc.checkpoints.loading import load, vit_spec
from fgvc.checkpoints.registry import upstream
from fgvc.errors import FgvcError
from fgvc.methods.adapters import AdapterOptions, Adapters

#: The code's ``adapter_path``, and which branches then have an adapter beside them.
_WHERE = {"convpass": ("attn", "mlp"), "ours": ("mlp",)}
#: ConvPass's ``method``, likewise.
_CONVPASS_WHERE = {"convpass": ("attn", "mlp"), "convpass_attn": ("attn",)}


@upstream("petl_adapter")
def petl_adapter(ledger: Ledger, settings: Settings) -> nn.Module:
    """`Adapters` of either kind, which the config names (``adapter``)."""
    return _of_the_ila_code(ledger, settings, "adapter")


@upstream("petl_convpass")
def petl_convpass(ledger: Ledger, settings: Settings) -> nn.Module:
    """As `petl_adapter`, where the config does not name the kind."""
    return _of_the_ila_code(ledger, settings, "convpass")


def _of_the_ila_code(ledger: Ledger, settings: Settings, kind: str) -> nn.Module:
    require_added(settings, adapter=("adapter", "convpass"))
    vit, head = take_vit(ledger), take_head(ledger)
    options = adapter_options(settings, settings.get("adapter", kind))
    spec = ila_repo_spec(vit, settings, len(head["head.weight"]))
    return load(Adapters(spec, options), vit | head | take_adapters(ledger, options))


def adapter_options(settings: Settings, kind: Any) -> AdapterOptions:
    """What the code's settings ask for.

    Raises FgvcError for ``adapter_path: pfeiffer``, whose shortcut no fixture shows.
    """
    settings.require("adapter_path", *_WHERE)
    return AdapterOptions(
        kind=kind,
        bottleneck=settings.get("adapter_dim", 8),
        kernel=settings.get("adapter_kernel_size", 3),
        where=_WHERE[settings.get("adapter_path", "convpass")],
        norm_eps=norm_eps(settings),
    )


def take_adapters(ledger: Ledger, options: AdapterOptions) -> State:
    """The tensors of the adapters in all blocks, under the names that they have in a method."""
    state: State = {}
    blocks = {int(name.split(".")[2]) for name in ledger.names("encoder.blocks.") if ".adapter_" in name}
    for i in sorted(blocks):
        for where, theirs in (("attn", "adapter_attn"), ("mlp", "adapter_pwffn")):
            if where in options.where:
                taken = _take_adapter(ledger, f"encoder.blocks.{i}.{theirs}.", options.kind)
                state |= {f"adapters.{i}.{where}.{name}": tensor for name, tensor in taken.items()}
    return state


def _take_adapter(ledger: Ledger, prefix: str, kind: str) -> State:
    parts = ("down", "up", "conv") if kind == "convpass" else ("down", "up")
    return {
        f"{part}.{tensor}": ledger.take(f"{prefix}adapter_{part}.{tensor}")
        for part in parts
        for tensor in ("weight", "bias")
    }


@upstream("convpass")
def convpass(ledger: Ledger, settings: Settings) -> nn.Module:
    """`Adapters` of a whole model under timm's names. The scale ``s`` is in the config only.

    A published file holds the bypasses and the head alone; the weights of the ViT must be put beside them.
    """
    settings.require("method", *_CONVPASS_WHERE)
    if settings.get("s") is None:
        raise FgvcError(
            "the config does not say the scale of the bypasses, and no tensor does",
            key="s",
            cure="add s as in the yaml file of its task",
        )
    where = _CONVPASS_WHERE[settings.get("method", "convpass")]
    state: State = {}
    for name in ledger.names("blocks."):
        if ".adapter_" in name:
            _, block, branch, part, tensor = name.split(".")
            ours = f"{branch.removeprefix('adapter_')}.{part.removeprefix('adapter_')}.{tensor}"
            state[f"adapters.{block}.{ours}"] = ledger.take(name)
    head = {f"head.{kind}": ledger.take(f"head.{kind}") for kind in ("weight", "bias")}
    vit = {name: ledger.take(name) for name in ledger.names()}
    settings.agree("bottleneck", len(state["adapters.0.attn.down.weight"]))
    options = AdapterOptions(
        kind="convpass",
        bottleneck=len(state["adapters.0.attn.down.weight"]),
        kernel=state["adapters.0.attn.conv.weight"].shape[-1],
        where=where,
        scale=float(settings.get("s")),
        activation="quickgelu",
        up_init="zeros",
        conv_init="xavier" if settings.get("xavier_init", False) else "identity",
        inner_dropout=0.1,
        head_init="default",
        norm_eps=settings.get("ln_eps", 1e-6),
    )
    spec = vit_spec(
        vit,
        settings,
        num_classes=len(head["head.weight"]),
        heads=settings.get("num_heads", max(vit["cls_token"].shape[-1] // 64, 1)),
    )
    whole = {f"backbone.vit.{name}": tensor for name, tensor in vit.items()} | head | state
    return load(Adapters(spec, options), whole)
