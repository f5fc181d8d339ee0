"""ILA and ILA++ checkpoints of arkel23/DownSamplingInterLayerAdapter at 9b2248c."""

from __future__ import annotations

from typing import Any

from torch import nn

from fgvc.checkpoints.adapters import adapter_options, take_adapters
from fgvc.checkpoints.ila_vit import (
    State,
    ila_repo_spec,
    norm_eps,
    require_added,
    take_head,
    take_vit,
)
from fgvc.checkpoints.ledger import Ledger, Settings
from fgvc.checkpoints.loading import load
from fgvc.checkpoints.registry import upstream
from fgvc.methods.ila import ILA, ILAOptions

#: The code's ``ila_ds_conv_type`` as what shrinks the tokens, and how that starts.
_RESIDUAL: dict[str, tuple[Any, Any]] = {
    "dws_near_ones_init": ("depthwise", "near_ones"),
    "dws_ones_init": ("depthwise", "ones"),
    "dws": ("depthwise", "xavier"),
    "conv": ("dense", "xavier"),
    "avg_pool": ("avg_pool", "near_ones"),
}
#: Settings with which the modules compute something that no fixture shows.
_PLAIN_MODULES: dict[str, tuple[object, ...]] = {
    "ila_cls_conv": (True,),
    "ila_ds_conv": (True,),
    "ila_padding": (False,),
    "ila_dilation": (1,),
    "ila_norm1": ("bn",),
    "ila_norm2": ("bn",),
    "ila_norm3": ("bn",),
}
_RENAMED = {"adapter_down": "down", "adapter_up": "up", "norm1.1": "norm1", "norm3.1": "norm3"}
#: Convolutions of one pixel, which are linear layers here.
_POINTWISE = {"adapter_conv.2": "pointwise", "adapter_cls": "prefix"}
_CONVOLUTION = {"adapter_conv.0": "conv", "adapter_conv.1.0": "norm2", "ds_conv": "residual"}


@upstream("ila")
def ila(ledger: Ledger, settings: Settings) -> nn.Module:
    """`ILA`, with the adapters of ILA++ where the config names them."""
    require_added(settings, ila=(True,), adapter=("adapter", "convpass"))
    for key, supported in _PLAIN_MODULES.items():
        settings.require(key, *supported)
    conv_type = settings.get("ila_ds_conv_type", "dws_near_ones_init")
    settings.require("ila_ds_conv_type", *_RESIDUAL)
    vit, head = take_vit(ledger), take_head(ledger)
    adapter: Any = settings.get("adapter", False) or "none"
    if adapter != "none":
        settings.require("adapter_path", "convpass")
    depth = len({name.split(".")[3] for name in vit if ".blocks." in name})
    shrinking = tuple(settings.get("ila_ds_locs", (3, 7)))
    same = tuple(settings.get("ila_locs", (-1,) if ledger.names("encoder.ila.") else ()))
    if same == (-1,):
        same = tuple(i for i in range(depth) if i not in shrinking)
    kernel = settings.get("ila_ds_kernel_size", 3)
    if same or adapter == "convpass":
        settings.agree("adapter_kernel_size", kernel)
    residual, start = _RESIDUAL[conv_type]
    options = ILAOptions(
        ds_blocks=shrinking,
        same_blocks=same,
        bottleneck=settings.get("adapter_dim", 8),
        kernel=kernel,
        multiplier=settings.get("ila_dws_conv_groups", 1),
        residual=residual,
        ds_init=start,
        drop_path=float(settings.get("ila_sd", 0.0)),
        adapter=adapter,
        norm_eps=norm_eps(settings),
    )
    state = vit | head
    if adapter != "none":
        state |= take_adapters(ledger, adapter_options(settings, adapter))
    for theirs, blocks in (("ila_ds", shrinking), ("ila", same)):
        for k, block in enumerate(blocks):
            module = take_module(ledger, f"encoder.{theirs}.{k}.")
            state |= {f"between.{block}.{name}": tensor for name, tensor in module.items()}
    return load(ILA(ila_repo_spec(vit, settings, len(head["head.weight"])), options), state)


def take_module(ledger: Ledger, prefix: str) -> State:
    """One module between blocks, under the names of `fgvc.methods.inter_layer.InterLayerAdapter`.

    Batch norms keep their statistics; convolutions of one pixel become linear layers.
    """
    state: State = {}
    for name in ledger.names(prefix):
        layer, _, tensor = name.removeprefix(prefix).rpartition(".")
        ours = (_RENAMED | _POINTWISE | _CONVOLUTION).get(layer)
        if ours is not None:
            taken = ledger.take(name)
            flat = layer in _POINTWISE and tensor == "weight"
            state[f"{ours}.{tensor}"] = taken.flatten(1) if flat else taken
    return state
