"""GLSim against outputs of the original code (`shared/golden`): every output that a fixture lists.

A fixture's state is loaded with `from_upstream`; what the model does not return is caught by forward hooks.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from goldenkit import Golden, Watch, compare
from torch import Tensor

from fgvc.checkpoints import from_upstream
from fgvc.methods import Method
from fgvc.methods.glsim import GLSim
from fgvc.methods.similarity_crop import boxes_around, crop_and_resize, most_similar, similarity

MODELS = (
    "glsim_a_cos_o8",
    "glsim_a_l1_o4",
    "glsim_a_noagg",
    "glsim_a_plain_vit",
    "timm_glsim_a",
    "ilarepo_glsim_a",
)
CROPS = ("glsim_crop_a_cos", "glsim_crop_a_cos_o1")


def run(model: Method, images: Tensor) -> dict[str, Tensor]:
    """Every output under the fixtures' names."""
    watch, backbone = Watch(), model.backbone
    watch.outputs("tokens", backbone)
    for i, block in enumerate(backbone.blocks):
        watch.outputs(f"block.{i}", block)
    attention = backbone.blocks[-1].attn
    watch.outputs("qkv", attention.qkv)
    if isinstance(model, GLSim):
        watch.outputs("aggregated", model.aggregator)
        watch.inputs("aggregator_in", model.aggregator)
    with torch.inference_mode():
        output = model(images)
    first = {name: calls[0] for name, calls in watch.seen.items()}
    query, key, _ = first.pop("qkv").unflatten(-1, (3, attention.num_heads, -1)).unbind(2)
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) * attention.scale
    first |= {"logits": output.logits, "scores_last": scores, "attn_last": scores.softmax(dim=-1)}
    if output.crops is not None and output.boxes is not None:
        first |= {
            "crops": output.crops[:, 0],
            "boxes": output.boxes[:, 0],
            "tokens_crop": watch.seen["tokens"][1],
            "gls_map": output.masks["gls"],
            "score_map": output.masks["gls"],
            "topk_indices": chosen(model, output.masks["gls"]),
        }
    return first


def chosen(model: Method, scores: Tensor) -> Tensor:
    return most_similar(scores, model.options.metric, model.options.top_k).sort(dim=1).values


@pytest.mark.parametrize("golden", MODELS, indirect=True)
def test_a_model_computes_what_upstream_computed(
    golden: Golden, record_property: Callable[[str, object], None]
) -> None:
    facts = golden.facts
    model = from_upstream(facts["method"], golden.part("state."), facts["config"])
    assert not model.training
    compare(run(model, golden.tensors["input"]), golden, record_property)


@pytest.mark.parametrize("golden", CROPS, indirect=True)
def test_boxes_and_crops_are_those_of_upstream(
    golden: Golden, record_property: Callable[[str, object], None]
) -> None:
    """Tokens planted so that the box is a cell, a row, a column, at the last row and column, or all."""
    config, tokens, images = golden.facts["config"], golden.tensors["tokens"], golden.tensors["input"]
    scores = similarity(tokens[:, 0], tokens[:, 1:], config["sim_metric"])
    indices = most_similar(scores, config["sim_metric"], config["O"])
    ranked = indices.sort(dim=1).values
    boxes = boxes_around(indices, (config["grid"],) * 2, config["patch"], "upstream")
    got = {
        "topk_indices": ranked,
        "boxes": boxes,
        "crops": crop_and_resize(images, boxes),
    }
    compare(got, golden, record_property)


@pytest.mark.parametrize("golden", ["glsim_a_cos_o8"], indirect=True)
def test_the_comparison_can_fail(golden: Golden, record_property: Callable[[str, object], None]) -> None:
    facts = golden.facts
    model = from_upstream(facts["method"], golden.part("state."), {**facts["config"], "sim_metric": "l2"})
    with pytest.raises(AssertionError):
        compare(run(model, golden.tensors["input"]), golden, record_property)
