"""A dataset in one CSV: a header, then ``path,label`` or ``path,label,split`` a line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fgvc.config.layout import ImageTableLayout
from fgvc.data.layouts.base import Layout
from fgvc.data.layouts.folders import PART_FOLDERS, natural_key
from fgvc.data.lists import Row, csv_rows, path_problem, read_list_text
from fgvc.errors import FgvcError, nearest

PATH, LABEL, SPLIT = "path", "label", "split"
DELIMITERS = (",", ";", "\t")
_FORM = "the first line must be 'path,label' or 'path,label,split'; other columns are left alone"


@dataclass(frozen=True)
class ImageTable:
    """What a CSV tells: the layout, whose parts are ``all`` without a split column, and each path's line."""

    layout: Layout
    lines: dict[str, int]


def find_delimiter(file: Path, shown_as: str) -> str:
    """What separates the columns of a CSV, by its header. Raises FgvcError when it has no such header."""
    header = (read_list_text(file, shown_as).splitlines() or [""])[0]
    for delimiter in DELIMITERS:
        if {PATH, LABEL} <= {name.strip().casefold() for name in header.split(delimiter)}:
            return delimiter
    words = [word.strip().casefold() for word in re.split(r"[,;\t]", header)]
    guess = next((g for name in (PATH, LABEL) if name not in words and (g := nearest(name, words))), None)
    raise FgvcError(
        "there is no column 'path' or no column 'label'" + (f" (is it '{guess}'?)" if guess else ""),
        file=shown_as,
        line=1,
        cure=_FORM,
    )


def read(layout: ImageTableLayout, root: Path, shown_as: str) -> ImageTable:
    """Read the table ``layout.file`` in ``root``, which errors call ``shown_as``.

    Class ids follow the natural order of the labels. Raises FgvcError with file and line for a missing column
    or value, a path that leaves the folder or stands twice, an image that is not there, and an unknown part.
    """
    shown = f"{shown_as}/{layout.file}"
    entries = _entries(layout, root, shown)
    class_names = sorted({entry.label for entry in entries}, key=natural_key)
    ids = {name: class_id for class_id, name in enumerate(class_names)}
    rows: dict[str, list[Row]] = {}
    for part in ("all", "train", "val", "test"):
        own = [(ids[entry.label], entry.path) for entry in entries if entry.part == part]
        if own:
            rows[part] = own
    if not {"all", "train"} & set(rows):
        raise FgvcError("no line is in the train part", file=shown, cure=_parts_text())
    return ImageTable(Layout(rows, class_names, [layout.file]), {entry.path: entry.line for entry in entries})


@dataclass(frozen=True)
class _Entry:
    line: int
    path: str
    label: str
    part: str


def _entries(layout: ImageTableLayout, root: Path, shown: str) -> list[_Entry]:
    lines = csv_rows(read_list_text(root / layout.file, shown), shown, layout.delimiter)
    _, header = next(lines, (1, []))
    columns = {name.strip().casefold(): at for at, name in enumerate(header)}
    if not {PATH, LABEL} <= set(columns):
        raise FgvcError("there is no column 'path' or no column 'label'", file=shown, line=1, cure=_FORM)
    entries: list[_Entry] = []
    seen: dict[str, _Entry] = {}
    for line, fields in lines:
        entry = _entry(fields, columns, shown, line)
        if entry.path in seen:
            raise _twice(entry, seen[entry.path], shown)
        seen[entry.path] = entry
        entries.append(entry)
    if not entries:
        raise FgvcError("the table names no image", file=shown, cure="add a line an image")
    _check_files(entries, root, shown)
    return entries


def _entry(fields: list[str], columns: dict[str, int], shown: str, line: int) -> _Entry:
    def field(name: str) -> str:
        value = fields[columns[name]].strip() if columns[name] < len(fields) else ""
        if not value:
            raise FgvcError(f"the {name} is missing", file=shown, line=line, cure="complete the line")
        return value

    path, label = field(PATH), field(LABEL)
    problem = path_problem(path)
    if problem:
        cure = "paths are relative to the CSV's folder; put the CSV into the folder that holds the images"
        raise FgvcError(f"{problem}: {path[:80]!r}", file=shown, line=line, cure=cure)
    part = PART_FOLDERS.get(field(SPLIT).casefold()) if SPLIT in columns else "all"
    if part is None:
        problem = f"'{field(SPLIT)[:40]}' is no part"
        raise FgvcError(problem, file=shown, line=line, key=SPLIT, cure=_parts_text())
    return _Entry(line, path, label, part)


def _twice(entry: _Entry, first: _Entry, shown: str) -> FgvcError:
    differs = entry.label != first.label
    labels = f" as '{first.label}' and as '{entry.label}'" if differs else ""
    problem = f"'{entry.path}' stands twice{labels} (first on line {first.line})"
    return FgvcError(problem, file=shown, line=entry.line, cure="keep one of the two lines")


def _check_files(entries: list[_Entry], root: Path, shown: str) -> None:
    absent = [entry for entry in entries if not (root / entry.path).is_file()]
    if absent:
        more = f"; {len(absent) - 1} more are missing" if len(absent) > 1 else ""
        raise FgvcError(
            f"there is no image '{absent[0].path}'{more}",
            file=shown,
            line=absent[0].line,
            cure="correct the path (relative to the CSV's folder), or bring the image there",
        )


def _parts_text() -> str:
    return "parts are train, val and test; without a split column they are cut for you"
