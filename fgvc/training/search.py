"""The learning-rate choice: runs on ``train``, compared on ``val``; the test split plays no part."""

from __future__ import annotations

from typing import Any

from fgvc.config.grid import Cell, RateSearch, rate_search
from fgvc.config.paths import rate_text
from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.evaluation.predict import EVALUATION_FILES, evaluate_directory, restore_evaluation
from fgvc.provenance.files import read_json, write_json
from fgvc.provenance.stopping import StopRequest
from fgvc.provenance.store import ResultStore
from fgvc.training.run import HISTORY, MODEL, RECORD, RunResult, recorded_failure, train_run
from fgvc.training.spec import RunSpec

#: What a search keeps: its metrics, not its weights (unless the settings say so).
SEARCH_FILES = [HISTORY, RECORD, *EVALUATION_FILES]

RULE = "highest val top-1; among equals the lowest val NLL, then the smallest learning rate"


def run_candidate(
    spec: RunSpec, device: str | None = None, devices: int = 1, stop: StopRequest | None = None
) -> RunResult:
    """Train on ``train``, evaluate on ``val``, and let the weights go.

    Raises FgvcError when ``spec`` is no search, or as `train_run`.
    """
    if not spec.is_search:
        raise FgvcError("a learning rate is searched with --split train, never on the final runs")
    store = ResultStore(spec.state_directory, spec.sha256)
    directory = spec.directory
    if not all((directory / name).is_file() for name in SEARCH_FILES):
        store.restore(SEARCH_FILES, directory)
        restore_evaluation(store, directory)
    if all((directory / name).is_file() for name in SEARCH_FILES):
        record = read_json(directory / RECORD)
        metrics = read_json(directory / EVALUATION_FILES[1])
        if record["run_sha256"] == spec.sha256 == metrics["run_sha256"]:
            return RunResult("found", record["status"], record)
    result = train_run(spec, device=device, devices=devices, stop=stop)
    if stop and stop.is_due():
        raise stop.error("after training")
    trained_here = result.how in ("trained", "resumed")  # then the device is said already
    evaluate_directory(spec.project, directory, "val", device=device, say_device=not trained_here)
    if not spec.project.settings.keep_sweep_weights:
        (directory / MODEL).unlink(missing_ok=True)
        store.forget([MODEL])
    return result


def select_learning_rate(project: Project, cell: Cell) -> dict[str, Any]:
    """Choose the learning rate of a cell from its finished candidates and write ``lr.json``.

    A cell whose suite lists one rate (or that stands in no suite) needs no runs: the rate is taken as it is.

    Returns the record. Raises FgvcError when a candidate is missing or every one diverged; the latter is
    left in the cell's state as ``failure.json``, for the tables.
    """
    search = rate_search(project, cell)
    candidates = [_candidate(project, cell, rate) for rate in search.rates] if search.is_searched else []
    sweeps = project.paths.sweeps_dir(cell.dataset, cell.method, cell.size)
    with recorded_failure(project.paths.state_dir(sweeps), f"{cell.dataset}/{cell.method}/{cell.size}"):
        chosen = _best(cell, candidates) if candidates else search.rates[0]
    record = {
        "dataset": cell.dataset,
        "method": cell.method,
        "image_size": cell.size,
        "learning_rate": chosen,
        "searched": search.is_searched,
        "seed": search.seed if search.is_searched else None,
        "rule": RULE if search.is_searched else "given, not searched",
        "at_edge": search.is_searched and chosen in (search.rates[0], search.rates[-1]),
        "candidates": candidates,
    }
    write_json(project.paths.lr_choice(cell.dataset, cell.method, cell.size), record)
    return record


def _candidate(project: Project, cell: Cell, rate: float) -> dict[str, Any]:
    directory = project.paths.sweep_dir(cell.dataset, cell.method, cell.size, rate)
    ids = f"{cell.dataset} {cell.method} --size {cell.size}"
    metrics = read_json(
        directory / EVALUATION_FILES[1],
        made_by=f"fgvc train {ids} --lr {rate_text(rate)} --split train",
    )
    return {
        "learning_rate": rate,
        "status": metrics["status"],
        "val_top1_pct": metrics.get("top1_pct"),
        "val_nll_nats": metrics.get("nll_nats"),
        "val_images": metrics.get("images"),
        "run_sha256": metrics["run_sha256"],
    }


def _best(cell: Cell, candidates: list[dict[str, Any]]) -> float:
    finished = [c for c in candidates if c["status"] == "ok"]
    if not finished:
        raise FgvcError(
            f"every learning rate diverged for {cell.dataset}/{cell.method}/{cell.size}: "
            + ", ".join(rate_text(c["learning_rate"]) for c in candidates),
            cure="add smaller learning rates to the suite",
        )
    best = min(finished, key=lambda c: (-c["val_top1_pct"], c["val_nll_nats"], c["learning_rate"]))
    return float(best["learning_rate"])


def describe_choice(record: dict[str, Any], search: RateSearch) -> str:
    """One sentence for the log."""
    rate = rate_text(record["learning_rate"])
    if not record["searched"]:
        return f"learning rate {rate}: {record['rule']}"
    edge = " (at the edge of the list: a wider one may be better)" if record["at_edge"] else ""
    return f"learning rate {rate} of {', '.join(map(rate_text, search.rates))} on val{edge}"
