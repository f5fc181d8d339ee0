"""Typefaces on disk: which files are Latin text faces, and what they call themselves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from fontTools.ttLib import TTFont, TTLibError

from fgvc.data.typefaces import FACES, WORDS, font_folder
from fgvc.pretraining.packages import EXCLUDED_FAMILIES, Package

#: Every character that a picture may show; a face must have them all.
LETTERS: tuple[str, ...] = tuple(sorted(set("".join(WORDS))))

#: Faces whose letters are no text: words that stand in their names (D050000L is URW's Dingbats).
NO_TEXT = re.compile(
    r"initials|keyboard|dingbat|symbol|math|emoji|outline|sketch|shadow|ligature|D050000L", re.I
)
#: Strokes far below a pixel at the sizes of the pictures: noise hides them.
TOO_THIN = re.compile(r"\b(thin|hairline|(extra|ultra)light)", re.I)

#: Entries of a font's name table (OpenType specification, name ID).
_FAMILY, _STYLE, _TYPOGRAPHIC_FAMILY, _TYPOGRAPHIC_STYLE = 1, 2, 16, 17


@dataclass(frozen=True)
class Face:
    """One face: its name ("Lato Bold Italic"), its file and the package that it comes from."""

    name: str
    path: Path
    package: str


@dataclass(frozen=True)
class Refusal:
    """A font file that is not used, and why; ``similarity`` where an outline comparison said so."""

    name: str
    package: str
    reason: str
    similarity: float | None = None


def text_faces(packages: Iterable[Package]) -> tuple[list[Face], list[Refusal]]:
    """The Latin text faces of font packages in the order of packages and files, and what was refused.

    Refused are files that are no single face (variable, broken), lack a letter, or bear the name of a
    symbol font or of a family that the test faces descend from. Names are unique: where fonts of different
    letters call themselves the same, the name of the file stands beside it.
    """
    faces: list[Face] = []
    refused: list[Refusal] = []
    for package in packages:
        for path in package.files:
            name, problem = _examine(path)
            if problem:
                refused.append(Refusal(name, package.name, problem))
            else:
                faces.append(Face(name, path, package.name))
    times = Counter(face.name for face in faces)
    unique = [
        face if times[face.name] == 1 else replace(face, name=f"{face.name} ({face.path.name})")
        for face in faces
    ]
    return unique, refused


def excluded_family(name: str) -> str | None:
    """The excluded family that ``name`` names (as whole words, in any case), if any."""
    folded = f" {' '.join(re.findall(r'[a-z0-9]+', name.casefold()))} "
    return next((family for family in EXCLUDED_FAMILIES if f" {family.casefold()} " in folded), None)


def benchmark_faces() -> list[Face]:
    """The 21 faces of the dataset ``typefaces``; no picture of them is ever trained on."""
    return [Face(name, font_folder() / file, "matplotlib") for name, file in FACES]


def _examine(path: Path) -> tuple[str, str | None]:
    """``(name, why it is refused or None)`` of a font file."""
    try:
        with TTFont(path, lazy=True) as font:
            name = _name(font, path)
            lacking = [letter for letter in LETTERS if ord(letter) not in (font.getBestCmap() or {})]
            variable = "fvar" in font
    except (TTLibError, OSError, ValueError, KeyError, AssertionError) as error:
        return path.stem, f"unreadable: {error}"
    family = excluded_family(name) or excluded_family(path.stem)
    if family:
        return name, f"of an excluded family: {family}"
    if NO_TEXT.search(name):
        return name, "no text face"
    if TOO_THIN.search(name):
        return name, "thinner than a pixel"
    if variable:
        return name, "variable"
    return name, f"lacks the letter {lacking[0]}" if lacking else None


def _name(font: TTFont, path: Path) -> str:
    """Family and style, the typographic ones where the font has them ("Lato" + "Black Italic")."""
    table = font["name"]
    family = table.getDebugName(_TYPOGRAPHIC_FAMILY) or table.getDebugName(_FAMILY) or path.stem
    style = table.getDebugName(_TYPOGRAPHIC_STYLE) or table.getDebugName(_STYLE) or ""
    words = [word for word in f"{family} {style}".split() if word != "Regular"]
    return " ".join(words)
