"""The cells of an accuracy table: mean ± std over seeds, who is best, who cannot be told from the best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from fgvc.config.grid import Cell, datasets_of, require_size
from fgvc.config.project import Project
from fgvc.config.suite import AccuracyTable
from fgvc.errors import FgvcError
from fgvc.evaluation.metrics import Floats, Metric, image_scores, read_predictions
from fgvc.evaluation.statistics import inseparable_from, spread
from fgvc.reporting.runs import Run, read_run

COLUMNS = (
    "dataset",
    "method",
    "size",
    "metric",
    "mean",
    "std",
    "n",
    "expected_n",
    "status",
    "cause",
    "inseparable",
    "is_best",
    "is_second",
)
#: Worst first: the status of a cell is the worst of its runs'.
_SEVERITY = ("diverged", "failed", "missing", "ok")


@dataclass(frozen=True)
class CellTable:
    """The cells of one suite at one image size.

    ``frame`` has one row a cell, dataset by dataset in the suite's order, with the columns `COLUMNS`:
    ``mean`` and ``std`` in percent (``std`` None for one run), ``n`` of ``expected_n`` runs in them, and
    ``status`` ok, partial (runs not made yet), failed, diverged or missing (nothing there).
    """

    suite: str
    size: int
    metric: Metric
    decimals: int
    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]
    frame: pd.DataFrame
    #: Cells whose predictions are not here, so that nothing can be said about their difference from the best.
    untested: tuple[tuple[str, str], ...] = ()
    _by_id: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for row in self.frame.to_dict("records"):
            self._by_id[str(row["dataset"]), str(row["method"])] = {str(k): v for k, v in row.items()}

    def cell(self, dataset: str, method: str) -> dict[str, Any]:
        """One row of ``frame``."""
        return self._by_id[dataset, method]

    def runs_of(self, dataset: str, method: str) -> list[Run]:
        return [r for r in self.runs if (r.cell.dataset, r.cell.method) == (dataset, method)]

    @property
    def comparisons(self) -> int:
        """How many cells were tested against the best of their row."""
        ranked = self.frame[self.frame["mean"].notna() & (self.frame["status"] != "diverged")]
        return len(ranked) - ranked["dataset"].nunique() - len(self.untested)

    @property
    def unfinished(self) -> list[Run]:
        """Runs without a result. A diverged run is finished."""
        return [r for r in self.runs if r.is_lacking]

    @property
    def finished_cells(self) -> int:
        """How many cells have every run finished."""
        open_cells = {r.cell for r in self.unfinished}
        return len(self.frame) - len(open_cells)


def collect(
    project: Project,
    suite_name: str,
    table: str,
    *,
    suite_path: str | None = None,
    allow_missing: bool = False,
) -> CellTable:
    """The cells of a suite's table.

    Args:
        table: id of an accuracy table (``params/tables/TABLE.yaml``).
        suite_path: the suite's folder in ``results/``, or None for the default suite's short path; only
            used to name the command that makes what is missing.

    Raises FgvcError when the table is of another kind or size than the suite has, when runs are missing
    (unless ``allow_missing``), and when runs that are compared were tested on different images.
    """
    config = project.table(table)
    if not isinstance(config, AccuracyTable):
        raise FgvcError(
            f"the table '{table}' holds no accuracies (kind: {config.kind})",
            file=project.paths.shown(project.file("table", table)),
        )
    shown = datasets_of(project, suite_name, table, config)
    cells = gather(project, suite_name, config.image_size, config.metric, config.decimals, shown)
    if not allow_missing:
        require_runs(project, cells, project.paths.shown(project.paths.table(suite_path, table)) + ".tex")
    return cells


def gather(
    project: Project,
    suite_name: str,
    size: int,
    metric: Metric,
    decimals: int,
    datasets: list[str] | None = None,
) -> CellTable:
    """The cells of a suite at one image size, whatever is there of them (see `collect`).

    ``datasets``: those of the suite that are gathered; None for all.
    """
    suite = project.suite(suite_name)
    require_size(project, suite_name, size)
    shown = suite.datasets if datasets is None else datasets
    runs = [
        read_run(project, Cell(d, m, size), seed)
        for d in shown
        for m in suite.methods
        for seed in suite.seeds
    ]
    rows: list[dict[str, Any]] = []
    untested: list[tuple[str, str]] = []
    for dataset in shown:
        by_method = {m: [r for r in runs if r.cell == Cell(dataset, m, size)] for m in suite.methods}
        row = [_cell_record(by_method[m], metric) for m in suite.methods]
        _rank(row, decimals)
        untested += [(dataset, m) for m in _mark_inseparable(project, row, by_method, metric)]
        rows += row
    return CellTable(
        suite=suite_name,
        size=size,
        metric=metric,
        decimals=decimals,
        datasets=tuple(shown),
        methods=tuple(suite.methods),
        seeds=tuple(suite.seeds),
        runs=tuple(runs),
        frame=_frame(rows),
        untested=tuple(untested),
    )


def require_runs(project: Project, cells: CellTable, target: str) -> None:
    """Raise FgvcError when runs are missing, naming them and the command that makes ``target``.

    Metrics that were edited come first: the workflow takes them for made, so that no target mends them.
    """
    require_finished(project, cells.runs, target)


def require_finished(project: Project, runs: Sequence[Run], target: str) -> None:
    """As `require_runs`, of these runs. A diverged one is finished."""
    lacking = [run for run in runs if run.is_lacking]
    if not lacking:
        return
    contradicted = next((r for r in lacking if r.cure), None)
    if contradicted:
        raise FgvcError(
            f"{contradicted.name}: {contradicted.cause}",
            file=project.paths.shown(contradicted.directory(project)),
            cure=contradicted.cure,
        )
    named = ", ".join(r.name + (" (failed)" if r.status == "failed" else "") for r in lacking[:3])
    rest = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
    raise FgvcError(
        f"{len(lacking)} of {len(runs)} runs are missing: {named}{rest}",
        file=project.paths.shown(project.paths.root / "results" / "runs"),
        cure=f"snakemake --cores all -- {target}\nor add --allow-missing to see what is there",
    )


def nothing_to_show(suite_name: str, size: int, target: str) -> FgvcError:
    """The error of a figure of predictions for which no run has any."""
    return FgvcError(
        f"no run of the suite '{suite_name}' at image size {size} has predictions to show",
        cure=f"snakemake --cores all -- {target}",
    )


def average(cells: CellTable, method: str) -> tuple[float, float | None] | None:
    """Mean over datasets and its std across datasets (ddof=1; None for one dataset), as the papers print.

    None where a cell of the column is not complete: the mean of other datasets would be another quantity.
    """
    column = [cells.cell(d, method) for d in cells.datasets]
    if any(c["status"] != "ok" for c in column):
        return None
    over = spread([c["mean"] for c in column])
    return over.mean, over.std


def rank(values: Iterable[float | None], decimals: int) -> list[int | None]:
    """1 for the best, 2 for the next distinct value, None for the rest, judged as printed.

    Values that print alike share a rank, so that no reader sees one of two equal numbers in bold.
    """
    shown = [None if v is None else round(v, decimals) for v in values]
    order = sorted({v for v in shown if v is not None}, reverse=True)
    places = dict(zip(order[:2], (1, 2), strict=False))
    return [None if v is None else places.get(v) for v in shown]


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    # Objects first, or pandas would turn None (no such number) into NaN (a number gone wrong).
    frame = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
    kinds: dict[str, Any] = dict.fromkeys(("size", "n", "expected_n"), int)
    kinds |= dict.fromkeys(("inseparable", "is_best", "is_second"), bool)
    return frame.astype(kinds)


def _cell_record(runs: list[Run], metric: Metric) -> dict[str, Any]:
    cell = runs[0].cell
    values = [r.value(metric) for r in runs if r.status == "ok"]
    over = spread(values) if values else None
    worst = min((r.status for r in runs), key=_SEVERITY.index)
    status: str = "partial" if worst == "missing" and values else worst
    return {
        "dataset": cell.dataset,
        "method": cell.method,
        "size": cell.size,
        "metric": metric,
        "mean": over.mean if over else None,
        "std": over.std if over else None,
        "n": len(values),
        "expected_n": len(runs),
        "status": status,
        "cause": _causes(runs),
        "inseparable": False,
        "is_best": False,
        "is_second": False,
    }


def _causes(runs: list[Run]) -> str | None:
    """``seeds 1, 10: out of memory; seed 100: not run yet``."""
    by_cause: dict[str, list[str]] = {}
    for run in runs:
        if run.cause:
            by_cause.setdefault(run.cause, []).append(str(run.seed))
    told = [
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}: {cause}"
        for cause, seeds in by_cause.items()
    ]
    return "; ".join(told) or None


def _rank(row: list[dict[str, Any]], decimals: int) -> None:
    """Mark best and second. A method with a diverged run is not ranked: its good runs are a selection."""
    places = rank([None if c["status"] == "diverged" else c["mean"] for c in row], decimals)
    for cell, place in zip(row, places, strict=True):
        cell["is_best"], cell["is_second"] = place == 1, place == 2


def _mark_inseparable(
    project: Project, row: list[dict[str, Any]], runs: dict[str, list[Run]], metric: Metric
) -> list[str]:
    """Mark what cannot be told from the best; return the methods that could not be tested."""
    ranked = [c for c in row if c["mean"] is not None and c["status"] != "diverged"]
    if len(ranked) < 2:
        return []
    best = max(ranked, key=lambda c: c["mean"])["method"]
    scores: dict[str, Floats] = {}
    ids: pd.Series[Any] | None = None
    for cell in ranked:
        loaded = seed_averaged_scores(project, runs[cell["method"]], metric)
        if loaded is None:
            continue
        if ids is not None and not ids.equals(loaded[0]):
            raise FgvcError(
                f"the methods of {cell['dataset']} were tested on different images",
                file=project.paths.shown(runs[cell["method"]][0].directory(project)),
                cure="remove the runs of the older split and make them again",
            )
        ids, scores[cell["method"]] = loaded
    if best not in scores:
        return [c["method"] for c in ranked if c["method"] != best]
    alike = inseparable_from(best, scores)
    for cell in ranked:
        cell["inseparable"] = cell["method"] in alike and not cell["is_best"]
    return [c["method"] for c in ranked if c["method"] not in scores]


def seed_averaged_scores(
    project: Project, runs: list[Run], metric: Metric
) -> tuple[pd.Series[Any], Floats] | None:
    """Sample ids and scores ``[N]`` averaged over the runs that are ok; None when predictions are missing.

    Predictions are large and may lie in DVC only, so that a table can be made without them.
    """
    ids: pd.Series[Any] | None = None
    scores: list[Floats] = []
    for run in (r for r in runs if r.status == "ok"):
        file = run.directory(project) / "predictions.parquet"
        if not file.is_file():
            return None
        predictions = read_predictions(file, ("label", "top_classes"))
        if ids is not None and not ids.equals(predictions["sample_id"]):
            raise FgvcError(
                f"the seeds of {run.cell.dataset}/{run.cell.method} were tested on different images",
                file=project.paths.shown(file),
                cure="remove the runs of the older split and make them again",
            )
        ids = predictions["sample_id"]
        scores.append(image_scores(predictions, metric))
    return (ids, np.mean(scores, axis=0)) if ids is not None else None
