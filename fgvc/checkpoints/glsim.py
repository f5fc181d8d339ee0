"""GLSim checkpoints of arkel23/GLSim at 99cc474 (with crops or without, and on timm models), and of the
author's later DownSamplingInterLayerAdapter at 9b2248c.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgvc.backbones.convert import rename_in_order
from fgvc.checkpoints.glsim_vit import HIDDEN_DROPOUT, NORM_EPS, require_plain_vit, take_block, take_encoder
from fgvc.checkpoints.ledger import Ledger, Settings
from fgvc.checkpoints.loading import load, vit_spec
from fgvc.checkpoints.registry import upstream
from fgvc.errors import FgvcError
from fgvc.methods import ModelSpec
from fgvc.methods.aggregators import ConvAggregator
from fgvc.methods.glsim import GLSim, GLSimOptions
from fgvc.methods.vit import ViT, ViTOptions

State = dict[str, Tensor]
_TIMM_ENCODER = ("cls_token", "reg_token", "pos_embed", "patch_embed", "blocks", "norm")
_UNUSED_CLS = "created and loaded, but no forward pass of this code reads it (quirk Q2)"


@upstream("glsim")
def glsim(ledger: Ledger, settings: Settings) -> nn.Module:
    """`GLSim`, or `ViT` where ``dynamic_anchor`` is off.

    At 99cc474 the crop's pass shares the image's CLS token, whatever ``anchor_class_token`` holds. A
    checkpoint of code that read it is built with ``crop_cls: own`` added to its config.
    """
    require_plain_vit(settings)
    state, head = _encoder_and_head(ledger)
    spec = _spec(state, settings, head)
    norm_eps = settings.get("layer_norm_eps", NORM_EPS)
    if not settings.get("dynamic_anchor", True):
        settings.require("classifier", "cls")
        settings.require("aggregator", False)
        ledger.drop("anchor_class_token", _UNUSED_CLS)
        return load(ViT(spec, ViTOptions(norm_eps=norm_eps)), state | head)
    settings.require("crop_cls", "shared", "own")
    crop_cls = settings.get("crop_cls", "shared")
    if crop_cls == "shared":
        ledger.drop("anchor_class_token", _UNUSED_CLS)
    return _two_passes(
        ledger, settings, spec, state | head, top_k=settings.get("dynamic_top", 8), crop_cls=crop_cls
    )


@upstream("ilarepo_glsim")
def ilarepo_glsim(ledger: Ledger, settings: Settings) -> nn.Module:
    """`GLSim` of the later code, whose second pass reads ``anchor_class_token`` where there is one.

    One that is bit-equal to ``class_token`` was never trained, and the two passes share theirs (quirk Q2).
    """
    require_plain_vit(settings)
    settings.require("dynamic_anchor", True)
    settings.require("selector", "glsim")
    settings.require("crop_mode", "crop")
    state, head = _encoder_and_head(ledger)
    spec = _spec(state, settings, head)
    crop_cls = "shared"
    if "anchor_class_token" in ledger:
        if torch.equal(ledger.look("anchor_class_token"), state["backbone.vit.cls_token"]):
            ledger.drop("anchor_class_token", "bit-equal to class_token: never trained")
        else:
            crop_cls = "own"
    top_k = settings.get("selector_num_tokens", 8)
    return _two_passes(ledger, settings, spec, state | head, top_k=top_k, crop_cls=crop_cls)


def _encoder_and_head(ledger: Ledger) -> tuple[State, State]:
    state = {f"backbone.vit.{name}": tensor for name, tensor in take_encoder(ledger).items()}
    return state, {name: ledger.take(name) for name in ("head.weight", "head.bias")}


def _spec(state: State, settings: Settings, head: State) -> ModelSpec:
    vit = {name.removeprefix("backbone.vit."): tensor for name, tensor in state.items()}
    width = vit["cls_token"].shape[-1]
    return vit_spec(
        vit,
        settings,
        num_classes=len(head["head.weight"]),
        heads=settings.get("num_attention_heads", max(width // 64, 1)),
        default_dropout=HIDDEN_DROPOUT,
    )


def _two_passes(
    ledger: Ledger, settings: Settings, spec: ModelSpec, state: State, *, top_k: int, crop_cls: str
) -> nn.Module:
    """The part after the encoder that both code bases share."""
    for key, supported in (
        ("reducer", ("cls",)),
        ("aggregator_num_hidden_layers", (1,)),
        ("num_anchors", (1,)),
        ("anchor_conv_stem", (False,)),
        ("anchor_resize_size", (False,)),
        ("aggregator_norm", (bool(settings.get("aggregator", True)),)),
    ):
        settings.require(key, *supported)
    width = state["backbone.vit.cls_token"].shape[-1]
    settings.agree("representation_size", width)
    if crop_cls == "own":
        state["crop_cls"] = ledger.take("anchor_class_token")
    aggregator = "transformer" if settings.get("aggregator", True) else "none"
    mlp_ratio = _mlp_ratio(ledger, "aggregator.blocks.0.pwff.fc1.weight")
    if aggregator == "transformer":
        block = take_block(ledger, "aggregator.blocks.0.")
        state |= {f"aggregator.block.{name}": tensor for name, tensor in block.items()}
        state |= {
            f"aggregator.norm.{kind}": ledger.take(f"aggregator_norm.{kind}") for kind in ("weight", "bias")
        }
    options = GLSimOptions(
        metric=settings.get("sim_metric", "cos"),
        top_k=top_k,
        anchors="random" if settings.get("anchor_random", False) else "similar",
        crop_cls=crop_cls,
        norm_eps=settings.get("layer_norm_eps", NORM_EPS),
        aggregator=aggregator,
        aggregator_heads=max(width // 64, 1),
        aggregator_mlp_ratio=mlp_ratio,
        classifier=settings.get("classifier", "cls"),
    )
    return load(GLSim(spec, options), state)


# --- on timm models -------------------------------------------------------------------------------------


@upstream("timm_glsim")
def timm_glsim(ledger: Ledger, settings: Settings) -> nn.Module:
    """`GLSim` of ``timm_glsim.py``: timm's names; a crop's own CLS token goes without a last norm."""
    settings.require("inference_crops", True)
    state = {name: ledger.take(name) for name in ledger.names() if name.split(".")[0] in _TIMM_ENCODER}
    head = {name: ledger.take(name) for name in ("head.weight", "head.bias")}
    width = state["cls_token"].shape[-1]
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    settings.agree("reg_tokens", registers)
    no_embed_class = bool(settings.get("no_embed_class", False))
    spec = vit_spec(
        state,
        settings,
        num_classes=len(head["head.weight"]),
        heads=settings.get("num_heads", max(width // 64, 1)),
        prefix_in_positions=0 if no_embed_class else 1 + registers,
        no_embed_class=no_embed_class,
        reg_tokens=registers,
        init_values=1.0 if "blocks.0.ls1.gamma" in state else None,
    )
    whole = {f"backbone.vit.{name}": tensor for name, tensor in state.items()} | head
    select = "tokens" if settings.get("select_top_k", False) else "crop"
    if select == "tokens":
        ledger.drop("cls_token_crops", "there is no second pass with select_top_k")
    elif "cls_token_crops" in ledger:
        whole["crop_cls"] = ledger.take("cls_token_crops")
    options = GLSimOptions(
        metric=settings.get("sim_metric", "cos"),
        top_k=settings.get("dynamic_top", 8),
        select=select,
        crop_cls="own" if "crop_cls" in whole else "shared",
        tokens="normed" if "norm.weight" in state else "raw",
        norm_eps=settings.get("ln_eps", 1e-6),
        aggregator=settings.get("aggregator_type", "transformer"),
        aggregator_mlp_ratio=_mlp_ratio(ledger, "aggregator.0.mlp.fc1.weight"),
        aggregator_norm_eps=settings.get("aggregator_final_ln_eps", 1e-5),
    )
    model = GLSim(spec, options)
    return load(model, whole | _take_timm_aggregator(ledger, model))


def _mlp_ratio(ledger: Ledger, first_layer: str) -> float:
    """Of the aggregator's MLP; the default where the aggregator has none."""
    if first_layer not in ledger:
        return GLSimOptions.aggregator_mlp_ratio
    hidden, width = ledger.look(first_layer).shape
    return float(hidden / width)


def _take_timm_aggregator(ledger: Ledger, model: GLSim) -> State:
    """Modules known by their places in a sequence: a block and its norm, or what is around a convolution."""
    theirs = ledger.names("aggregator.")
    if isinstance(model.aggregator, ConvAggregator):
        try:
            theirs.sort(key=lambda name: (int(name.split(".")[1]), name.endswith("bias")))
        except ValueError:
            raise FgvcError(
                f"the order of the aggregator's layers is unknown: {', '.join(theirs)}",
                cure="only sequences with numbered layers are known",
            ) from None
        taken = {name: ledger.take(name) for name in theirs}
        # A pointwise convolution is a linear layer.
        flat = {
            n: t.squeeze(-1) if t.ndim == 3 and t.shape[1:] == (len(t), 1) else t for n, t in taken.items()
        }
        wanted = {name: tensor.shape for name, tensor in model.aggregator.state_dict().items()}
        if len(flat) != len(wanted):
            raise FgvcError(f"the aggregator has {len(flat)} tensors instead of {len(wanted)}")
        return {f"aggregator.{name}": tensor for name, tensor in rename_in_order(flat, wanted).items()}
    block = {name.removeprefix("aggregator.0."): ledger.take(name) for name in theirs if ".0." in name}
    state = {f"aggregator.block.{name}": tensor for name, tensor in _fold_layer_scale(block).items()}
    return state | {
        f"aggregator.norm.{kind}": ledger.take(f"aggregator.1.{kind}") for kind in ("weight", "bias")
    }


def _fold_layer_scale(block: State) -> State:
    """A block without layer scale that computes the same: γ·(Wx + b) = (γW)x + γb."""
    folded = dict(block)
    for scale, layer in (("ls1.gamma", "attn.proj"), ("ls2.gamma", "mlp.fc2")):
        if scale in folded:
            gamma = folded.pop(scale)
            folded[f"{layer}.weight"] = gamma[:, None] * folded[f"{layer}.weight"]
            folded[f"{layer}.bias"] = gamma * folded[f"{layer}.bias"]
    return folded
