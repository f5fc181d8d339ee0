"""Do the metrics follow from the predictions, and the predictions from what they claim?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from fgvc.audit.context import SuiteContext
from fgvc.audit.finding import Finding
from fgvc.audit.own_results import (
    Result,
    counted,
    differences,
    digest_finding,
    finding,
    results_of,
)
from fgvc.audit.registry import suite_check
from fgvc.config.project import Project
from fgvc.data.splits import read_class_names, read_split
from fgvc.errors import FgvcError
from fgvc.evaluation.heads import HEADS, head_accuracies, read_heads
from fgvc.evaluation.metrics import compute_metrics, read_predictions

METRICS, PREDICTIONS = "metrics.json", "predictions.parquet"
#: The metrics that follow from heads.parquet.
OF_HEADS = "heads_top1_pct"
#: What metrics.json says about the evaluation; the rest are metrics.
ABOUT = (
    "dataset",
    "method",
    "image_size",
    "seed",
    "learning_rate",
    "split",
    "run_sha256",
    "model_sha256",
    "stage_version",
    "predictions_sha256",
    "heads_sha256",
)
#: Sums of many floats, whose last recorded digit may depend on the machine. Counts of images do not.
SUMS = ("nll_nats", "ece_pct", "class_std_pct", "macro_accuracy_pct")
#: A unit of the last digit that is recorded.
LAST_DIGIT = 1.000001e-6


@suite_check(
    "own_metrics",
    title="Metrics, recomputed from the predictions",
    inputs=("results/runs/**/*.parquet", "results/runs/**/metrics.json", "results/sweeps"),
)
def own_metrics(context: SuiteContext) -> Iterator[Finding]:
    """Every number of metrics.json follows from predictions.parquet alone, those of a method's single heads
    from heads.parquet. Each is computed once more, of the final runs and of the learning-rate searches, and
    compared: accuracies exactly, means of logarithms and bins to the last recorded digit. Contradicted: a
    number differs; the finding names it. Not checkable: the predictions are not here, or nothing was run.
    """
    for result in results_of(context):
        if result.metrics is not None or result.broken:
            yield from _metrics_of(context.project, result)


def _metrics_of(project: Project, result: Result) -> Iterator[Finding]:
    source = result.source(METRICS)
    if result.metrics is None:
        yield finding("contradicted", f"{result.name}: metrics", "; ".join(result.broken), source)
        return
    recorded = {k: v for k, v in result.metrics.items() if k not in ABOUT}
    if recorded.get("status") == "diverged":
        why = "the run diverged and has no metrics"
        yield finding("not_checkable", f"{result.name}: metrics", why, source)
        return
    if not result.file(PREDICTIONS).is_file():
        why = "the predictions are not here (dvc pull)"
        yield finding("not_checkable", f"{result.name}: metrics", why, source)
        return
    if OF_HEADS in recorded and not result.file(HEADS).is_file():
        recorded.pop(OF_HEADS)
        why = "the predictions of the heads are not here (dvc pull)"
        yield finding("not_checkable", f"{result.name}: {OF_HEADS}", why, source)
    try:
        again = {"status": "ok", **_recomputed(project, result)}
    except FgvcError as error:
        yield finding("contradicted", f"{result.name}: metrics", error.problem, result.source(PREDICTIONS))
        return
    wrong = list(differences(recorded, again, _same))
    for path, one, other in wrong:
        why = "the number in metrics.json is not the one that the predictions give"
        yield finding("contradicted", f"{result.name}: {path}", why, source, one, other)
    if not wrong:
        told = f"all {counted(recorded)} values follow from the predictions"
        top1 = recorded.get("top1_pct"), again["top1_pct"]
        yield finding("confirmed", f"{result.name}: metrics", told, source, *top1)


def _recomputed(project: Project, result: Result) -> dict[str, Any]:
    predictions = read_predictions(result.file(PREDICTIONS))
    classes = project.dataset(result.cell.dataset).classes
    try:
        names: list[str] | None = read_class_names(project, result.cell.dataset)
    except FgvcError:  # the split's lists are not here; the recorded names stand for themselves
        recorded = {r["class_id"]: r["name"] for r in (result.metrics or {}).get("per_class", [])}
        names = [str(recorded.get(c, c)) for c in range(classes)]
    heads = result.file(HEADS)
    of_heads = {OF_HEADS: head_accuracies(read_heads(heads, predictions))} if heads.is_file() else {}
    return {**compute_metrics(predictions, classes, names), **of_heads}


def _same(path: str, recorded: Any, recomputed: Any) -> bool:
    numbers = isinstance(recorded, float | int) and isinstance(recomputed, float | int)
    if numbers and path.rpartition(".")[2] in SUMS:
        return bool(abs(recorded - recomputed) <= LAST_DIGIT)
    return type(recorded) is type(recomputed) and bool(recorded == recomputed)


@suite_check(
    "own_predictions",
    title="Predictions are of the recorded model and images",
    inputs=("results/runs/**/*.parquet", "results/runs/**/metrics.json", "results/splits"),
)
def own_predictions(context: SuiteContext) -> Iterator[Finding]:
    """Predictions carry the digests of the run and the model that made them, and metrics.json carries theirs.
    Checked: the file's digest; that the digests inside it are those of run.json; and that its images and
    labels are exactly those of the split that it claims to be of (test for final runs, val for searches). Not
    checkable: predictions or the split's lists are not here.
    """
    for result in results_of(context):
        if result.metrics is None:
            continue
        shown = result.source(PREDICTIONS)
        expected = result.metrics.get("predictions_sha256")
        yield digest_finding(result.file(PREDICTIONS), shown, expected, METRICS, "dvc pull")
        if result.file(PREDICTIONS).is_file():
            yield from _inside(result, PREDICTIONS)
            if result.metrics.get("status") == "ok":
                yield _images(context.project, result)
        if "heads_sha256" in result.metrics or result.file(HEADS).is_file():
            expected = result.metrics.get("heads_sha256")
            yield digest_finding(result.file(HEADS), result.source(HEADS), expected, METRICS, "dvc pull")
            if result.file(HEADS).is_file():
                yield from _inside(result, HEADS)


def _inside(result: Result, name: str) -> Iterator[Finding]:
    """What the predictions say of themselves, against the card and the metrics."""
    shown = result.source(name)
    try:
        metadata = pq.read_schema(result.file(name)).metadata or {}
    except (OSError, ValueError) as error:
        why = f"the file cannot be read: {str(error).splitlines()[0]}"
        yield finding("contradicted", f"{result.name}: predictions", why, shown)
        return
    inside = {key.decode().removeprefix("fgvc."): value.decode() for key, value in metadata.items()}
    wrong = []
    for record, file in ((result.card, "run.json"), (result.metrics, METRICS)):
        for key in ("run_sha256", "model_sha256", "dataset", "method", "seed", "image_size"):
            if record is not None and str(record.get(key)) != inside.get(key):
                wrong.append((key, file, str(record.get(key))))
    for key, file, recorded in wrong:
        why = f"the predictions were made by another run or model than {file} says"
        yield finding(
            "contradicted", f"{result.name}: {key} of the predictions", why, shown, recorded, inside.get(key)
        )
    if not wrong and result.card is not None:
        why = "the predictions name the run and the model of the card beside them"
        yield finding("confirmed", f"{result.name}: origin of the predictions", why, shown)


def _images(project: Project, result: Result) -> Finding:
    shown, split = result.source(PREDICTIONS), result.evaluated_on
    subject = f"{result.name}: images of the predictions are those of '{split}'"
    try:
        listed = read_split(project, result.cell.dataset, split)
    except FgvcError as error:
        return finding("not_checkable", subject, error.problem, shown)
    frame = read_predictions(result.file(PREDICTIONS), ("label",))
    predicted = set(zip(frame["label"].astype(int), frame["sample_id"], strict=True))
    if predicted == set(listed) and len(frame) == len(listed):
        why = "each listed image is predicted once, with its listed label"
        return finding("confirmed", subject, why, shown, len(listed), len(frame))
    odd = sorted(path for _, path in predicted ^ set(listed)) or _doubled(frame)
    why = f"{len(odd)} images differ in being there or in their label, as {odd[0]}"
    return finding("contradicted", subject, why, shown, len(listed), len(frame))


def _doubled(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame["sample_id"][frame["sample_id"].duplicated()]]
