"""The diagram of average ranks: ranks, bars, and that it says when nothing can be told."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from fgvc.errors import FgvcError
from fgvc.reporting import figures
from fgvc.reporting.critical_difference import Ranking, draw_ranking, read_ranking, statement

BenchT = Any


def ranked(bench: BenchT, values: list[list[float]], **options: Any) -> tuple[Ranking, Any]:
    """Ranking and figure of accuracies [datasets][methods], of one seed."""
    datasets = [f"set{i}" for i in range(len(values))]
    methods = [f"m{i}" for i in range(len(values[0]))]
    for name in methods:
        bench.method(name, title=f"A method {name}")
    for dataset, row in zip(datasets, values, strict=True):
        bench.dataset(dataset)
        for method, value in zip(methods, row, strict=True):
            if not np.isnan(value):
                bench.metrics(dataset, method, 1, status="ok", top1_pct=value)
    bench.suite(datasets, methods, [1])
    bench.write("figures/ranks.yaml", bench._table("critical_difference", image_size=64))
    config = bench.project.figure("ranks")
    found = read_ranking(bench.project, "quick", config, "x.pdf", **options)
    with figures.house_style():
        return found, draw_ranking(found, config)


def words(figure: Any) -> str:
    return " ".join(" ".join(t.get_text() for t in figure.texts).split())


def test_methods_that_always_rank_alike_are_told_apart(bench: BenchT) -> None:
    found, figure = ranked(bench, [[90.0 - i, 80.0 - i, 70.0 - i] for i in range(10)])
    assert found.test.ranks == (1.0, 2.0, 3.0)
    assert found.difference == pytest.approx(2.343 * np.sqrt(12 / 60), abs=1e-3)
    bars = [line for line in figure.axes[0].lines if line.get_gid() == "group"]
    assert len(bars) == len(found.groups) == 2, "1.05 joins neighbours only"
    assert "critical difference 1.05" in words(figure)
    labels = [t for t in figure.axes[0].texts if (t.get_gid() or "").startswith("label-")]
    assert [t.get_text().split()[-1] for t in labels] == ["1.00", "3.00", "2.00"]


def test_one_dataset_is_too_few_and_it_says_so(bench: BenchT) -> None:
    found, figure = ranked(bench, [[90.0, 80.0, 70.0]])
    assert found.difference is None and found.groups == []
    assert "Too few datasets: on 1 dataset no two of 3 methods could differ" in words(figure)
    assert "3 are needed at least" in statement(found)
    assert not [line for line in figure.axes[0].lines if line.get_gid() == "group"]


def test_ranks_that_contradict_one_another_are_inconclusive(bench: BenchT) -> None:
    found, figure = ranked(bench, [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [2.0, 3.0, 1.0], [1.0, 3.0, 2.0]])
    assert [sorted(g) for g in found.groups] == [[0, 1, 2]], "one bar over all"
    assert "Inconclusive" in words(figure)


def test_a_method_without_a_cell_is_not_ranked_and_named(bench: BenchT) -> None:
    values = [[90.0, 80.0, float("nan")], [91.0, 81.0, 71.0]]
    with pytest.raises(FgvcError, match="1 of 6 runs are missing"):
        ranked(bench, values)
    found, figure = ranked(bench, values, allow_missing=True)
    assert len(found.methods) == 2 and found.is_partial
    assert "PARTIAL" in words(figure) and "Not ranked: A method m2" in words(figure)


def test_a_single_method_has_no_rank(bench: BenchT) -> None:
    with pytest.raises(FgvcError, match="two are needed"):
        ranked(bench, [[90.0]])


@pytest.mark.parametrize("count", [2, 7, 16])
def test_names_stay_on_the_page_and_apart(bench: BenchT, count: int) -> None:
    rng = np.random.default_rng(0)
    _, figure = ranked(bench, (80 + rng.normal(size=(8, count))).tolist())
    boxes = [t.get_window_extent() for t in figure.axes[0].texts if (t.get_gid() or "").startswith("label-")]
    assert len(boxes) == count and not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    page = figure.bbox
    assert all(page.contains(b.x0, b.y0) and page.contains(b.x1, b.y1) for b in boxes)


def test_the_files_are_the_same_every_time(bench: BenchT) -> None:
    ranked(bench, [[90.0, 80.0], [91.0, 81.0]])
    first = [f.read_bytes() for f in figures.write_figure(bench.project, "quick", "ranks")]
    assert first == [f.read_bytes() for f in figures.write_figure(bench.project, "quick", "ranks")]
