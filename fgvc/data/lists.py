"""Reading and writing lists of images: ``class_id,dir`` files, published ones and our own.

Lists come from archives and from strangers, so nothing in them is trusted: every row is an error with its
line until it is a class id and a path inside the dataset.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fgvc.errors import FgvcError
from fgvc.provenance.files import write_text

#: ``(class id 0..K-1, path relative to data/D)``.
Row = tuple[int, str]

HEADER = ("class_id", "dir")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class ListFormat:
    """How the lines of a list are read.

    Attributes:
        prefix: folder below data/D that the list's paths are relative to.
        renumber: source class id → our class id; rows of other classes are left out. None: ids stand.
        suffix: put behind every path.
        path_parts: how many of a path's last parts count; None: all.
        first_class: the id that the list gives to class 0.
        class_ids: class name → our class id, for lists of names; a name is the rest of its line.
    """

    delimiter: str = ","
    header: bool = True
    path_column: int = 1
    class_column: int = 0
    prefix: str = ""
    renumber: dict[int, int] | None = None
    suffix: str = ""
    path_parts: int | None = None
    first_class: int = 0
    class_ids: dict[str, int] | None = None


def path_problem(path: str) -> str | None:
    """Why ``path`` cannot be an image inside a dataset's folder, or None when it can."""
    if not path:
        return "the path is empty"
    if _CONTROL.search(path):
        return "the path holds a control character"
    if "\\" in path:
        return "the path holds a backslash; folders are separated by '/'"
    if path.startswith("/") or _DRIVE.match(path):
        return "the path is absolute; it must be relative to the dataset's folder"
    parts = path.split("/")
    if ".." in parts:
        return "the path leaves the dataset's folder with '..'"
    if "" in parts or "." in parts:
        return "the path holds an empty or '.' part"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "the path is not UTF-8"
    return None


def last_parts(path: str, count: int | None) -> str:
    """The last ``count`` parts of a path; None: all of it."""
    return path if count is None else "/".join(path.split("/")[-count:])


def read_list(path: Path, shown_as: str, classes: int, how: ListFormat | None = None) -> list[Row]:
    """Read one list.

    Args:
        path: the file; UTF-8, with or without a byte-order mark, any line ends.
        shown_as: its name in errors.
        classes: K; class ids must be in 0..K-1.

    Returns rows in list order. Raises FgvcError with file and line for a missing or undecodable file, a
    missing column, a class that is no integer or out of range, a path that leaves the dataset, a row that
    is there twice, or no row at all.
    """
    how = how or ListFormat()
    rows: list[Row] = []
    seen: dict[str, int] = {}
    for line, fields in _lines(read_list_text(path, shown_as), shown_as, how):
        row = _row(fields, classes, how, shown_as, line)
        if row is None:
            continue
        if row[1] in seen:
            raise FgvcError(
                f"'{row[1]}' is listed twice (first on line {seen[row[1]]})",
                file=shown_as,
                line=line,
                cure="keep one of the two lines",
            )
        seen[row[1]] = line
        rows.append(row)
    if not rows:
        raise FgvcError("the list names no image", file=shown_as)
    return rows


def read_list_text(path: Path, shown_as: str) -> str:
    """The text of a list. Raises FgvcError when it is missing or not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise FgvcError("the list does not exist", file=shown_as) from None
    except UnicodeDecodeError as error:
        raise FgvcError(
            f"the list is not UTF-8 text (byte {error.start})", file=shown_as, cure="save it as UTF-8"
        ) from None
    except OSError as error:
        raise FgvcError(f"the list cannot be read: {error.strerror}", file=shown_as) from None


def csv_rows(text: str, shown_as: str, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """``(line, fields)`` of every line that is not blank; fields as they stand."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield reader.line_num, fields
    except csv.Error as error:
        raise FgvcError(f"this is no CSV: {error}", file=shown_as, line=reader.line_num) from None


def _lines(text: str, shown_as: str, how: ListFormat) -> Iterator[tuple[int, list[str]]]:
    rows = csv_rows(text, shown_as, how.delimiter)
    if how.header:
        line, fields = next(rows, (1, []))
        first = fields[how.class_column] if len(fields) > how.class_column else ""
        if _INTEGER.fullmatch(first.strip()):
            raise FgvcError(
                "the list has no header line",
                file=shown_as,
                line=line,
                cure=f"put '{','.join(HEADER)}' above the first row",
            )
    yield from rows


def _row(fields: list[str], classes: int, how: ListFormat, shown_as: str, line: int) -> Row | None:
    width = max(how.class_column, how.path_column) + 1
    if len(fields) < width:
        raise FgvcError(f"the row has {len(fields)} column(s), {width} are needed", file=shown_as, line=line)
    path = fields[how.path_column]
    problem = path_problem(path)
    if problem:
        raise FgvcError(f"{problem}: {path[:80]!r}", file=shown_as, line=line)
    path = last_parts(path, how.path_parts)
    class_id = _class_id(fields, classes, how, shown_as, line)
    return None if class_id is None else (class_id, f"{how.prefix}{path}{how.suffix}")


def _class_id(fields: list[str], classes: int, how: ListFormat, shown_as: str, line: int) -> int | None:
    """0..K-1; None where the class is left out."""
    text = fields[how.class_column].strip()
    if how.class_ids is not None:
        name = how.delimiter.join(fields[how.class_column :]).strip()
        if name not in how.class_ids:
            raise FgvcError(f"there is no class '{name[:40]}'", file=shown_as, line=line)
        return how.class_ids[name]
    if not _INTEGER.fullmatch(text):
        raise FgvcError(f"the class '{text[:40]}' is not an integer", file=shown_as, line=line)
    class_id = int(text) - how.first_class
    if how.renumber is not None and int(text) >= 0:
        return how.renumber.get(int(text))
    if not 0 <= class_id < classes:
        counting = f"class ids count from {how.first_class}"
        raise FgvcError(
            f"the class {text} is outside {how.first_class}..{classes + how.first_class - 1}",
            file=shown_as,
            line=line,
            cure=f"{counting}; 'classes' in the dataset's YAML says how many there are",
        )
    return class_id


def published_rows(text: str, shown_as: str) -> list[tuple[int, str]]:
    """The first two columns of a published ``class_id,dir`` list, as its digest is taken over them.

    Raises FgvcError with the line where the first column is no integer or the second is missing.
    """
    rows: list[tuple[int, str]] = []
    for line, fields in _lines(text, shown_as, ListFormat()):
        if len(fields) < 2 or not _INTEGER.fullmatch(fields[0].strip()):
            raise FgvcError("the row is not 'class_id,dir'", file=shown_as, line=line)
        rows.append((int(fields[0]), fields[1]))
    return rows


def csv_text(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A CSV file's text: header, minimal quoting, newline line ends."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def write_list(target: Path, rows: Iterable[Row]) -> str:
    """Write ``class_id,dir`` rows whole or not at all, and return the text."""
    text = csv_text(HEADER, rows)
    write_text(target, text)
    return text
