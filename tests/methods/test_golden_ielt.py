"""IELT against outputs of the original code (`shared/golden`): every output that the fixture lists."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from goldenkit import Golden, Watch, compare
from torch import Tensor

from fgvc.backbones.attention import AttentionRecorder
from fgvc.checkpoints import from_upstream
from fgvc.methods.ielt import IELT
from fgvc.methods.voting import votes

Record = Callable[[str, object], None]


def of(golden: Golden) -> IELT:
    facts = golden.facts
    model = from_upstream(facts["method"], golden.part("state."), facts["config"])
    assert isinstance(model, IELT) and not model.training
    return model


def run(model: IELT, golden: Golden) -> dict[str, Tensor]:
    """Every output under the fixture's names. Upstream's labelled pass runs without dropout, so does this."""
    watch, backbone, selection = Watch(), model.backbone, model.selection
    images, targets = golden.tensors["input"], golden.tensors["targets"]
    for i, block in enumerate(backbone.blocks[:-1]):
        watch.outputs(f"block.{i}", block)
    watch.inputs("clr_input", backbone.blocks[-1])
    watch.outputs("clr_out", backbone.norm)
    watch.outputs("key_out", model.key_norm)
    watch.outputs("head", model.head)
    sizes = torch.tensor(selection.sizes())
    got = {"select_num_before": selection.numbers(), "select_rate_before": selection.rates.clone()}
    with torch.inference_mode():
        output = model(images)
    for i, part in enumerate(output.selected["patches"].split(sizes.tolist(), dim=1)):
        got[f"selected_indices.{i}"] = part + 1
        got[f"vote_counts.{i}"] = output.masks[f"votes.{i}"]
        got[f"block_cls.{i}"] = watch.seen[f"block.{i}"][0][:, 0]
    got |= {name: watch.seen[name][0] for name in ("clr_input", "clr_out", "key_out")}
    got |= {
        "logits": output.logits,
        "token_counts": sizes,
        "clr_selected": output.selected["key"] + 1,
        "complement_logits": output.aux_logits["complement"],
        "assist_logits": output.aux_logits["assist"],
        "main_logits_before_assist": watch.seen["head"][1],
    }
    model.training = True  # this module alone: its loss moves the numbers, and nothing is dropped
    got["loss.total"] = model.loss(output, targets)["total"]
    got |= {"select_num_after": selection.numbers(), "select_rate_after": selection.rates.clone()}
    got["loss.total_step2"] = model.loss(model(images), targets)["total"]
    return {**got, "select_num_after2": selection.numbers()}


def refined_votes(model: IELT, golden: Golden) -> Tensor:
    """The votes of the refining block, [B, Σ m_t]."""
    with AttentionRecorder([model.backbone.blocks[-1]]).recording() as layers, torch.inference_mode():
        model(golden.tensors["input"])
    return votes(layers[0].cls_row()[:, :, 1:], model.options.vote_perhead)


@pytest.mark.parametrize("golden", ["ielt_a"], indirect=True)
def test_a_model_computes_what_upstream_computed(golden: Golden, record_property: Record) -> None:
    model = of(golden)
    got = {"clr_vote_counts": refined_votes(model, golden), **run(model, golden)}
    compare(got, golden, record_property)


@pytest.mark.parametrize("golden", ["ielt_a"], indirect=True)
def test_the_comparison_can_fail(golden: Golden, record_property: Record) -> None:
    model = of(golden)
    object.__setattr__(model.options, "complement_weight", 0.3)
    got = {"clr_vote_counts": refined_votes(model, golden), **run(model, golden)}
    with pytest.raises(AssertionError, match=r"loss\.total"):
        compare(got, golden, record_property)
