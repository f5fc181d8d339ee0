"""What the shipped variants of the ILA table train, against what its code trains (`shared/golden`)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from goldenkit import Golden

from fgvc.checkpoints import from_upstream
from fgvc.config.project import Project
from fgvc.methods import Method

PROJECT = Project(Path(__file__).resolve().parents[2])
#: Fixture → variant.
VARIANTS = {
    "petl_adapter_a": "adapter_vit_b16",
    "petl_convpass_a": "convpass_vit_b16",
    "petl_linear_a": "linear_vit_b16",
    "petl_vpt_deep_a": "vpt_deep_vit_b16",
    "petl_vpt_shallow_a": "vpt_shallow_vit_b16",
    "petl_vqt_a": "vqt_vit_b16",
    "ila_a": "ila_vit_b16",
    "ila_a_plus": "ila_pp_vit_b16",
}


@pytest.mark.parametrize("golden", VARIANTS, indirect=True)
def test_a_variant_trains_what_upstream_trains(golden: Golden) -> None:
    """By name: each upstream tensor is filled with its number, by which ours are known again."""
    facts, state = golden.facts, golden.part("state.")
    numbered = {name: torch.full_like(tensor, i) for i, (name, tensor) in enumerate(state.items())}
    model = from_upstream(facts["method"], numbered, facts["config"])
    assert isinstance(model, Method)
    variant = PROJECT.variant(VARIANTS[facts["fixture"]])
    model.set_trainable(variant.train)
    trained = [p for p in model.parameters() if p.requires_grad]
    names = list(numbered)
    found = {names[int(i)] for p in trained for i in p.unique()}
    assert found == {name.removeprefix("model.") for name in facts["trainable_names"]}
    assert sum(p.numel() for p in trained) == facts["trainable_count"]
    assert sum(p.numel() for p in model.parameters()) == facts["total_count"]
    assert variant.frozen_mode == "train"
