"""Pictures to pre-train on: text drawn once as coverage of ink, coloured anew at each step.

Words, sizes, rotation, colours and noise come from the distributions of the dataset ``typefaces``. Colours
and noise are drawn at each step instead of once a picture: with fixed ones the network learns to know the
few pictures of a face by their colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFont
from torch import Tensor

from fgvc.data.progress import Progress, quiet
from fgvc.data.threads import in_threads
from fgvc.data.typefaces import Page
from fgvc.pretraining.faces import Face
from fgvc.provenance.digests import seed_from

#: The distributions of `fgvc.data.typefaces.render`: 8-bit levels, share of light on dark, noise's std.
GROUND, INK, LIGHT_ON_DARK, NOISE_LEVELS = (150.0, 255.0), (0.0, 95.0), 0.25, (2.0, 8.0)


def coverage(path: Path, seed: int, side_px: int) -> NDArray[np.uint8]:
    """[side, side] coverage of ink, 0…255, of one picture: lines of words as in `typefaces.render`."""
    rng = np.random.default_rng(seed)
    page = Page.drawn(rng)
    font = ImageFont.truetype(str(path), page.size_px, layout_engine=ImageFont.Layout.BASIC)
    picture = page.of_text("L", 0, 255, font, rng)
    return np.asarray(picture.resize((side_px, side_px), Image.Resampling.BICUBIC))


def draw_all(faces: Sequence[Face], renders: int, side_px: int, progress: Progress = quiet) -> Tensor:
    """[faces, renders, side, side] uint8 coverage. Each picture is a function of face name and number."""
    drawn = torch.empty((len(faces), renders, side_px, side_px), dtype=torch.uint8)
    one_face = partial(_draw_face, renders=renders, side_px=side_px)
    for position, pictures in enumerate(in_threads(one_face, faces, "drawing", "faces", progress)):
        drawn[position] = torch.from_numpy(pictures)
    return drawn


def _draw_face(face: Face, renders: int, side_px: int) -> NDArray[np.uint8]:
    # The dataset's seeds are [class, index]: with a name among ours, no picture repeats one of its lines.
    seeds = [seed_from("pretraining picture", face.name, number) for number in range(renders)]
    return np.stack([coverage(face.path, seed, side_px) for seed in seeds])


def random_crops(pictures: Tensor, chosen: Tensor, crop_px: int, generator: torch.Generator) -> Tensor:
    """[B, crop, crop] uint8: one random crop of each of the ``chosen`` [B] among ``pictures`` [N, S, S]."""
    room = pictures.shape[-1] - crop_px + 1
    top = torch.randint(0, room, (len(chosen), 1), generator=generator)
    left = torch.randint(0, room, (len(chosen), 1), generator=generator)
    span = torch.arange(crop_px)
    return pictures[chosen[:, None, None], (top + span)[:, :, None], (left + span)[:, None, :]]


def colour(crops: Tensor, generator: torch.Generator) -> Tensor:
    """[B, 3, H, W] normalised floats (mean and std 0.5) from [B, H, W] coverage: ground, ink and noise."""
    batch = len(crops)
    ground = GROUND[0] + torch.rand(batch, 3, 1, 1, generator=generator) * (GROUND[1] - GROUND[0])
    ink = INK[0] + torch.rand(batch, 3, 1, 1, generator=generator) * (INK[1] - INK[0])
    swapped = torch.rand(batch, 1, 1, 1, generator=generator) < LIGHT_ON_DARK
    ground, ink = torch.where(swapped, ink, ground), torch.where(swapped, ground, ink)
    levels = NOISE_LEVELS[0] + torch.rand(batch, 1, 1, 1, generator=generator) * (
        NOISE_LEVELS[1] - NOISE_LEVELS[0]
    )
    pixels = ground + (ink - ground) * (crops[:, None].float() / 255)
    pixels += levels * torch.randn(pixels.shape, generator=generator)
    return pixels.clamp_(0, 255).div_(127.5).sub_(1)
