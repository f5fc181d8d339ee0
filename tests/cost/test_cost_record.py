"""The cost record: what it says, that it is the same each time, and what it answers to mistakes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fgvc.config.project import Project
from fgvc.cost import AGREEMENT_PCT, cost_record, quick_macs, register_handler, tracing, write_cost
from fgvc.errors import FgvcError, UnknownNameError
from fgvc.methods import MethodOutput
from fgvc.methods.vit import ViT

PICO = "vit_pico_patch16_224"


def test_the_record_of_a_small_vit(project: Project) -> None:
    record = cost_record(project, "vit", 224, 1000, PICO)
    assert record["macs_g"] == pytest.approx(0.214063104)
    assert record["flops_g"] == 2 * record["macs_g"]
    assert record["counts"]["fvcore_macs_g"] == record["counts"]["closed_form_macs_g"] == record["macs_g"]
    assert record["counts"]["dispatch_device"] == "meta"
    assert record["agreement"] == f"within {AGREEMENT_PCT:g} %"
    assert record["agreement_pct"] == 0.0
    assert record["params_m"] == record["trainable_params_m"] == pytest.approx(1.04612)
    assert record["checkpoint_mib"] == pytest.approx(4 * 1.04612e6 / 2**20, abs=1e-3)
    assert record["forward_passes"] == 1
    assert record["selection_macs_g"] == 0.0
    assert record["uncounted_ops"] == {}
    assert record["other_ops_g"] == pytest.approx(sum(record["other_ops_by_kind_g"].values()))
    assert (record["method"], record["method_class"], record["backbone"]) == ("vit", "vit", PICO)
    assert (record["image_size"], record["classes"]) == (224, 1000)
    assert set(record["packages"]) == {"torch", "timm", "fvcore"}


def test_buffers_are_state_but_no_parameters(project: Project) -> None:
    record = cost_record(project, "cnn", 64, 10, "resnet18")
    assert record["params_m"] == pytest.approx((11_689_512 - 1000 * 513 + 10 * 513) / 1e6)
    assert record["checkpoint_mib"] > 4e6 * record["params_m"] / 2**20
    assert record["counts"]["closed_form_macs_g"] == record["macs_g"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [224, pytest.param(448, marks=pytest.mark.exhaustive)])
def test_every_variant_agrees_without_weights_or_data(project: Project, size: int) -> None:
    """Both sizes together in less than five minutes on two cores: 600 seconds of them."""
    start = time.process_time()
    for name in project.names("method"):
        record = cost_record(project, name, size, 20)
        assert record["macs_g"] > 0
        assert record["counts"]["closed_form_macs_g"] is not None, name
        assert record["agreement_pct"] <= AGREEMENT_PCT, (name, record["agreement"])
        assert not record["uncounted_ops"], name
    assert time.process_time() - start < 300


def test_a_variant_costs_what_its_class_on_its_backbone_costs(project: Project) -> None:
    for name in ("vit_pico", "cnn_lite0"):
        variant = project.variant(name)
        by_class = cost_record(project, variant.method, 224, 21, variant.backbone, variant.options)
        by_variant = cost_record(project, name, 224, 21)
        assert by_variant.pop("method") == name
        by_class.pop("method")
        assert by_variant == by_class


def test_only_what_trains_is_trainable(project: Project) -> None:
    file = project.file("method", "vit_pico")
    file.write_text(file.read_text() + "train: ['head.*']\n")
    record = cost_record(project, "vit_pico", 224, 10)
    assert record["trainable_params_m"] == pytest.approx(129 * 10 / 1e6)
    assert record["params_m"] > record["trainable_params_m"]


def test_options_reach_the_method(project: Project) -> None:
    pooled = cost_record(project, "vit", 224, 10, PICO, {"pool": "patches"})
    assert pooled["other_ops_by_kind_g"]["reduction"] == pytest.approx(196 * 128 / 1e9)


def test_records_are_the_same_bytes_each_time(project: Project) -> None:
    path = project.paths.cost("vit_pico", 224, 21)
    state = torch.get_rng_state()
    first = write_cost(project, "vit_pico", 224, 21)
    assert torch.equal(state, torch.get_rng_state()), "counting drew from the global generator"
    written = path.read_bytes()
    torch.manual_seed(77)
    write_cost(project, "vit_pico", 224, 21)
    assert path.read_bytes() == written
    assert json.loads(written) == first
    assert [p.name for p in path.parent.iterdir()] == [path.name]


# --- disagreement is explained --------------------------------------------------------------------------


class _Hidden(torch.autograd.Function):
    """A product inside a custom function: fvcore sees one opaque node, torch's counter the product."""

    @staticmethod
    def forward(_ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        return left @ right


class Opaque(ViT):
    name = "opaque"

    def forward(self, images: Tensor) -> MethodOutput:
        tokens = self.backbone(images)
        pixels = images[:, 0].reshape(-1, 56)
        hidden = _Hidden.apply(pixels, torch.ones(56, 5000, device=images.device))
        return MethodOutput(logits=self.head(self.backbone.cls(tokens)) + hidden.mean())


def test_a_disagreement_is_explained(project: Project, registered_here: Callable[..., Any]) -> None:
    registered_here(Opaque)
    record = cost_record(project, "opaque", 224, 10, PICO)
    hidden_g = 224 * 224 * 5000 / 1e9
    assert record["macs_g"] - record["counts"]["fvcore_macs_g"] == pytest.approx(hidden_g)
    assert record["agreement_pct"] > AGREEMENT_PCT
    assert "the counts differ by 53.97 %" in record["agreement"]
    assert "fvcore does not price" in record["agreement"]
    assert "prim::PythonOp._Hidden ×1" in record["agreement"]


class Formula(ViT):
    """Its formula and its selection are hooks of the class."""

    name = "formula"

    def closed_form_macs(self) -> int | None:
        return 1_000_000

    def selection_macs(self) -> int:
        return 5_000_000


def test_hooks_of_the_method(project: Project, registered_here: Callable[..., Any]) -> None:
    registered_here(Formula)
    record = cost_record(project, "formula", 224, 10, PICO)
    assert record["counts"]["closed_form_macs_g"] == 0.001
    assert record["selection_macs_g"] == 0.005
    assert record["agreement"].startswith("the counts differ by 99")


class Custom(ViT):
    """Uses an operator that only a handler knows."""

    name = "custom"

    def forward(self, images: Tensor) -> MethodOutput:
        features = self.backbone.cls(self.backbone(images))
        similarity = torch.cosine_similarity(features, features, dim=1)
        return MethodOutput(logits=self.head(similarity[:, None] * features))


def test_a_method_may_add_a_handler(
    project: Project, registered_here: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    registered_here(Custom)
    before = cost_record(project, "custom", 224, 10, PICO)
    assert before["fvcore_unsupported_ops"]["aten::cosine_similarity"] == 1
    monkeypatch.setattr(tracing, "_HANDLERS", dict(tracing._HANDLERS))
    register_handler("aten::cosine_similarity")(lambda *_: 10**6)
    after = cost_record(project, "custom", 224, 10, PICO)
    assert after["counts"]["fvcore_macs_g"] - before["counts"]["fvcore_macs_g"] == pytest.approx(1e-3)
    assert "aten::cosine_similarity" not in after["fvcore_unsupported_ops"]


# --- mistakes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "backbone", "nearest"),
    [
        ("vit_picco", None, "vit_pico"),
        ("vitt", PICO, "vit"),
        ("cnn", "resnet1o1", "resnet101"),
        ("vit", "vit_bas_patch16_224", "vit_base_patch16_224"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_nearest(
    project: Project, target: str, backbone: str | None, nearest: str
) -> None:
    for count in (cost_record, quick_macs):
        with pytest.raises(UnknownNameError) as caught:
            count(project, target, 224, 10, backbone)
        assert caught.value.guess == nearest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vit", 225, 10, PICO), "224 or 240"),
        (("vit", 8, 10, PICO), "at least 16"),
        (("vit", 224, 0, PICO), "at least 1"),
        (("vit", 224, 10, "resnet50"), "not a ViT"),
        (("vit", 224, 10), "--backbone"),
        (("vit_pico", 224, 10, None, {"pool": "cls"}), "its own options"),
        (("vit", 224, 10, PICO, {"poool": "cls"}), "pool"),
        (("cnn", 32, 10, "inception_v4"), "larger image size"),
        (("cnn", 192, 10, PICO), "is a ViT, not a CNN"),
    ],
)
def test_impossible_wishes(project: Project, arguments: tuple[Any, ...], message: str) -> None:
    for count in (cost_record, quick_macs):
        with pytest.raises(FgvcError) as caught:
            count(project, *arguments)
        assert message in str(caught.value)


def test_nothing_is_written_for_an_unknown_variant(project: Project) -> None:
    with pytest.raises(UnknownNameError):
        write_cost(project, "nothing_like_this", 224, 10)
    assert not (project.root / "results").exists()


# --- time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "backbone"), [("vit", "vit_base_patch16_224"), ("cnn", "resnet101")])
def test_the_quick_count_is_quick(project: Project, method: str, backbone: str) -> None:
    """In processor time, so that a busy machine does not matter."""
    times = []
    for _ in range(3):
        start = time.process_time()
        quick_macs(project, method, 224, 200, backbone)
        times.append(time.process_time() - start)
    assert min(times) < 0.6


@pytest.mark.slow
@pytest.mark.parametrize(("size", "gmacs", "limit_s"), [(224, 17.56, 15), (448, 78.5, 30)])
def test_the_whole_record_of_vit_b(project: Project, size: int, gmacs: float, limit_s: float) -> None:
    start = time.process_time()
    record = cost_record(project, "vit", size, 1000, "vit_base_patch16_224")
    assert time.process_time() - start < limit_s
    assert record["macs_g"] == pytest.approx(gmacs, rel=0.001)
    assert record["agreement_pct"] <= AGREEMENT_PCT
    assert record["params_m"] == pytest.approx(86.57 if size == 224 else 87.02, abs=0.01)
