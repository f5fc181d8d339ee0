"""Text lists, one or more a part, and the published ones; class names from a file or from paths."""

from __future__ import annotations

import re

from fgvc.config.dataset import PUBLISHED_FOLDER, PublishedLists
from fgvc.config.layout import ListsLayout
from fgvc.data.layouts.base import Folder, Layout, all_rows, below, listed_once, names_from_paths
from fgvc.data.lists import ListFormat, Row, csv_rows, read_list
from fgvc.errors import FgvcError


def read(layout: ListsLayout, folder: Folder) -> Layout:
    """The layout that text lists tell, each part in the order of its list or lists.

    Raises FgvcError with file and line for what `read_list` refuses, and for an image in two lists of a part.
    """
    names = _names(layout, folder) if layout.classes_file else None
    keep = layout.keep_classes
    how = ListFormat(
        delimiter=layout.delimiter,
        header=layout.header,
        path_column=layout.path_column,
        class_column=layout.class_column,
        prefix=below(layout.image_root, ""),
        renumber={source: ours for ours, source in enumerate(keep)} if keep is not None else None,
        suffix=layout.path_suffix,
        path_parts=layout.path_parts,
        first_class=layout.first_class,
        class_ids=_ids(layout, names, folder) if layout.classes_by_name and names else None,
    )
    rows: dict[str, list[Row]] = {}
    for part in layout.lists:
        files = layout.files(part)
        found = [
            row
            for file in files
            for row in read_list(folder.root / file, folder.show(file), folder.classes, how)
        ]
        rows[part] = listed_once(found, folder.show(files[-1]))
    support = [file for part in layout.lists for file in layout.files(part)]
    support += [layout.classes_file] if layout.classes_file else []
    names = names or names_from_paths(all_rows(rows), folder.classes)
    return Layout(rows, names, list(dict.fromkeys(support)), layout.image_root)


def _names(layout: ListsLayout, folder: Folder) -> list[str]:
    file = layout.classes_file
    assert file is not None
    if layout.classes_id_column is None:
        names = [name for _, name in folder.lines(file)]
        if len(names) != folder.classes:
            raise FgvcError(
                f"{len(names)} class names are here, the dataset's YAML says {folder.classes}",
                file=folder.show(file),
            )
        return names
    ids = layout.keep_classes if layout.keep_classes is not None else range(folder.classes)
    return names_by_id(folder, file, ids, layout.classes_id_column, layout.classes_name_column)


def _ids(layout: ListsLayout, names: list[str], folder: Folder) -> dict[str, int]:
    ids = {name: class_id for class_id, name in enumerate(names)}
    if len(ids) < len(names):
        raise FgvcError("a class name is there twice", file=folder.show(layout.classes_file or ""))
    return ids


def names_by_id(
    folder: Folder, file: str, ids: list[int] | range, id_column: int = 0, name_column: int = 1
) -> list[str]:
    """The names of the classes ``ids``, from a CSV file. Raises FgvcError with file and line."""
    shown = folder.show(file)
    width = max(id_column, name_column) + 1
    found: dict[int, str] = {}
    for line, fields in csv_rows(folder.text(file), shown):
        if len(fields) < width:
            raise FgvcError(f"the row has {len(fields)} column(s), {width} are needed", file=shown, line=line)
        text = fields[id_column].strip()
        if not re.fullmatch(r"[0-9]+", text):
            if line == 1:
                continue  # the header
            raise FgvcError(f"the class '{text[:40]}' is not an integer", file=shown, line=line)
        found[int(text)] = fields[name_column].strip()
    lacking = [class_id for class_id in ids if not found.get(class_id)]
    if lacking:
        raise FgvcError(f"the class {lacking[0]} has no name here", file=shown)
    return [found[class_id] for class_id in ids]


# --- published lists -------------------------------------------------------------------------------


def published_are_here(lists: PublishedLists, folder: Folder) -> bool:
    """Whether all of them lie in the dataset's folder."""
    return all((folder.root / PUBLISHED_FOLDER / file).is_file() for file in lists.files())


def read_published(lists: PublishedLists, folder: Folder, image_root: str, archive: Layout | None) -> Layout:
    """The layout that published lists tell.

    Args:
        image_root: what their paths are relative to.
        archive: what the archive itself tells, where class names are taken from it.
    """
    files = {part: f"{PUBLISHED_FOLDER}/{part}.csv" for part in lists.lists}
    how = ListFormat(prefix=below(image_root, ""))
    rows: dict[str, list[Row]] = {
        part: read_list(folder.root / file, folder.show(file), folder.classes, how)
        for part, file in files.items()
    }
    support = list(files.values())
    names = names_from_paths(all_rows(rows), folder.classes)
    if lists.classes_file:
        support.append(f"{PUBLISHED_FOLDER}/{lists.classes_file}")
        names = names_by_id(folder, support[-1], range(folder.classes))
    elif archive is not None:
        support += archive.support_files
        classes = archive.class_of()
        if all(classes.get(path) == class_id for class_id, path in all_rows(rows)):
            names = archive.class_names
    return Layout(rows, names, support, image_root, published=True)
