"""ILA, ILA++ and their module against outputs of the original code (`shared/golden`): every output."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from goldenkit import Golden, Record, Watch, compare, matching, trained_names
from torch import Tensor, nn

from fgvc.checkpoints import from_upstream
from fgvc.checkpoints.ila import take_module
from fgvc.checkpoints.ledger import Ledger
from fgvc.config.project import Project
from fgvc.methods.ila import ILA
from fgvc.methods.inter_layer import InterLayerAdapter, InterLayerForm

MODELS = ("ila_a", "ila_a_plus")
#: Fixture → our variant of it.
VARIANTS = {"ila_a": "ila_vit_b16", "ila_a_plus": "ila_pp_vit_b16"}
SHIPPED = Project(Path(__file__).resolve().parents[2])


def of(golden: Golden) -> ILA:
    facts = golden.facts
    model = from_upstream(facts["method"], golden.part("state."), facts["config"])
    assert isinstance(model, ILA) and not model.training
    return model


def run(model: ILA, golden: Golden) -> dict[str, Tensor]:
    """Every output under the fixtures' names, in the order in which they were made."""
    watch = Watch()
    for i, block in enumerate(model.adapters if len(model.adapters) else model.backbone.blocks):
        watch.outputs(f"block.{i}", block)
    for k, module in enumerate(model.between.values()):
        watch.outputs(f"ila_ds.{k}", module)
    with torch.inference_mode():
        for name in ("encoder_norm", "head_input"):
            watch.outputs(name, model.backbone.norm)
        logits = model(golden.tensors["input"]).logits
    got = {name: calls[0] for name, calls in watch.seen.items()}
    counts = [tensor.shape[1] for name, tensor in got.items() if name.startswith(("block.", "ila_ds."))]
    return got | {"logits": logits, "token_counts": torch.tensor(counts)}


@pytest.mark.parametrize("golden", MODELS, indirect=True)
def test_a_model_computes_what_upstream_computed(golden: Golden, record_property: Record) -> None:
    compare(run(of(golden), golden), golden, record_property)


@pytest.mark.parametrize("golden", MODELS, indirect=True)
def test_a_variant_trains_what_upstream_trains(golden: Golden) -> None:
    variant = SHIPPED.variant(VARIANTS[golden.facts["fixture"]])
    assert variant.train != "all"
    assert trained_names(golden) == matching(of(golden), list(variant.train))


@pytest.mark.parametrize("golden", MODELS, indirect=True)
def test_the_comparison_can_fail(golden: Golden, record_property: Record) -> None:
    model = of(golden)
    with torch.no_grad():
        next(iter(model.between.values())).conv.weight.add_(0.1)
    with pytest.raises(AssertionError):
        compare(run(model, golden), golden, record_property)


# --- the module alone -----------------------------------------------------------------------------


def under_upstream_names(named: dict[str, Tensor], golden: Golden) -> dict[str, Tensor]:
    """Tensors of our module under the fixture's names and shapes, found by where its own tensors go."""
    state = golden.part("state.")
    numbered = {name: torch.full_like(t, i) for i, (name, t) in enumerate(state.items())}
    ours = {int(t.max()): name for name, t in take_module(Ledger(numbered), "").items()}
    return {
        name: named[ours[i]].view(state[name].shape) for i, name in enumerate(numbered) if ours[i] in named
    }


@pytest.mark.parametrize("golden", ["ila_module_a"], indirect=True)
def test_a_module_trains_as_upstream_s_does(golden: Golden, record_property: Record) -> None:
    """Its result in both modes, the gradients of its input and parameters, and what its statistics become."""
    config = golden.facts["config"]
    grid = (config["grid"], config["grid"])
    form = InterLayerForm(bottleneck=config["adapter_dim"], kernel=config["kernel"])
    module = InterLayerAdapter(config["dim"], grid, 1, form, nn.Identity())
    ledger = Ledger(golden.part("state."))
    module.load_state_dict(take_module(ledger, ""), strict=True)
    ledger.close()
    tokens = golden.tensors["tokens"].clone().requires_grad_()
    got = {"eval": module.eval()(tokens), "train": module.train()(tokens)}
    weights = torch.arange(got["train"].numel()).cos().view_as(got["train"])
    (got["train"] * weights).sum().backward()
    assert tokens.grad is not None
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    got["grad_input"] = tokens.grad
    got |= {f"grad.{n}": t for n, t in under_upstream_names(gradients, golden).items()}
    buffers = under_upstream_names(dict(module.named_buffers()), golden)
    got |= {f"buffers_after_train.{n}": t for n, t in buffers.items()}
    compare(got, golden, record_property)
