"""The results of all finished runs in three small files that DVC compares between commits.

``results/metrics.json`` serves ``dvc metrics`` and ``dvc exp show``; ``results/accuracy.csv`` and
``results/history.csv`` serve ``dvc plots``. The same runs give the same bytes: no time, no path of a machine.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from fgvc.config.grid import Cell
from fgvc.config.project import Project
from fgvc.errors import UnknownNameError
from fgvc.evaluation.metrics import DIGITS, Metric
from fgvc.evaluation.statistics import spread
from fgvc.provenance.files import write_json, write_text
from fgvc.reporting.runs import Run, read_run
from fgvc.tracking.dvc_yaml import ACCURACY, HISTORY, METRICS

_HISTORY_COLUMNS = ("epoch", "learning_rate", "train_loss", "train_top1_pct")


def write_summaries(project: Project) -> list[Path]:
    """Write the three files; returns their paths."""
    runs = finished_runs(project)
    paths = [project.root / name for name in (METRICS, ACCURACY, HISTORY)]
    write_json(paths[0], metrics_of(runs))
    write_text(paths[1], _csv(("run", "top1_pct"), _accuracies(runs)))
    write_text(paths[2], _csv(("run", *_HISTORY_COLUMNS), _histories(project, runs)))
    return paths


def finished_runs(project: Project) -> list[Run]:
    """Runs that ended, also by diverging, and are of the recipe as it is now; in order of their ids."""
    found = []
    for folder in (project.root / "results" / "runs").glob("*/*/*/seed*"):
        dataset, method, size = folder.parts[-4:-1]
        seed = folder.name.removeprefix("seed")
        if not (size.isdigit() and seed.isdigit() and (folder / "run.json").is_file()):
            continue
        try:
            run = read_run(project, Cell(dataset, method, int(size)), int(seed))
        except UnknownNameError:  # its dataset or variant is no longer in params/
            continue
        if run.status in ("ok", "diverged"):
            found.append(run)
    return sorted(found, key=lambda run: (run.cell, run.seed))


def metrics_of(runs: list[Run]) -> dict[str, Any]:
    """``dataset → method → size``: for each metric mean, std (ddof=1; absent for one run), n and each seed's.

    All in percent. ``diverged`` counts the runs of a cell without a number, where there are any.
    """
    cells: dict[Cell, list[Run]] = {}
    for run in runs:
        cells.setdefault(run.cell, []).append(run)
    found: dict[str, Any] = {}
    for cell, its_runs in cells.items():
        found.setdefault(cell.dataset, {}).setdefault(cell.method, {})[str(cell.size)] = _of_cell(its_runs)
    return found


def _of_cell(runs: list[Run]) -> dict[str, Any]:
    ended_well = [run for run in runs if run.metrics is not None]
    found: dict[str, Any] = {}
    for metric in get_args(Metric):
        values = {run.seed: run.metrics.get(metric) for run in ended_well if run.metrics}
        known = {seed: float(value) for seed, value in values.items() if value is not None}
        if known:
            over = spread(list(known.values()))
            found[metric] = {"mean": round(over.mean, DIGITS), "n": over.n}
            if over.std is not None:
                found[metric]["std"] = round(over.std, DIGITS)
            found[metric] |= {f"seed{seed}": value for seed, value in known.items()}
    if len(ended_well) < len(runs):
        found["diverged"] = len(runs) - len(ended_well)
    return found


def _accuracies(runs: list[Run]) -> Iterator[list[Any]]:
    for run in runs:
        if run.metrics is not None:
            yield [run.name, run.metrics["top1_pct"]]


def _histories(project: Project, runs: list[Run]) -> Iterator[list[Any]]:
    for run in runs:
        path = run.directory(project) / "history.csv"
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as stream:
                for row in csv.DictReader(stream):
                    yield [run.name, *(row.get(column, "") for column in _HISTORY_COLUMNS)]


def _csv(header: tuple[str, ...], rows: Iterator[list[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
