"""Metrics against cases worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgvc.errors import FgvcError
from fgvc.evaluation.metrics import compute_metrics, image_scores, read_predictions, recompute


def frame(labels: list[int], tops: list[list[int]], probabilities: list[float]) -> pd.DataFrame:
    """Predictions whose top class has the given probability, and the label a log-probability of log(1/2)."""
    return pd.DataFrame(
        {
            "sample_id": [f"{i}.png" for i in range(len(labels))],
            "label": np.array(labels, dtype=np.int32),
            "label_logprob": np.full(len(labels), math.log(0.5), dtype=np.float32),
            "top_classes": [np.array(t, dtype=np.int32) for t in tops],
            "top_probabilities": [
                np.array([p] + [(1 - p) / (len(t) - 1)] * (len(t) - 1), dtype=np.float32)
                for p, t in zip(probabilities, tops, strict=True)
            ],
        }
    )


@pytest.fixture
def six() -> pd.DataFrame:
    """Seven classes, six images: 0 0 0 0 | 1 1; right, right, right, as 1 | right, as 0 (label sixth)."""
    first = [0, 2, 3, 4, 5, 6]
    return frame(
        [0, 0, 0, 0, 1, 1],
        [first, first, first, [1, 0, 2, 3, 4, 5], [1, 0, 2, 3, 4, 5], [0, 2, 3, 4, 5, 1]],
        [0.9, 0.9, 0.9, 0.6, 0.5, 0.95],
    )


def test_by_hand(six: pd.DataFrame) -> None:
    found = compute_metrics(six, 7)
    assert found["images"] == 6 and found["classes"] == 7
    assert found["top1_pct"] == pytest.approx(100 * 4 / 6, abs=1e-6)
    assert found["top5_pct"] == pytest.approx(100 * 5 / 6, abs=1e-6)  # the last label stands sixth
    assert found["macro_accuracy_pct"] == pytest.approx((75 + 50) / 2)
    assert found["class_std_pct"] == pytest.approx(np.std([75, 50], ddof=1), abs=1e-5)
    assert found["nll_nats"] == pytest.approx(math.log(2), abs=1e-6)
    assert [r["class_id"] for r in found["per_class"]] == [0, 1]  # the five others have no image
    assert found["worst_class"] == {"class_id": 1, "name": "1", "images": 2, "accuracy_pct": 50.0}
    assert found["most_confused"]["true"] == "0"  # 0 → 1 and 1 → 0 tie; the smaller ids win
    assert found["most_confused"]["predicted"] == "1" and found["most_confused"]["images"] == 1


def test_calibration_by_hand(six: pd.DataFrame) -> None:
    # Bins of 1/15: {0.9, 0.9, 0.9} all right, {0.6} wrong, {0.5} right, {0.95} wrong.
    gaps = 3 / 6 * (1 - 0.9) + 1 / 6 * 0.6 + 1 / 6 * 0.5 + 1 / 6 * 0.95
    assert compute_metrics(six, 7)["ece_pct"] == pytest.approx(100 * gaps, abs=1e-4)


def test_certain_and_right_is_calibrated() -> None:
    certain = frame([0, 1], [[0, 1], [1, 0]], [1.0, np.nextafter(np.float32(1), np.float32(2))])
    assert compute_metrics(certain, 2)["ece_pct"] == pytest.approx(0.0, abs=1e-4)


def test_few_classes_have_no_top5() -> None:
    assert compute_metrics(frame([0, 1], [[0, 1], [0, 1]], [0.9, 0.9]), 5)["top5_pct"] is None


def test_no_mistake_confuses_nothing() -> None:
    assert compute_metrics(frame([0, 1], [[0, 1], [1, 0]], [0.9, 0.9]), 2)["most_confused"] is None


def test_one_class_has_no_deviation() -> None:
    assert compute_metrics(frame([0], [[0, 1]], [0.9]), 2)["class_std_pct"] is None


def test_names(six: pd.DataFrame) -> None:
    found = compute_metrics(six, 7, ["wren", "robin", "c", "d", "e", "f", "g"])
    assert found["worst_class"]["name"] == "robin"
    assert (found["most_confused"]["true"], found["most_confused"]["predicted"]) == ("wren", "robin")


def test_recomputed_from_the_file_alone(six: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    six.sample(frac=1, random_state=0).to_parquet(path)
    assert recompute(path, 7) == compute_metrics(six, 7)


def test_macro_scores_average_to_the_metric(six: pd.DataFrame) -> None:
    for metric in ("top1_pct", "top5_pct", "macro_accuracy_pct"):
        scores = image_scores(six, metric)
        assert 100 * scores.mean() == pytest.approx(compute_metrics(six, 7)[metric], abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=40))
def test_order_of_images_does_not_matter(pairs: list[tuple[int, int]]) -> None:
    tops = [[p, *(c for c in range(8) if c != p)] for _, p in pairs]
    made = frame([label for label, _ in pairs], tops, [0.5] * len(pairs))
    found = compute_metrics(made, 8)
    assert compute_metrics(made.iloc[::-1], 8) == found
    assert found["top1_pct"] <= found["top5_pct"] <= 100
    assert found["top1_pct"] == pytest.approx(100 * np.mean([a == b for a, b in pairs]), abs=1e-5)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda f: f.drop(columns="label"), "label"),
        (lambda f: f.iloc[:0], "no predictions"),
        (lambda f: f.assign(label=9), "outside"),
        (lambda f: f.assign(sample_id="same.png"), "twice"),
        (lambda f: f.assign(label_logprob=np.float32("nan")), "not a number"),
    ],
)
def test_what_cannot_be_scored(six: pd.DataFrame, change, word: str) -> None:
    with pytest.raises(FgvcError, match=word):
        compute_metrics(change(six), 7)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(FgvcError, match="not here"):
        read_predictions(tmp_path / "predictions.parquet")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1")
    with pytest.raises(FgvcError, match="cannot be read"):
        read_predictions(broken)
