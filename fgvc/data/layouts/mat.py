"""MATLAB files: Stanford Dogs and Stanford Cars (paths and classes), Oxford Flowers (numbers)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from fgvc.config.layout import MatList, MatListsLayout, MatNumbersLayout
from fgvc.data.layouts.base import Folder, Layout, all_rows, below, listed_once, names_from_paths
from fgvc.data.lists import Row, last_parts
from fgvc.errors import FgvcError


def read_lists(layout: MatListsLayout, folder: Folder) -> Layout:
    """The layout that lists of paths and classes tell, each part in the order of its list.

    Raises FgvcError that names the file and, as its key, the variable and the number of the entry: for a
    missing file or variable, lists of unequal length, a path or a class that cannot be.
    """
    files = _Files(folder)
    rows: dict[str, list[Row]] = {part: _listed(spec, layout, files) for part, spec in layout.lists.items()}
    support = [spec.file for spec in layout.lists.values()]
    names = names_from_paths(all_rows(rows), folder.classes)
    if layout.class_names:
        support.append(layout.class_names)
        names = [str(name) for name in files.column(layout.class_names, "class_names")]
        if len(names) != folder.classes:
            raise FgvcError(
                f"there are {len(names)} names of {folder.classes} classes",
                file=folder.show(layout.class_names),
                key="class_names",
            )
    return Layout(rows, names, list(dict.fromkeys(support)), layout.image_root)


def _listed(spec: MatList, layout: MatListsLayout, files: _Files) -> list[Row]:
    folder, file = files.folder, spec.file
    paths, classes = files.column(file, spec.paths), files.column(file, spec.classes)
    chosen = files.column(file, spec.where) if spec.where else [spec.equals] * len(paths)
    if not len(paths) == len(classes) == len(chosen):
        raise FgvcError(
            f"{len(paths)} paths have {len(classes)} classes",
            file=folder.show(file),
            key=spec.classes,
            cure="take the file from its archive again",
        )
    rows: list[Row] = []
    for number, (path, class_id, flag) in enumerate(zip(paths, classes, chosen, strict=True), 1):
        with _entry(files, file, spec.classes, number):
            if int(flag) == spec.equals:
                ours = folder.class_id(int(class_id), 1, file)
                short = last_parts(str(path), layout.path_parts)
                own = folder.path(short, spec.folder, file)
                rows.append((ours, below(layout.image_root, own)))
    return listed_once(rows, folder.show(file))


def read_numbers(layout: MatNumbersLayout, folder: Folder) -> Layout:
    """The layout that a list of labels and lists of image numbers tell.

    Raises FgvcError that names the file and, as its key, the variable and the number of the entry: for a
    missing file or variable, a number without a label, a class that cannot be.
    """
    files = _Files(folder)
    labels = files.column(layout.labels, "labels")
    rows: dict[str, list[Row]] = {}
    for part, variable in layout.variables.items():
        found: list[Row] = []
        for position, value in enumerate(files.column(layout.split, variable), 1):
            with _entry(files, layout.split, variable, position):
                number = int(value)
                if not 1 <= number <= len(labels):
                    raise FgvcError(
                        f"the image {number} has no label; there are {len(labels)}",
                        file=folder.show(layout.split),
                    )
            with _entry(files, layout.labels, "labels", number):
                class_id = folder.class_id(int(labels[number - 1]), 1, layout.labels)
            path = folder.path(layout.path.format(number), layout.image_root, layout.split)
            found.append((class_id, path))
        rows[part] = listed_once(found, folder.show(layout.split))
    names = names_from_paths(all_rows(rows), folder.classes)
    return Layout(rows, names, [layout.labels, layout.split], layout.image_root)


class _Files:
    """MATLAB files of one folder, each read once."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.read: dict[str, dict[str, Any]] = {}

    def variables(self, file: str) -> dict[str, Any]:
        if file not in self.read:
            from scipy.io import loadmat  # 0.2 s that other datasets need not wait for

            shown = self.folder.show(file)
            if not (self.folder.root / file).is_file():
                raise FgvcError("the list does not exist", file=shown)
            try:
                self.read[file] = loadmat(self.folder.root / file, chars_as_strings=True)
            except Exception as error:  # whatever a damaged file makes the reader raise
                raise FgvcError(
                    f"this is no MATLAB file that can be read ({type(error).__name__})",
                    file=shown,
                    cure="take it from its archive again",
                ) from None
        return self.read[file]

    def column(self, file: str, name: str) -> list[Any]:
        """A variable, or a field of a struct array, as a flat list of numbers or strings."""
        variable, _, field = name.partition(".")
        value = self.variables(file).get(variable)
        if value is not None and field:
            value = value[field] if value.dtype.names and field in value.dtype.names else None
        if value is None:
            raise FgvcError("the file has no such variable", file=self.folder.show(file), key=name)
        return [_scalar(item, self.folder.show(file), name) for item in value.ravel().tolist()]


def _scalar(item: Any, shown: str, name: str) -> Any:
    """The one number or string inside of MATLAB's nested arrays."""
    while hasattr(item, "ravel"):
        inside = item.ravel().tolist()
        if len(inside) != 1:
            raise FgvcError("an entry is not one number or text", file=shown, key=name)
        item = inside[0]
    return item


@contextlib.contextmanager
def _entry(files: _Files, file: str, variable: str, number: int) -> Iterator[None]:
    """Says in errors which entry of a variable they are about; a number that is none becomes an error."""
    key = f"{variable}({number})"
    try:
        yield
    except FgvcError as error:
        error.key = error.key or key
        raise
    except (ValueError, TypeError):
        raise FgvcError("the entry is not an integer", file=files.folder.show(file), key=key) from None
