"""iSQRT-COV against outputs and gradients of the original code (`shared/golden`): all of every fixture."""

from __future__ import annotations

import pytest
import torch
from goldenkit import Golden, Record, compare
from torch import Tensor

from fgvc.checkpoints import from_upstream
from fgvc.methods.covariance import UpperTriangle, covariance, newton_schulz_root

STEPS = ("isqrtcov_a", "isqrtcov_a_n3")


def steps(golden: Golden, iterations: int) -> dict[str, Tensor]:
    """Covariance, root and triangle; the gradient is that of the triangle weighted with cos(0), cos(1) …"""
    features = golden.tensors["features"].clone().requires_grad_()
    moments = covariance(features)
    root = newton_schulz_root(moments, iterations)
    vector = UpperTriangle(features.shape[1])(root)
    (vector.flatten() * torch.arange(vector.numel()).cos()).sum().backward()
    assert features.grad is not None
    return {"cov": moments, "sqrtm": root, "triuvec": vector[..., None], "grad_features": features.grad}


@pytest.mark.parametrize("golden", STEPS, indirect=True)
def test_each_step_and_the_gradient_are_those_of_upstream(golden: Golden, record_property: Record) -> None:
    compare(steps(golden, golden.facts["config"]["iterNum"]), golden, record_property)


@pytest.mark.parametrize("golden", ["mpncov_head_a"], indirect=True)
def test_pooling_in_both_modes_is_that_of_upstream(golden: Golden, record_property: Record) -> None:
    """Its vectors have a last axis of length 1."""
    facts = golden.facts
    pooling = from_upstream(facts["method"], golden.part("state."), facts["config"])
    with torch.no_grad():
        got = {"eval": pooling(golden.tensors["features"])[..., None]}
        got["train"] = pooling.train()(golden.tensors["features"])[..., None]
    theirs = "buffers_after_train.conv_dr_block.1."
    norm = pooling.get_submodule("reduction.1")
    compare(got | {theirs + name: value for name, value in norm.named_buffers()}, golden, record_property)


@pytest.mark.parametrize("golden", STEPS, indirect=True)
def test_the_comparison_can_fail(golden: Golden, record_property: Record) -> None:
    """With one step more: nothing but n is different."""
    with pytest.raises(AssertionError, match=r"sqrtm"):
        compare(steps(golden, golden.facts["config"]["iterNum"] + 1), golden, record_property)
