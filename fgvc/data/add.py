"""``fgvc data add``: a folder of class folders, or a CSV of images, becomes a dataset of the project."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from fgvc.config.dataset import Dataset, SplitRule
from fgvc.config.layout import ImageTableLayout
from fgvc.config.project import Project
from fgvc.data.layouts import IMAGE_SUFFIXES, Layout, class_folders, image_table
from fgvc.data.splits import PARTS, divide
from fgvc.errors import FgvcError, nearest
from fgvc.provenance.files import write_text

#: Dataset names are parts of paths and wildcards of rules.
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
TRAIN_FRACTION, TEST_FRACTION = 0.8, 0.2
#: Of a class, so that it is in each part after both cuts.
FEWEST_IMAGES = 3
TABLE_SUFFIXES = (".csv", ".tsv", ".txt")

_TEMPLATE = """\
# {title}: your own images, {form}.
#
#   fgvc data fetch {name}        links the images into data/{name} and checks that each one decodes
#   fgvc data split {name}        cuts what parts are missing: see 'split' below
#
# Expect {images} images in {classes} classes, {mib:.0f} MiB (no more disk where it can make hard links).
title: {title_yaml}
description: Images of your own, added from {origin}.
classes: {classes}
licence: not stated
citation: not stated
source:
  kind: folder
  path: {path}
layout:
{layout}
split:
  train_fraction: {train_fraction}    # where there is no val part
  test_fraction: {test_fraction}     # where there is no test part
  provenance: ours
horizontal_flip: true       # false where a mirrored image is another thing, such as letters
"""


@dataclass(frozen=True)
class _Found:
    """What lies at the user's path: the folder of images, its layout, and how the YAML says so."""

    folder: Path
    layout: Layout
    form: str
    origin: str
    layout_yaml: str
    title: str
    #: Where the user named each image: line of a CSV by path.
    lines: dict[str, int]


def add_dataset(project: Project, name: str, path: Path, title: str | None = None) -> Dataset:
    """Write ``params/datasets/NAME.yaml`` for images of the user's own, and return the dataset.

    Class folders may lie below ``train``, ``val`` and ``test`` folders; a CSV has the columns ``path``
    (relative to the CSV's folder), ``label`` and, where parts are given, ``split``. Nothing is copied yet.

    Args:
        name: small letters, digits and underscores; the id from now on.
        path: the folder, or the CSV; kept relative to the project where it lies inside.
        title: for tables; else the folder's or the CSV's name.

    Raises FgvcError for a name that is taken or cannot be one, a path that is neither, a wrong line of the
    CSV, fewer than two classes, an empty class, or a class with too few images to be in each part.
    """
    _check_name(project, name)
    found = _look(path)
    _check_classes(found, str(path))
    root = project.root.resolve()
    kept = found.folder.relative_to(root) if found.folder.is_relative_to(root) else found.folder
    images = found.layout.class_of()
    text = _TEMPLATE.format(
        name=name,
        title=" ".join((title or found.title).split()),
        title_yaml=json.dumps(title or found.title, ensure_ascii=False),
        form=found.form,
        origin=found.origin,
        images=len(images),
        classes=len(found.layout.class_names),
        mib=sum((found.folder / image).stat().st_size for image in images) / 2**20,
        path=json.dumps(str(kept), ensure_ascii=False),
        layout=found.layout_yaml,
        train_fraction=TRAIN_FRACTION,
        test_fraction=TEST_FRACTION,
    )
    target = project.folder("dataset") / f"{name}.yaml"
    write_text(target, text)
    try:
        return Project(project.root).dataset(name)
    except FgvcError:
        target.unlink()
        raise


def _look(path: Path) -> _Found:
    place = path.expanduser().resolve()
    if place.is_dir():
        layout = class_folders(place, str(path))
        return _Found(place, layout, "a folder a class", "a folder", "  kind: class_folders", place.name, {})
    if not place.is_file():
        cure = "give the folder that holds the class folders, or a CSV"
        raise FgvcError("there is no such folder or CSV", file=path, cure=cure)
    if place.suffix.lower() not in TABLE_SUFFIXES:
        cure = "give the folder that holds the class folders, or a CSV with the columns path,label[,split]"
        raise FgvcError("this is neither a folder nor a CSV", file=path, cure=cure)
    delimiter = image_table.find_delimiter(place, str(path))
    kind = ImageTableLayout.model_validate(
        {"kind": "image_table", "file": place.name, "delimiter": delimiter}
    )
    table = image_table.read(kind, place.parent, str(path.parent))
    lines = [f"  {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in kind.model_dump().items()]
    layout_yaml = "\n".join(lines)
    return _Found(place.parent, table.layout, "named in a CSV", "a CSV", layout_yaml, place.stem, table.lines)


def _check_name(project: Project, name: str) -> None:
    if not NAME.fullmatch(name):
        raise FgvcError(
            f"'{name}' cannot be a dataset's name",
            cure="use a small letter, then small letters, digits and underscores, 40 at most",
        )
    if name in project.names("dataset") or name in project.aliases:
        raise FgvcError(
            f"there is a dataset called '{name}' already",
            file=project.paths.shown(project.file("dataset", project.canonical_dataset(name))),
            cure="choose another name, or delete that file first",
        )


def _check_classes(found: _Found, shown: str) -> None:
    names = found.layout.class_names
    if len(names) < 2:
        raise _one_class(found, shown)
    rule = SplitRule(train_fraction=TRAIN_FRACTION, test_fraction=TEST_FRACTION, provenance="ours")
    parts = divide(found.layout, rule)
    for part in PARTS:
        present = {class_id for class_id, _ in parts[part].rows}
        lacking = [class_id for class_id in range(len(names)) if class_id not in present]
        if lacking:
            raise _lacking(found, shown, part, lacking)


def _one_class(found: _Found, shown: str) -> FgvcError:
    name = found.layout.class_names[0]
    if found.lines:
        cure = "a dataset needs at least two classes; see the column label"
        return FgvcError(f"every image has the same label ({name})", file=shown, cure=cure)
    return FgvcError(
        f"there is one class folder only ({name})",
        file=shown,
        cure=f"give the folder that holds a folder a class; the classes may lie in {shown}/{name}",
    )


def _lacking(found: _Found, shown: str, part: str, lacking: list[int]) -> FgvcError:
    """A part would lack classes: the smallest of them is named, and what it may be a misspelling of."""
    names, class_of = found.layout.class_names, found.layout.class_of()
    images = {class_id: [p for p, c in class_of.items() if c == class_id] for class_id in lacking}
    worst = min(lacking, key=lambda class_id: len(images[class_id]))
    count = len(images[worst])
    guess = nearest(names[worst], [name for class_id, name in enumerate(names) if class_id not in lacking])
    hint = f"; is it a misspelt '{guess}'?" if guess and count < FEWEST_IMAGES else ""
    return FgvcError(
        f"the {part} part would lack {len(lacking)} class(es), such as '{names[worst]}' "
        f"({count} image{'s' if count > 1 else ''}){hint}",
        file=shown,
        line=found.lines.get(images[worst][0]),
        cure=f"give each class at least {FEWEST_IMAGES} images (at least 2 beside a test part)"
        + ("" if found.lines else "; images end in " + ", ".join(sorted(IMAGE_SUFFIXES))),
    )
