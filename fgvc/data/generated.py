"""Datasets that are drawn rather than fetched: which pictures there are, and drawing them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from fgvc.config.dataset import GeneratedSource
from fgvc.data import typefaces
from fgvc.data.lists import Row
from fgvc.data.progress import Progress
from fgvc.data.threads import in_threads
from fgvc.provenance.digests import file_sha256, value_sha256

Part = Literal["train", "val", "test"]

#: Index of the first picture of a part. Fixed and far apart, so that no two parts share a picture and a
#: larger train part leaves the test pictures as they are.
FIRST_INDEX: dict[Part, int] = {"train": 0, "val": 1_000_000, "test": 2_000_000}
JPEG_QUALITY = 92


def class_names(_source: GeneratedSource) -> list[str]:
    """Names by class id."""
    return [name for name, _ in typefaces.FACES]


def slug(name: str) -> str:
    """A class name as a folder: ``DejaVu Sans Bold`` → ``dejavu-sans-bold``."""
    return re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")


def pictures(source: GeneratedSource) -> Iterator[tuple[str, int, int, str]]:
    """``(part, class id, picture index, path)`` of every picture, part by part and class by class."""
    names = class_names(source)
    for part in FIRST_INDEX:
        for class_id, name in enumerate(names):
            for number in range(source.counts.get(part, 0)):
                yield part, class_id, FIRST_INDEX[part] + number, f"{part}/{slug(name)}/{number:03d}.jpg"


def rows(source: GeneratedSource) -> dict[str, list[Row]]:
    """The official lists, known without a look at the files."""
    found: dict[str, list[Row]] = {}
    for part, class_id, _, path in pictures(source):
        found.setdefault(part, []).append((class_id, path))
    return found


def fonts_sha256(_source: GeneratedSource) -> str:
    """Digest of the font files that the pictures are drawn from."""
    folder = typefaces.font_folder()
    return value_sha256([[file, file_sha256(folder / file)] for _, file in typefaces.FACES])


def inputs_sha256(source: GeneratedSource) -> str:
    """Digest of everything in this project that decides the pictures: fonts, drawing code, counts."""
    code = [file_sha256(Path(str(module))) for module in (typefaces.__file__, __file__)]
    return value_sha256([fonts_sha256(source), code, dict(source.counts)])


def draw(source: GeneratedSource, into: Path, progress: Progress) -> None:
    """Draw every picture below ``into`` as JPEG (quality 92, no chroma subsampling)."""
    todo = list(pictures(source))
    for folder in sorted({(into / path).parent for *_, path in todo}):
        folder.mkdir(parents=True, exist_ok=True)

    def one(picture: tuple[str, int, int, str]) -> None:
        _, class_id, index, path = picture
        image = typefaces.render(class_id, index)
        image.save(into / path, "JPEG", quality=JPEG_QUALITY, subsampling=0)

    for _ in in_threads(one, todo, "drawing", "images", progress):
        pass
