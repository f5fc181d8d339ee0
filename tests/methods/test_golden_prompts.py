"""VPT and VQT against outputs of original code (`shared/golden`): every output of a fixture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from goldenkit import Golden, Record, Watch, compare, matching, trained_names
from torch import Tensor

from fgvc.checkpoints import from_upstream
from fgvc.config.project import Project
from fgvc.methods.vpt import VPT
from fgvc.methods.vqt import VQT

VPT_OF_ILA_CODE = ("petl_vpt_shallow_a", "petl_vpt_deep_a")
VPT_MODELS = (*VPT_OF_ILA_CODE, "vpt_a_shallow", "vpt_a_deep")
VQT_MODELS = ("petl_vqt_a", "vqt_a_q2", "vqt_a_q1_nonorm")
#: Fixture → our variant of it.
VARIANTS = {
    "petl_vpt_shallow_a": "vpt_shallow_vit_b16",
    "petl_vpt_deep_a": "vpt_deep_vit_b16",
    "petl_vqt_a": "vqt_vit_b16",
}
SHIPPED = Project(Path(__file__).resolve().parents[2])


def of(golden: Golden) -> VPT | VQT:
    facts = golden.facts
    model = from_upstream(facts["method"], golden.part("state."), facts["config"])
    assert isinstance(model, (VPT, VQT)) and not model.training
    return model


def run_vpt(model: VPT, golden: Golden) -> dict[str, Tensor]:
    """Every output under the fixtures' names.

    The ILA code takes deep prompts away after the last block, before the last norm; here they go after it.
    """
    watch, blocks = Watch(), model.backbone.blocks
    for i, block in enumerate(blocks):
        watch.outputs(f"block.{i}", block)
    watch.outputs("normed", model.backbone.norm)
    with torch.inference_mode():
        logits = model(golden.tensors["input"]).logits
    got = {name: calls[0] for name, calls in watch.seen.items()} | {"logits": logits}
    normed = got["normed"]
    if golden.facts["method"] == "petl_vpt_deep":
        normed = torch.cat([normed[:, :1], normed[:, 1 + model.prompts.count :]], dim=1)
    counts = [got[f"block.{i}"].shape[1] for i in range(len(blocks))]
    same = dict.fromkeys(("encoder_norm", "head_input", "encoded"), normed)
    return got | same | {"token_counts": torch.tensor(counts)}


def run_vqt(model: VQT, golden: Golden) -> dict[str, Tensor]:
    """Every output under the fixtures' names. The ILA code's blocks put out queries, then tokens."""
    watch, images = Watch(), golden.tensors["input"]
    for i, block in enumerate(model.backbone.blocks):
        watch.outputs(f"tokens.{i}", block)
    with torch.inference_mode():
        tokens, read = model.encode(images)
        cls = model.backbone.cls(tokens)
        features = model.features(cls, read)
        got = {"encoder_norm": tokens, "cls_final": cls, "head_input": features, "features": features}
        got |= {f"query_outputs.{i}": result for i, result in enumerate(read)}
        both = [torch.cat([z, watch.seen[f"tokens.{i}"][0]], dim=1) for i, z in enumerate(read)]
        got |= {f"block.{i}": one for i, one in enumerate(both)}
        counts = torch.tensor([one.shape[1] for one in both])
        return got | {"logits": model(images).logits, "token_counts": counts}


def run(model: VPT | VQT, golden: Golden) -> dict[str, Tensor]:
    return run_vpt(model, golden) if isinstance(model, VPT) else run_vqt(model, golden)


@pytest.mark.parametrize("golden", VPT_MODELS + VQT_MODELS, indirect=True)
def test_a_model_computes_what_upstream_computed(golden: Golden, record_property: Record) -> None:
    compare(run(of(golden), golden), golden, record_property)


@pytest.mark.parametrize("golden", VARIANTS, indirect=True)
def test_a_variant_trains_what_upstream_trains(golden: Golden) -> None:
    model, variant = of(golden), SHIPPED.variant(VARIANTS[golden.facts["fixture"]])
    assert trained_names(golden) == matching(model, list(variant.train))
    model.set_trainable(variant.train)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == golden.facts["trainable_count"]
    assert sum(p.numel() for p in model.parameters()) == golden.facts["total_count"]
    assert variant.frozen_mode == "train"


@pytest.mark.parametrize("golden", VPT_MODELS + VQT_MODELS, indirect=True)
def test_the_comparison_can_fail(golden: Golden, record_property: Record) -> None:
    model = of(golden)
    with torch.no_grad():
        learnt = model.prompts if isinstance(model, VPT) else model.queries
        learnt.tokens[0].add_(0.1)
    with pytest.raises(AssertionError):
        compare(run(model, golden), golden, record_property)
