"""SIM-Trans against outputs of the original code (`shared/golden`): every output that a fixture lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from goldenkit import Golden, Watch, compare
from torch import Tensor

from fgvc.checkpoints import from_upstream
from fgvc.errors import FgvcError
from fgvc.methods.simtrans import SIMTrans, adaptive_contrast
from fgvc.methods.structure_learning import Structure

#: Random: what upstream's dropout draws in evaluation.
DRAWN = "logits_upstream_eval_dropout"
Record = Callable[[str, object], None]


def load(golden: Golden, **settings: Any) -> SIMTrans:
    facts = golden.facts
    model = from_upstream(facts["method"], golden.part("state."), {**facts["config"], **settings})
    assert isinstance(model, SIMTrans) and not model.training
    return model


def outputs_of(structure: Structure, grid: tuple[int, int]) -> dict[str, Tensor]:
    """One call's outputs under the fixture's names; its adjacency is built here, the model has none."""
    rows, columns = structure.reference // grid[1], structure.reference % grid[1]
    return {
        "node_features": structure.features,
        "anchor": torch.stack([rows, columns], dim=1),
        "anchor_index": structure.reference,
        "adjacency": structure.weights[:, :, None] * structure.weights[:, None],
        "mask": structure.on_object,
        "structure_vector": structure.vector,
    }


def run(model: SIMTrans, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Every output under the fixtures' names, but the random one."""
    watch, structures, width = Watch(), [], model.backbone.width
    watch.outputs("last", model.backbone.blocks[-1])
    watch.inputs("head_input", model.head)
    model.structure.register_forward_hook(lambda _m, _in, out: structures.append(out))
    with torch.inference_mode():
        output = model(images)
        tokens = model.backbone.norm(watch.seen["last"][0])
    head_input = watch.seen["head_input"][0]
    terms = model.loss(output, targets)
    got = {
        "logits": output.logits,
        "head_input": head_input,
        "hid9": head_input[:, :width],
        "hid10": head_input[:, width : 2 * width],
        # Only CLS is normalised here, and only to it the structure is added.
        "part_tokens": torch.cat([output.embeddings["part"][:, None], tokens[:, 1:]], dim=1),
        "loss.ce": terms["cross_entropy"],
        "loss.contrastive": terms["contrastive"],
        "loss.total": terms["total"],
    }
    for call, structure in enumerate(structures):
        found = outputs_of(structure, model.backbone.grid)
        got |= {f"sil.{call}.{name}": value for name, value in found.items()}
    return got


def without(golden: Golden, *names: str) -> Golden:
    """The fixture without these outputs; by default without the random one."""
    left_out = names or (DRAWN,)
    outputs = {name: about for name, about in golden.facts["outputs"].items() if name not in left_out}
    tensors = {name: t for name, t in golden.tensors.items() if name.removeprefix("out.") not in left_out}
    return Golden({**golden.facts, "outputs": outputs}, tensors)


@pytest.mark.parametrize("golden", ["simtrans_a"], indirect=True)
def test_the_model_computes_what_upstream_computed(golden: Golden, record_property: Record) -> None:
    model = load(golden)
    compare(run(model, golden.tensors["input"], golden.tensors["targets"]), without(golden), record_property)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="the fixture's masks were drawn by MKL")
@pytest.mark.parametrize("golden", ["simtrans_a"], indirect=True)
def test_the_dropout_that_upstream_forgets_can_be_had(golden: Golden, record_property: Record) -> None:
    """Upstream draws one mask [B, N, hidden] for each block with a structure, and so do we."""
    model = load(golden, upstream_eval_dropout=True)
    torch.manual_seed(golden.facts["config"]["dropout_seed"])
    got = run(model, golden.tensors["input"], golden.tensors["targets"])
    compare(
        {DRAWN: got["logits"]}, without(golden, *(set(golden.facts["outputs"]) - {DRAWN})), record_property
    )


@pytest.mark.parametrize("golden", ["simtrans_conloss_a"], indirect=True)
def test_the_contrastive_term_is_upstreams(golden: Golden, record_property: Record) -> None:
    features, targets = golden.tensors["features"], golden.tensors["targets"]
    loss = adaptive_contrast(features, targets, golden.facts["config"]["margin"])
    compare({"loss.contrastive": loss}, golden, record_property)
    # Which pairs count matters here: without the margin's choice it is another number.
    assert not torch.isclose(adaptive_contrast(features, targets, 9.0), loss, rtol=1e-2)


@pytest.mark.parametrize("golden", ["simtrans_a"], indirect=True)
def test_the_comparison_can_fail(golden: Golden, record_property: Record) -> None:
    """Without the structure, and with the dropout that upstream forgets to turn off."""
    images, targets = golden.tensors["input"], golden.tensors["targets"]
    model = load(golden)
    fixture = without(golden)
    compare(run(model, images, targets), fixture, record_property)
    noisy = load(golden, upstream_eval_dropout=True)
    with pytest.raises(AssertionError):
        compare(run(noisy, images, targets), fixture, record_property)
    with torch.no_grad():
        model.structure.second.zero_()
    with pytest.raises(AssertionError):
        compare(run(model, images, targets), fixture, record_property)


# --- every tensor, every setting ------------------------------------------------------------------


DEAD = (
    "transformer.embeddings.struc_token",
    "transformer.embeddings.struct_head.0.running_mean",
    "transformer.embeddings.struct_head.1.weight",
    "transformer.encoder.part_structure.fc1.weight",
    "transformer.encoder.part_structure.struct_head.0.weight",
    "transformer.encoder.part_structure.struct_head_new.3.bias",
)


@pytest.mark.parametrize("golden", ["simtrans_a"], indirect=True)
def test_dead_tensors_are_dropped_with_a_reason(golden: Golden, caplog: pytest.LogCaptureFixture) -> None:
    facts, state = golden.facts, golden.part("state.")
    with caplog.at_level("INFO"):
        from_upstream("simtrans", {**state, **dict.fromkeys(DEAD, torch.zeros(1))}, facts["config"])
    for name in DEAD:
        assert f"dropped '{name}' of the upstream checkpoint: no forward pass" in caplog.text


@pytest.mark.parametrize("golden", ["simtrans_a"], indirect=True)
def test_unknown_and_missing_tensors_are_named(golden: Golden) -> None:
    config, state = golden.facts["config"], golden.part("state.")
    more = {
        **state,
        "transformer.encoder.part_structure.fc2.bias": torch.zeros(1),
        "part_head.9.bias": torch.zeros(1),
    }
    listed = "not accounted for: part_head.9.bias, transformer.encoder.part_structure.fc2.bias"
    with pytest.raises(FgvcError, match=listed):
        from_upstream("simtrans", more, config)
    for name in ("part_head.2.running_var", "transformer.encoder.part_structure.gcn.gc2.weight"):
        with pytest.raises(FgvcError, match=f"lacks {name}"):
            from_upstream("simtrans", {k: v for k, v in state.items() if k != name}, config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "half"}, "split='half' are not supported"),
        ({"gcn": [2, 256, 32]}, "gcn="),
        ({"num_classes": 7}, "num_classes=7"),
        ({"image_size": 448}, "image_size=448"),
        ({"split": "overlap"}, "image_size=64"),
    ],
)
@pytest.mark.parametrize("golden", ["simtrans_a"], indirect=True)
def test_settings_that_contradict_the_tensors(golden: Golden, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(FgvcError, match=message):
        load(golden, **settings)


@pytest.mark.parametrize("golden", ["simtrans_a"], indirect=True)
def test_another_depth_than_upstreams_is_refused(golden: Golden) -> None:
    """Its code gives a structure to all numbered blocks from the tenth on, and fails with fewer."""
    state = {k: v for k, v in golden.part("state.").items() if ".layer.10." not in k}
    with pytest.raises(FgvcError, match="11 blocks, and SIM-Trans is written for 12"):
        from_upstream("simtrans", state, {**golden.facts["config"], "num_layers": 11})


@pytest.mark.parametrize("golden", ["simtrans_a"], indirect=True)
def test_overlapping_patches_come_from_the_split(golden: Golden) -> None:
    """Four patches of 16 a side, one every 12 pixels, are 52 pixels."""
    config = {**golden.facts["config"], "split": "overlap", "image_size": 52}
    model = from_upstream("simtrans", golden.part("state."), config)
    assert model.backbone.patch_stride == 12 and model.backbone.grid == (4, 4)
    with torch.inference_mode():
        assert model(torch.randn(2, 3, 52, 52)).logits.shape == (2, 5)
