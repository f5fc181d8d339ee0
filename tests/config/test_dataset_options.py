"""Options that a variant has on one dataset only: they count there, and are no change anywhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fgvc.config.identity import recipe_identity, recipe_sha256
from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.methods.build import build_variant

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
