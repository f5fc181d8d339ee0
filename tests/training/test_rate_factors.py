"""Learning rates of parts: which parameters have which, all along the schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fgvc import create_model
from fgvc.config.project import Project
from fgvc.config.recipe import Recipe
from fgvc.errors import FgvcError
from fgvc.methods import Method
from fgvc.training.optimization import Schedule, base_rate, make_optimizer

FACTORS = {"backbone.*": 0.2, "head.weight": 5.0}
SHIPPED = Project(Path(__file__).resolve().parents[2])


def recipe(**more: Any) -> Recipe:
    facts = {"epochs": 2, "batch_size": 4, "learning_rate": 0.1, "augmentation": "weak", "warmup_steps": 3}
    return Recipe.model_validate({**facts, **more}).resolved()


def a_model() -> Method:
    torch.manual_seed(0)
    return create_model("vit", backbone="test_vit", num_classes=3, image_size=32)


def rates(model: Method, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [(names[id(p)], group["lr"]) for group in optimizer.param_groups for p in group["params"]]
    assert len(found) == len(dict(found))
    return dict(found)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lamb"])
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_every_parameter_follows_the_schedule_times_its_factor(optimizer: str, decay: float) -> None:
    model, plain = a_model(), a_model()
    its = recipe(learning_rate_factors=FACTORS, optimizer=optimizer, weight_decay=decay)
    scaled = make_optimizer(model, its, 0.1)
    other = make_optimizer(plain, recipe(optimizer=optimizer, weight_decay=decay), 0.1)
    schedules = [Schedule(one, its, 20) for one in (scaled, other)]
    for step in (0, 1, 3, 10, 19):
        for schedule in schedules:
            schedule.set(step)
        whole = rates(plain, other)
        for name, rate in rates(model, scaled).items():
            factor = 0.2 if name.startswith("backbone.") else 5.0 if name == "head.weight" else 1.0
            assert rate == pytest.approx(factor * whole[name], rel=1e-12)
        assert rates(model, scaled).keys() == whole.keys()
        assert base_rate(scaled) == pytest.approx(base_rate(other), rel=1e-12)


def test_what_decays_is_what_decayed_without_factors() -> None:
    def decays(**more: Any) -> dict[str, float]:
        model = a_model()
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        optimizer = make_optimizer(model, recipe(weight_decay=0.05, optimizer="adamw", **more), 0.1)
        return {names[id(p)]: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}

    assert decays(learning_rate_factors=FACTORS) == decays()


def test_a_step_is_as_long_as_its_factor_says() -> None:
    """Plain SGD: a parameter moves by its rate times its gradient."""
    moved = {}
    for factors in ({}, FACTORS):
        model = a_model()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        its = recipe(optimizer="momentum", momentum=0.0, learning_rate_factors=factors)
        optimizer = make_optimizer(model, its, 0.1)
        Schedule(optimizer, its, 20).set(5)
        torch.manual_seed(1)
        model.loss(model(torch.randn(4, 3, 32, 32)), torch.tensor([0, 1, 2, 0]))["total"].backward()
        optimizer.step()
        moved[bool(factors)] = {name: p.detach() - before[name] for name, p in model.named_parameters()}
    for name, factor in (("head.weight", 5.0), ("head.bias", 1.0), ("backbone.vit.norm.bias", 0.2)):
        torch.testing.assert_close(moved[True][name], factor * moved[False][name], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("factors", "problem", "cure"),
    [
        ({"haed.*": 2.0}, "'haed.*' matches no parameter", "nearest"),
        ({"head.*": 2.0, "*.weight": 3.0}, "both match the parameter 'head.weight'", "one factor"),
    ],
)
def test_patterns_that_match_nothing_or_twice_are_one_error(
    factors: dict[str, float], problem: str, cure: str
) -> None:
    with pytest.raises(FgvcError) as caught:
        make_optimizer(a_model(), recipe(learning_rate_factors=factors), 0.1)
    assert problem in caught.value.problem and cure in (caught.value.cure or "")
    assert caught.value.key == "recipe.learning_rate_factors"


def with_factors() -> list[str]:
    return [name for name in SHIPPED.names("method") if SHIPPED.variant(name).recipe.learning_rate_factors]


@pytest.mark.parametrize("name", with_factors())
def test_the_patterns_of_shipped_variants_match(name: str) -> None:
    variant = SHIPPED.variant(name)
    with torch.device("meta"):
        model = create_model(
            variant.method, backbone=variant.backbone, num_classes=5, image_size=224, **variant.options
        )
    optimizer = make_optimizer(model, variant.recipe.resolved(), 1.0)
    assert {group["lr_scale"] for group in optimizer.param_groups} == {
        1.0,
        *variant.recipe.learning_rate_factors.values(),
    }
