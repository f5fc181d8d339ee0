"""FFVT against outputs of the original code (`shared/golden`): every output that a fixture lists."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from goldenkit import Golden, Watch, compare
from torch import Tensor

from fgvc.backbones.attention import AttentionRecorder
from fgvc.checkpoints import from_upstream
from fgvc.methods.ffvt import FFVT, mutual_attention

MODELS = ("ffvt_a", "ffvt_a_plain")


def of(golden: Golden) -> FFVT:
    facts = golden.facts
    model = from_upstream(facts["method"], golden.part("state."), facts["config"])
    assert isinstance(model, FFVT) and not model.training
    return model


def run(model: FFVT, golden: Golden) -> dict[str, Tensor]:
    """Every output under the fixtures' names."""
    watch, backbone = Watch(), model.backbone
    for i, block in enumerate(backbone.blocks):
        watch.outputs(f"block.{i}", block)
    watch.inputs("fusion_input", backbone.blocks[-1])
    watch.outputs("encoded", backbone.norm)
    with torch.inference_mode():
        with AttentionRecorder(backbone.blocks[:-1]).recording() as layers:
            output = model(golden.tensors["input"])
        losses = model.loss(output, golden.tensors["targets"])
        scores = torch.stack([mutual_attention(layer) for layer in layers], dim=1)
    got = {name: calls[0] for name, calls in watch.seen.items()} | {"logits": output.logits}
    if model.options.feature_fusion:
        patches = torch.stack([output.masks[f"maws.{i}"] for i in range(len(layers))], dim=1)
        assert torch.equal(patches, scores[:, :, backbone.num_prefix :])
        got |= {"selected_indices": output.selected["tokens"], "maws_scores": scores}
    return {**got, "loss.ce": losses["total"]}


@pytest.mark.parametrize("golden", MODELS, indirect=True)
def test_a_model_computes_what_upstream_computed(
    golden: Golden, record_property: Callable[[str, object], None]
) -> None:
    compare(run(of(golden), golden), golden, record_property)


@pytest.mark.parametrize("golden", MODELS[:1], indirect=True)
def test_the_comparison_can_fail(golden: Golden, record_property: Callable[[str, object], None]) -> None:
    model = of(golden)
    object.__setattr__(model.options, "include_cls", False)
    with pytest.raises(AssertionError):
        compare(run(model, golden), golden, record_property)
