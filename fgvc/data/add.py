"""``fgvc data add``: a folder of class folders becomes a dataset of the project."""

from __future__ import annotations

import json
import re
from pathlib import Path

from fgvc.config.dataset import Dataset, SplitRule
from fgvc.config.project import Project
from fgvc.data.layouts import IMAGE_SUFFIXES, Layout, class_folders
from fgvc.data.splits import PARTS, divide
from fgvc.errors import FgvcError
from fgvc.provenance.files import write_text

#: Dataset names are parts of paths and wildcards of rules.
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
TRAIN_FRACTION, TEST_FRACTION = 0.8, 0.2

_TEMPLATE = """\
# {title}: your own images, a folder a class.
#
#   fgvc data fetch {name}        links the images into data/{name} and checks that each one decodes
#   fgvc data split {name}        cuts what parts are missing: see 'split' below
#
# Expect {images} images in {classes} classes, {mib:.0f} MiB (no more disk where it can make hard links).
title: {title_yaml}
description: Images of your own, added from a folder.
classes: {classes}
licence: not stated
citation: not stated
source:
  kind: folder
  path: {path}
layout:
  kind: class_folders
split:
  train_fraction: {train_fraction}    # where there is no val folder
  test_fraction: {test_fraction}     # where there is no test folder
  provenance: ours
horizontal_flip: true       # false where a mirrored image is another thing, such as letters
"""


def add_folder(project: Project, name: str, path: Path, title: str | None = None) -> Dataset:
    """Write ``params/datasets/NAME.yaml`` for a folder of class folders, and return the dataset.

    Class folders may lie below ``train``, ``val`` and ``test`` folders. Nothing is copied yet.

    Args:
        name: small letters, digits and underscores; the id from now on.
        path: the folder; kept relative to the project where it lies inside.
        title: for tables; else the folder's name.

    Raises FgvcError for a name that is taken or cannot be one, a folder that is not there, fewer than two
    classes, an empty class, or a class with too few images to be in each part.
    """
    _check_name(project, name)
    folder = path.expanduser().resolve()
    if not folder.is_dir():
        raise FgvcError(
            "there is no such folder", file=path, cure="give the folder that holds the class folders"
        )
    layout = _usable_layout(folder, str(path))
    root = project.root.resolve()
    kept_path = folder.relative_to(root) if folder.is_relative_to(root) else folder
    images = layout.class_of()
    text = _TEMPLATE.format(
        name=name,
        title=" ".join((title or folder.name).split()),
        title_yaml=json.dumps(title or folder.name, ensure_ascii=False),
        images=len(images),
        classes=len(layout.class_names),
        mib=sum((folder / image).stat().st_size for image in images) / 2**20,
        path=json.dumps(str(kept_path), ensure_ascii=False),
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


def _usable_layout(folder: Path, shown: str) -> Layout:
    layout = class_folders(folder, shown)
    names = layout.class_names
    if len(names) < 2:
        within = f"; the classes may lie in {shown}/{names[0]}" if len(names) == 1 else ""
        raise FgvcError(
            f"there is one class folder only ({names[0]})",
            file=shown,
            cure=f"give the folder that holds a folder a class{within}",
        )
    rule = SplitRule(train_fraction=TRAIN_FRACTION, test_fraction=TEST_FRACTION, provenance="ours")
    parts = divide(layout, rule)
    for part in PARTS:
        present = {class_id for class_id, _ in parts[part].rows}
        lacking = [name for class_id, name in enumerate(names) if class_id not in present]
        if lacking:
            raise FgvcError(
                f"the {part} part would lack {len(lacking)} class(es), such as '{lacking[0]}'",
                file=shown,
                cure="give each class at least 3 images (at least 2 beside a test folder); images end in "
                + ", ".join(sorted(IMAGE_SUFFIXES)),
            )
    return layout
