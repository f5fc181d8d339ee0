"""A folder a class, with or without train/val/test folders above them. Nothing here opens an image."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from fgvc.data.layouts.base import Layout
from fgvc.data.lists import Row, path_problem
from fgvc.errors import FgvcError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})

#: What a part is called, by a folder above class folders or in a CSV, and the part it stands for.
PART_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sorts ``img2`` before ``img10``, without regard to case; ties by the name itself."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(1, int(p), "") if p.isdecimal() else (0, 0, p) for p in parts], name


def is_image(path: str) -> bool:
    """Whether a file is an image by its suffix."""
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def class_folders(root: Path, shown_as: str, support: list[str] | None = None, inner: str = ".") -> Layout:
    """The layout of a folder of class folders, with or without train/val/test folders above them.

    Args:
        root: data/D, or a folder that will be.
        shown_as: its name in errors.
        support: files below it that are kept beside the images.
        inner: the folder below ``root`` that holds the class folders.

    Class ids follow the natural order of the names; images below a class folder may lie at any depth.
    Raises FgvcError for no class folder, an empty class, or a file name that cannot stand in a list.
    """
    top = root / inner
    if not top.is_dir():
        raise FgvcError("the folder does not exist", file=f"{shown_as}/{inner}")
    folders = _subfolders(top)
    names = [folder.name.casefold() for folder in folders]
    has_parts = "train" in names and set(names) <= set(PART_FOLDERS)
    groups = {PART_FOLDERS[f.name.casefold()]: f for f in folders} if has_parts else {"all": top}
    if has_parts and len(groups) < len(folders):
        raise FgvcError("two folders stand for the same part", file=shown_as, cure="keep one")
    class_names = sorted({f.name for g in groups.values() for f in _subfolders(g)}, key=natural_key)
    if not class_names:
        raise FgvcError("there is no class folder", file=shown_as, cure="make a folder of images a class")
    rows: dict[str, list[Row]] = {}
    ignored: list[str] = []
    for part in ("all", "train", "val", "test"):
        if part in groups:
            rows[part] = _class_rows(groups[part], root, class_names, shown_as, ignored)
    return Layout(rows, class_names, support or [], inner, tuple(ignored))


def _class_rows(
    group: Path, root: Path, class_names: list[str], shown_as: str, ignored: list[str]
) -> list[Row]:
    rows: list[Row] = []
    for class_id, name in enumerate(class_names):
        folder = group / name
        if not folder.is_dir():
            continue  # a class that one part lacks is judged where parts are made
        before = len(rows)
        for path in files_below(folder, root):
            problem = path_problem(path)
            if not is_image(path):
                ignored.append(path)
            elif problem:
                raise FgvcError(f"{problem}: {path!r}", file=shown_as, cure="rename the file")
            else:
                rows.append((class_id, path))
        if len(rows) == before:
            raise FgvcError(
                f"the class '{name}' holds no image",
                file=f"{shown_as}/{folder.relative_to(root)}",
                cure=f"add images ({', '.join(sorted(IMAGE_SUFFIXES))}) or remove the folder",
            )
    return rows


def _subfolders(folder: Path) -> list[Path]:
    return sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=str)


def files_below(folder: Path, root: Path) -> list[str]:
    """Paths relative to ``root`` in natural order; hidden files are left out."""
    found = [
        os.path.relpath(os.path.join(at, name), root)  # noqa: PTH118 -- os.walk gives strings
        for at, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
    ]
    return sorted(found, key=natural_key)
