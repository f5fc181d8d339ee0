"""The last lines on the screen: what a finished workflow found, or which jobs failed and how to go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgvc.config.project import Project
from fgvc.config.suite import AccuracyTable, DatasetsTable, PublishedFigure, PublishedTable, TrainableTable
from fgvc.evaluation.metrics import Floats, most_confused, read_predictions
from fgvc.evaluation.statistics import bootstrap_interval
from fgvc.provenance.digests import seed_from
from fgvc.reporting.accuracy_table import METRIC_NAMES
from fgvc.reporting.cells import CellTable, average, collect, seed_averaged_scores
from fgvc.reporting.grid_table import method_headings
from fgvc.reporting.runs import Run
from fgvc.reporting.tables import write_table

MAX_LINES = 10
#: Failed jobs that are told in full; the rest is counted.
MAX_FAILURES = 12


@dataclass(frozen=True)
class FailedJob:
    """A failed job of the workflow: rule and output, final error line, log, and how to rerun it."""

    rule: str
    output: str
    error: str
    log: str
    command: str


def summary_lines(
    project: Project,
    suite_name: str,
    short: bool,
    *,
    tables: Sequence[str] | None = None,
    figures: Sequence[str] | None = None,
    commands: str = "",
) -> list[str]:
    """What a suite's results say, in at most ten lines.

    Args:
        short: the tables are at the default suite's short path instead of the suite's own folder.
        tables, figures: those that were made; None for all of the suite.
        commands: what stands before ``snakemake`` and ``fgvc`` where the shell does not find them.
    """
    suite, paths = project.suite(suite_name), project.paths
    folder = None if short else suite_name
    tables = suite.tables if tables is None else tables
    figures = suite.figures if figures is None else figures
    made = [*map(project.table, tables), *map(project.figure, figures)]
    elsewhere = (PublishedTable, PublishedFigure, DatasetsTable, TrainableTable)
    is_own = not made or not all(isinstance(c, elsewhere) for c in made)
    accuracy = next((name for name in suite.tables if isinstance(project.table(name), AccuracyTable)), None)
    lines: list[str] = []
    if accuracy is not None and is_own:  # of what others published there is nothing to find out
        lines += _findings(project, collect(project, suite_name, accuracy, allow_missing=True))
    where = [f"Table:  {paths.shown(paths.table(folder, t))}.md (and .tex, .csv)" for t in tables]
    where += [f"Figure: {paths.shown(paths.figure(folder, f))}.png (and .pdf)" for f in figures]
    room = MAX_LINES - len(lines) - 1
    if len(where) > room:
        rest = len(where) - room + 1
        where = [*where[: room - 1], f"More:   {rest} other tables and figures beside them"]
    return [*lines, *where, "Next:   " + _next_step(project, suite_name, folder, commands)]


def failure_report(project: Project, failures: Sequence[FailedJob]) -> list[str]:
    """Of each failed job its final error line, its log and the command that reruns only that job."""
    if not failures:
        return ["No job left an error of its own; what stopped the workflow stands above."]
    lines = [f"{len(failures)} job{'s' if len(failures) > 1 else ''} failed:"]
    for job in failures[:MAX_FAILURES]:
        log = Path(job.log) if job.log else None
        lines += [
            f"  {job.rule} {job.output}: {job.error}",
            f"    log:   {project.paths.shown(log) if log else 'none'}",
            f"    rerun: {job.command}",
        ]
    if len(failures) > MAX_FAILURES:
        lines.append(f"  and {len(failures) - MAX_FAILURES} more; the partial table names those of its cells")
    return lines


def write_partial_tables(
    project: Project, suite_name: str, short: bool, *, tables: Sequence[str] | None = None
) -> list[Path]:
    """Write the incomplete tables of a suite as far as their results go, and return the Markdown files.

    A complete table is the workflow's to write, not ours.

    Args:
        short: at the default suite's short path instead of the suite's own folder.
        tables: those that were asked for; None for all of the suite.
    """
    folder = None if short else suite_name
    written = [
        file
        for table in (project.suite(suite_name).tables if tables is None else tables)
        for file in write_table(
            project, suite_name, table, suite_path=folder, allow_missing=True, only_partial=True
        )
    ]
    return [file for file in written if file.name.endswith(".partial.md")]


def _findings(project: Project, cells: CellTable) -> list[str]:
    """Best method with its interval, its worst class and most confused pair, and what diverged."""
    averages = {m: a[0] for m in cells.methods if (a := average(cells, m)) is not None}
    lines = []
    if averages:
        best = max(averages, key=lambda m: averages[m])
        name = next(h.one_line for h in method_headings(project, cells.methods) if h.key == best)
        several = len(cells.datasets) > 1
        over = f"{len(cells.datasets)} datasets" if several else project.dataset(cells.datasets[0]).title
        seeds = f"{len(cells.seeds)} seed{'s' if len(cells.seeds) > 1 else ''}"
        lines = [
            f"Best:   {name}: {averages[best]:.{cells.decimals}f} % {METRIC_NAMES[cells.metric]} on {over}"
            f"{_interval(project, cells, best)}, n = {seeds}",
            *_worst_class(project, cells, best),
            *_most_confused(project, cells, best),
        ]
    diverged = [r.name for r in cells.runs if r.status == "diverged"]
    if diverged:
        lines.append(f"Note:   {len(diverged)} diverged, in no mean: {', '.join(diverged[:2])}")
    return [f"Suite:  {cells.suite}, {cells.finished_cells} of {len(cells.frame)} cells complete", *lines]


def _interval(project: Project, cells: CellTable, method: str) -> str:
    """``, 95 % interval 88.1–90.9``; nothing when predictions are not here."""
    scores: list[Floats] = []
    for dataset in cells.datasets:
        loaded = seed_averaged_scores(project, cells.runs_of(dataset, method), cells.metric)
        if loaded is None:
            return ""
        scores.append(loaded[1])
    found = bootstrap_interval(scores, seed=seed_from("interval", *cells.datasets, method))
    d = cells.decimals
    return f", 95 % interval {100 * found.low:.{d}f}–{100 * found.high:.{d}f}"


def _ok_runs(cells: CellTable, method: str) -> list[Run]:
    return [r for d in cells.datasets for r in cells.runs_of(d, method) if r.status == "ok"]


def _worst_class(project: Project, cells: CellTable, method: str) -> list[str]:
    """The class with the lowest accuracy, averaged over seeds."""
    by_class: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in _ok_runs(cells, method):
        for record in (run.metrics or {}).get("per_class", []):
            by_class.setdefault((run.cell.dataset, record["name"]), []).append(record)
    if not by_class:
        return []
    accuracy = {k: float(np.mean([r["accuracy_pct"] for r in records])) for k, records in by_class.items()}
    dataset, name = min(accuracy, key=lambda k: (accuracy[k], -by_class[k][0]["images"], k))
    images = by_class[dataset, name][0]["images"]
    where = _of(project, cells, dataset)
    return [f"Worst:  class {name}{where}: {accuracy[dataset, name]:.1f} % of its {images} images right"]


def _most_confused(project: Project, cells: CellTable, method: str) -> list[str]:
    """The pair of classes that most images fall to, summed over seeds, from the predictions."""
    found: list[tuple[int, int, str, dict[str, Any]]] = []
    for position, dataset in enumerate(cells.datasets):
        labels, predicted = [], []
        names: dict[int, str] = {}
        for run in cells.runs_of(dataset, method):
            file = run.directory(project) / "predictions.parquet"
            if not file.is_file():
                return []
            predictions = read_predictions(file, ("label", "top_classes"))
            labels.append(predictions["label"].to_numpy(np.int64))
            predicted.append(np.array([top[0] for top in predictions["top_classes"]], dtype=np.int64))
            names |= {r["class_id"]: r["name"] for r in (run.metrics or {}).get("per_class", [])}
        classes = project.dataset(dataset).classes
        titles = [names.get(c, f"class {c}") for c in range(classes)]
        pair = most_confused(np.concatenate(labels), np.concatenate(predicted), titles)
        if pair:
            pair["of"] = int((np.concatenate(labels) == pair["true_id"]).sum())
            found.append((pair["images"], -position, dataset, pair))
    if not found:
        return []
    *_, dataset, pair = max(found, key=lambda item: item[:2])
    where = _of(project, cells, dataset)
    share = f"{pair['images']} of {pair['of']} predictions"
    return [f"Mix-up: {pair['true']} taken for {pair['predicted']}{where}: {share}"]


def _of(project: Project, cells: CellTable, dataset: str) -> str:
    return f" ({project.dataset(dataset).title})" if len(cells.datasets) > 1 else ""


def _next_step(project: Project, suite_name: str, folder: str | None, commands: str) -> str:
    others = [name for name in project.names("suite") if name != suite_name]
    tables = project.suite(suite_name).tables
    target = f" -- {project.paths.shown(project.paths.table(folder, tables[0]))}.csv" if folder else ""
    report = f"{commands}snakemake --report report.html{target} (everything in one file)"
    return f"{report}; {commands}fgvc plan {others[-1]} (another suite's cost)" if others else report
