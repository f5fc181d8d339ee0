"""Augmentation presets and the test transform.

Source: GLSim code base at 99cc474, configs/augs/{weak,medium,strong}augs.yaml and its data transforms:
a square bicubic resize to R = int(ratio · S), a random crop of S (test: a centre crop), a horizontal flip,
an augmentation policy, normalisation, random erasing; ``strong`` crops with RandomResizedCrop from the whole
image. What a recipe may have otherwise (`fgvc.config.recipe`): a resize that keeps the shape, a centre crop,
colour jitter (IELT), blurring and sharpening (PIM), or training images as test images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from PIL import Image
from torch import Tensor

from fgvc.config.dataset import Dataset
from fgvc.config.recipe import Recipe
from fgvc.torchvision_ops import ensure_torchvision_ops

ensure_torchvision_ops()

from torchvision import transforms as T  # noqa: E402, N812
from torchvision.transforms import InterpolationMode  # noqa: E402

Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
HALF: Triple = (0.5, 0.5, 0.5)

#: RandomErasing of the presets: area and aspect ratio of the erased box.
ERASING_SCALE, ERASING_RATIO = (0.02, 0.4), (0.3, 3.3)
#: As in chou141253/FGVC-PIM at 348edd9, data/dataset.py: kernel and σ of the blur in pixels; of sharpness.
BLUR_KERNEL, BLUR_SIGMA, SHARPNESS = 5, (0.1, 5.0), 1.5


@dataclass(frozen=True)
class Pipeline:
    """The two halves of a transform.

    Attributes:
        prepare: decoded RGB image → RGB image; the same at every epoch, so its result may be cached.
        finish: prepared image → normalised float tensor [3, S, S]; random when training.
        prepared_side: side of the prepared square image in pixels, None where it is no square or not resized.
    """

    prepare: Callable[[Image.Image], Image.Image]
    finish: Callable[[Image.Image], Tensor]
    prepared_side: int | None


def normalisation(
    recipe: Recipe, weights_mean: Triple | None, weights_std: Triple | None
) -> tuple[Triple, Triple]:
    """Mean and std of the inputs. From scratch, ``weights`` means 0.5."""
    if recipe.normalisation == "imagenet":
        return IMAGENET_MEAN, IMAGENET_STD
    if recipe.normalisation == "weights" and weights_mean is not None and weights_std is not None:
        return weights_mean, weights_std
    return HALF, HALF


def resized_side(recipe: Recipe, dataset: Dataset, image_size: int) -> int:
    """R, the side that images are resized to before the crop (300 at 224, 600 at 448)."""
    return int((dataset.resize_ratio or recipe.resize_ratio) * image_size)


def _same(image: Image.Image) -> Image.Image:
    return image


def train_pipeline(recipe: Recipe, dataset: Dataset, image_size: int, mean: Triple, std: Triple) -> Pipeline:
    """The training transform of a resolved recipe. Draws from torch's default generator only."""
    if recipe.augmentation == "none":
        return eval_pipeline(recipe, dataset, image_size, mean, std)
    strong = recipe.augmentation == "strong"
    steps: list[Callable[..., object]]
    if strong:
        steps = [T.RandomResizedCrop(image_size, interpolation=InterpolationMode(recipe.interpolation))]
    else:
        steps = [_CROPS[recipe.train_crop](image_size)]
    if dataset.horizontal_flip:
        steps.append(T.RandomHorizontalFlip())
    if recipe.augmentation == "medium":
        steps.append(T.TrivialAugmentWide())
    elif strong:
        steps.append(T.RandAugment())
    steps += [*_colour_steps(recipe), T.ToTensor(), T.Normalize(mean, std)]
    if recipe.random_erasing:
        steps.append(T.RandomErasing(recipe.random_erasing, ERASING_SCALE, ERASING_RATIO))
    if strong:
        return Pipeline(_same, T.Compose(steps), None)
    return _resized_before(recipe, dataset, image_size, T.Compose(steps))


_CROPS = {"random": T.RandomCrop, "centre": T.CenterCrop}


def _colour_steps(recipe: Recipe) -> list[Callable[..., object]]:
    """Jitter, blurring and sharpening, those that the recipe has."""
    steps: list[Callable[..., object]] = []
    jitter = (recipe.brightness_jitter, recipe.contrast_jitter, recipe.saturation_jitter)
    if any(jitter):
        steps.append(T.ColorJitter(*jitter))
    if recipe.blur_probability:
        steps.append(T.RandomApply([T.GaussianBlur(BLUR_KERNEL, BLUR_SIGMA)], recipe.blur_probability))
    if recipe.sharpen_probability:
        steps.append(T.RandomAdjustSharpness(SHARPNESS, recipe.sharpen_probability))
    return steps


def eval_pipeline(recipe: Recipe, dataset: Dataset, image_size: int, mean: Triple, std: Triple) -> Pipeline:
    """The test transform: resize, centre crop, normalisation."""
    finish = T.Compose([T.CenterCrop(image_size), T.ToTensor(), T.Normalize(mean, std)])
    return _resized_before(recipe, dataset, image_size, finish)


def _resized_before(
    recipe: Recipe, dataset: Dataset, image_size: int, finish: Callable[[Image.Image], Tensor]
) -> Pipeline:
    side, keeps_shape = resized_side(recipe, dataset, image_size), recipe.resize == "short_side"
    # No function inside a function: where processes are not forked, loader workers get a pickled copy.
    prepare = partial(_resized, side=side, keeps_shape=keeps_shape, filter_=_FILTERS[recipe.interpolation])
    return Pipeline(prepare, finish, None if keeps_shape else side)


_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def _resized(image: Image.Image, side: int, keeps_shape: bool, filter_: Image.Resampling) -> Image.Image:
    if not keeps_shape:
        return image.resize((side, side), filter_)
    shorter = min(image.size)
    # As torchvision does: the longer side is rounded down.
    width, height = (side * length // shorter for length in image.size)
    return image.resize((width, height), filter_)
