"""PIM checkpoints of chou141253/FGVC-PIM at 348edd9, on each of its four kinds of backbone."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any

from torch import Tensor, nn

from fgvc.backbones.convert import rename_in_order, swin_to_timm
from fgvc.backbones.levels import LEVELS, Level, LevelBackbone
from fgvc.checkpoints.ledger import Ledger, Settings
from fgvc.checkpoints.loading import load, vit_spec
from fgvc.checkpoints.registry import upstream
from fgvc.errors import FgvcError
from fgvc.methods import ModelSpec
from fgvc.methods.pim import PIM, PIMOptions

_LINEAR = ("weight", "bias")
_NORM = (*_LINEAR, "running_mean", "running_var", "num_batches_tracked")
_COMBINER = {
    "param_pool0": "pool",
    "conv1": "convolution",
    "conv_q1": "query",
    "conv_k1": "key",
    "param_pool1": "readout",
    "classifier": "classifier",
}
#: What Swin-L on CUB chooses; all others choose 32 of each level.
_SWIN_SELECTS = (2048, 512, 128, 32)
_NORM_EPS = 1e-3  # of torchvision's EfficientNets


@upstream("pim")
def pim(ledger: Ledger, settings: Settings) -> nn.Module:
    """`PIM` that predicts by the sum of all heads, unless the config has ``predict`` (and ``heads``).

    How many locations each level gives (``num_selects``, a list or a mapping by level) no shape tells; where
    the config is silent, upstream's own numbers count if they add up.
    """
    image_size = int(settings.get("image_size", settings.get("data_size", 384)))
    num_classes, width = ledger.look("combiner.classifier.weight").shape
    settings.agree("num_classes", num_classes)
    settings.agree("fpn_size", width)
    locations = ledger.look("combiner.param_pool0.weight").shape[1]
    options: dict[str, Any] = {
        "fpn_size": width,
        "num_selects": _selects(settings, locations),
        "predict": settings.get("predict", PIMOptions.predict),
        "heads": settings.get("heads", PIMOptions.heads),
    }
    spec, backbone, trunk, more = _trunk(ledger, settings, image_size, num_classes)
    model = PIM(spec, PIMOptions(**options, **more), backbone)
    return load(model, trunk | _plugin(ledger))


def _selects(settings: Settings, locations: int) -> tuple[int, ...]:
    found = settings.get("num_selects")
    if found is None:
        found = _SWIN_SELECTS if locations == sum(_SWIN_SELECTS) else (32,) * LEVELS
    if isinstance(found, dict):
        found = [found.get(f"layer{place}", 0) for place in range(1, LEVELS + 1)]
    if sum(found) != locations:
        raise FgvcError(
            f"num_selects are {sum(found)} locations, the combiner reads {locations}",
            key="num_selects",
            cure="put the numbers of the checkpoint's own configuration into the config",
        )
    return tuple(found)


def _plugin(ledger: Ledger) -> dict[str, Tensor]:
    """Everything but the backbone by our names; convolutions of kernel 1 become linear layers, or back."""
    state: dict[str, Tensor] = {}
    for place in range(LEVELS):
        theirs = f"layer{place + 1}"
        for first in (0, 2):
            for kind in _LINEAR:
                name = f"{first}.{kind}"
                state[f"pyramid.projections.{place}.{name}"] = ledger.take(f"fpn.Proj_{theirs}.{name}")
        for name in ledger.names(f"fpn.Up_{theirs}."):
            state[f"pyramid.ups.{place - 1}.{name.rpartition('.')[2]}"] = ledger.take(name)
        for layer, ours, kinds in (("0", "hidden", _LINEAR), ("1", "norm", _NORM), ("3", "out", _LINEAR)):
            for kind in kinds:
                tensor = ledger.take(f"fpn_classifier_{theirs}.{layer}.{kind}")
                state[f"classifiers.{place}.{ours}.{kind}"] = _flat(tensor)
    for theirs, ours in _COMBINER.items():
        for kind in _LINEAR:
            state[f"combiner.{ours}.{kind}"] = _flat(ledger.take(f"combiner.{theirs}.{kind}"))
    state["combiner.pool.weight"] = state["combiner.pool.weight"].unsqueeze(-1)
    for kind in _NORM:
        state[f"combiner.norm.{kind}"] = ledger.take(f"combiner.batch_norm1.{kind}")
    state["combiner.adjacency"] = ledger.take("combiner.adj1")
    state["combiner.alpha"] = ledger.take("combiner.alpha1")
    return state


def _flat(tensor: Tensor) -> Tensor:
    """The weights of a convolution over a sequence with kernel 1 as those of a linear layer."""
    return tensor.squeeze(-1) if tensor.ndim == 3 else tensor


# --- backbones ------------------------------------------------------------------------------------

Trunk = tuple[ModelSpec, nn.Module | None, dict[str, Tensor], dict[str, Any]]


def _trunk(ledger: Ledger, settings: Settings, image_size: int, num_classes: int) -> Trunk:
    """The model's spec, a network that timm lacks, the tensors by our names, further options."""
    names = {name.removeprefix("backbone.") for name in ledger.names("backbone.")}
    if "c.0.weight" in names:
        return _recorded(ledger, settings, image_size, num_classes)
    if "layers.0.blocks.0.attn.qkv.weight" in names:
        return _swin(ledger, image_size, num_classes)
    if "blocks.0.attn.qkv.weight" in names:
        return _vit(ledger, settings, num_classes)
    if "features.0.0.weight" in names:
        return _efficientnet(ledger, settings, image_size, num_classes)
    settings.require("model_name", "resnet50")
    _drop(ledger, "fc.")
    state = {f"backbone.cnn.{name}": t for name, t in _take_all(ledger).items()}
    return ModelSpec("resnet50", num_classes, image_size), None, state, {}


def _take_all(ledger: Ledger) -> dict[str, Tensor]:
    names = ledger.names("backbone.")
    return {name.removeprefix("backbone."): ledger.take(name) for name in names}


def _drop(ledger: Ledger, *prefixes: str) -> None:
    for prefix in prefixes:
        for name in ledger.names(f"backbone.{prefix}"):
            ledger.drop(name, "the levels are read before it")


def _swin(ledger: Ledger, image_size: int, num_classes: int) -> Trunk:
    """Merging of patches moves one stage on; see `LevelBackbone`."""
    _drop(ledger, "norm.", "head.")
    state = swin_to_timm(_take_all(ledger))
    blocks = [name.split(".")[1:4:2] for name in state if name.startswith("layers.") and ".blocks." in name]
    depths = tuple(1 + max(int(b) for s, b in blocks if s == str(stage)) for stage in range(LEVELS))
    tables = [state[f"layers.{s}.blocks.0.attn.relative_position_bias_table"] for s in range(LEVELS)]
    shape = {
        "embed_dim": len(state["patch_embed.proj.weight"]),
        "patch_size": state["patch_embed.proj.weight"].shape[-1],
        "depths": depths,
        "num_heads": tuple(table.shape[1] for table in tables),
        "window_size": (isqrt(len(tables[0])) + 1) // 2,
    }
    spec = ModelSpec("swin_large_patch4_window12_384", num_classes, image_size, shape=shape)
    return spec, None, {f"backbone.cnn.{name}": t for name, t in state.items()}, {}


def _vit(ledger: Ledger, settings: Settings, num_classes: int) -> Trunk:
    _drop(ledger, "norm.", "fc_norm.", "pre_logits.", "head.")
    state = _take_all(ledger)
    spec = vit_spec(
        state,
        settings,
        num_classes=num_classes,
        heads=settings.get("num_heads", max(state["cls_token"].shape[-1] // 64, 1)),
        qkv_bias="blocks.0.attn.qkv.bias" in state,
    )
    return spec, None, {f"backbone.vit.{name}": t for name, t in state.items()}, {}


def _efficientnet(ledger: Ledger, settings: Settings, image_size: int, num_classes: int) -> Trunk:
    """torchvision's, whose tensors come in the order of timm's."""
    settings.require("model_name", "efficient", "efficientnet_b7")
    _drop(ledger, "features.8.", "classifier.")
    backbone = LevelBackbone("efficientnet_b7", image_size, norm_eps=_NORM_EPS)
    wanted = {name: tensor.shape for name, tensor in backbone.cnn.state_dict().items()}
    state = rename_in_order(_take_all(ledger), wanted)
    spec = ModelSpec("efficientnet_b7", num_classes, image_size)
    return spec, backbone, {f"backbone.cnn.{n}": t for n, t in state.items()}, {"norm_eps": _NORM_EPS}


def _recorded(ledger: Ledger, settings: Settings, image_size: int, num_classes: int) -> Trunk:
    """The small network that upstream's computations are recorded with."""
    settings.require("kind", "cnn", "tok")
    kernels = [ledger.look(f"backbone.c.{place}.weight") for place in range(LEVELS)]
    strides = settings.get("strides", [4, 2, 2, 2])
    network = RecordedLevels(kernels, strides, image_size, sequences=settings.get("kind") == "tok")
    state = {f"backbone.{name}": t for name, t in _take_all(ledger).items()}
    return ModelSpec("recorded", num_classes, image_size), network, state, {}


class RecordedLevels(nn.Module):
    """Four times convolution 3 × 3 and ReLU, each a level.

    Args:
        kernels: weights of the convolutions, for their shapes.
        strides: of the convolutions.
        image_size: side of the input in pixels.
        sequences: levels are [B, S, C], not [B, C, h, w].
    """

    def __init__(
        self, kernels: Sequence[Tensor], strides: Sequence[int], image_size: int, *, sequences: bool
    ) -> None:
        super().__init__()
        self.c = nn.ModuleList(
            nn.Conv2d(kernel.shape[1], len(kernel), 3, stride=stride, padding=1)
            for kernel, stride in zip(kernels, strides, strict=True)
        )
        self.sequences = sequences
        levels, side = [], image_size
        for kernel, stride in zip(kernels, strides, strict=True):
            side = (side - 1) // stride + 1
            levels.append(Level(len(kernel), (side, side)))
        self.levels = tuple(levels)

    def forward(self, images: Tensor) -> list[Tensor]:
        features, levels = images, []
        for convolution in self.c:
            features = nn.functional.relu(convolution(features))
            levels.append(features.flatten(2).transpose(1, 2) if self.sequences else features)
        return levels
