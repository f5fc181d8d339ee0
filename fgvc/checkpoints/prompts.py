"""VPT and VQT of their own code (KMnP/vpt at 4410440, andytu28/VQT at 9bca87e) and of the ILA table's
(arkel23/DownSamplingInterLayerAdapter at 9b2248c).
"""

from __future__ import annotations

import torch
from torch import nn

from fgvc.checkpoints import jeonsworld_vit
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
from fgvc.methods import ModelSpec
from fgvc.methods.vpt import VPT, VPTOptions
from fgvc.methods.vqt import VQT, VQTOptions

#: What a whole model of the VPT and VQT code puts before the names of its encoder.
_ENCODER = "enc."


@upstream("petl_vpt_shallow")
def petl_vpt_shallow(ledger: Ledger, settings: Settings) -> nn.Module:
    """`VPT` of the ILA code with prompts at the first block, [1, n, D]."""
    require_added(settings, prompt=("vpt_shallow",))
    return _vpt_of_the_ila_code(ledger, settings, "positional_embedding.prompt", deep=False)


@upstream("petl_vpt_deep")
def petl_vpt_deep(ledger: Ledger, settings: Settings) -> nn.Module:
    """`VPT` of the ILA code with prompts at every block, [L, n, D]."""
    require_added(settings, prompt=("vpt_deep",))
    return _vpt_of_the_ila_code(ledger, settings, "encoder.prompt", deep=True)


def _vpt_of_the_ila_code(ledger: Ledger, settings: Settings, name: str, *, deep: bool) -> nn.Module:
    vit, head, prompts = take_vit(ledger), take_head(ledger), ledger.take(name)
    settings.agree("prompt_len", prompts.shape[1])
    options = VPTOptions(num_prompts=prompts.shape[1], deep=deep, norm_eps=norm_eps(settings))
    spec = ila_repo_spec(vit, settings, len(head["head.weight"]))
    return load(VPT(spec, options), vit | head | {"prompts.tokens": prompts})


@upstream("petl_vqt")
def petl_vqt(ledger: Ledger, settings: Settings) -> nn.Module:
    """`VQT` of the ILA code, whose head reads the queries of all blocks first and CLS last."""
    require_added(settings, prompt=("vqt",))
    vit, head, queries = take_vit(ledger), take_head(ledger), ledger.take("encoder.prompt")
    settings.agree("prompt_len", queries.shape[1])
    options = VQTOptions(num_queries=queries.shape[1], feature_order="cls_last", norm_eps=norm_eps(settings))
    spec = ila_repo_spec(vit, settings, len(head["head.weight"]))
    return load(VQT(spec, options), vit | head | {"queries.tokens": queries})


@upstream("vpt")
def vpt(ledger: Ledger, settings: Settings) -> nn.Module:
    """`VPT` of its own code; deep prompts are those of the first block and of all others, [L - 1, n, D]."""
    settings.require("project", -1)
    inner, spec, state = _encoder_and_head(ledger, settings)
    prompts = inner.take("transformer.prompt_embeddings")
    deep = "transformer.deep_prompt_embeddings" in inner
    if deep:
        prompts = torch.cat([prompts, inner.take("transformer.deep_prompt_embeddings")])
    settings.require("deep", deep)
    settings.agree("num_tokens", prompts.shape[1])
    options = VPTOptions(
        num_prompts=prompts.shape[1],
        deep=deep,
        prompt_dropout=float(settings.get("dropout", 0.0)),
        head_init="rare",
        norm_eps=jeonsworld_vit.NORM_EPS,
    )
    inner.close()
    return load(VPT(spec, options), state | {"prompts.tokens": prompts})


@upstream("vqt")
def vqt(ledger: Ledger, settings: Settings) -> nn.Module:
    """`VQT` of its own code, whose head reads CLS first. No tensor tells whether its input is normalised."""
    settings.require("pooling", False)
    settings.require("weighted_sum", False)
    inner, spec, state = _encoder_and_head(ledger, settings)
    queries = inner.take("transformer.encoder.query_prompt_embeddings")
    settings.agree("num_query_tokens", queries.shape[1])
    options = VQTOptions(
        num_queries=queries.shape[1],
        query_dropout=float(settings.get("dropout", 0.0)),
        normalize=bool(settings.get("normalize", True)),
        head_init="rare",
        norm_eps=jeonsworld_vit.NORM_EPS,
    )
    inner.close()
    return load(VQT(spec, options), state | {"queries.tokens": queries})


def _encoder_and_head(ledger: Ledger, settings: Settings) -> tuple[Ledger, ModelSpec, State]:
    """What is left of the checkpoint under its encoder's own names, the geometry, and our names' tensors."""
    inner = Ledger({name.removeprefix(_ENCODER): ledger.take(name) for name in ledger.names()})
    vit = jeonsworld_vit.take_encoder(inner, last_block=None, last_norm="encoder_norm")
    theirs = "head.last_layer" if "head.last_layer.weight" in inner else "head"
    head = {f"head.{kind}": inner.take(f"{theirs}.{kind}") for kind in ("weight", "bias")}
    inner.check_missing()
    spec = jeonsworld_vit.encoder_spec(vit, settings, len(head["head.weight"]))
    return inner, spec, {f"backbone.vit.{name}": tensor for name, tensor in vit.items()} | head
