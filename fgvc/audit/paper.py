"""A user's own table of accuracies, from a CSV: wide (datasets × methods, either way round) or tidy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fgvc.audit.rounding import Printed
from fgvc.audit.tables import Average, Score, ScoreTable
from fgvc.config.project import Project
from fgvc.data.lists import csv_rows, read_list_text
from fgvc.errors import FgvcError

_CELL = re.compile(
    r"(?P<value>\d+(?:\.\d+)?)\s*%?\s*"
    r"(?:(?:±|\+/?-|\\pm|\$\\pm\$)\s*(?P<std>\d+(?:\.\d+)?)|\(\s*(?P<paren>\d+(?:\.\d+)?)\s*\))?\s*%?"
)
_MARKS = re.compile(r"[*_$†‡\s]+")
_MISSING = ("", "-", "–", "—", "n/a", "na", "nan", "none", "?")
_AVERAGE = re.compile(r"(average|avg|mean)\b.*", re.IGNORECASE)
_DELIMITERS = (",", ";", "\t")
_FORM = (
    "a first line 'dataset,METHOD,METHOD' and one line a dataset with cells like 91.49 or 91.49 ± 0.01;\n"
    "or columns named method, accuracy and, where there are, dataset, std and seeds"
)
_TIDY = {
    "method": ("method", "model"),
    "value": ("accuracy", "acc", "top1", "top-1", "top1_pct", "value", "mean"),
    "dataset": ("dataset", "data"),
    "std": ("std", "stdev", "sd"),
    "seeds": ("seeds", "runs", "n"),
}


@dataclass(frozen=True)
class _Cell:
    """A cell as it stands in the file. ``line`` is 1-based."""

    row: str
    column: str
    value: Printed
    std: Printed | None
    seeds: int | None
    line: int


def read_paper(
    project: Project,
    file: Path,
    *,
    dataset: str | None = None,
    seeds: int | None = None,
    test_images: int | None = None,
) -> ScoreTable:
    """The table in ``file``, with the test images of the datasets that the project knows.

    Args:
        dataset: every number is of this dataset (id or alias); without it, rows or columns name datasets.
        seeds: runs behind each number, where the file does not say.
        test_images: of every dataset, instead of what the project knows.

    Raises FgvcError (with file and line) for what is no table of accuracies in percent, and for an unknown
    ``dataset``.
    """
    shown = str(file)
    name = project.canonical_dataset(dataset) if dataset else None
    lines = list(_lines(file, shown))
    header = [field.strip() for field in lines[0][1]]
    tidy = {key: at for key, names in _TIDY.items() if (at := _find(header, names)) is not None}
    cells = _tidy(lines, tidy, shown) if {"method", "value"} <= set(tidy) else _wide(lines, header, shown)
    if not cells:
        raise FgvcError("the table holds no number", file=shown, cure=_FORM)
    _refuse_shares(cells, shown)
    transposed = "dataset" not in tidy and "value" not in tidy and _rows_are_methods(project, cells, name)
    images = _Images(project, name, test_images)
    return _table(file, cells, transposed, images, seeds)


def _lines(file: Path, shown: str) -> list[tuple[int, list[str]]]:
    text = read_list_text(file, shown)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=first.count)
    lines = list(csv_rows(text, shown, delimiter))
    if len(lines) < 2 or len(lines[0][1]) < 2:
        raise FgvcError(
            "this is no table: a header and at least one line with two columns are needed",
            file=shown,
            line=1,
            cure=_FORM,
        )
    for line, fields in lines[1:]:
        if len(fields) != len(lines[0][1]):
            raise FgvcError(
                f"the line has {len(fields)} columns, the header {len(lines[0][1])}",
                file=shown,
                line=line,
                cure="complete the line; a text with a comma stands in quotes",
            )
    return lines


def _find(header: Sequence[str], names: Sequence[str]) -> int | None:
    folded = [field.casefold() for field in header]
    return next((folded.index(name) for name in names if name in folded), None)


def _tidy(lines: list[tuple[int, list[str]]], at: dict[str, int], shown: str) -> list[_Cell]:
    cells = []
    for line, fields in lines[1:]:
        parsed = _parse(fields[at["value"]], shown, line, lines[0][1][at["value"]])
        if parsed is None:
            continue
        value, std = parsed
        if "std" in at and (own := _parse(fields[at["std"]], shown, line, "std")) is not None:
            std = own[0]
        row = fields[at["dataset"]].strip() if "dataset" in at else ""
        runs = _seeds(fields[at["seeds"]], shown, line) if "seeds" in at else None
        cells.append(_Cell(row, fields[at["method"]].strip(), value, std, runs, line))
    return _no_doubles(cells, shown)


def _seeds(text: str, shown: str, line: int) -> int | None:
    if text.strip().casefold() in _MISSING:
        return None
    if not text.strip().isdigit() or int(text) < 1:
        raise FgvcError(
            f"'{text[:40]}' is no number of runs",
            file=shown,
            line=line,
            key="seeds",
            cure="write 3, or nothing",
        )
    return int(text)


def _wide(lines: list[tuple[int, list[str]]], header: list[str], shown: str) -> list[_Cell]:
    cells = []
    for line, fields in lines[1:]:
        for column, text in zip(header[1:], fields[1:], strict=True):
            parsed = _parse(text, shown, line, column)
            if parsed is not None:
                cells.append(_Cell(fields[0].strip(), column, *parsed, None, line))
    return _no_doubles(cells, shown)


def _parse(text: str, shown: str, line: int, column: str) -> tuple[Printed, Printed | None] | None:
    """Value and std of a cell; None for an empty one."""
    clean = _MARKS.sub(" ", text.replace("\\textbf{", "").replace("}", "")).strip()
    if clean.casefold() in _MISSING:
        return None
    match = _CELL.fullmatch(clean) or _CELL.fullmatch(text.strip())
    if match is None:
        raise FgvcError(
            f"'{text.strip()[:40]}' is no accuracy",
            file=shown,
            line=line,
            key=column,
            cure="write 91.49 or 91.49 ± 0.01; leave the cell empty where there is none",
        )
    value, std = match["value"], match["std"] or match["paren"]
    if float(value) > 100:
        raise FgvcError(
            f"{value} is more than 100 %", file=shown, line=line, key=column, cure="accuracies are in percent"
        )
    return _printed(value), None if std is None else _printed(std)


def _printed(text: str) -> Printed:
    return Printed(float(text), len(text.partition(".")[2]))


def _no_doubles(cells: list[_Cell], shown: str) -> list[_Cell]:
    seen: dict[tuple[str, str], _Cell] = {}
    for cell in cells:
        first = seen.setdefault((cell.row, cell.column), cell)
        if first is not cell:
            raise FgvcError(
                f"'{cell.row}, {cell.column}' stands twice (first on line {first.line})",
                file=shown,
                line=cell.line,
                cure="give the two different names, or keep one",
            )
    return cells


def _refuse_shares(cells: list[_Cell], shown: str) -> None:
    if all(cell.value.value <= 1 for cell in cells) and any(cell.value.value > 0 for cell in cells):
        raise FgvcError(
            "all accuracies are at most 1: these look like shares, not percent",
            file=shown,
            line=cells[0].line,
            cure="multiply them by 100, with the digits that were printed",
        )


# --- which axis, which dataset ----------------------------------------------------------------------------


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", re.sub(r"\(.*?\)", "", name).lower())


@dataclass(frozen=True)
class _Images:
    """Test images of a dataset as a table names it."""

    project: Project
    dataset: str | None
    given: int | None

    def of(self, name: str) -> int | None:
        if self.given is not None:
            return self.given
        found = self.dataset or _known(self.project).get(_folded(name))
        facts = self.project.dataset(found).expected.get("test") if found else None
        return facts.rows if facts else None


def _known(project: Project) -> dict[str, str]:
    """Dataset ids by every name that a paper may use."""
    names = {_folded(alias): name for alias, name in project.aliases.items()}
    for name in project.names("dataset"):
        names |= {_folded(project.dataset(name).title): name, _folded(name): name}
    return names


def _rows_are_methods(project: Project, cells: list[_Cell], dataset: str | None) -> bool:
    """With one dataset for all, a line is a method; else whichever axis names more datasets holds them."""
    if dataset is not None:
        return True
    known = _known(project)
    rows = sum(_folded(name) in known for name in {cell.row for cell in cells})
    columns = sum(_folded(name) in known for name in {cell.column for cell in cells})
    return columns > rows


def _table(
    file: Path, cells: list[_Cell], transposed: bool, images: _Images, seeds: int | None
) -> ScoreTable:
    scores: list[Score] = []
    averages: list[tuple[str, _Cell]] = []
    for cell in cells:
        dataset, method = (cell.column, cell.row) if transposed else (cell.row, cell.column)
        if images.dataset is None and _AVERAGE.fullmatch(dataset):
            averages.append((method, cell))
            continue
        name = dataset or images.dataset or "accuracy"
        runs = cell.seeds if cell.seeds is not None else seeds
        scores.append(Score(name, method, cell.value, cell.std, images.of(dataset), runs))
    counts = {method: sum(s.method == method for s in scores) for method, _ in averages}
    return ScoreTable(
        place=file.name,
        source=str(file),
        scores=tuple(scores),
        averages=tuple(Average(m, c.value, c.std, counts[m] or None) for m, c in averages),
    )
