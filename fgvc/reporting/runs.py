"""What became of each run of a suite, read from the records that the runs left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from fgvc.config.grid import Cell
from fgvc.config.identity import recipe_sha256
from fgvc.config.project import Project
from fgvc.errors import FgvcError, one_line
from fgvc.evaluation.metrics import Metric, image_scores, read_predictions
from fgvc.provenance.digests import file_sha256
from fgvc.provenance.files import read_json

RunStatus = Literal["ok", "diverged", "failed", "missing"]

#: Metrics are written with six digits behind the point.
ROUNDING_PCT = 1e-6


@dataclass(frozen=True)
class Run:
    """One run of a cell: its status, its metrics when it is ok, and the cause when it is not.

    ``cure`` is the command that mends it, where that is another one than the workflow's own.
    """

    cell: Cell
    seed: int
    status: RunStatus
    metrics: dict[str, Any] | None = None
    cause: str | None = None
    cure: str | None = None

    def value(self, metric: Metric) -> float:
        """The metric in percent. Raises FgvcError where it is not defined (top-5 of five classes)."""
        found = self.metrics[metric] if self.metrics else None
        if found is None:
            raise FgvcError(
                f"{metric} is not defined for {self.cell.dataset} (it has too few classes)",
                cure="choose metric: top1_pct in the table's file",
            )
        return float(found)

    @property
    def is_lacking(self) -> bool:
        """Whether it is still to be made. A diverged one is finished."""
        return self.status in ("failed", "missing")

    def directory(self, project: Project) -> Path:
        return project.paths.run_dir(self.cell.dataset, self.cell.method, self.cell.size, self.seed)

    @property
    def name(self) -> str:
        """``dataset/method/size/seedK``, as in its paths."""
        return f"{self.cell.dataset}/{self.cell.method}/{self.cell.size}/seed{self.seed}"


def read_run(project: Project, cell: Cell, seed: int) -> Run:
    """The run of one seed; a finished one wins over the failure of an earlier attempt.

    A result counts while its run card vouches for it: metrics of another recipe, which stay where they are
    until the new run is made, do not. Neither do metrics that contradict the predictions beside them: such a
    run has failed, and no table shows its numbers.
    """
    paths = project.paths
    folder = paths.run_dir(cell.dataset, cell.method, cell.size, seed)
    error = read_failure(paths.state_dir(folder))
    metrics_file = folder / "metrics.json"
    metrics = read_json(metrics_file) if metrics_file.is_file() else None
    outdated = metrics is not None and not _is_current(project, cell, folder, metrics, bool(error))
    if metrics is not None and not outdated:
        contradiction = _contradiction(folder, metrics)
        if contradiction:
            command = f"fgvc evaluate {cell.dataset} {cell.method} --size {cell.size} --seed {seed}"
            return Run(cell, seed, "failed", cause=contradiction, cure=f"make them again: {command}")
        if metrics.get("status") == "diverged":
            return Run(
                cell, seed, "diverged", cause=one_line(str(metrics.get("cause") or "no cause recorded"))
            )
        return Run(cell, seed, "ok", metrics)
    if error:
        return Run(cell, seed, "failed", cause=error)
    sweeps = paths.state_dir(paths.sweeps_dir(cell.dataset, cell.method, cell.size))
    for state in (sweeps, *sorted(sweeps.glob("lr*"))):
        error = read_failure(state)
        if error:
            return Run(cell, seed, "failed", cause=f"learning-rate search: {error}")
    cause = "its recipe was changed and it has not run again yet" if outdated else "not run yet"
    return Run(cell, seed, "missing", cause=cause)


def _is_current(
    project: Project, cell: Cell, folder: Path, metrics: dict[str, Any], has_failed: bool
) -> bool:
    """Whether metrics are of the run beside them, and that one of the recipe as it is now."""
    card_file = folder / "run.json"
    if not card_file.is_file():  # removed for a new run, which failed; or the metrics came alone
        return not has_failed
    card = read_json(card_file)
    current = recipe_sha256(project, cell.dataset, cell.method)
    return bool(card.get("run_sha256") == metrics.get("run_sha256") and card.get("recipe_sha256") == current)


def devices_of(project: Project, run: Run) -> int:
    """The largest number of devices that took a step of a run together; 1 where that is not recorded."""
    card = run.directory(project) / "run.json"
    since = read_json(card).get("devices_from_step", []) if card.is_file() else []
    return max((count for _, count in since), default=1)


def _contradiction(folder: Path, metrics: dict[str, Any]) -> str | None:
    """Why metrics cannot be those of the run and the predictions beside them; None where they can.

    Predictions are large and may lie in DVC only: then there is nothing to compare with.
    """
    card, status = folder / "run.json", metrics.get("status")
    if card.is_file() and read_json(card).get("status", status) != status:
        return f"metrics.json says '{status}', run.json does not"
    predictions = folder / "predictions.parquet"
    if status != "ok" or not predictions.is_file():
        return None
    digest = file_sha256(predictions)
    if metrics.get("predictions_sha256", digest) != digest:
        return "predictions.parquet is not the file that metrics.json was made from"
    for metric, found in _scores(predictions, digest).items():
        told = metrics.get(metric)
        if told is not None and not abs(float(told) - found) <= ROUNDING_PCT:
            return f"metrics.json says {metric} {told:g}, its predictions give {found:g}"
    return None


@lru_cache(maxsize=4096)
def _scores(predictions: Path, _sha256: str) -> dict[Metric, float]:
    """The metrics in percent that tables print, from the predictions of one digest."""
    frame = read_predictions(predictions, ("label", "top_classes"))
    return {metric: 100.0 * float(image_scores(frame, metric).mean()) for metric in get_args(Metric)}


def read_failure(state: Path) -> str | None:
    """The error line of ``failure.json`` in a job's state folder, or None.

    A broken record is a failure too: it is told, not raised.
    """
    try:
        record = json.loads((state / "failure.json").read_text(encoding="utf-8"))
        return one_line(str(record["error"])) or "no message"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return "failed (its failure.json cannot be read)"
