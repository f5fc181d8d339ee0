"""Keys that recipes got later: they change runs that have them, and no other; and what is not possible."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fgvc.config.identity import recipe_identity, recipe_sha256
from fgvc.config.project import Project
from fgvc.config.recipe import LATER_KEYS, Recipe
from fgvc.errors import FgvcError
from fgvc.provenance.digests import value_sha256

ROOT = Path(__file__).resolve().parents[2]
PLAIN: dict[str, Any] = {"epochs": 10, "batch_size": 8, "learning_rate": 0.1, "warmup_steps": 30}
VARIANT: dict[str, Any] = {
    "method": "vit", "title": "T", "group": "ViT-based", "backbone": "vit_pico_patch16_224",
    "backbone_title": "Pico", "weights": None, "source": "ours", "recipe": PLAIN,
}  # fmt: skip
#: Of `PLAIN`, resolved, as runs had it before the later keys came.
EARLIER_SHA256 = "fa82f2398c73f66a43a8f8fa94eebdd7dbf8e9f88bb2457213bee949943be25a"

Factory = Callable[..., Project]


def recipe(**more: Any) -> Recipe:
    return Recipe.model_validate({**PLAIN, **more})


def project_of(factory: Factory, base: dict[str, Any] | None = None, **facts: Any) -> Project:
    files = {"params/methods/one.yaml": {**VARIANT, **facts}}
    if base:
        files["params/recipes/base.yaml"] = base
    return factory(copy=["datasets/dogs", "datasets/cub"], files=files)


# --- identity -------------------------------------------------------------------------------------


def test_a_recipe_without_the_later_keys_is_what_it_was() -> None:
    assert value_sha256(recipe().resolved().identity()) == EARLIER_SHA256
    assert not set(LATER_KEYS) - set(Recipe.model_fields)


@pytest.mark.parametrize("key", LATER_KEYS)
def test_writing_out_a_default_changes_nothing(key: str) -> None:
    default = Recipe.model_fields[key].get_default(call_default_factory=True)
    assert recipe(**{key: default}).resolved().identity() == recipe().resolved().identity()


OTHERWISE: dict[str, Any] = {
    "samples_per_class": 2,
    "learning_rate_factors": {"head.*": 10},
    "resize": "short_side",
    "interpolation": "bilinear",
    "train_crop": "centre",
    "brightness_jitter": 0.4,
    "contrast_jitter": 0.4,
    "saturation_jitter": 0.4,
    "blur_probability": 0.1,
    "sharpen_probability": 0.1,
    "frozen_features": "once",
}


@pytest.mark.parametrize("key", [key for key in LATER_KEYS if key != "warmup_epochs"])
def test_every_later_key_makes_another_run(project_factory: Factory, key: str) -> None:
    before = recipe_sha256(project_of(project_factory), "cub", "one")
    changed = project_of(project_factory, recipe={**PLAIN, key: OTHERWISE[key]})
    assert recipe_sha256(changed, "cub", "one") != before
    assert recipe_identity(changed, "cub", "one")["recipe"][key] == OTHERWISE[key]


# --- warm-up --------------------------------------------------------------------------------------


def test_warm_up_is_counted_in_steps_or_in_epochs() -> None:
    assert recipe().warmup(total_steps=1000) == 30
    epochs = Recipe.model_validate(
        {k: v for k, v in PLAIN.items() if k != "warmup_steps"} | {"warmup_epochs": 1.5}
    )
    assert [epochs.warmup(total_steps=n) for n in (1000, 10)] == [150, 2]
    assert epochs.resolved().warmup(1000) == 150 and epochs.resolved().identity()["warmup_epochs"] == 1.5
    with pytest.raises(ValueError, match="both warmup_steps and warmup_epochs"):
        recipe(warmup_epochs=2)
    assert recipe(warmup_epochs=None).warmup(1000) == 30


@pytest.mark.parametrize(("base", "own"), [("steps", "epochs"), ("epochs", "steps")])
def test_a_variant_s_own_warm_up_replaces_its_base_s(project_factory: Factory, base: str, own: str) -> None:
    warm = {"steps": {"warmup_steps": 7}, "epochs": {"warmup_epochs": 3}}
    rest = {key: value for key, value in PLAIN.items() if key != "warmup_steps"}
    project = project_of(
        project_factory,
        base=rest | warm[base],
        recipe={"base": "base", **warm[own]},
        dataset_recipe={"dogs": warm[base]},
    )
    steps = {"steps": 7, "epochs": 300}
    variant = project.variant("one")
    assert variant.recipe_on("cub").warmup(1000) == steps[own]
    assert variant.recipe_on("dogs").warmup(1000) == steps[base]


# --- what is not possible -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "key", "problem"),
    [
        ({"samples_per_class": 3}, "recipe.samples_per_class", "a batch_size of 8 cannot hold"),
        ({"samples_per_class": 8}, "recipe.samples_per_class", "two classes or more"),
        ({"samples_per_class": 1}, "recipe.samples_per_class", "greater than or equal to 2"),
        ({"warmup_epochs": 2}, "recipe", "both warmup_steps and warmup_epochs are given"),
        (
            {"train_crop": "centre", "augmentation": "strong"},
            "recipe.train_crop",
            "crops in a way of its own",
        ),
        ({"learning_rate_factors": {"head.*": 0}}, "recipe.learning_rate_factors.head.*", "greater than 0"),
        ({"blur_probability": 2}, "recipe.blur_probability", "less than or equal to 1"),
        ({"resize": "shortside"}, "recipe.resize", "not a possible value"),
        ({"color_jitter": 0.4}, "recipe.color_jitter", "not known here"),
    ],
)
def test_a_key_that_is_not_possible_is_one_error_with_its_line(
    project_factory: Factory, own: dict[str, Any], key: str, problem: str
) -> None:
    project = project_of(project_factory, recipe={**PLAIN, **own})
    with pytest.raises(FgvcError, match=problem) as caught:
        project.variant("one")
    assert (caught.value.file, caught.value.key) == ("params/methods/one.yaml", key)
    shown = project.file("method", "one").read_text().splitlines()[(caught.value.line or 0) - 1]
    assert shown.strip().startswith(
        (next(iter(own)), key.rpartition("recipe.")[2] or "recipe", "head", "'head")
    )


def test_a_batch_that_no_longer_fits_on_a_dataset_is_an_error(project_factory: Factory) -> None:
    project = project_of(
        project_factory,
        recipe={**PLAIN, "samples_per_class": 4},
        dataset_recipe={"dogs": {"batch_size": 6}},
    )
    with pytest.raises(FgvcError, match="a batch_size of 6 cannot hold") as caught:
        project.variant("one")
    assert caught.value.key == "dataset_recipe.dogs.samples_per_class"


# --- what ships -----------------------------------------------------------------------------------


def test_what_upstream_recipes_say_stands_in_the_variants() -> None:
    shipped = Project(ROOT)
    ielt, pets, dogs = (shipped.variant("ielt_vit_b16").recipe_on(d) for d in ("cub", "pets", "dogs"))
    assert (ielt.brightness_jitter, ielt.contrast_jitter, ielt.saturation_jitter) == (0.4, 0.4, 0.0)
    assert (pets.saturation_jitter, dogs.brightness_jitter, dogs.contrast_jitter) == (0.4, 0.0, 0.0)
    pim = shipped.variant("pim_swin").recipe
    assert (pim.interpolation, pim.blur_probability, pim.sharpen_probability) == ("bilinear", 0.1, 0.1)
    hawkeye = shipped.variant("isqrtcov_resnet50").recipe
    assert (hawkeye.learning_rate_factors, hawkeye.warmup_epochs) == ({"backbone.*": 0.2}, 10)
    fast = shipped.variant("isqrtcov_resnet101")
    assert fast.recipe.learning_rate_factors == {"head.*": 5}
    assert [fast.recipe_on(d).resize for d in ("cub", "aircraft")] == ["short_side", "square"]
    sc4001 = shipped.variant("sc4001_dinov2_b").recipe
    assert (sc4001.batch_size, sc4001.samples_per_class, sc4001.brightness_jitter) == (15, 3, 0.4)
