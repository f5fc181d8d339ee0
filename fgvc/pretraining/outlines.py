"""How alike two typefaces are, measured on the outlines of their letters.

Each letter is drawn large, cut to its bounding box, brought to one height and centred, so that size and
position do not count. The likeness of two masks a and b with values in [0, 1] is Dice's coefficient
2 Σab / (Σa² + Σb²): 1 for the same outline, whatever the face is called. The similarity of two faces is the
mean over the letters. Source of the coefficient: Dice, Ecology 26(3), 1945.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fgvc.data.progress import Progress, quiet
from fgvc.data.threads import in_threads
from fgvc.pretraining.faces import LETTERS, Face, benchmark_faces

#: Size at which letters are drawn, and the mask [height, width] that each is brought to, in pixels. Drawn
#: large, because hinting moves outlines by parts of a pixel: at 96 a scaled copy has only 0.93.
DRAWN_PX, HEIGHT_PX, WIDTH_PX = 480, 32, 64

Masks = NDArray[np.float32]


def letter_masks(path: Path) -> Masks:
    """[letters, HEIGHT_PX · WIDTH_PX] coverage in [0, 1] of a font file's letters."""
    font = ImageFont.truetype(str(path), DRAWN_PX, layout_engine=ImageFont.Layout.BASIC)
    masks = np.zeros((len(LETTERS), HEIGHT_PX, WIDTH_PX), np.float32)
    for position, letter in enumerate(LETTERS):
        left, top, right, bottom = (round(v) for v in font.getbbox(letter, anchor="ls"))
        canvas = Image.new("L", (max(right - left, 1), max(bottom - top, 1)), 0)
        ImageDraw.Draw(canvas).text((-left, -top), letter, font=font, fill=255, anchor="ls")
        box = canvas.getbbox()
        if box is None:  # an empty glyph is like no other
            continue
        glyph = canvas.crop(box)
        width = min(max(round(glyph.width * HEIGHT_PX / glyph.height), 1), WIDTH_PX)
        small = np.asarray(glyph.resize((width, HEIGHT_PX), Image.Resampling.BOX), np.float32) / 255
        start = (WIDTH_PX - width) // 2
        masks[position, :, start : start + width] = small
    return masks.reshape(len(LETTERS), -1)


def similarities(some: Sequence[Masks], others: Sequence[Masks]) -> NDArray[np.float64]:
    """[len(some), len(others)] mean Dice coefficient over the letters, in [0, 1]."""
    total = np.zeros((len(some), len(others)))
    for letter in range(len(LETTERS)):
        a = np.stack([masks[letter] for masks in some])
        b = np.stack([masks[letter] for masks in others])
        norms = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :]
        total += 2 * (a @ b.T) / np.maximum(norms, 1e-12)
    return total / len(LETTERS)


@lru_cache(maxsize=1)
def benchmark_masks() -> list[Masks]:
    """`letter_masks` of the test faces, in the order of their class ids."""
    return all_masks(benchmark_faces())


def all_masks(faces: Sequence[Face], progress: Progress = quiet) -> list[Masks]:
    """`letter_masks` of each face."""
    paths = [face.path for face in faces]
    return list(in_threads(letter_masks, paths, "reading outlines", "faces", progress))
