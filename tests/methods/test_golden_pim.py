"""PIM against outputs of the original code (`shared/golden`): every output that its fixtures list.

Not chosen locations come in the order of their confidence there, in which near-ties may swap (the fixture's
note): they are compared in the order of their places.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from goldenkit import Golden, Record, compare
from torch import Tensor

from fgvc.checkpoints import from_upstream
from fgvc.methods.pim import PIM
from fgvc.methods.pim_heads import highest_k_upstream
from fgvc.methods.token_selection import gather_tokens

LAYERS = [f"layer{i}" for i in range(1, 5)]


def model_of(golden: Golden) -> PIM:
    model = from_upstream(golden.facts["method"], golden.part("state."), golden.facts["config"])
    assert isinstance(model, PIM) and not model.training
    return model


def computed(model: PIM, golden: Golden) -> dict[str, Tensor]:
    """Every output under the fixture's names."""
    seen: dict[str, Tensor] = {}
    outputs: dict[str, list[Tensor]] = {}
    for name, module in (("backbone", model.backbone), ("fpn", model.pyramid)):
        module.register_forward_hook(lambda _m, _in, out, name=name: outputs.update({name: out}))
    for name, module in zip(LAYERS, model.classifiers, strict=True):
        module.register_forward_hook(lambda _m, _in, out, name=name: seen.update({f"logits.{name}": out}))
    model.combiner.register_forward_hook(
        lambda _m, given, out: seen.update({"selected": given[0], "logits.comb_outs": out})
    )
    model.options = replace(model.options, select_weight=0.3)
    images, targets = golden.tensors["input"], golden.tensors["targets"]
    with torch.inference_mode():
        output = model(images)
        loss = model.loss(output, targets)
    selected = seen.pop("selected").split(model.counts, dim=1)
    for place, name in enumerate(LAYERS):
        level = model.levels[place]
        logits, chosen = seen[f"logits.{name}"], output.selected[name]
        dropped = torch.stack([left(row, level.locations) for row in chosen])
        fpn = outputs["fpn"][place]
        seen |= {
            f"backbone.{name}": outputs["backbone"][place],
            f"fpn.{name}": fpn if model.pyramid.sequences else fpn.transpose(1, 2).unflatten(2, level.grid),
            f"selected_features.{name}": selected[place],
            f"logits.select_{name}": output.aux_logits[f"select_{name}"],
            f"logits.drop_{name}": gather_tokens(logits, dropped),
            f"selected_indices.{name}": chosen,
            f"dropped_indices_sorted.{name}": dropped,
        }
        torch.testing.assert_close(output.aux_logits[name], logits.mean(dim=1))
    seen |= {
        "loss.b_sum": loss["levels"] / 0.5,
        "loss.n_sum": loss["not_selected"] / 5.0,
        "loss.s_sum": loss["selected"] / 0.3,
        "loss.c": loss["combiner"],
        "loss.total_cub": loss["total"] - loss["selected"],
        "loss.total_all": loss["total"],
    }
    return seen


def left(chosen: Tensor, count: int) -> Tensor:
    return torch.tensor(sorted(set(range(count)) - set(chosen.tolist())))


def in_order_of_places(golden: Golden) -> Golden:
    """The fixture with what was not chosen put in the order of its places, as its note says."""
    tensors = dict(golden.tensors)
    for name in LAYERS:
        logits, dropped = tensors[f"out.logits.{name}"], tensors[f"out.dropped_indices_sorted.{name}"]
        recorded, sorted_rows = tensors[f"out.logits.drop_{name}"], gather_tokens(logits, dropped)
        torch.testing.assert_close(recorded.sort(dim=1).values, sorted_rows.sort(dim=1).values)
        tensors[f"out.logits.drop_{name}"] = sorted_rows
    return replace(golden, tensors=tensors)


@pytest.mark.parametrize("golden", ["pim_a_cnn", "pim_a_tok"], indirect=True)
def test_a_model_computes_what_upstream_did(golden: Golden, record_property: Record) -> None:
    compare(computed(model_of(golden), golden), in_order_of_places(golden), record_property)


@pytest.mark.parametrize("golden", ["pim_eval_a"], indirect=True)
def test_heads_and_their_ensembles_are_those_of_upstream(golden: Golden, record_property: Record) -> None:
    targets = golden.tensors["targets"]
    levels = [golden.tensors[name].mean(dim=1) for name in LAYERS]
    heads = [*levels, golden.tensors["comb_outs"]]
    got = {}
    for name, logits in zip([*LAYERS, "combiner"], heads, strict=True):
        for k in (1, 3):
            hits = (logits.topk(k, dim=1).indices == targets[:, None]).any(dim=1)
            got[f"corrects.{name}-top-{k}"] = hits.sum()
    for k in range(1, 6):
        got[f"pred.highest-{k}"] = highest_k_upstream(heads, k).argmax(dim=1)
        got[f"corrects.highest-{k}"] = (got[f"pred.highest-{k}"] == targets).sum()
    compare(got, golden, record_property)


@pytest.mark.parametrize("golden", ["pim_a_tok"], indirect=True)
def test_the_comparison_can_fail(golden: Golden, record_property: Record) -> None:
    """With the least confident of the chosen locations first: the combiner has weights for each place."""
    model = model_of(golden)
    model.combiner.register_forward_pre_hook(lambda _m, given: (given[0].flip(1),))
    with pytest.raises(AssertionError, match=r"comb_outs"):
        compare(computed(model, golden), in_order_of_places(golden), record_property)
