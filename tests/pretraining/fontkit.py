"""Tools of these tests: small fonts made from matplotlib's, and a folder that looks like a Debian system."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

from fgvc.data.typefaces import font_folder
from fgvc.pretraining.faces import LETTERS

COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: somebody
License: OFL-1.1

Files: debian/*
Copyright: a packager
License: GPL-2+

License: GPL-2+
 On Debian systems …
"""


def make_font(
    target: Path,
    source: str,
    name: str,
    *,
    style: str = "Regular",
    width: float = 1.0,
    height: float = 1.0,
    shift: int = 0,
    letters: tuple[str, ...] = LETTERS,
) -> Path:
    """Write a font of ``letters`` whose outlines are those of matplotlib's ``source``, stretched and moved.

    Args:
        width, height: factors of the outlines.
        shift: font units that every outline is moved to the right.
    """
    options = subset.Options(glyph_names=False, hinting=False, layout_features=[], name_IDs=["*"])
    font = subset.load_font(str(font_folder() / source), options)
    chosen = subset.Subsetter(options)
    chosen.populate(text="".join(letters))
    chosen.subset(font)
    outlines = font["glyf"]
    for glyph_name in font.getGlyphOrder():
        glyph = outlines[glyph_name]
        if glyph.isComposite():  # parts are moved with the whole
            for part in glyph.components:
                part.x, part.y = round(part.x * width), round(part.y * height)
        elif glyph.numberOfContours > 0:
            glyph.coordinates.scale((width, height))
            glyph.coordinates.translate((shift, 0))
            glyph.coordinates.toInt()
        glyph.recalcBounds(outlines)
        advance, bearing = font["hmtx"][glyph_name]
        font["hmtx"][glyph_name] = (max(1, round(advance * width)), round(bearing * width) + shift)
    rename(font, name, style)
    target.parent.mkdir(parents=True, exist_ok=True)
    font.save(target)
    return target


def rename(font: TTFont, family: str, style: str) -> None:
    table = font["name"]
    table.names = []
    for number, text in ((1, family), (2, style)):
        table.setName(text, number, 3, 1, 0x409)


def copy_of_a_test_face(target: Path, source: str = "DejaVuSans.ttf") -> Path:
    """A test face as it is, under another name outside and inside."""
    font = TTFont(font_folder() / source)
    rename(font, "Harmless Grotesk", "Regular")
    font.save(target)
    return target


def add_package(
    root: Path,
    name: str,
    files: Mapping[str, Path] | None = None,
    *,
    version: str = "1.0-1",
    status: str = "install ok installed",
    copyright_text: str = COPYRIGHT,
) -> None:
    """Enter a package into the dpkg database below ``root`` and put its files there."""
    database = root / "var/lib/dpkg"
    (database / "info").mkdir(parents=True, exist_ok=True)
    with (database / "status").open("a", encoding="utf-8") as stream:
        stream.write(f"Package: {name}\nStatus: {status}\nVersion: {version}\nDescription: fonts\n\n")
    lines = ["/.", "/usr"]
    for inner, source in (files or {}).items():
        target = root / "usr/share/fonts" / inner
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        lines.append(f"/usr/share/fonts/{inner}")
    (database / "info" / f"{name}.list").write_text("\n".join(lines) + "\n", encoding="utf-8")
    documents = root / "usr/share/doc" / name
    documents.mkdir(parents=True, exist_ok=True)
    (documents / "copyright").write_text(copyright_text, encoding="utf-8")
