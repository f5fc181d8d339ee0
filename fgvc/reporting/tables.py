"""Writing and showing the tables of a suite: ``.tex``, ``.md`` and tidy ``.csv``."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc.config.project import Project
from fgvc.config.suite import (
    AccuracyTable,
    ComparisonsTable,
    CostTable,
    DatasetsTable,
    PublishedTable,
    SelectionTable,
    TrainableTable,
    VersusTable,
)
from fgvc.provenance.files import write_text
from fgvc.reporting import (
    accuracy_table,
    comparisons_table,
    cost_table,
    datasets_table,
    published_table,
    size_table,
    versus_table,
)
from fgvc.reporting.cells import CellTable, collect, gather, require_runs
from fgvc.reporting.grid_table import Grid, GridRow
from fgvc.reporting.latex import to_latex
from fgvc.reporting.markdown import to_markdown
from fgvc.reporting.printer import DEFAULT_WIDTH, Column, Style, render
from fgvc.reporting.published_cells import compare
from fgvc.reporting.versus_cells import versus

SUFFIXES = (".tex", ".md", ".csv")


@dataclass(frozen=True)
class Contents:
    """A table read from the results: as it is printed, and its tidy rows."""

    grid: Grid
    records: list[dict[str, Any]]
    csv: str


def read_table(
    project: Project,
    suite_name: str,
    table: str,
    *,
    suite_path: str | None = None,
    allow_missing: bool = False,
) -> Contents:
    """A suite's table of any kind.

    Raises FgvcError naming what is missing and the command that makes it, unless ``allow_missing``.
    """
    config = project.table(table)
    if isinstance(config, AccuracyTable):
        cells = collect(project, suite_name, table, suite_path=suite_path, allow_missing=allow_missing)
        return _accuracy_contents(project, cells, table, config)
    target = project.paths.shown(_with_suffix(project.paths.table(suite_path, table), ".tex"))
    if isinstance(config, ComparisonsTable):
        return _read_comparisons(project, suite_name, table, config, None if allow_missing else target)
    if isinstance(config, PublishedTable):
        shown = published_table.read_published(project, config, target, allow_missing=allow_missing)
        return Contents(
            published_table.published_grid(table, config, shown),
            published_table.tidy_records(shown),
            published_table.published_csv(shown),
        )
    if isinstance(config, VersusTable):
        return _read_versus(project, suite_name, table, config, None if allow_missing else target)
    if isinstance(config, CostTable):
        costs = cost_table.read_costs(project, suite_name, config, target, allow_missing=allow_missing)
        grid = cost_table.cost_grid(project, suite_name, table, config, costs)
        return Contents(grid, cost_table.tidy_records(costs), cost_table.cost_csv(costs))
    if isinstance(config, SelectionTable):
        return _selection_contents(project, table, config)
    if isinstance(config, TrainableTable):
        return _trainable_contents(project, table, config)
    if isinstance(config, DatasetsTable):
        return Contents(
            datasets_table.datasets_grid(project, table, config),
            datasets_table.tidy_records(project),
            datasets_table.datasets_csv(project),
        )
    records = size_table.read_statistics(project, suite_name, config, target, allow_missing=allow_missing)
    return Contents(
        size_table.size_grid(project, suite_name, table, config, records),
        size_table.tidy_records(records),
        size_table.size_csv(records),
    )


def _accuracy_contents(project: Project, cells: CellTable, table: str, config: AccuracyTable) -> Contents:
    """Accuracies; with totals of trainable parameters they are counted now, which needs torch and seconds."""
    published, totals = compare(project, cells, config.published), None
    if config.trainable_total:
        from fgvc.reporting.trainable import trainable_by_dataset

        totals = {
            m: sum(trainable_by_dataset(project, m, cells.size, cells.datasets).values())
            for m in cells.methods
        }
    return Contents(
        accuracy_table.accuracy_grid(project, cells, table, config, published, totals),
        accuracy_table.tidy_records(project, cells, published, totals),
        accuracy_table.accuracy_csv(project, cells, published, totals),
    )


def _read_comparisons(
    project: Project, suite_name: str, table: str, config: ComparisonsTable, target: str | None
) -> Contents:
    """Pairs of methods; with a ``target``, every run and its predictions must be there."""
    compared = comparisons_table.read_comparisons(project, suite_name, config, target)
    return Contents(
        comparisons_table.comparisons_grid(project, table, config, compared),
        comparisons_table.tidy_records(compared),
        comparisons_table.comparisons_csv(compared),
    )


def _selection_contents(project: Project, table: str, config: SelectionTable) -> Contents:
    """A table that counts for itself, and so needs torch."""
    from fgvc.reporting import selection_table

    found = selection_table.read_selections(project, config)
    return Contents(
        selection_table.selection_grid(table, config, found),
        selection_table.tidy_records(found),
        selection_table.selection_csv(found),
    )


def _trainable_contents(project: Project, table: str, config: TrainableTable) -> Contents:
    """Another one."""
    from fgvc.reporting import trainable_table

    found = trainable_table.read_totals(project, config)
    return Contents(
        trainable_table.trainable_grid(project, table, config, found),
        trainable_table.tidy_records(found),
        trainable_table.trainable_csv(found),
    )


def _read_versus(
    project: Project, suite_name: str, table: str, config: VersusTable, target: str | None
) -> Contents:
    """Published, ours and the difference; with a ``target``, every run must be there."""
    cells = gather(project, suite_name, config.image_size, config.metric, config.decimals)
    beside = versus(project, cells, table, config)
    if target is not None:
        require_runs(project, cells, target)
    return Contents(
        versus_table.versus_grid(project, cells, table, config, beside),
        versus_table.tidy_records(config, beside),
        versus_table.versus_csv(config, beside),
    )


def write_table(
    project: Project,
    suite_name: str,
    table: str,
    *,
    suite_path: str | None = None,
    allow_missing: bool = False,
    only_partial: bool = False,
) -> list[Path]:
    """Write one table and return its files, ``.tex`` first.

    Args:
        suite_path: the suite's folder in ``results/``, or None for the default suite's short path.
        allow_missing: write what is there. A table that is not complete goes to ``TABLE.partial.*``, never
            to the path that the workflow declares; a complete one removes an older partial one.
        only_partial: write nothing when the table is complete.

    Raises FgvcError when something is missing and ``allow_missing`` is not given.
    """
    contents = read_table(project, suite_name, table, suite_path=suite_path, allow_missing=allow_missing)
    if only_partial and not contents.grid.partial:
        return []
    whole = project.paths.table(suite_path, table)
    base = _partial(whole) if contents.grid.partial else whole
    texts = (to_latex(contents.grid), to_markdown(contents.grid), contents.csv)
    files = [_with_suffix(base, suffix) for suffix in SUFFIXES]
    for file, text in zip(files, texts, strict=True):
        write_text(file, text)
    if base is whole:
        _remove_partial(whole)
    return files


def remove_partial_tables(project: Project, suite_name: str, short: bool) -> None:
    """Remove the ``.partial`` tables that an earlier, failed run of the workflow left.

    Args:
        short: at the default suite's short path instead of the suite's own folder.
    """
    for table in project.suite(suite_name).tables:
        _remove_partial(project.paths.table(None if short else suite_name, table))


def _remove_partial(whole: Path) -> None:
    for suffix in SUFFIXES:
        _with_suffix(_partial(whole), suffix).unlink(missing_ok=True)


def _partial(whole: Path) -> Path:
    return whole.with_name(f"{whole.name}.partial")


def show_table(contents: Contents, style: Style, width: int | None) -> str:
    """A table as text for standard output.

    On a terminal the best of a row has ``*``, the second ``+``; CSV and JSON are the tidy form.
    """
    shown: dict[Style, Callable[[], str]] = {
        "terminal": lambda: _terminal(contents.grid, width),
        "md": lambda: to_markdown(contents.grid),
        "csv": lambda: contents.csv,
        "json": lambda: json.dumps(contents.records, indent=2, ensure_ascii=False) + "\n",
    }
    return shown[style]()


def _terminal(grid: Grid, width: int | None) -> str:
    columns = [Column("", grid.row_heading)]
    titles = zip(grid.headings, grid.column_titles, strict=True)
    columns += [Column(heading.key, title, rigid=True) for heading, title in titles]
    rows = [
        {"": _row_title(row)} | {h.key: e.plain for h, e in zip(grid.headings, row.entries, strict=True)}
        for row in grid.rows
    ]
    notes = [(f"[{n.letter}] " if n.letter else "") + n.text for n in grid.notes]
    if any(e.bold or e.underlined for row in grid.rows for e in row.entries):
        notes.append("Here * stands for bold and + for underlined.")
    notes = [textwrap.fill(note, width or DEFAULT_WIDTH) for note in notes]
    head = [grid.title, *([grid.partial] if grid.partial else []), ""]
    return "\n".join([*head, render(rows, columns, "terminal", width), *notes]).rstrip("\n") + "\n"


def _row_title(row: GridRow) -> str:
    """With its letters; a quoted row is marked as belonging to the one above (leading blanks are dropped)."""
    letters = f" [{row.note_letters}]" if row.note_letters else ""
    return ("· " if row.quoted else "") + row.title + letters


def _with_suffix(base: Path, suffix: str) -> Path:
    return base.with_name(base.name + suffix)
