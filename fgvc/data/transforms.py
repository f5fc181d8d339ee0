"""Augmentation presets and the test transform.

Source: GLSim code base at 99cc474, configs/augs/{weak,medium,strong}augs.yaml and its data transforms:
a square bicubic resize to R = int(ratio · S), a random crop of S (test: a centre crop), a horizontal flip,
an augmentation policy, normalisation, random erasing; ``strong`` crops with RandomResizedCrop from the whole
image.
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


@dataclass(frozen=True)
class Pipeline:
    """The two halves of a transform.

    Attributes:
        prepare: decoded RGB image → RGB image; the same at every epoch, so its result may be cached.
        finish: prepared image → normalised float tensor [3, S, S]; random when training.
        prepared_side: side of the prepared square image in pixels, None where it keeps the original's size.
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
    """R, the side of the square that images are resized to before the crop (300 at 224, 600 at 448)."""
    return int((dataset.resize_ratio or recipe.resize_ratio) * image_size)


def _same(image: Image.Image) -> Image.Image:
    return image


def train_pipeline(recipe: Recipe, dataset: Dataset, image_size: int, mean: Triple, std: Triple) -> Pipeline:
    """The training transform of a resolved recipe. Draws from torch's default generator only."""
    side = resized_side(recipe, dataset, image_size)
    strong = recipe.augmentation == "strong"
    steps: list[Callable[..., object]] = [
        T.RandomResizedCrop(image_size, interpolation=InterpolationMode.BICUBIC)
        if strong
        else T.RandomCrop(image_size)
    ]
    if dataset.horizontal_flip:
        steps.append(T.RandomHorizontalFlip())
    if recipe.augmentation == "medium":
        steps.append(T.TrivialAugmentWide())
    elif strong:
        steps.append(T.RandAugment())
    steps += [T.ToTensor(), T.Normalize(mean, std)]
    if recipe.random_erasing:
        steps.append(T.RandomErasing(recipe.random_erasing, ERASING_SCALE, ERASING_RATIO))
    if strong:
        return Pipeline(_same, T.Compose(steps), None)
    return Pipeline(_square_resize(side), T.Compose(steps), side)


def eval_pipeline(recipe: Recipe, dataset: Dataset, image_size: int, mean: Triple, std: Triple) -> Pipeline:
    """The test transform: square resize, centre crop, normalisation."""
    side = resized_side(recipe, dataset, image_size)
    finish = T.Compose([T.CenterCrop(image_size), T.ToTensor(), T.Normalize(mean, std)])
    return Pipeline(_square_resize(side), finish, side)


def _square_resize(side: int) -> Callable[[Image.Image], Image.Image]:
    # No function inside a function: where processes are not forked, loader workers get a pickled copy.
    return partial(_resized, side=side)


def _resized(image: Image.Image, side: int) -> Image.Image:
    return image.resize((side, side), Image.Resampling.BICUBIC)
