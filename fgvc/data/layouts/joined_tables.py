"""Text tables joined by an image id: CUB-200-2011 and NABirds.

``images.txt`` (id, path), ``image_class_labels.txt`` (id, class id), ``train_test_split.txt`` (id, 1 or 0),
``classes.txt`` (class id, name). NABirds' classes form a tree of which only leaves have images, so its ids
have gaps: ours are ranks.
"""

from __future__ import annotations

from fgvc.config.layout import JoinedTablesLayout
from fgvc.data.layouts.base import Folder, Layout, integer
from fgvc.data.lists import Row
from fgvc.errors import FgvcError


def read(layout: JoinedTablesLayout, folder: Folder) -> Layout:
    """The layout that the four tables tell; rows follow the table of images.

    Raises FgvcError with file and line for a missing table, a line that is not 'id value', an id without
    image, label or part, a class without name, and a number of classes other than declared.
    """
    images = _table(folder, layout.images)
    labels = {
        key: (line, integer(text, "class", folder.show(layout.labels), line))
        for key, (line, text) in _table(folder, layout.labels, images).items()
    }
    parts = _table(folder, layout.split, images)
    ids = sorted({label for _, label in labels.values()})
    if len(ids) != folder.classes:
        raise FgvcError(
            f"the images have {len(ids)} classes, the dataset's YAML says {folder.classes}",
            file=folder.show(layout.labels),
            cure="correct 'classes' in the YAML, or complete the file",
        )
    rank = {source: ours for ours, source in enumerate(ids)}
    rows: dict[str, list[Row]] = {"train_val": [], "test": []}
    for key, (line, path) in images.items():
        at, flag = parts[key]
        if flag not in ("0", "1"):
            raise FgvcError(f"the part '{flag[:40]}' is not 0 or 1", file=folder.show(layout.split), line=at)
        full = folder.path(path, layout.image_root, layout.images, line)
        rows["train_val" if flag == "1" else "test"].append((rank[labels[key][1]], full))
    names = _names(layout, folder, labels)
    support = [layout.images, layout.labels, layout.split, layout.classes]
    return Layout(rows, [names[source] for source in ids], support, layout.image_root)


def _table(
    folder: Folder, file: str, images: dict[str, tuple[int, str]] | None = None
) -> dict[str, tuple[int, str]]:
    """``id → (line, value)`` of one table, whose ids must be those of ``images``."""
    found: dict[str, tuple[int, str]] = {}
    shown = folder.show(file)
    for line, text in folder.lines(file):
        key, _, value = text.partition(" ")
        if not value.strip():
            raise FgvcError("the line is not 'id value'", file=shown, line=line)
        if key in found:
            raise FgvcError(
                f"the id {key} is there twice (first on line {found[key][0]})", file=shown, line=line
            )
        if images is not None and key not in images:
            raise FgvcError(f"no image has the id {key}", file=shown, line=line)
        found[key] = (line, value.strip())
    lacking = next((key for key in images or {} if key not in found), None)
    if lacking is not None or not found:
        what = f"the image with id {lacking} is missing" if found else "the file is empty"
        raise FgvcError(what, file=shown, cure="the tables must come from one and the same archive")
    return found


def _names(layout: JoinedTablesLayout, folder: Folder, labels: dict[str, tuple[int, int]]) -> dict[int, str]:
    shown = folder.show(layout.classes)
    names = {
        integer(key, "class", shown, line): name
        for key, (line, name) in _table(folder, layout.classes).items()
    }
    for line, label in labels.values():
        if label not in names:
            raise FgvcError(
                f"the class {label} has no name in {layout.classes}",
                file=folder.show(layout.labels),
                line=line,
            )
    return names
