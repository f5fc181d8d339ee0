"""Pictures to pre-train on: the same at every run, crops that are crops, colours of the dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fgvc.data import typefaces
from fgvc.pretraining.faces import Face
from fgvc.pretraining.pictures import colour, coverage, draw_all, random_crops


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def faces_of(fonts: dict[str, Path]) -> list[Face]:
    return [Face(name, path, "fonts-any") for name, path in fonts.items()]


def test_a_picture_is_a_function_of_face_and_number(fonts: dict[str, Path]) -> None:
    faces = faces_of(fonts)
    drawn = draw_all(faces, 2, 120)
    assert drawn.shape == (3, 2, 120, 120) and drawn.dtype == torch.uint8
    backwards = draw_all(faces[::-1], 3, 120)
    assert torch.equal(backwards.flip(0)[:, :2], drawn), "neither order nor count decides a picture"
    flat = drawn.flatten(0, 1)
    assert all(not torch.equal(flat[i], flat[j]) for i in range(6) for j in range(i))


def test_pictures_hold_ink_and_ground(fonts: dict[str, Path]) -> None:
    drawn = draw_all(faces_of(fonts), 2, 300).float() / 255
    ink = drawn.mean(dim=(2, 3))
    assert (ink > 0.05).all() and (ink < 0.5).all()
    assert drawn.amax() > 0.95 and drawn.amin() == 0


def test_letters_have_the_size_that_the_dataset_shows_at_224() -> None:
    """The share of ink is the dataset's: same words, sizes and line distances."""
    path = typefaces.font_folder() / "DejaVuSans-Bold.ttf"
    ours = np.mean([coverage(path, seed, 300).mean() / 255 for seed in range(40)])
    theirs = []
    for index in range(40):
        grey = np.asarray(typefaces.render(1, index).convert("L"), np.float32)
        low, high = np.percentile(grey, (2, 98))
        light_on_dark = np.median(grey) < (low + high) / 2
        share = float(np.mean((grey - low) / (high - low)))
        theirs.append(share if light_on_dark else 1 - share)
    assert abs(ours - np.mean(theirs)) < 0.04


def test_crops_are_windows_of_the_chosen_pictures() -> None:
    pictures = torch.arange(3 * 20 * 20).reshape(3, 20, 20)
    chosen = torch.tensor([2, 0, 2, 1] * 25)
    crops = random_crops(pictures, chosen, 6, generator())
    corners = set()
    for crop, number in zip(crops, chosen, strict=True):
        top, left = divmod(int(crop[0, 0]) - 400 * int(number), 20)
        assert torch.equal(crop, pictures[number, top : top + 6, left : left + 6])
        corners.add((top, left))
    assert {top for top, _ in corners} == {left for _, left in corners} == set(range(15))


def test_colours_are_the_datasets() -> None:
    """Ground 150…255 and ink 0…95 for three in four, else the other way round; noise of 2…8 levels."""
    coverage_map = torch.zeros(4000, 2, 8, dtype=torch.uint8)
    coverage_map[:, 1] = 255
    images = (colour(coverage_map, generator()) + 1) * 127.5
    assert images.shape == (4000, 3, 2, 8) and images.min() >= 0 and images.max() <= 255
    ground, ink = images[:, :, 0].mean(dim=2), images[:, :, 1].mean(dim=2)
    dark_on_light = ground.mean(dim=1) > ink.mean(dim=1)
    assert 0.72 < dark_on_light.float().mean() < 0.78
    light = torch.where(dark_on_light[:, None], ground, ink)
    dark = torch.where(dark_on_light[:, None], ink, ground)
    assert 140 < light.min() < 155 and 245 < light.max() <= 255
    assert 0 <= dark.min() < 8 and 90 < dark.max() < 106
    middle = images[(light > 170).all(dim=1) & (light < 230).all(dim=1)][:, :, 0]
    assert 4.3 < middle.std(dim=2).pow(2).mean().sqrt() < 6.0


def test_colours_change_from_step_to_step_and_not_from_run_to_run() -> None:
    crops = torch.randint(0, 255, (2, 8, 8), generator=generator(), dtype=torch.uint8)
    assert torch.equal(colour(crops, generator(1)), colour(crops, generator(1)))
    assert not torch.allclose(colour(crops, generator(1)), colour(crops, generator(2)), atol=0.2)
