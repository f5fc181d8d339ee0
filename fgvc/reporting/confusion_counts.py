"""Confusion matrices of a suite's runs, from their predictions, summed over seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fgvc.config.grid import Cell, confused
from fgvc.config.project import Project
from fgvc.config.suite import ConfusionFigure
from fgvc.evaluation.metrics import Floats, Ints, read_predictions
from fgvc.reporting.cells import nothing_to_show, require_finished
from fgvc.reporting.runs import Run, read_run

CSV_COLUMNS = ("dataset", "method", "true", "predicted", "count")


@dataclass(frozen=True)
class Pair:
    """Two classes (names): so many images of ``true``, a share of all its images, count as ``predicted``."""

    true: str
    predicted: str
    images: int
    share: float


@dataclass(frozen=True)
class Confusion:
    """One method on one dataset.

    ``counts`` [K, K]: images by true class (row) and predicted one (column), over ``seeds`` runs; None where
    no run is ok, for the reason in ``why``.
    """

    dataset: str
    method: str
    names: tuple[str, ...]
    seeds: tuple[int, ...]
    counts: Ints | None
    why: str = ""

    @property
    def accuracy_pct(self) -> float:
        assert self.counts is not None
        return float(100.0 * np.trace(self.counts) / self.counts.sum())

    @property
    def shares(self) -> Floats:
        """[K, K], of the images of each true class; 0 where a class has none."""
        assert self.counts is not None
        found: Floats = self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        return found

    def pairs(self, most: int) -> list[Pair]:
        """The pairs of different classes that take most images; of equals, those of the smaller ids."""
        assert self.counts is not None
        wrong = self.counts - np.diag(np.diag(self.counts))
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        found = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)]
        return [
            Pair(self.names[i], self.names[j], int(wrong[i, j]), float(self.shares[i, j]))
            for i, j in found
            if wrong[i, j]
        ]


@dataclass(frozen=True)
class Confusions:
    """Those of a figure, dataset by dataset; ``is_partial``: more runs would change it."""

    found: tuple[Confusion, ...]
    is_partial: bool


def read_confusions(
    project: Project,
    suite_name: str,
    config: ConfusionFigure,
    target: str,
    *,
    allow_missing: bool = False,
) -> Confusions:
    """The confusion matrices of a figure.

    Raises FgvcError naming missing runs and the command that makes ``target``, unless ``allow_missing``; and
    when predictions are not here, or there is nothing to draw.
    """
    cells = confused(project, suite_name, config)
    seeds = project.suite(suite_name).seeds
    runs = {cell: [read_run(project, cell, seed) for seed in seeds] for cell in cells}
    every = [run for of_cell in runs.values() for run in of_cell]
    if not allow_missing:
        require_finished(project, every, target)
    found = tuple(_confusion(project, cell, runs[cell]) for cell in cells)
    if all(one.counts is None for one in found):
        raise nothing_to_show(suite_name, config.image_size, target)
    return Confusions(found, any(run.is_lacking for run in every))


def _confusion(project: Project, cell: Cell, runs: Sequence[Run]) -> Confusion:
    classes = project.dataset(cell.dataset).classes
    finished = [run for run in runs if run.status == "ok"]
    names = [str(label) for label in range(classes)]
    counts = np.zeros((classes, classes), dtype=np.int64)
    for run in finished:
        for record in (run.metrics or {}).get("per_class", []):
            names[record["class_id"]] = str(record["name"])
        frame = read_predictions(run.directory(project) / "predictions.parquet", ("label", "top_classes"))
        predicted = np.array([top[0] for top in frame["top_classes"]], dtype=np.int64)
        np.add.at(counts, (frame["label"].to_numpy(np.int64), predicted), 1)
    why = "" if finished else "its runs diverged" if runs[0].status == "diverged" else "no run is there"
    seeds = tuple(run.seed for run in finished)
    return Confusion(cell.dataset, cell.method, tuple(names), seeds, counts if finished else None, why)


def counts_csv(confusions: Confusions) -> str:
    """The counts that are not 0 in long form: one row a dataset, method, true and predicted class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows(_rows(confusions))
    return text.getvalue()


def _rows(confusions: Confusions) -> Iterator[tuple[str, str, str, str, int]]:
    for one in confusions.found:
        if one.counts is not None:
            for i, j in np.argwhere(one.counts).tolist():
                yield one.dataset, one.method, one.names[i], one.names[j], int(one.counts[i, j])
