"""The accuracy table in the layout of the papers: mean ± std, an average; datasets × methods or the reverse.

Layouts after GLSim (arXiv:2407.12891), Table 4, and ILA (arXiv:2409.11051), Table 1.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from fgvc.config.project import Project
from fgvc.config.suite import AccuracyTable
from fgvc.evaluation.statistics import ALPHA, RESAMPLES
from fgvc.reporting.cells import CellTable, average, rank
from fgvc.reporting.cost_table import significant
from fgvc.reporting.grid_table import Entry, Grid, GridRow, Heading, Note, letter, method_headings
from fgvc.reporting.published_cells import Beside, PublishedBeside
from fgvc.reporting.runs import devices_of
from fgvc.reporting.split_label import split_note

METRIC_NAMES = {
    "top1_pct": "top-1 accuracy",
    "top5_pct": "top-5 accuracy",
    "macro_accuracy_pct": "accuracy averaged over classes",
}
CSV_COLUMNS = ("dataset", "method", "size", "metric", "mean", "std", "n", "expected_n", "status")
#: What others published for the same cell, and the state of ours against it; empty where nothing was.
PUBLISHED_COLUMNS = ("published_mean", "published_std", "published_state")
#: Image sets that share images with the dataset and that the method's weights saw; empty where none did.
OVERLAP_COLUMN = "pretraining_overlap"
#: What the method of a row trains, summed over the table's datasets, in millions; and what was published.
TOTAL_COLUMNS = ("trainable_total_m", "published_trainable_total_m")
_WORDS = {"missing": "not run", "failed": "FAILED", "diverged": "DIVERGED"}
_AVERAGE = Heading("average", "", "Average")
_TOTAL = Heading("trainable_total", "", "Trainable, all tasks (M)")

#: Trainable parameters by method, summed over a table's datasets; None where the table does not show them.
Totals = Mapping[str, int] | None


def accuracy_grid(
    project: Project,
    cells: CellTable,
    name: str,
    config: AccuracyTable,
    published: Beside,
    totals: Totals = None,
) -> Grid:
    """The table as it is printed, without a format; published numbers stand in rows of their own."""
    suite = project.suite(cells.suite)
    methods = method_headings(project, cells.methods)
    letters, dataset_notes = _dataset_notes(project, cells, methods)
    if config.rows == "methods":
        rows, headings = _method_rows(project, cells, methods, published, totals)
        dataset_notes = [Note(note.text) for note in dataset_notes]  # no letters: datasets are columns
    else:
        rows, headings = _dataset_rows(project, cells, methods, published, letters), methods
    done, total = cells.finished_cells, len(cells.frame)
    return Grid(
        name=name,
        title=config.title,
        caption=f"{config.caption.strip()} Suite {cells.suite}: {suite.title}.",
        row_heading="Method" if config.rows == "methods" else "Dataset",
        headings=headings,
        rows=tuple(rows),
        notes=(
            *_reading_notes(cells, "column" if config.rows == "methods" else "row"),
            *([Note(_told_totals(cells, published))] if totals is not None else []),
            *published.notes,
            *dataset_notes,
            *_device_notes(project, cells, methods),
            *_trouble_notes(project, cells, methods),
        ),
        partial=f"PARTIAL: {done} of {total} cells" if done < total else None,
    )


def accuracy_csv(project: Project, cells: CellTable, published: Beside, totals: Totals = None) -> str:
    """The tidy form: one row a cell, ids instead of titles, numbers as they were computed."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    more = TOTAL_COLUMNS if totals is not None else ()
    writer.writerow((*CSV_COLUMNS, *PUBLISHED_COLUMNS, OVERLAP_COLUMN, *more))
    for record in tidy_records(project, cells, published, totals):
        writer.writerow("" if value is None else value for value in record.values())
    return stream.getvalue()


def tidy_records(
    project: Project, cells: CellTable, published: Beside, totals: Totals = None
) -> list[dict[str, Any]]:
    """The rows of the CSV; mean and std in percent, rounded to 6 digits, None where there is none."""
    records = []
    for row in (cells.cell(d, m) for d in cells.datasets for m in cells.methods):
        record = {c: round(row[c], 6) if isinstance(row[c], float) else row[c] for c in CSV_COLUMNS}
        beside = published.cells.get((row["dataset"], row["method"]))
        values = (beside.mean, beside.std, beside.state) if beside else (None, None, None)
        record |= dict(zip(PUBLISHED_COLUMNS, values, strict=True))
        seen = seen_in_pretraining(project, row["dataset"], row["method"])
        record |= {OVERLAP_COLUMN: ";".join(seen) or None}
        if totals is not None:
            printed = published.totals.get(row["method"])
            both = (totals[row["method"]] / 1e6, printed.value if printed else None)
            record |= dict(zip(TOTAL_COLUMNS, both, strict=True))
        records.append(record)
    return records


def number(mean: float, std: float | None, decimals: int) -> str:
    """``90.93 ± 0.24``, or ``90.93`` where there is no spread."""
    return f"{mean:.{decimals}f}" + (f" ± {std:.{decimals}f}" if std is not None else "")


def _dataset_rows(
    project: Project,
    cells: CellTable,
    methods: tuple[Heading, ...],
    published: Beside,
    letters: Mapping[str, str],
) -> list[GridRow]:
    """A row a dataset, under it what was published for it, and the row of averages."""
    rows: list[GridRow] = []
    for d in cells.datasets:
        entries = tuple(_entry(cells.cell(d, h.key), cells.decimals) for h in methods)
        rows.append(GridRow(project.dataset(d).title, entries, letters.get(d, "")))
        rows += _published_row([published.cells.get((d, h.key)) for h in methods])
    return [*rows, GridRow("Average", tuple(_averages(cells, methods)), rule_above=True)]


def _method_rows(
    project: Project,
    cells: CellTable,
    methods: tuple[Heading, ...],
    published: Beside,
    totals: Totals,
) -> tuple[list[GridRow], tuple[Heading, ...]]:
    """A row a method, under it what was published for it, with a rule between groups; and the headings."""
    rows: list[GridRow] = []
    several = len(cells.datasets) > 1
    averages = _averages(cells, methods)
    for i, method in enumerate(methods):
        entries = [_entry(cells.cell(d, method.key), cells.decimals) for d in cells.datasets]
        entries += [averages[i]] if several else []
        entries += [Entry(significant(totals[method.key] / 1e6, 4))] if totals is not None else []
        begins = i > 0 and method.group != methods[i - 1].group
        rows.append(GridRow(method.one_line, tuple(entries), rule_above=begins))
        printed = published.totals.get(method.key) if totals is not None else None
        more = [Entry("")] * several
        more += [Entry(f"{printed.value:.{printed.decimals}f}" if printed else "")] * (totals is not None)
        rows += _published_row([published.cells.get((d, method.key)) for d in cells.datasets], more)
    headings = [Heading(d, "", project.dataset(d).title) for d in cells.datasets]
    return rows, (*headings, *[_AVERAGE] * several, *[_TOTAL] * (totals is not None))


def _told_totals(cells: CellTable, published: Beside) -> str:
    """What the column of trainable parameters is."""
    text = (
        f"Trainable, all tasks: parameters that train, summed over {len(cells.datasets)} "
        f"dataset{'s' * (len(cells.datasets) > 1)}, each with a head for its own classes"
    )
    return text + ("; under it the published total." if published.totals else ".")


def _entry(cell: dict[str, Any], decimals: int) -> Entry:
    status, mean = cell["status"], cell["mean"]
    if mean is None:
        return Entry(_WORDS[status])
    remarks = [f"n={cell['n']}/{cell['expected_n']}"] if status != "ok" else []
    remarks += [_WORDS[status]] if status in ("failed", "diverged") else []
    return Entry(
        number(mean, cell["std"], decimals),
        bold=cell["is_best"],
        underlined=cell["is_second"],
        dagger=cell["inseparable"],
        remark=", ".join(remarks),
    )


def _published_row(found: Sequence[PublishedBeside | None], more: Sequence[Entry] = ()) -> list[GridRow]:
    """What was published for a row's cells, each with the state of ours; no row where nothing was."""
    if not any(found):
        return []
    entries = [Entry(number(c.mean, c.std, c.decimals), remark=c.state) if c else Entry("") for c in found]
    return [GridRow("published", (*entries, *more), quoted=True)]


def _averages(cells: CellTable, headings: tuple[Heading, ...]) -> list[Entry]:
    averages = [average(cells, h.key) for h in headings]
    places = rank([a[0] if a else None for a in averages], cells.decimals)
    return [
        Entry(number(*a, cells.decimals), bold=place == 1, underlined=place == 2) if a else Entry("–")
        for a, place in zip(averages, places, strict=True)
    ]


def _reading_notes(cells: CellTable, line: str) -> list[Note]:
    """How the numbers are to be read; ``line``: the row or column in which methods are compared."""
    seeds = ", ".join(map(str, cells.seeds))
    spread = (
        f"mean ± standard deviation over n = {len(cells.seeds)} seeds ({seeds})"
        if len(cells.seeds) > 1
        else f"one seed ({seeds}), so no ±"
    )
    notes = [
        f"{METRIC_NAMES[cells.metric].capitalize()} in percent on the test split, images of "
        f"{cells.size} × {cells.size} pixels; {spread}. Bold: best of the {line}, underlined: second."
    ]
    if cells.comparisons:
        notes.append(
            f"†: not separated from the best of its {line} by a paired bootstrap over the test images "
            f"({RESAMPLES:,} resamples, Holm's correction, α = {ALPHA:g})."
        )
    if cells.untested:
        notes.append(f"{len(cells.untested)} cells are not tested for †: their predictions are not here.")
    if len(cells.datasets) > 1:
        notes.append(
            f"Average: mean over the {len(cells.datasets)} datasets ± standard deviation across datasets."
        )
    if any(average(cells, m) is None for m in cells.methods):
        notes.append(
            f"No average (–) where a cell of the {'row' if line == 'column' else 'column'} is not complete."
        )
    return [Note(text) for text in notes]


def _dataset_notes(
    project: Project, cells: CellTable, headings: tuple[Heading, ...]
) -> tuple[dict[str, str], list[Note]]:
    """Letters by dataset and the notes they stand for: whose split it is, and what pre-training has seen."""
    letters: dict[str, str] = {}
    notes: list[Note] = []
    for name in cells.datasets:
        dataset = project.dataset(name)
        told = [text for text in [split_note(project, name)] if text]
        seen = _seen_by(project, name, headings)
        told += [
            f"{dataset.title} shares images with {images}, seen in pre-training by {methods}: read with care."
            for images, methods in seen.items()
        ]
        for text in told:
            mark = letter(len(notes))
            letters[name] = letters[name] + "," + mark if name in letters else mark
            notes.append(Note(text, mark))
    return letters, notes


def seen_in_pretraining(project: Project, dataset: str, method: str) -> list[str]:
    """The image sets that share images with a dataset and that a method's weights were pre-trained on."""
    weights = project.variant(method).weights
    saw = {p.casefold() for p in project.weights(weights).pretraining} if weights else set()
    return [images for images in project.dataset(dataset).pretraining_overlap if images.casefold() in saw]


def _seen_by(project: Project, dataset: str, headings: tuple[Heading, ...]) -> dict[str, str]:
    """Each image set that shares images with a dataset, with the methods whose weights saw it."""
    found: dict[str, list[str]] = {}
    for heading in headings:
        for images in seen_in_pretraining(project, dataset, heading.key):
            found.setdefault(images, []).append(heading.one_line)
    return {images: ", ".join(methods) for images, methods in found.items()}


def _device_notes(project: Project, cells: CellTable, headings: tuple[Heading, ...]) -> list[Note]:
    """Which runs several devices trained together, by their number."""
    titles = {h.key: h.one_line for h in headings}
    by_count: dict[int, list[str]] = {}
    for run in cells.runs:
        count = devices_of(project, run) if run.status == "ok" else 1
        if count > 1:
            place = f"{project.dataset(run.cell.dataset).title} / {titles[run.cell.method]}, seed {run.seed}"
            by_count.setdefault(count, []).append(place)
    return [
        Note(f"Trained on {count} devices together, at the same batch size: {'; '.join(places)}.")
        for count, places in sorted(by_count.items())
    ]


def _trouble_notes(project: Project, cells: CellTable, headings: tuple[Heading, ...]) -> list[Note]:
    """What failed or diverged, by cause; and what (n=2/3) and "not run" mean where they occur."""
    titles = {h.key: h.one_line for h in headings}
    by_cause: dict[tuple[str, str], list[str]] = {}
    for run in cells.runs:
        if run.status in ("failed", "diverged"):
            place = f"{project.dataset(run.cell.dataset).title} / {titles[run.cell.method]}, seed {run.seed}"
            by_cause.setdefault((run.status, run.cause or ""), []).append(place)
    notes = [
        Note(f"{_WORDS[status]} ({cause}): {'; '.join(places)}.")
        for (status, cause), places in by_cause.items()
    ]
    if any(status == "diverged" for status, _ in by_cause):
        notes.append(
            Note("Diverged runs are finished runs; they are in no mean, and their cells are not ranked.")
        )
    if cells.frame["status"].isin(["missing", "partial"]).any():
        notes.append(Note("n=k/m: k of m seeds are finished; not run: none is."))
    return notes
