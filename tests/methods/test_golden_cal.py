"""CAL against outputs of the original code (`shared/golden`): every output that its fixtures list.

The state is loaded with `from_upstream`. A training step is given the numbers that the original step drew.
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
from fgvc.methods.attention_crop import attention_crops, attention_drops
from fgvc.methods.base import MethodOutput
from fgvc.methods.bilinear import bilinear_pool, uniform_pool
from fgvc.methods.cal import CAL, Range, TrainingDraws

Record = Callable[[str, object], None]


@dataclass(frozen=True)
class Golden:
    facts: dict[str, Any]
    tensors: dict[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): t for n, t in self.tensors.items() if n.startswith(prefix)}

    def model(self, eval_mode: str) -> CAL:
        config = {**self.facts["config"], "eval_mode": eval_mode}
        model = from_upstream(self.facts["method"], self.part("state."), config)
        assert isinstance(model, CAL) and not model.training
        return model


@pytest.fixture
def golden(shared: Path, request: pytest.FixtureRequest) -> Golden:
    file = shared / "golden" / f"{request.param}.safetensors"
    return Golden(json.loads(file.with_suffix(".json").read_text()), safetensors.torch.load_file(file))


def compare(got: dict[str, Tensor], golden: Golden, record_property: Record) -> None:
    """Every output is there; floats within 1e-4 (gradients 1e-3) · max(1, max|ref|), integers exactly."""
    expected = golden.part("out.")
    assert set(expected) == set(golden.facts["outputs"])
    assert set(expected) - set(got) == set()
    wrong = {}
    for name, reference in expected.items():
        assert got[name].shape == reference.shape, name
        difference = (got[name].detach().double() - reference.double()).abs().max().item()
        share = 1e-3 if ".grad_" in name else 1e-4
        limit = share * max(1.0, reference.abs().max().item()) if reference.is_floating_point() else 0.0
        record_property(name, difference)
        print(f"{golden.facts['fixture']:14} {name:28} {difference:.2e} (limit {limit:.1e})")
        if not difference <= limit:
            wrong[name] = (difference, limit)
    assert wrong == {}


# --- evaluation -----------------------------------------------------------------------------------


def evaluated(golden: Golden) -> dict[str, Tensor]:
    """Outputs of evaluation in the three modes, under the fixture's names."""
    images, outputs = golden.tensors["input"], {}
    seen: dict[str, Tensor] = {}
    for mode in ("none1", "single2", "multi8"):
        model = golden.model(mode)
        if mode == "none1":
            for name, module in (("features", model.backbone), ("attention_maps", model.attentions)):
                module.register_forward_hook(lambda _m, _in, out, name=name: seen.update({name: out}))
        with torch.inference_mode():
            outputs[mode] = model(images)
    none1, single2, multi8 = outputs.values()
    for output in (single2, multi8):
        torch.testing.assert_close(output.aux_logits["raw"], none1.logits)
    return {
        **seen,
        "logits_raw": none1.logits,
        "logits_effect": none1.aux_logits["effect"],
        "feature_matrix": none1.embeddings["pooled"],
        "attention_mean": on_grid(none1, "attention"),
        "vis_map": shown(on_grid(none1, "attention_max"), images.shape[-1]),
        "single2.logits": single2.logits,
        "single2.logits_effect": single2.aux_logits["effect"],
        "single2.crops": single2.crops[:, 0],
        "single2.boxes": single2.boxes[:, 0],
        "multi8.logits": multi8.logits,
        "multi8.logits_effect": multi8.aux_logits["effect"],
        "multi8.boxes": multi8.boxes[:, :3],
        "multi8.boxes_flip": mirrored(multi8.boxes[:, 3:], images.shape[-1]),
    }


def on_grid(output: MethodOutput, mask: str) -> Tensor:
    assert output.grid is not None
    return output.masks[mask].unflatten(1, (1, *output.grid))


def shown(maps: Tensor, size: int) -> Tensor:
    resized = nn.functional.interpolate(maps, (size, size), mode="bilinear", align_corners=True)
    return (resized / resized.max()).sqrt()


def mirrored(boxes: Tensor, width: int) -> Tensor:
    """Ours are in the pixels of the image, the fixture's in those of the mirrored image."""
    y0, x0, y1, x1 = boxes.unbind(-1)
    return torch.stack([y0, width - x1, y1, width - x0], dim=-1)


# --- training -------------------------------------------------------------------------------------


class Recorded(TrainingDraws):
    """What the original step drew."""

    def __init__(self, drawn: dict[str, Tensor]) -> None:
        self.indices = drawn["map_indices"]
        self.thresholds = iter([drawn["theta_crop"], drawn["theta_drop"]])
        self.fake = iter([drawn["fake_attention_raw"], drawn["fake_attention_aug"]])

    def maps(self, attention: Tensor) -> Tensor:
        assert len(attention) == len(self.indices)
        return self.indices

    def shares(self, images: Tensor, bounds: Range) -> Tensor:
        drawn = next(self.thresholds)
        assert len(drawn) == len(images) and ((drawn >= bounds[0]) & (drawn <= bounds[1])).all()
        return drawn

    def counterfactual(self, attention: Tensor) -> Tensor:
        drawn = next(self.fake)
        assert drawn.shape == attention.shape
        return drawn


def trained(golden: Golden) -> dict[str, Tensor]:
    """One step with the recorded draws: what it makes, its losses, gradients, and the centres after it."""
    drawn = golden.part("out.train.")
    model = golden.model("none1").train()
    model.draws = Recorded(drawn)
    assert model.centers is not None
    model.centers.center.copy_(golden.tensors["feature_center"])
    inputs: list[Tensor] = []
    maps: list[Tensor] = []
    model.backbone.register_forward_hook(lambda _m, given, _out: inputs.append(given[0]))
    model.attentions.register_forward_hook(lambda _m, _in, out: maps.append(out))
    output = model(golden.tensors["input"])
    losses = model.loss(output, golden.tensors["targets"])
    losses["total"].backward()
    count = len(output.logits)
    chosen = drawn["map_indices"]
    crop_drop = torch.stack([maps[0][b, chosen[b]] for b in range(count)])
    effect = output.aux_logits["effect"]
    step = {
        "attention_maps_raw": maps[0],
        "attention_crop_drop": crop_drop,
        "logits_raw": output.aux_logits["raw"],
        "logits_effect": effect[:count],
        "logits_effect_aug": effect[count:],
        "logits_aug": output.aux_logits["aug"],
        "feature_matrix": output.embeddings["pooled"],
        "crops": output.crops[:, 0],
        "boxes": output.boxes[:, 0],
        "drops": inputs[1][count:],
        "feature_center_after": model.centers.center,
        "grad_fc": model.fc.weight.grad,
        "grad_attention_conv": model.attentions.conv.weight.grad,
        **{name: drawn[name] for name in drawn if name.startswith(("map_", "fake_", "theta_"))},
    }
    assert torch.equal(inputs[1][:count], output.crops[:, 0])
    named = {"raw_over3": "raw", "aug_times2over3": "aug", "effect": "effect", "center": "center"}
    return {f"train.{name}": value for name, value in step.items()} | {
        f"loss.{theirs}": losses[ours] for theirs, ours in (named | {"total": "total"}).items()
    }


# --- the comparisons ------------------------------------------------------------------------------


@pytest.mark.parametrize("golden", ["cal_a"], indirect=True)
def test_a_model_computes_and_learns_what_upstream_did(golden: Golden, record_property: Record) -> None:
    compare(evaluated(golden) | trained(golden), golden, record_property)


@pytest.mark.parametrize("golden", ["cal_augment_a"], indirect=True)
def test_boxes_crops_and_drops_are_those_of_upstream(golden: Golden, record_property: Record) -> None:
    """The last image's map is zero everywhere."""
    images, maps = golden.tensors["input"], golden.tensors["attention"][:, 0]
    got = {"drop.t0.5": attention_drops(images, maps, 0.5)}
    for share, padding in ((0.5, 0.1), (0.1, 0.05), (0.3, 0.0), (0.6, 0.05)):
        name = f"t{share}_p{padding}"
        got[f"crop.{name}"], got[f"boxes.{name}"] = attention_crops(images, maps, share, padding)
    compare(got, golden, record_property)


@pytest.mark.parametrize("golden", ["cal_bap_a"], indirect=True)
def test_pooled_features_are_those_of_upstream(golden: Golden, record_property: Record) -> None:
    features, attention = golden.tensors["features"], golden.tensors["attentions"]
    got = {
        "feature_matrix": bilinear_pool(features, attention),
        "counterfactual": uniform_pool(features, attention.shape[1]),
    }
    compare(got, golden, record_property)
    torch.testing.assert_close(bilinear_pool(features, torch.ones_like(attention)), got["counterfactual"])


@pytest.mark.parametrize("golden", ["cal_a"], indirect=True)
def test_the_comparison_can_fail(golden: Golden, record_property: Record) -> None:
    """With another eps of the maps' batch norm, in evaluation and in training."""
    golden.facts["config"]["attention_bn_eps"] = 0.01
    with pytest.raises(AssertionError, match=r"attention_maps"):
        compare(evaluated(golden) | trained(golden), golden, record_property)
