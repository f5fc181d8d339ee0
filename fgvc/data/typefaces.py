"""Typefaces: the embedded default dataset, rendered from the 21 text faces that matplotlib carries.

Telling DejaVu Sans Oblique from DejaVu Sans, or Computer Modern from STIX, on a handful of words is a real
ultra-fine-grained task, and it needs no download. Every picture is a pure function of ``[class_id, index]``:
words, sizes, colours, rotation and noise come from distributions that do not know the class, so that
nothing but the shape of the letters tells one class from another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

#: What Pillow takes as a colour here: a level, or red, green and blue.
Ink = int | tuple[int, int, int]

#: ``(class name, file in matplotlib's font folder)``; the position is the class id.
FACES: tuple[tuple[str, str], ...] = (
    ("DejaVu Sans", "DejaVuSans.ttf"),
    ("DejaVu Sans Bold", "DejaVuSans-Bold.ttf"),
    ("DejaVu Sans Oblique", "DejaVuSans-Oblique.ttf"),
    ("DejaVu Sans Bold Oblique", "DejaVuSans-BoldOblique.ttf"),
    ("DejaVu Sans Mono", "DejaVuSansMono.ttf"),
    ("DejaVu Sans Mono Bold", "DejaVuSansMono-Bold.ttf"),
    ("DejaVu Sans Mono Oblique", "DejaVuSansMono-Oblique.ttf"),
    ("DejaVu Sans Mono Bold Oblique", "DejaVuSansMono-BoldOblique.ttf"),
    ("DejaVu Serif", "DejaVuSerif.ttf"),
    ("DejaVu Serif Bold", "DejaVuSerif-Bold.ttf"),
    ("DejaVu Serif Italic", "DejaVuSerif-Italic.ttf"),
    ("DejaVu Serif Bold Italic", "DejaVuSerif-BoldItalic.ttf"),
    ("STIX General", "STIXGeneral.ttf"),
    ("STIX General Bold", "STIXGeneralBol.ttf"),
    ("STIX General Italic", "STIXGeneralItalic.ttf"),
    ("STIX General Bold Italic", "STIXGeneralBolIta.ttf"),
    ("Computer Modern Roman", "cmr10.ttf"),
    ("Computer Modern Roman Bold", "cmb10.ttf"),
    ("Computer Modern Sans", "cmss10.ttf"),
    ("Computer Modern Roman Italic", "cmti10.ttf"),
    ("Computer Modern Typewriter", "cmtt10.ttf"),
)

WORDS: tuple[str, ...] = tuple(
    """
    albatross bunting cardinal cuckoo finch flycatcher gadwall goldfinch grackle grebe grosbeak gull heron
    hummingbird jay junco kingfisher kittiwake lark loon magpie mallard merganser mockingbird nighthawk oriole
    ovenbird pelican pewee pipit puffin raven redstart sandpiper shrike sparrow starling swallow swift tanager
    tern thrasher towhee vireo warbler waxwing woodpecker wren yellowthroat petal stamen sepal orchid tulip
    primrose foxglove magnolia thistle iris lotus poppy rose daisy lily aster peony camellia azalea begonia
    saloon coupe sedan wagon convertible pickup hatchback roadster turbine fuselage rudder aileron propeller
    cockpit wing beagle terrier spaniel retriever collie mastiff poodle hound whippet cotton soybean leaf vein
    cultivar stem seed pod bloom fruit melon pepper tomato apple pear juice milk quartz jigsaw zebra oxygen
    vox fjord glyph kayak wharf quick brown fox jumps over lazy dog pack my box with five dozen jugs sphinx of
    black judge vow Baltimore Cape Carolina Chipping Eastern Florida Glaucous Hooded Indigo Jaeger Kentucky
    Louisiana Mangrove Northern Olive Prairie Quail Rufous Savannah Tropical Upland Vesper Western Xenops
    Yellow Zenaida
    """.split()  # noqa: SIM905 -- a list of quoted words would be a page long
)


@lru_cache(maxsize=1)
def font_folder() -> Path:
    """The folder of TrueType files inside the installed matplotlib (found without importing its pyplot)."""
    from matplotlib import get_data_path

    return Path(get_data_path()) / "fonts" / "ttf"


@lru_cache(maxsize=512)
def _font(file_name: str, size_px: int) -> ImageFont.FreeTypeFont:
    # The basic layout engine keeps the result independent of an installed raqm.
    path = font_folder() / file_name
    return ImageFont.truetype(str(path), size_px, layout_engine=ImageFont.Layout.BASIC)


@dataclass(frozen=True)
class Page:
    """The geometry of a picture in pixels: its sides, the letters' size, and how far it is rotated."""

    width: int
    height: int
    size_px: int
    angle_deg: float

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Page:
        """About 260 × 260 pixels, letters of 22 to 42, at most 12 degrees."""
        width, height = (int(v) for v in rng.integers(236, 285, size=2))
        return cls(width, height, int(rng.integers(22, 43)), float(rng.uniform(-12.0, 12.0)))

    def of_text(
        self,
        mode: str,
        ground: Ink,
        ink: Ink,
        font: ImageFont.FreeTypeFont,
        rng: np.random.Generator,
    ) -> Image.Image:
        """Lines of words in ``ink`` on a plain ``ground``; ``mode`` is Pillow's."""
        # The canvas is larger than the picture so that rotation leaves no empty corner.
        side = int(1.5 * max(self.width, self.height))
        canvas = Image.new(mode, (side, side), ground)
        _draw_lines(ImageDraw.Draw(canvas), font, rng, side, self.size_px, ink)
        canvas = canvas.rotate(self.angle_deg, resample=Image.Resampling.BICUBIC)
        left, top = (side - self.width) // 2, (side - self.height) // 2
        return canvas.crop((left, top, left + self.width, top + self.height))


def _draw_lines(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont,
    rng: np.random.Generator,
    side: int,
    size_px: int,
    ink: Ink,
) -> None:
    """Fill a ``side`` × ``side`` canvas with lines of words.

    Each word is drawn on its own: some of the faces have no space glyph.
    """
    leading = size_px * rng.uniform(1.25, 1.6)
    baseline = rng.uniform(0.2, 1.0) * size_px
    while baseline < side + size_px:
        x = -rng.uniform(0.0, 2.5) * size_px
        while x < side:
            word = WORDS[int(rng.integers(len(WORDS)))]
            draw.text((x, baseline), word, font=font, fill=ink, anchor="ls")
            x += font.getlength(word) + 0.35 * size_px
        baseline += leading


def _rgb(levels: NDArray[np.int64]) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in levels)
    return red, green, blue


def render(class_id: int, index: int) -> Image.Image:
    """Draw picture ``index`` of class ``class_id``: an RGB image of about 260 × 260 pixels.

    Raises IndexError when ``class_id`` is not one of the 21 faces.
    """
    rng = np.random.default_rng([class_id, index])
    page = Page.drawn(rng)
    ground = rng.integers(150, 256, size=3)
    ink = rng.integers(0, 96, size=3)
    if rng.random() < 0.25:  # light letters on a dark ground
        ground, ink = ink, ground
    font = _font(FACES[class_id][1], page.size_px)
    picture = page.of_text("RGB", _rgb(ground), _rgb(ink), font, rng)
    pixels = np.asarray(picture, dtype=np.float32)
    noise = rng.normal(0.0, rng.uniform(2.0, 8.0), size=pixels.shape).astype(np.float32)
    return Image.fromarray(np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8), mode="RGB")
