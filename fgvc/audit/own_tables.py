"""Are the written tables those that the results give? An edited number is found and its cell named."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest

from fgvc.audit.context import SuiteContext
from fgvc.audit.finding import Finding
from fgvc.audit.own_results import finding, results_of
from fgvc.audit.registry import suite_check
from fgvc.config.suite import AccuracyTable
from fgvc.errors import FgvcError
from fgvc.reporting.latex import to_latex
from fgvc.reporting.markdown import to_markdown
from fgvc.reporting.tables import Contents, read_table

#: Signs between cells, where they are no part of a text.
_PIPE, _AMPERSAND = re.compile(r"(?<!\\)\|"), re.compile(r"(?<!\\)&")
_NOTE_LETTERS = re.compile(r"<sup>.*?</sup>|\\textsuperscript\{.*?\}")


@dataclass(frozen=True)
class Line:
    """A line of a table's file: its cells, or the whole line as one where it is no row.

    ``row`` names it in words; ``columns`` names its cells.
    """

    number: int
    text: str
    cells: tuple[str, ...]
    row: str
    columns: tuple[str, ...]


@suite_check(
    "own_tables",
    title="Tables, recomputed from the results",
    inputs=("results/**/tables", "results/runs", "results/stats", "results/cost", "params"),
)
def own_tables(context: SuiteContext) -> Iterator[Finding]:
    """Each table of the suite is made once more from the metrics, predictions and records that are here now,
    and compared with the written .csv, .md and .tex cell by cell. Contradicted: a cell differs; the finding
    names file, line, row and column. Confirmed: the file is the same throughout. Not checkable: the table was
    not written, or results that it shows are not here.
    """
    paths = context.project.paths
    folder = None if context.short else context.suite_name
    for name in context.suite.tables:
        base = paths.table(folder, name)
        shown = paths.shown(base)
        try:
            contents = read_table(
                context.project, context.suite_name, name, suite_path=folder, allow_missing=True
            )
        except FgvcError as error:
            yield finding("not_checkable", f"table {name}", error.problem, shown)
            continue
        without = _lacks_predictions(context, name)
        for suffix, text in _texts(contents).items():
            file = base.with_name(base.name + suffix)
            if not file.is_file():
                yield finding("not_checkable", f"{shown}{suffix}", "the table is not written", shown + suffix)
            elif contents.grid.partial:
                why = f"not every result that it shows is here ({contents.grid.partial})"
                yield finding("not_checkable", f"{shown}{suffix}", why, shown + suffix)
            elif without and suffix != ".csv":
                why = "its daggers need predictions, which are not here; its numbers are those of the .csv"
                yield finding("not_checkable", f"{shown}{suffix}", why, shown + suffix)
            else:
                written = file.read_bytes().decode("utf-8", errors="replace")
                yield from compare_texts(f"{shown}{suffix}", suffix, written, text)


def _lacks_predictions(context: SuiteContext, name: str) -> bool:
    """Whether a table of accuracies cannot be tested for † here, as it could where it was made."""
    config = context.project.table(name)
    return isinstance(config, AccuracyTable) and any(
        r.metrics is not None and not r.file("predictions.parquet").is_file()
        for r in results_of(context, searches=False)
        if r.cell.size == config.image_size
    )


def _texts(contents: Contents) -> dict[str, str]:
    return {".csv": contents.csv, ".md": to_markdown(contents.grid), ".tex": to_latex(contents.grid)}


def compare_texts(shown: str, suffix: str, written: str, again: str) -> Iterator[Finding]:
    """Findings about one file of a table: one a cell that differs, or one that confirms it all."""
    if written == again:
        rows = [line for line in parse(suffix, again) if line.columns]
        told = f"{sum(len(line.cells) for line in rows)} cells and all else are as the results give them"
        yield finding("confirmed", shown, told, shown)
        return
    found = False
    for one, other in _aligned(parse(suffix, written), parse(suffix, again)):
        for where, left, right in _different(one, other):
            found = True
            why = "the written cell is not what the results give"
            yield finding("contradicted", f"{shown}: {where}", why, shown, left, right)
    if not found:  # ends of lines, say
        yield finding("contradicted", shown, "the file differs in signs that are not shown", shown)


def _aligned(written: list[Line], again: list[Line]) -> Iterator[tuple[Line | None, Line | None]]:
    """Lines that belong together and differ; a line that was taken out or put in moves no other."""
    matcher = SequenceMatcher(None, [x.text for x in written], [x.text for x in again], autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind != "equal":
            yield from zip_longest(written[a:b], again[c:d])


def _different(one: Line | None, other: Line | None) -> Iterator[tuple[str, str | None, str | None]]:
    """Where two lines differ: the place in words, what is written, and what should be."""
    if one is None or other is None:
        line = one or other
        assert line is not None
        yield f"line {line.number}, {line.row}", one.text if one else None, other.text if other else None
    elif one.text != other.text and len(one.cells) == len(other.cells) and other.columns:
        place = f"line {one.number}, {other.row}"
        for position, (left, right) in enumerate(zip(one.cells, other.cells, strict=True)):
            if left != right:
                yield f"{place}, column {other.columns[position]}", left, right
    elif one.text != other.text:
        yield f"line {one.number}, {other.row}", one.text, other.text


# --- reading the three formats -------------------------------------------------------------------------


def parse(suffix: str, text: str) -> list[Line]:
    """The lines of a table's file, with cells where they are rows."""
    if suffix == ".csv":
        return _csv_lines(text)
    lines = text.splitlines()
    rows = [_cells(suffix, line) for line in lines]
    # The first row holds the headings; a tabular may spread them over several, of which one has them all.
    width = max((len(cells) for cells in rows if cells), default=0)
    headings = next((cells for cells in rows if cells and len(cells) == width), ())
    found = []
    for number, (line, cells) in enumerate(zip(lines, rows, strict=True), start=1):
        if cells is None or len(cells) != width:
            found.append(Line(number, line, (line,), "text", ()))
        else:
            columns = tuple(h or str(i + 1) for i, h in enumerate(headings))
            found.append(Line(number, line, cells, _row_name(cells[0]), columns))
    return found


def _cells(suffix: str, line: str) -> tuple[str, ...] | None:
    if suffix == ".md" and line.startswith("|"):
        return tuple(cell.strip() for cell in _PIPE.split(line.strip().strip("|")))
    if suffix == ".tex" and line.endswith(r"\\"):
        return tuple(cell.strip() for cell in _AMPERSAND.split(line.removesuffix(r"\\")))
    return None


def _csv_lines(text: str) -> list[Line]:
    raw = text.splitlines()
    rows = [next(csv.reader(io.StringIO(line)), []) for line in raw]
    headings = tuple(rows[0]) if rows else ()
    keys = [
        i for i, h in enumerate(headings) if h in ("dataset", "method", "first", "second", "part", "column")
    ]
    found = []
    for number, (line, cells) in enumerate(zip(raw, rows, strict=True), start=1):
        name = "/".join(cells[i] for i in keys if i < len(cells)) or (cells[0] if cells else "")
        columns = headings if len(cells) == len(headings) else ()
        found.append(Line(number, line, tuple(cells), _row_name(name), columns))
    return found


def _row_name(cell: str) -> str:
    """``row 'Tiny'``, without the letters of its notes."""
    return f"row '{_NOTE_LETTERS.sub('', cell)}'"
