"""Options and recipe keys that a variant has on one dataset only: they count there and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fgvc.config.grid import Cell, rate_search
from fgvc.config.identity import recipe_identity, recipe_sha256
from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.methods.build import build_variant
from fgvc.training.spec import RunSpec
from fgvc.workflow.rules import Rules

ROOT = Path(__file__).resolve().parents[2]
VARIANT: dict[str, Any] = {
    "method": "glsim", "title": "GLSim", "group": "ViT-based", "backbone": "vit_pico_patch16_224",
    "backbone_title": "Pico", "weights": None, "source": "ours", "options": {"metric": "l2"},
    "recipe": {"epochs": 1, "batch_size": 2, "learning_rate": 0.1},
}  # fmt: skip


@pytest.fixture
def project(project_factory: Callable[..., Project]) -> Project:
    special = {**VARIANT, "dataset_options": {"dogs": {"top_k": 16}}}
    return project_factory(
        copy=["datasets/dogs", "datasets/cub"],
        files={"params/methods/plain.yaml": VARIANT, "params/methods/special.yaml": special},
    )


def test_they_are_part_of_what_a_run_is_on_their_dataset_alone(project: Project) -> None:
    assert recipe_identity(project, "dogs", "special")["options"] == {"metric": "l2", "top_k": 16}
    assert recipe_sha256(project, "dogs", "special") != recipe_sha256(project, "dogs", "plain")
    assert recipe_sha256(project, "cub", "special") == recipe_sha256(project, "cub", "plain")


@pytest.mark.parametrize(("dataset", "top_k"), [("dogs", 16), ("cub", 8), (None, 8)])
def test_the_model_is_built_with_them(project: Project, dataset: str | None, top_k: int) -> None:
    model = build_variant(project, "special", 64, 2, with_weights=False, dataset=dataset)
    assert (model.options.top_k, model.options.metric) == (top_k, "l2")


def test_a_dataset_that_does_not_exist_is_an_error_with_its_line(
    project_factory: Callable[..., Project],
) -> None:
    wrong = {**VARIANT, "dataset_options": {"dgos": {"top_k": 16}}}
    project = project_factory(copy=["datasets/dogs"], files={"params/methods/wrong.yaml": wrong})
    with pytest.raises(FgvcError, match="did you mean 'dogs'") as caught:
        project.variant("wrong")
    assert (caught.value.file, caught.value.key) == ("params/methods/wrong.yaml", "dataset_options.dgos")
    assert caught.value.line is not None


def test_an_option_that_does_not_exist_is_found_before_the_training(
    project_factory: Callable[..., Project],
) -> None:
    wrong = {**VARIANT, "dataset_options": {"dogs": {"topk": 16}}}
    project = project_factory(copy=["datasets/dogs"], files={"params/methods/wrong.yaml": wrong})
    with pytest.raises(FgvcError, match="did you mean 'top_k'"):
        build_variant(project, "wrong", 64, 2, with_weights=False, dataset="dogs")


def test_glsim_chooses_twice_as_many_patches_on_dogs() -> None:
    shipped = Project(ROOT).variant("glsim_vit_b16")
    assert (shipped.options_on("cub")["top_k"], shipped.options_on("dogs")["top_k"]) == (8, 16)


# --- the recipe on a dataset ----------------------------------------------------------------------


@pytest.fixture
def trained(project_factory: Callable[..., Project]) -> Project:
    """`plain` and `special`, whose recipe on dogs takes other steps and drops more."""
    recipe = {"dogs": {"epochs": 3, "stochastic_depth": 0.2, "learning_rate": 0.2, "threads": 2}}
    return project_factory(
        copy=["datasets/dogs", "datasets/cub"],
        files={
            "params/methods/plain.yaml": VARIANT,
            "params/methods/special.yaml": {**VARIANT, "dataset_recipe": recipe},
        },
    )


def test_a_recipe_may_be_another_on_one_dataset(trained: Project) -> None:
    there = recipe_identity(trained, "dogs", "special")["recipe"]
    assert (there["epochs"], there["stochastic_depth"], there["batch_size"]) == (3, 0.2, 2)
    assert recipe_sha256(trained, "dogs", "special") != recipe_sha256(trained, "dogs", "plain")
    assert recipe_sha256(trained, "cub", "special") == recipe_sha256(trained, "cub", "plain")


def test_another_override_is_another_run_on_that_dataset_alone(trained: Project) -> None:
    before = {d: recipe_sha256(trained, d, "special") for d in ("dogs", "cub")}
    file = trained.file("method", "special")
    file.write_text(file.read_text().replace("epochs: 3", "epochs: 4"))
    after = {d: recipe_sha256(Project(trained.root), d, "special") for d in ("dogs", "cub")}
    assert after["cub"] == before["cub"] and after["dogs"] != before["dogs"]


@pytest.mark.parametrize(("dataset", "epochs", "depth"), [("dogs", 3, 0.2), ("cub", 1, 0.1)])
def test_whatever_reads_the_recipe_of_a_run_reads_the_datasets_own(
    trained: Project, dataset: str, epochs: int, depth: float
) -> None:
    """The training, its learning rate where none is searched, its threads, and the model that it builds."""
    rate, threads = (0.2, 2) if dataset == "dogs" else (0.1, 1)
    assert RunSpec(trained, dataset, "special", 64, 1, 0.1).recipe.epochs == epochs
    assert rate_search(trained, Cell(dataset, "special", 64)).rates == (rate,)
    assert Rules(trained).threads(dataset, "special") == threads
    model = build_variant(trained, "special", 64, 2, with_weights=False, dataset=dataset)
    assert model.spec.stochastic_depth == depth


@pytest.mark.parametrize(
    ("own", "key", "problem"),
    [
        ({"epoch": 5}, "dataset_recipe.dogs.epoch", "did you mean 'epochs'"),
        ({"epochs": 0}, "dataset_recipe.dogs.epochs", "greater than 0"),
        ({"base": "quick"}, "dataset_recipe.dogs.base", "not known here"),
        ({"min_learning_rate": 0.5}, "dataset_recipe.dogs", "larger than learning_rate"),
    ],
)
def test_a_recipe_that_is_not_possible_on_a_dataset_is_an_error_with_its_line(
    project_factory: Callable[..., Project], own: dict[str, Any], key: str, problem: str
) -> None:
    wrong = {**VARIANT, "dataset_recipe": {"dogs": own}}
    project = project_factory(copy=["datasets/dogs"], files={"params/methods/wrong.yaml": wrong})
    with pytest.raises(FgvcError, match=problem) as caught:
        project.variant("wrong")
    assert (caught.value.file, caught.value.key) == ("params/methods/wrong.yaml", key)
    lines = project.file("method", "wrong").read_text().splitlines()
    shown = lines[(caught.value.line or 0) - 1].strip()
    assert shown.startswith((next(iter(own)), "dogs:"))


def test_a_recipe_on_a_dataset_that_does_not_exist_is_an_error(
    project_factory: Callable[..., Project],
) -> None:
    wrong = {**VARIANT, "dataset_recipe": {"dgos": {"epochs": 2}}}
    project = project_factory(copy=["datasets/dogs"], files={"params/methods/wrong.yaml": wrong})
    with pytest.raises(FgvcError, match="did you mean 'dogs'") as caught:
        project.variant("wrong")
    assert caught.value.key == "dataset_recipe.dgos"
