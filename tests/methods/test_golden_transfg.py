"""TransFG against outputs of the original code (`shared/golden`): every output that a fixture lists."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from goldenkit import Golden, Watch, compare
from torch import Tensor

from fgvc.backbones.attention import AttentionRecorder
from fgvc.backbones.attention_chain import chained_cls_row
from fgvc.checkpoints import from_upstream
from fgvc.methods.transfg import TransFG, contrastive_loss

MODELS = ("transfg_a_nonoverlap", "transfg_a_overlap")


def of(golden: Golden) -> TransFG:
    facts = golden.facts
    model = from_upstream(facts["method"], golden.part("state."), facts["config"])
    assert isinstance(model, TransFG) and not model.training
    return model


def run(model: TransFG, golden: Golden) -> dict[str, Tensor]:
    """Every output under the fixtures' names."""
    watch, backbone = Watch(), model.backbone
    for i, block in enumerate(backbone.blocks[:-1]):
        watch.outputs(f"block.{i}", block)
    watch.inputs("part_input", backbone.blocks[-1])
    watch.outputs("part_tokens", backbone.norm)
    with torch.inference_mode():
        with AttentionRecorder(backbone.blocks[:-1]).recording() as layers:
            output = model(golden.tensors["input"])
        losses = model.loss(output, golden.tensors["targets"])
        psm = chained_cls_row(layers)[:, :, backbone.num_prefix :]
    torch.testing.assert_close(output.masks["psm"], psm.mean(dim=1))
    return {
        **{name: calls[0] for name, calls in watch.seen.items()},
        "selected_indices": output.selected["patches"] + 1,
        "psm_map": psm,
        "logits": output.logits,
        "loss.ce": losses["cross_entropy"],
        "loss.contrastive": losses["contrastive"],
        "loss.total": losses["total"],
    }


@pytest.mark.parametrize("attention", ["kept", "recomputed"])
@pytest.mark.parametrize("golden", MODELS, indirect=True)
def test_a_model_computes_what_upstream_computed(
    golden: Golden, attention: str, record_property: Callable[[str, object], None]
) -> None:
    model = of(golden)
    object.__setattr__(model.options, "attention", attention)
    compare(run(model, golden), golden, record_property)


@pytest.mark.parametrize("golden", ["transfg_conloss_a"], indirect=True)
def test_the_contrastive_loss_is_that_of_upstream(
    golden: Golden, record_property: Callable[[str, object], None]
) -> None:
    features, targets = golden.tensors["features"], golden.tensors["targets"]
    loss = contrastive_loss(features, targets, golden.facts["config"]["margin"])
    compare({"loss.contrastive": loss}, golden, record_property)


@pytest.mark.parametrize("golden", MODELS[:1], indirect=True)
def test_the_comparison_can_fail(golden: Golden, record_property: Callable[[str, object], None]) -> None:
    model = of(golden)
    with torch.no_grad():
        model.backbone.blocks[0].attn.qkv.weight.mul_(1.01)
    with pytest.raises(AssertionError):
        compare(run(model, golden), golden, record_property)
