"""The augmentation presets and the test transform, as in GLSim's configs/augs (specification, section 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from datakit import plain_dataset
from PIL import Image
from torch import Tensor

from fgvc.config.recipe import Augmentation, Recipe
from fgvc.data.transforms import (
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Pipeline,
    T,
    eval_pipeline,
    normalisation,
    resized_side,
    train_pipeline,
)

AUGMENTATIONS: tuple[Augmentation, ...] = ("weak", "medium", "strong")


def recipe(augmentation: Augmentation = "medium", **more: Any) -> Recipe:
    facts = {"epochs": 1, "batch_size": 8, "learning_rate": 0.01, "augmentation": augmentation}
    return Recipe.model_validate(facts | more)


def picture(width: int = 90, height: int = 70) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def steps(pipeline: Pipeline) -> dict[type, Any]:
    return {type(step): step for step in pipeline.finish.transforms}  # type: ignore[attr-defined]


def pipeline_of(augmentation: Augmentation, size: int = 32, **facts: Any) -> Pipeline:
    return train_pipeline(recipe(augmentation).resolved(), plain_dataset(**facts), size, HALF, HALF)


# --- what each preset implies ---------------------------------------------------------------------

PRESETS = {
    "weak": {"dropout": 0.1, "label_smoothing": 0.0, "stochastic_depth": 0.0, "random_erasing": 0.0},
    "medium": {"dropout": 0.0, "label_smoothing": 0.1, "stochastic_depth": 0.1, "random_erasing": 0.3},
    "strong": {"dropout": 0.0, "label_smoothing": 0.1, "stochastic_depth": 0.1, "random_erasing": 0.3},
}
MIXING = {
    "weak": (0.0, 0.0, 0.0),
    "medium": (0.0, 0.0, 0.0),
    "strong": (1.0, 1.0, 0.5),
}


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_a_preset_fixes_what_the_recipe_leaves_open(augmentation: Augmentation) -> None:
    found = recipe(augmentation).resolved()
    assert {key: getattr(found, key) for key in PRESETS[augmentation]} == PRESETS[augmentation]
    mixing = (found.mixup_alpha, found.cutmix_alpha, found.mix_probability)
    assert mixing == MIXING[augmentation]


def test_what_the_recipe_says_wins_over_its_preset() -> None:
    found = recipe("strong", label_smoothing=0.0, random_erasing=0.7, mixup_alpha=0.0).resolved()
    assert (found.label_smoothing, found.random_erasing, found.mixup_alpha) == (0.0, 0.7, 0.0)
    assert found.cutmix_alpha == 1.0
    assert found.resolved() == found


def test_stochastic_depth_takes_the_place_of_the_weak_preset_s_dropout() -> None:
    assert recipe("weak", stochastic_depth=0.1).resolved().dropout == 0.0
    assert recipe("weak", stochastic_depth=0.1, dropout=0.2).resolved().dropout == 0.2
    assert recipe("weak", stochastic_depth=0.0).resolved().dropout == 0.1


# --- the training transform -----------------------------------------------------------------------


def test_images_are_resized_to_300_for_224_and_to_600_for_448() -> None:
    assert resized_side(recipe(), plain_dataset(), 224) == 300
    assert resized_side(recipe(), plain_dataset(), 448) == 600
    cars = plain_dataset(resize_ratio=1 / 0.875)
    assert [resized_side(recipe(), cars, size) for size in (224, 448)] == [256, 512]


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_the_policy_of_each_preset(augmentation: Augmentation) -> None:
    found = steps(pipeline_of(augmentation, 224))
    assert (T.TrivialAugmentWide in found) == (augmentation == "medium")
    assert (T.RandAugment in found) == (augmentation == "strong")
    assert (T.RandomCrop in found) == (augmentation != "strong")
    assert (T.RandomResizedCrop in found) == (augmentation == "strong")
    assert (T.RandomErasing in found) == (augmentation != "weak")
    assert found[T.RandomHorizontalFlip].p == 0.5
    if augmentation != "weak":
        erasing = found[T.RandomErasing]
        assert (erasing.p, erasing.scale, erasing.ratio) == (0.3, (0.02, 0.4), (0.3, 3.3))
    if augmentation == "strong":
        assert found[T.RandomResizedCrop].scale == (0.08, 1.0)  # torchvision's default, as upstream
        assert (found[T.RandAugment].num_ops, found[T.RandAugment].magnitude) == (2, 9)
    order = [type(step) for step in pipeline_of(augmentation).finish.transforms]  # type: ignore[attr-defined]
    assert order.index(T.ToTensor) < order.index(T.Normalize)
    assert T.RandomErasing not in order or order[-1] is T.RandomErasing


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_what_comes_out_has_the_size_that_was_asked_for(augmentation: Augmentation) -> None:
    pipeline = pipeline_of(augmentation, 48)
    torch.manual_seed(0)
    for width, height in ((90, 70), (20, 200), (48, 48)):
        image = pipeline.finish(pipeline.prepare(picture(width, height)))
        assert (image.shape, image.dtype) == ((3, 48, 48), torch.float32)


def test_weak_and_medium_prepare_a_square_that_strong_does_not() -> None:
    assert pipeline_of("weak", 224).prepared_side == pipeline_of("medium", 224).prepared_side == 300
    assert pipeline_of("weak", 224).prepare(picture()).size == (300, 300)
    assert pipeline_of("strong", 224).prepared_side is None
    assert pipeline_of("strong", 224).prepare(picture()).size == (90, 70)


def left_is_brighter(image: Tensor) -> bool:
    half = image.shape[2] // 2
    return bool(image[:, :, :half].mean() > image[:, :, half:].mean())


@pytest.mark.parametrize(("flips", "sides"), [(True, {True, False}), (False, {True})])
def test_nothing_is_mirrored_where_a_mirrored_image_is_another_thing(flips: bool, sides: set[bool]) -> None:
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[:, :32] = 255
    pipeline = pipeline_of("weak", 48, horizontal_flip=flips)
    prepared = pipeline.prepare(Image.fromarray(pixels))
    torch.manual_seed(0)
    assert {left_is_brighter(pipeline.finish(prepared)) for _ in range(40)} == sides
    for augmentation in AUGMENTATIONS:
        assert (T.RandomHorizontalFlip in steps(pipeline_of(augmentation, horizontal_flip=flips))) == flips


def test_erasing_happens_as_often_as_the_preset_says() -> None:
    """Erased pixels are zeros after normalisation, which a white image never has."""
    white = Image.new("RGB", (64, 64), "white")
    facts = {"dropout": 0.0, "label_smoothing": 0.0}
    one = train_pipeline(recipe("medium", **facts).resolved(), plain_dataset(), 32, HALF, HALF)
    none = train_pipeline(recipe("medium", random_erasing=0.0).resolved(), plain_dataset(), 32, HALF, HALF)
    torch.manual_seed(0)
    erased = sum(bool((one.finish(white) == 0).any()) for _ in range(400))
    assert 0.2 < erased / 400 < 0.4
    assert T.RandomErasing not in steps(none)


# --- the test transform ---------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("size", [32, 224])
def test_the_test_transform_is_a_square_resize_a_centre_crop_and_a_normalisation(
    augmentation: Augmentation, size: int
) -> None:
    side = {32: 42, 224: 300}[size]
    image = picture()
    pipeline = eval_pipeline(recipe(augmentation), plain_dataset(), size, IMAGENET_MEAN, IMAGENET_STD)
    found = pipeline.finish(pipeline.prepare(image))
    pixels = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    first = (side - size) // 2
    cropped = pixels[first : first + size, first : first + size]
    by_hand = (cropped - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), by_hand, atol=1e-5)


def test_the_test_transform_draws_no_random_number() -> None:
    pipeline = eval_pipeline(recipe("strong"), plain_dataset(), 32, HALF, HALF)
    torch.manual_seed(0)
    first = pipeline.finish(pipeline.prepare(picture()))
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(first, pipeline.finish(pipeline.prepare(picture())))
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state())


def test_inputs_are_normalised_as_the_recipe_says() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    assert normalisation(recipe(normalisation="weights"), mean, std) == (mean, std)
    assert normalisation(recipe(normalisation="weights"), None, None) == (HALF, HALF)
    assert normalisation(recipe(normalisation="imagenet"), mean, std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert normalisation(recipe(normalisation="half"), mean, std) == (HALF, HALF)
