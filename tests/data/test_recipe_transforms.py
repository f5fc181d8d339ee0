"""What recipes of other code bases ask of transforms: shape kept, centre crop, jitter, blur, sharpness."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from datakit import plain_dataset
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as F  # noqa: N812

from fgvc.config.recipe import Recipe
from fgvc.data.transforms import HALF, Pipeline, eval_pipeline, train_pipeline

SIZE = 32


def recipe(**more: Any) -> Recipe:
    facts = {"epochs": 1, "batch_size": 8, "learning_rate": 0.01, "augmentation": "weak", **more}
    return Recipe.model_validate(facts).resolved()


def in_training(size: int = SIZE, **more: Any) -> Pipeline:
    return train_pipeline(recipe(**more), plain_dataset(horizontal_flip=False), size, HALF, HALF)


def in_testing(size: int = SIZE, **more: Any) -> Pipeline:
    return eval_pipeline(recipe(**more), plain_dataset(), size, HALF, HALF)


def picture(width: int = 90, height: int = 70) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def pixels_of(image: Tensor) -> np.ndarray:
    """[S, S, 3] in 0 … 255 again."""
    return ((image.permute(1, 2, 0).numpy() * 0.5 + 0.5) * 255).round().astype(np.uint8)


# --- the resize -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(90, 70), (70, 90), (64, 64), (50, 333), (40, 41)])
@pytest.mark.parametrize("ratio", [1.0, 1.34])
@pytest.mark.parametrize("name", ["bicubic", "bilinear"])
def test_the_shorter_side_is_resized_and_the_centre_is_tested(
    width: int, height: int, ratio: float, name: str
) -> None:
    """As torchvision's Resize and CenterCrop do."""
    image, side = picture(width, height), int(ratio * SIZE)
    pipeline = in_testing(resize="short_side", resize_ratio=ratio, interpolation=name)
    resized = F.resize(image, side, F.InterpolationMode(name))
    prepared = pipeline.prepare(image)
    assert min(prepared.size) == side
    assert np.array_equal(np.asarray(prepared), np.asarray(resized))
    assert np.array_equal(pixels_of(pipeline.finish(prepared)), np.asarray(F.center_crop(resized, SIZE)))


def test_images_that_keep_their_shape_are_not_cached_as_squares() -> None:
    assert in_training(resize="short_side").prepared_side is None
    assert in_testing(resize="short_side").prepared_side is None
    assert in_training(interpolation="bilinear").prepared_side == int(1.34 * SIZE)


def test_a_square_may_be_resized_bilinearly() -> None:
    image, side = picture(), int(1.34 * SIZE)
    for pipeline in (in_training(interpolation="bilinear"), in_testing(interpolation="bilinear")):
        expected = image.resize((side, side), Image.Resampling.BILINEAR)
        assert np.array_equal(np.asarray(pipeline.prepare(image)), np.asarray(expected))


def test_training_may_take_the_centre_too() -> None:
    centre, anywhere = (in_training(resize="short_side", train_crop=crop) for crop in ("centre", "random"))
    tested = in_testing(resize="short_side")
    image = picture()
    expected = tested.finish(tested.prepare(image))
    found = {
        crop: [p.finish(p.prepare(image)) for _ in range(8)] for crop, p in (("c", centre), ("r", anywhere))
    }
    assert all(torch.equal(one, expected) for one in found["c"])
    assert not all(torch.equal(one, found["r"][0]) for one in found["r"])


# --- colours --------------------------------------------------------------------------------------


def drawn(pipeline: Pipeline, image: Image.Image, count: int) -> list[np.ndarray]:
    torch.manual_seed(0)
    return [pixels_of(pipeline.finish(image)) for _ in range(count)]


def test_brightness_is_multiplied_by_a_factor_around_one() -> None:
    grey = Image.new("RGB", (SIZE, SIZE), (100, 100, 100))
    levels = [int(one[0, 0, 0]) for one in drawn(in_training(brightness_jitter=0.4), grey, 200)]
    assert 60 <= min(levels) < 70 and 130 < max(levels) <= 140
    assert 95 < np.mean(levels) < 105


def test_contrast_and_saturation_move_colours_from_and_to_grey() -> None:
    half = np.zeros((SIZE, SIZE, 3), dtype=np.uint8) + np.uint8(50)
    half[:, SIZE // 2 :] = 150
    spans = [
        int(one.max()) - int(one.min())
        for one in drawn(in_training(contrast_jitter=0.4), Image.fromarray(half), 200)
    ]
    assert 58 <= min(spans) < 70 and 130 < max(spans) <= 142
    red = Image.new("RGB", (SIZE, SIZE), (150, 50, 50))
    spans = [int(np.ptp(one[0, 0])) for one in drawn(in_training(saturation_jitter=0.4), red, 200)]
    assert 58 <= min(spans) < 70 and 130 < max(spans) <= 142


@pytest.mark.parametrize("key", ["blur_probability", "sharpen_probability"])
def test_blurring_and_sharpening_happen_as_often_as_they_should(key: str) -> None:
    image = picture(SIZE, SIZE)
    before = np.asarray(image)
    changed = sum(not np.array_equal(one, before) for one in drawn(in_training(**{key: 0.1}), image, 600))
    assert 35 < changed < 90
    always = drawn(in_training(**{key: 1.0}), image, 30)
    assert all(not np.array_equal(one, before) for one in always[:5])
    rough = [np.abs(np.diff(one.astype(float), axis=1)).mean() for one in always]
    plain = np.abs(np.diff(before.astype(float), axis=1)).mean()
    if key == "blur_probability":
        assert min(rough) < 0.3 * plain and len({round(r, 3) for r in rough}) > 10
    else:
        assert all(np.array_equal(one, np.asarray(F.adjust_sharpness(image, 1.5))) for one in always)


def test_tests_see_no_jitter_and_no_blur() -> None:
    image = picture(SIZE, SIZE)
    pipeline = in_testing(
        brightness_jitter=1, contrast_jitter=1, saturation_jitter=1, blur_probability=1, sharpen_probability=1
    )
    plain = in_testing()
    assert torch.equal(pipeline.finish(image), plain.finish(image))
