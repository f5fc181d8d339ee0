"""Confusion matrices of a suite: counts against a brute-force count, what is drawn, what is missing."""

from __future__ import annotations

import csv
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fgvc.errors import FgvcError
from fgvc.reporting import figures
from fgvc.reporting.confusion_counts import Confusions, read_confusions
from fgvc.reporting.confusion_figure import draw_confusions

BenchT = Any
CLASSES = 8


def confused(bench: BenchT, figure: dict[str, Any] | None = None, **methods: float) -> dict[str, np.ndarray]:
    """Two seeds of each method on two datasets; the counts [K, K] of ``birds`` by method, by brute force."""
    found = {}
    for dataset in ("birds", "dogs"):
        bench.dataset(dataset)
        for number, (method, share) in enumerate(methods.items()):
            counts = np.zeros((CLASSES, CLASSES), dtype=int)
            for seed in (1, 2):
                right = bench.hits(share, images=120, seed=10 * number + seed)
                bench.result(dataset, method, seed, right)
                frame = pd.read_parquet(bench.run_dir(dataset, method, seed) / "predictions.parquet")
                for _, row in frame.iterrows():
                    counts[row["label"], row["top_classes"][0]] += 1
            found[method] = counts
    for method in methods:
        bench.method(method, title=f"A method {method}")
    bench.suite(["birds", "dogs"], list(methods), [1, 2])
    more = {"image_size": 64, **(figure or {})}
    bench.write("figures/confusion.yaml", bench._table("confusion_matrix", **more))
    return found


def read(bench: BenchT, **options: Any) -> Confusions:
    project = bench.project
    return read_confusions(project, "quick", project.figure("confusion"), "x.pdf", **options)


def drawn(bench: BenchT, **options: Any) -> Any:
    project = bench.project
    with figures.house_style():
        return draw_confusions(project, read(bench, **options), project.figure("confusion"))


def words(figure: Any) -> str:
    return " ".join(" ".join(t.get_text() for t in figure.texts).split())


def test_counts_are_summed_over_seeds(bench: BenchT) -> None:
    expected = confused(bench, a=0.9, b=0.4)
    found = {one.method: one for one in read(bench).found if one.dataset == "birds"}
    for method, counts in expected.items():
        assert found[method].counts.tolist() == counts.tolist() and counts.sum() == 240
        assert found[method].accuracy_pct == pytest.approx(100 * np.trace(counts) / 240)
        assert found[method].seeds == (1, 2)
        assert found[method].shares.sum(axis=1) == pytest.approx(np.ones(CLASSES))


def test_the_csv_holds_every_count_in_long_form(bench: BenchT) -> None:
    expected = confused(bench, a=0.9, b=0.4)
    written = figures.write_figure(bench.project, "quick", "confusion")
    assert [file.name for file in written] == ["confusion.pdf", "confusion.png", "confusion.csv"]
    with written[2].open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["dataset", "method", "true", "predicted", "count"]
    for method, counts in expected.items():
        again = np.zeros_like(counts)
        for row in rows:
            if (row["dataset"], row["method"]) == ("birds", method):
                again[int(row["true"].split()[1]), int(row["predicted"].split()[1])] = int(row["count"])
        assert again.tolist() == counts.tolist()
    assert all(int(row["count"]) > 0 for row in rows)


def test_a_matrix_a_method_and_a_heading_a_dataset(bench: BenchT) -> None:
    confused(bench, a=0.9, b=0.4, c=0.5, d=0.6)
    figure = drawn(bench)
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 8
    assert panels[0].get_title().startswith("A method a") and panels[0].get_title().endswith(" %")
    birds = read(bench).found[0]
    np.testing.assert_allclose(panels[0].images[0].get_array(), birds.shares)
    named = [axes for axes in panels if len(axes.get_yticklabels()) == CLASSES]
    assert len(named) == 4, "classes are named left of each row of panels"
    assert "Birds" in words(figure) and "Dogs" in words(figure) and "2 seeds, added up" in words(figure)
    numbers = [int(t.get_text()) for t in panels[0].texts]
    shares = np.round(100 * birds.shares[birds.shares >= 0.005]).astype(int)
    assert sorted(numbers) == sorted(shares.tolist())


@pytest.mark.parametrize("count", [1, 2, 5])
def test_nothing_collides_or_leaves_the_page(bench: BenchT, count: int) -> None:
    confused(bench, {"max_numbers": 0}, **{f"m{i}": 0.5 for i in range(count)})
    figure = drawn(bench)
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    page = figure.bbox.padded(1)
    for box in (*boxes, *(text.get_window_extent() for text in figure.texts)):
        assert page.contains(box.x0, box.y0) and page.contains(box.x1, box.y1)


def test_of_many_classes_the_most_confused_pairs_are_listed(bench: BenchT) -> None:
    expected = confused(bench, {"max_classes": 4, "pairs": 3}, a=0.6, b=0.4)
    wrong = expected["a"] - np.diag(np.diag(expected["a"]))
    found = read(bench).found[0]
    assert [pair.images for pair in found.pairs(3)] == sorted(wrong.ravel().tolist())[::-1][:3]
    best = found.pairs(1)[0]
    i, j = int(best.true.split()[1]), int(best.predicted.split()[1])
    assert wrong[i, j] == best.images and best.share == pytest.approx(wrong[i, j] / expected["a"][i].sum())
    figure = drawn(bench)
    assert not any(axes.images for axes in figure.axes)
    lines = [text.get_text() for text in figure.axes[0].texts]
    assert lines[0] == f"{best.true} → {best.predicted}" and len(lines) == 6
    assert "Datasets of more than 4 classes: true → predicted" in words(figure)


def test_a_figure_may_show_some_of_a_suite(bench: BenchT) -> None:
    confused(bench, {"datasets": ["dogs"], "methods": ["b"]}, a=0.9, b=0.4)
    assert [(one.dataset, one.method) for one in read(bench).found] == [("dogs", "b")]
    (bench.run_dir("dogs", "a", 1) / "metrics.json").unlink()
    assert not read(bench).is_partial, "what is not shown may be missing"
    confusion = bench._table("confusion_matrix", image_size=64, methods=["c"])
    bench.write("figures/confusion.yaml", confusion)
    with pytest.raises(FgvcError, match="shows the method 'c', which the suite 'quick' lacks"):
        read(bench)
    bench.write("figures/confusion.yaml", bench._table("confusion_matrix", image_size=32))
    with pytest.raises(FgvcError, match="no runs at image size 32"):
        read(bench)


def test_missing_runs_are_named_and_a_diverged_one_is_told(bench: BenchT) -> None:
    confused(bench, a=0.9, b=0.4)
    for dataset in ("birds", "dogs"):
        for seed in (1, 2):
            bench.metrics(dataset, "b", seed, status="diverged", cause="loss is nan")
    figure = drawn(bench)
    assert "Not drawn: A method b on Birds (its runs diverged)." in words(figure)
    (bench.run_dir("birds", "a", 2) / "metrics.json").unlink()
    with pytest.raises(FgvcError, match=r"1 of 8 runs are missing: birds/a/64/seed2") as caught:
        drawn(bench)
    assert "x.pdf" in str(caught.value)
    assert "PARTIAL. Test images of 1 to 2 seeds" in words(drawn(bench, allow_missing=True))
    written = figures.write_figure(bench.project, "quick", "confusion", allow_missing=True)
    assert [f.name for f in written] == [f"confusion.partial.{s}" for s in ("pdf", "png", "csv")]


def test_predictions_that_are_not_here_are_named(bench: BenchT) -> None:
    confused(bench, a=0.9)
    (bench.run_dir("birds", "a", 2) / "predictions.parquet").unlink()
    with pytest.raises(FgvcError, match="predictions are not here"):
        drawn(bench)


def test_the_files_are_the_same_every_time(bench: BenchT) -> None:
    confused(bench, a=0.9, b=0.4)
    first = [f.read_bytes() for f in figures.write_figure(bench.project, "quick", "confusion")]
    assert first == [f.read_bytes() for f in figures.write_figure(bench.project, "quick", "confusion")]
