"""GLSim against outputs of the original code (`shared/golden`): every output that a fixture lists.

A fixture's state is loaded with `from_upstream`; what the model does not return is caught by forward hooks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

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


@dataclass(frozen=True)
class Golden:
    facts: dict[str, Any]
    tensors: dict[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): t for n, t in self.tensors.items() if n.startswith(prefix)}


@pytest.fixture
def golden(shared: Path, request: pytest.FixtureRequest) -> Golden:
    file = shared / "golden" / f"{request.param}.safetensors"
    return Golden(json.loads(file.with_suffix(".json").read_text()), safetensors.torch.load_file(file))


def compare(got: dict[str, Tensor], golden: Golden, record_property: Callable[[str, object], None]) -> None:
    """Every output of the fixture is there; floats within 1e-4 · max(1, max|ref|), integers exactly."""
    expected = golden.part("out.")
    assert set(expected) == set(golden.facts["outputs"])
    assert set(expected) - set(got) == set()
    wrong = {}
    for name, reference in expected.items():
        assert got[name].shape == reference.shape, name
        difference = (got[name].double() - reference.double()).abs().max().item()
        limit = 1e-4 * max(1.0, reference.abs().max().item()) if reference.is_floating_point() else 0.0
        record_property(name, difference)
        print(f"{golden.facts['fixture']:20} {name:14} {difference:.2e} (limit {limit:.1e})")
        if not difference <= limit:
            wrong[name] = (difference, limit)
    assert wrong == {}


class Watch:
    """Keeps what modules put out (or take in), call by call."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Tensor]] = {}

    def outputs(self, name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _m, _in, out: self.seen.setdefault(name, []).append(out))

    def inputs(self, name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _m, given, _out: self.seen.setdefault(name, []).append(given[0]))


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
