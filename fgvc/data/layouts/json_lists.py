"""JSON lists: Food-101 (image names by class) and iNaturalist (the form of COCO)."""

from __future__ import annotations

import json
from typing import Any

from fgvc.config.layout import ClassJsonLayout, CocoJsonLayout
from fgvc.data.layouts.base import Folder, Layout, listed_once
from fgvc.data.lists import Row
from fgvc.errors import FgvcError


def read_by_class(layout: ClassJsonLayout, folder: Folder) -> Layout:
    """The layout that JSON objects ``{class name: [image, …]}`` tell; class ids are lines of a text file.

    Raises FgvcError with the file and the class for a missing or damaged file, a class that has no line, and
    an image that cannot be.
    """
    names = [name for _, name in folder.lines(layout.classes)]
    ids = {name: class_id for class_id, name in enumerate(names)}
    if len(ids) < len(names):
        raise FgvcError("a class name is there twice", file=folder.show(layout.classes))
    rows: dict[str, list[Row]] = {}
    for part, file in layout.lists.items():
        found: list[Row] = []
        for name, images in _mapping(_json(folder, file), folder.show(file)).items():
            if name not in ids:
                raise FgvcError(
                    f"the class is not in {layout.classes}", file=folder.show(file), key=str(name)[:80]
                )
            for image in _list(images, folder.show(file), name):
                found.append(
                    (ids[name], folder.path(f"{image}{layout.path_suffix}", layout.image_root, file))
                )
        rows[part] = listed_once(found, folder.show(file))
    return Layout(rows, names, [*layout.lists.values(), layout.classes], layout.image_root)


def read_coco(layout: CocoJsonLayout, folder: Folder) -> Layout:
    """The layout that JSON files in the form of COCO tell; class ids are the ranks of the categories' ids.

    Raises FgvcError with the file and the entry for a missing or damaged file, an annotation of no image or
    of no category, an image without annotation or with several.
    """
    rows: dict[str, list[Row]] = {}
    categories: dict[int, str] = {}
    for part, file in layout.lists.items():
        shown = folder.show(file)
        data = _mapping(_json(folder, file), shown)
        own = {
            entry["id"]: str(entry["name"]) for entry in _entries(data, "categories", ("id", "name"), shown)
        }
        if categories and own != categories:
            raise FgvcError("the categories are not those of the other list", file=shown, key="categories")
        categories = own
        rows[part] = _coco_rows(data, categories, layout, file, folder)
    names = [categories[source] for source in sorted(categories)]
    return Layout(rows, names, list(layout.lists.values()), layout.image_root)


def _coco_rows(
    data: dict[str, Any], categories: dict[int, str], layout: CocoJsonLayout, file: str, folder: Folder
) -> list[Row]:
    shown = folder.show(file)
    rank = {source: ours for ours, source in enumerate(sorted(categories))}
    images = {
        entry["id"]: entry["file_name"] for entry in _entries(data, "images", ("id", "file_name"), shown)
    }
    label: dict[int, int] = {}
    for number, entry in enumerate(_entries(data, "annotations", ("image_id", "category_id"), shown)):
        image, category = entry["image_id"], entry["category_id"]
        problem = (
            f"no image has the id {image}"
            if image not in images
            else f"no category has the id {category}"
            if category not in rank
            else f"the image {image} has a class already"
            if image in label
            else None
        )
        if problem:
            raise FgvcError(problem, file=shown, key=f"annotations[{number}]")
        label[image] = rank[category]
    lacking = next((image for image in images if image not in label), None)
    if lacking is not None:
        raise FgvcError(f"the image {lacking} has no annotation", file=shown, key="annotations")
    rows = [(label[image], folder.path(str(path), layout.image_root, file)) for image, path in images.items()]
    return listed_once(rows, shown)


def _json(folder: Folder, file: str) -> Any:
    try:
        return json.loads(folder.text(file))
    except json.JSONDecodeError as error:
        raise FgvcError(f"this is no JSON: {error.msg}", file=folder.show(file), line=error.lineno) from None


def _mapping(data: Any, shown: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise FgvcError("this is no JSON object", file=shown)
    return data


def _list(value: Any, shown: str, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise FgvcError("this is no list", file=shown, key=key)
    return value


def _entries(data: dict[str, Any], key: str, needed: tuple[str, ...], shown: str) -> list[dict[str, Any]]:
    entries = _list(data.get(key), shown, key)
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or any(name not in entry for name in needed):
            what = "' or '".join(needed)
            raise FgvcError(f"the entry lacks '{what}'", file=shown, key=f"{key}[{number}]")
        if any(not isinstance(entry[name], int) for name in needed if name.endswith("id")):
            raise FgvcError("an id is not an integer", file=shown, key=f"{key}[{number}]")
    return entries
