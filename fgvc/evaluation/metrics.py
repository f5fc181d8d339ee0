"""Metrics of one run, computed from its per-image predictions (``predictions.parquet``) and nothing else.

A row of the predictions is one test image: ``sample_id`` (path relative to ``data/D``), ``label`` (class id),
``label_logprob`` (natural logarithm of the label's probability), ``top_classes`` and ``top_probabilities``
(the ``min(10, K)`` most probable classes, best first).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from fgvc.errors import FgvcError

Metric = Literal["top1_pct", "top5_pct", "macro_accuracy_pct"]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PREDICTION_COLUMNS = ("sample_id", "label", "label_logprob", "top_classes", "top_probabilities")
ECE_BINS = 15
#: Enough digits to tell any two counts of images apart, few enough to hide the last bits of a sum's order.
DIGITS = 6


def read_predictions(path: Path, columns: Sequence[str] = PREDICTION_COLUMNS) -> pd.DataFrame:
    """The predictions of one run, sorted by ``sample_id`` so that runs can be compared image by image.

    Args:
        columns: those to read; ``sample_id`` always comes along.

    Raises FgvcError when the file is missing, unreadable or of another format.
    """
    wanted = ["sample_id", *(c for c in columns if c != "sample_id")]
    try:
        frame = pd.read_parquet(path, columns=wanted)
    except FileNotFoundError:
        raise FgvcError(
            "the predictions are not here",
            file=path,
            cure="fetch them with 'dvc pull', or evaluate the run again",
        ) from None
    except (OSError, ValueError) as error:
        problem = f"the predictions cannot be read: {str(error).splitlines()[0]}"
        raise FgvcError(problem, file=path, cure="delete the file and evaluate the run again") from None
    return frame.sort_values("sample_id", kind="stable", ignore_index=True)


def recompute(path: Path, num_classes: int, class_names: Sequence[str] | None = None) -> dict[str, Any]:
    """The metrics of a stored run once more, from its predictions alone (see `compute_metrics`)."""
    return compute_metrics(read_predictions(path), num_classes, class_names)


def compute_metrics(
    predictions: pd.DataFrame, num_classes: int, class_names: Sequence[str] | None = None
) -> dict[str, Any]:
    """All metrics of one run, ready for ``metrics.json``.

    Args:
        predictions: one row an image, in any order.
        num_classes: K, the number of outputs of the model.
        class_names: K names by class id; without them the ids stand for the names.

    Returns a mapping with accuracies in percent, ``nll_nats`` (mean of ``-label_logprob``), ``ece_pct``,
    one record a class that has images (``per_class``), ``worst_class`` and ``most_confused`` (None when no
    image is wrong). ``top5_pct`` is None when K <= 5, where it would say nothing.

    Raises FgvcError when the predictions are empty or not finite, lack a column, name a class outside
    0..K-1, or hold an image twice.
    """
    _check(predictions, num_classes, class_names)
    names = [str(n) for n in class_names] if class_names is not None else [str(c) for c in range(num_classes)]
    labels = predictions["label"].to_numpy(np.int64)
    predicted = _stacked(predictions["top_classes"])[:, 0].astype(np.int64)
    per_class = _per_class(labels, labels == predicted, names)
    class_accuracies = [record["accuracy_pct"] for record in per_class]
    return {
        "images": len(labels),
        "classes": num_classes,
        "top1_pct": _pct(image_scores(predictions, "top1_pct")),
        "top5_pct": _pct(image_scores(predictions, "top5_pct")) if num_classes > 5 else None,
        "macro_accuracy_pct": round(float(np.mean(class_accuracies)), DIGITS),
        "class_std_pct": (
            round(float(np.std(class_accuracies, ddof=1)), DIGITS) if len(class_accuracies) > 1 else None
        ),
        "nll_nats": round(float(-predictions["label_logprob"].to_numpy(np.float64).mean()), DIGITS),
        "ece_pct": _ece_pct(_stacked(predictions["top_probabilities"])[:, 0], labels == predicted),
        "per_class": per_class,
        "worst_class": min(per_class, key=lambda r: (r["accuracy_pct"], -r["images"], r["class_id"])),
        "most_confused": most_confused(labels, predicted, names),
    }


def image_scores(predictions: pd.DataFrame, metric: Metric) -> Floats:
    """Scores ``[N]`` of the single images whose mean, times 100, is the metric.

    For top-1 and top-5 that is 0 or 1. For macro accuracy a correct image counts ``N / (C * n_c)``, with
    ``n_c`` images in its class and C classes present, so that every class weighs the same.
    """
    labels = predictions["label"].to_numpy(np.int64)
    depth = 5 if metric == "top5_pct" else 1
    top = _stacked(predictions["top_classes"])[:, :depth]
    hits: Floats = (top == labels[:, None]).any(axis=1).astype(np.float64)
    if metric != "macro_accuracy_pct":
        return hits
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weighted: Floats = hits * len(labels) / (len(counts) * counts[inverse])
    return weighted


def most_confused(labels: Ints, predicted: Ints, names: Sequence[str]) -> dict[str, Any] | None:
    """The ordered pair of classes (true, predicted) that takes most images; the smaller ids win a tie."""
    wrong = labels != predicted
    if not wrong.any():
        return None
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]]), axis=1, return_counts=True)
    at = int(np.argmax(counts))  # np.unique sorts, so the first maximum has the smallest ids
    true, taken = int(pairs[0, at]), int(pairs[1, at])
    return {
        "true": names[true],
        "predicted": names[taken],
        "images": int(counts[at]),
        "true_id": true,
        "predicted_id": taken,
    }


def _per_class(labels: Ints, correct: npt.NDArray[np.bool_], names: Sequence[str]) -> list[dict[str, Any]]:
    images = np.bincount(labels, minlength=len(names))
    hits = np.bincount(labels, weights=correct.astype(np.float64), minlength=len(names))
    return [
        {
            "class_id": c,
            "name": names[c],
            "images": int(images[c]),
            "accuracy_pct": round(float(100.0 * hits[c] / images[c]), DIGITS),
        }
        for c in np.flatnonzero(images).tolist()
    ]


def _ece_pct(confidence: npt.NDArray[Any], correct: npt.NDArray[np.bool_]) -> float:
    """Expected calibration error of the top-1 class, 15 equal-width bins closed on the left.

    Torchmetrics' binary form, given (confidence, was it right), is its multiclass form without the full
    probabilities. Like there, a confidence of exactly 1 has a bin of its own.
    """
    from fgvc.torchvision_ops import ensure_torchvision_ops

    ensure_torchvision_ops()  # torchmetrics imports torchvision
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    # Rounding may leave 1.0000001, which torchmetrics would take for a logit.
    preds = torch.from_numpy(np.clip(confidence.astype(np.float64), 0.0, 1.0))
    target = torch.from_numpy(correct.astype(np.int64))
    return round(100.0 * float(binary_calibration_error(preds, target, n_bins=ECE_BINS)), DIGITS)


def _pct(scores: Floats) -> float:
    return round(float(100.0 * scores.mean()), DIGITS)


def _stacked(column: pd.Series[Any]) -> npt.NDArray[Any]:
    """A column of equally long lists as an array ``[N, k]``."""
    return np.stack([np.asarray(row) for row in column])


def _check(predictions: pd.DataFrame, num_classes: int, class_names: Sequence[str] | None) -> None:
    lacking = [c for c in PREDICTION_COLUMNS if c not in predictions.columns]
    if lacking:
        raise FgvcError(f"the predictions lack the column '{lacking[0]}'", cure="evaluate the run again")
    if predictions.empty:
        raise FgvcError("there are no predictions to score", cure="check that the test split has images")
    if class_names is not None and len(class_names) != num_classes:
        raise FgvcError(f"{len(class_names)} class names for {num_classes} classes")
    labels = predictions["label"].to_numpy(np.int64)
    if labels.min() < 0 or labels.max() >= num_classes:
        raise FgvcError(f"a label lies outside 0..{num_classes - 1}", key="label")
    odd = predictions["sample_id"][~np.isfinite(predictions["label_logprob"].to_numpy(np.float64))]
    if not odd.empty:
        raise FgvcError(
            f"the model's output for '{odd.iloc[0]}' is not a number ({len(odd)} images)",
            key="label_logprob",
            cure="train the run again with precision: fp32",
        )
    if predictions["sample_id"].duplicated().any():
        twice = predictions["sample_id"][predictions["sample_id"].duplicated()].iloc[0]
        raise FgvcError(f"'{twice}' is predicted twice", key="sample_id")
