"""Three small faces in two packages of a pretended Debian system, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from fontkit import add_package, make_font

#: Distorted far beyond likeness with the test faces whose outlines they start from.
DISTORTED = {
    "Narrow Sans": ("DejaVuSans.ttf", 0.45, 1.0),
    "Narrow Serif": ("DejaVuSerif-Bold.ttf", 0.5, 1.1),
    "Wide Mono": ("DejaVuSansMono.ttf", 1.6, 0.8),
}


@pytest.fixture(scope="session")
def fonts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Font files by face name."""
    folder = tmp_path_factory.mktemp("fonts")
    return {
        name: make_font(folder / f"{name.replace(' ', '')}.ttf", source, name, width=width, height=height)
        for name, (source, width, height) in DISTORTED.items()
    }


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory, fonts: dict[str, Path]) -> Path:
    """The root of a system with the packages fonts-narrow (two faces) and fonts-wide (one)."""
    root = tmp_path_factory.mktemp("debian")
    narrow = {f"truetype/narrow/{fonts[n].name}": fonts[n] for n in ("Narrow Sans", "Narrow Serif")}
    add_package(root, "fonts-narrow", narrow, version="2:1.5-3")
    add_package(root, "fonts-wide", {f"truetype/wide/{fonts['Wide Mono'].name}": fonts["Wide Mono"]})
    return root
