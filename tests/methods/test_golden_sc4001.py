"""SC4001 against outputs of the original code (`shared/golden`): every output that the fixtures list."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from goldenkit import Golden, Watch, compare
from torch import Tensor

from fgvc.backbones.attention import AttentionRecorder
from fgvc.checkpoints import from_upstream
from fgvc.methods.sc4001 import SC4001
from fgvc.methods.triplet import BatchHardTriplet
from fgvc.methods.voting import Enhancement, ranked, votes

Record = Callable[[str, object], None]
MODELS = ("sc4001_a", "sc4001_a_merge")


def of(golden: Golden) -> SC4001:
    facts = golden.facts
    model = from_upstream(facts["method"], golden.part("state."), facts["config"] | {"update_warm": 0})
    assert isinstance(model, SC4001) and not model.training
    return model


def run(model: SC4001, golden: Golden) -> dict[str, Tensor]:
    """Every output under the fixtures' names."""
    watch, backbone, selection = Watch(), model.backbone, model.selection
    images, targets = golden.tensors["input"], golden.tensors["targets"]
    watch.inputs("clr_input", backbone.blocks[-1])
    watch.outputs("clr_out", backbone.norm)
    watch.outputs("key_out", model.key_norm)
    sizes = selection.sizes()
    got = {"select_num_before": selection.numbers(), "pos_embed_used": backbone.vit.pos_embed}
    with torch.inference_mode(), AttentionRecorder([backbone.blocks[-1]]).recording() as layers:
        output = model(images)
    got |= {name: calls[0] for name, calls in watch.seen.items()}
    for i, part in enumerate(output.selected["patches"].split(sizes, dim=1)):
        got[f"selected_indices.{i}"] = part
        got[f"vote_counts.{i}"] = output.masks[f"votes.{i}"]
    if model.merges:
        ends = torch.tensor([size + 1 for size in sizes]).cumsum(0)
        got["merged_tokens"] = got["clr_input"][:, ends].transpose(0, 1)
    model.training = True  # this module alone: its loss moves the numbers, and nothing is dropped
    terms = model.loss(output, targets)
    embeddings = output.embeddings["trunk_cls"]
    return got | {
        "logits": output.logits,
        "clr_selected": output.selected["key"],
        "clr_vote_counts": votes(layers[0].cls_row()[:, :, 1:], model.options.vote_perhead),
        "trunk_cls": embeddings,
        "complement_logits": output.aux_logits["complement"],
        "assist_logits": output.aux_logits["assist"],
        "loss.ielt": terms["cross_entropy"] + terms["complement"],
        "loss.triplet_m1": terms["triplet"] / model.options.triplet_weight,
        "loss.triplet_m0p2": BatchHardTriplet(0.2)(embeddings, targets),
        "loss.total": terms["total"],
        "select_num_after": selection.numbers(),
    }


@pytest.mark.parametrize("golden", MODELS, indirect=True)
def test_a_model_computes_what_upstream_computed(golden: Golden, record_property: Record) -> None:
    compare(run(of(golden), golden), golden, record_property)


@pytest.mark.parametrize("golden", MODELS, indirect=True)
def test_the_comparison_can_fail(golden: Golden, record_property: Record) -> None:
    """With the token of the patch that was chosen, not of the one before it."""
    model = of(golden)
    model.index_shift = False
    with pytest.raises(AssertionError, match="clr_input"):
        compare(run(model, golden), golden, record_property)


@pytest.mark.parametrize("golden", ["sc4001_voting_a"], indirect=True)
def test_votes_and_their_spread_are_upstreams(golden: Golden, record_property: Record) -> None:
    config = golden.facts["config"]
    counts = votes(golden.tensors["attn"][:, :, 0, 1:], config["vote_perhead"])
    enhanced = Enhancement("gauss", (1, 2, 4))(counts, (config["grid"], config["grid"]))
    order, size = ranked(enhanced, counts.shape[1]), config["select_num"]
    got = {
        "counts": counts,
        "enhanced": enhanced,
        "selected": order[:, :size],
        "unselected": order[:, size:],
        "selected_last": ranked(counts, size),
    }
    compare(got, golden, record_property)


@pytest.mark.parametrize("golden", ["sc4001_triplet_a"], indirect=True)
def test_the_triplet_loss_is_upstreams(golden: Golden, record_property: Record) -> None:
    embeddings, targets = golden.tensors["embeddings"], golden.tensors["targets"]
    margins = {"m1": 1.0, "m0p2": 0.2}
    got = {f"loss.{name}": BatchHardTriplet(m)(embeddings, targets) for name, m in margins.items()}
    compare(got, golden, record_property)
