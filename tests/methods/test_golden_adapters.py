"""Adapters and ConvPass against outputs of original code (`shared/golden`): every output of a fixture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from goldenkit import Golden, Record, Watch, compare, matching, trained_names
from torch import Tensor

from fgvc.checkpoints import from_upstream
from fgvc.config.project import Project
from fgvc.methods.adapters import Adapters

ILA_CODE = ("petl_adapter_a", "petl_convpass_a")
CONVPASS = ("convpass_a", "convpass_a_attn")
#: Fixture → our variant of it.
VARIANTS = {"petl_adapter_a": "adapter_vit_b16", "petl_convpass_a": "convpass_vit_b16"}
SHIPPED = Project(Path(__file__).resolve().parents[2])


def of(golden: Golden) -> Adapters:
    facts = golden.facts
    model = from_upstream(facts["method"], golden.part("state."), facts["config"])
    assert isinstance(model, Adapters) and not model.training
    return model


def run(model: Adapters, golden: Golden) -> dict[str, Tensor]:
    """Every output under the fixtures' names."""
    watch, blocks = Watch(), model.backbone.blocks
    for i, adapters in enumerate(model.adapters):
        watch.outputs(f"block.{i}", adapters)
        watch.inputs(f"after_attn.{i}", blocks[i].norm2)
    for name in ("encoder_norm", "head_input", "tokens"):
        watch.outputs(name, model.backbone.norm)
    with torch.inference_mode():
        logits = model(golden.tensors["input"]).logits
        got = {name: calls[0] for name, calls in watch.seen.items()} | {"logits": logits}
        if "probe_tokens" in golden.tensors:
            bypass = model.adapters[0].attn
            alone = bypass(golden.tensors["probe_tokens"])
            got["module_attn0"] = alone / bypass.scale  # the fixture's module does not scale
    counts = [got[f"block.{i}"].shape[1] for i in range(len(blocks))]
    return got | {"token_counts": torch.tensor(counts)}


@pytest.mark.parametrize("golden", ILA_CODE + CONVPASS, indirect=True)
def test_a_model_computes_what_upstream_computed(golden: Golden, record_property: Record) -> None:
    compare(run(of(golden), golden), golden, record_property)


@pytest.mark.parametrize("golden", ILA_CODE, indirect=True)
def test_a_variant_trains_what_upstream_trains(golden: Golden) -> None:
    variant = SHIPPED.variant(VARIANTS[golden.facts["fixture"]])
    assert variant.train != "all"
    assert trained_names(golden) == matching(of(golden), list(variant.train))


@pytest.mark.parametrize("golden", ILA_CODE + CONVPASS, indirect=True)
def test_the_comparison_can_fail(golden: Golden, record_property: Record) -> None:
    model = of(golden)
    with torch.no_grad():
        model.adapters[1].attn.down.bias.add_(0.1)
    with pytest.raises(AssertionError):
        compare(run(model, golden), golden, record_property)
