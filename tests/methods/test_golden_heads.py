"""Heads on a ViT against outputs of the ILA code (`shared/golden`): every output of a fixture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from goldenkit import Golden, Record, Watch, compare, matching, trained_names
from torch import Tensor

from fgvc.checkpoints import from_upstream
from fgvc.config.project import Project
from fgvc.methods.vit import ViT

MODELS = ("petl_linear_a", "petl_head_a_pool", "petl_head_a_lrblp")
SHIPPED = Project(Path(__file__).resolve().parents[2])


def of(golden: Golden) -> ViT:
    facts = golden.facts
    model = from_upstream(facts["method"], golden.part("state."), facts["config"])
    assert isinstance(model, ViT) and not model.training
    return model


def run(model: ViT, golden: Golden) -> dict[str, Tensor]:
    watch, blocks = Watch(), model.backbone.blocks
    for i, block in enumerate(blocks):
        watch.outputs(f"block.{i}", block)
    for name in ("encoder_norm", "head_input"):
        watch.outputs(name, model.backbone.norm)
    with torch.inference_mode():
        logits = model(golden.tensors["input"]).logits
    got = {name: calls[0] for name, calls in watch.seen.items()}
    counts = [got[f"block.{i}"].shape[1] for i in range(len(blocks))]
    return got | {"logits": logits, "token_counts": torch.tensor(counts)}


@pytest.mark.parametrize("golden", MODELS, indirect=True)
def test_a_model_computes_what_upstream_computed(golden: Golden, record_property: Record) -> None:
    compare(run(of(golden), golden), golden, record_property)


@pytest.mark.parametrize(
    ("golden", "train"),
    [
        ("petl_linear_a", SHIPPED.variant("linear_vit_b16").train),
        ("petl_head_a_pool", ["head.*"]),
        ("petl_head_a_lrblp", ["head.*", "projection.*"]),
    ],
    indirect=["golden"],
)
def test_a_head_trains_what_upstream_trains(golden: Golden, train: list[str]) -> None:
    """Without a CLS token there is none to train."""
    model = of(golden)
    assert trained_names(golden) == matching(model, train)
    model.set_trainable(train)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == golden.facts["trainable_count"]
    assert sum(p.numel() for p in model.parameters()) == golden.facts["total_count"]


@pytest.mark.parametrize("golden", MODELS, indirect=True)
def test_the_comparison_can_fail(golden: Golden, record_property: Record) -> None:
    model = of(golden)
    with torch.no_grad():
        model.head.weight.mul_(1.1)
    with pytest.raises(AssertionError):
        compare(run(model, golden), golden, record_property)
