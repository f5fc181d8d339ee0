"""TransFG of the ILA code base against its outputs (`shared/golden`): every output of the fixture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from goldenkit import Golden, Record, Watch, compare, matching, trained_names
from torch import Tensor

from fgvc.checkpoints import from_upstream
from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.methods.build import build_variant
from fgvc.methods.transfg import TransFG

SHIPPED = Project(Path(__file__).resolve().parents[2])


def of(golden: Golden) -> TransFG:
    facts = golden.facts
    model = from_upstream(facts["method"], golden.part("state."), facts["config"])
    assert isinstance(model, TransFG) and not model.training
    return model


def run(model: TransFG, golden: Golden) -> dict[str, Tensor]:
    """The last block of ours is the code's ``aggregator``, which it does not count among its blocks."""
    watch, (*trunk, last) = Watch(), model.backbone.blocks
    for i, block in enumerate(trunk):
        watch.outputs(f"block.{i}", block)
    watch.inputs("selected_sequence", last)
    watch.outputs("encoder_norm", model.backbone.norm)
    with torch.inference_mode():
        output = model(golden.tensors["input"])
    got = {name: calls[0] for name, calls in watch.seen.items()}
    counts = [got[f"block.{i}"].shape[1] for i in range(len(trunk))]
    return got | {
        "logits": output.logits,
        "aux_features": output.embeddings["part"],
        "token_counts": torch.tensor(counts),
    }


@pytest.mark.parametrize("golden", ["ilarepo_psm_a"], indirect=True)
def test_a_model_computes_what_upstream_computed(golden: Golden, record_property: Record) -> None:
    model = of(golden)
    assert model.options.contrast_weight == 0.1
    compare(run(model, golden), golden, record_property)


@pytest.mark.parametrize("golden", ["ilarepo_psm_a"], indirect=True)
def test_what_trains_is_what_upstream_trains(golden: Golden) -> None:
    """The shipped variant's last block is number 11."""
    model = of(golden)
    last = f"blocks.{model.backbone.depth - 1}."
    train = [p.replace("blocks.11.", last) for p in SHIPPED.variant("transfg_vit_b16_frozen").train]
    assert trained_names(golden) == matching(model, train)
    model.set_trainable(train)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == golden.facts["trainable_count"]
    assert sum(p.numel() for p in model.parameters()) == golden.facts["total_count"]


@pytest.mark.parametrize("golden", ["ilarepo_psm_a"], indirect=True)
def test_the_shipped_variant_trains_as_many_parameters_as_upstream(golden: Golden) -> None:
    with torch.device("meta"):
        model = build_variant(SHIPPED, "transfg_vit_b16_frozen", 224, 200, with_weights=False)
    trains = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trains == golden.facts["vit_b16_224_k200"]["trainable_count"]


@pytest.mark.parametrize("golden", ["ilarepo_psm_a"], indirect=True)
@pytest.mark.parametrize("setting", [{"selector": "maws"}, {"aggregator": False}, {"num_hidden_layers": 5}])
def test_settings_that_compute_something_else_are_refused(golden: Golden, setting: dict[str, object]) -> None:
    golden.facts["config"].update(setting)
    with pytest.raises(FgvcError, match=next(iter(setting))):
        of(golden)


@pytest.mark.parametrize("golden", ["ilarepo_psm_a"], indirect=True)
def test_the_comparison_can_fail(golden: Golden, record_property: Record) -> None:
    model = of(golden)
    with torch.no_grad():
        model.backbone.blocks[0].attn.qkv.weight.mul_(1.01)
    with pytest.raises(AssertionError):
        compare(run(model, golden), golden, record_property)
