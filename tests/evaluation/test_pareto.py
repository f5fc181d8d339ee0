"""Who dominates whom, when accuracy and cost are known within intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from fgvc.evaluation.pareto import Tradeoff, accuracy_interval, exactly, front, seeds_interval, standings
from fgvc.evaluation.statistics import Interval

ends = st.lists(st.integers(0, 6), min_size=2, max_size=2).map(sorted)
boxes = st.lists(st.tuples(ends, ends), min_size=1, max_size=4)


def box(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high)


def is_dominated(name: str, points: dict[str, tuple[float, float]]) -> bool:
    """By brute force, with (accuracy, cost)."""
    own = points[name]
    others = [p for other, p in points.items() if other != name]
    return any(a >= own[0] and c <= own[1] and (a, c) != own for a, c in others)


@settings(max_examples=200, deadline=None)
@given(boxes, st.integers(0, 2**31))
def test_a_standing_holds_for_every_value_within_the_intervals(
    drawn: list[tuple[list[int], list[int]]], seed: int
) -> None:
    methods = {f"m{i}": Tradeoff(box(*a), box(*c)) for i, (a, c) in enumerate(drawn)}
    found, rng = standings(methods), np.random.default_rng(seed)
    for _ in range(40):
        points = {
            n: (
                float(rng.integers(m.accuracy.low, m.accuracy.high + 1)),
                float(rng.integers(m.cost.low, m.cost.high + 1)),
            )
            for n, m in methods.items()
        }
        for name, placed in found.items():
            if placed.standing == "dominated":
                assert is_dominated(name, points)
            elif placed.standing == "not_dominated":
                assert not is_dominated(name, points)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), min_size=1, max_size=6, unique=True))
def test_without_uncertainty_the_standings_are_the_front(drawn: list[tuple[int, int]]) -> None:
    points = {f"m{i}": (float(a), float(c)) for i, (a, c) in enumerate(drawn)}
    exact = {n: Tradeoff(exactly(a), exactly(c)) for n, (a, c) in points.items()}
    found = standings(exact)
    assert {p.standing for p in found.values()} <= {"dominated", "not_dominated"}
    assert set(front(points)) == {n for n, p in found.items() if p.standing == "not_dominated"}
    assert [points[n][1] for n in front(points)] == sorted(points[n][1] for n in front(points))


def test_overlapping_intervals_leave_it_open_and_name_the_rival() -> None:
    methods = {
        "cheap": Tradeoff(box(89, 91), exactly(4.0)),
        "dear": Tradeoff(box(90, 92), exactly(8.0)),
        "hopeless": Tradeoff(box(70, 72), exactly(16.0)),
    }
    found = standings(methods)
    assert found["cheap"].standing == "not_dominated"
    assert (found["dear"].standing, found["dear"].by) == ("inconclusive", ("cheap",))
    assert (found["hopeless"].standing, found["hopeless"].by) == ("dominated", ("cheap", "dear"))


def test_a_measured_cost_with_spread_can_leave_it_open_too() -> None:
    methods = {"a": Tradeoff(exactly(90.0), box(4, 6)), "b": Tradeoff(exactly(85.0), box(5, 7))}
    assert standings(methods)["b"].standing == "inconclusive"
    assert standings(methods)["a"].standing == "not_dominated"


def test_of_equal_methods_none_dominates() -> None:
    same = Tradeoff(exactly(90.0), exactly(4.0))
    assert {p.standing for p in standings({"a": same, "b": same}).values()} == {"not_dominated"}


def test_the_interval_of_few_seeds_is_student_s() -> None:
    values = [90.0, 90.5, 91.3]
    found = seeds_interval(float(np.mean(values)), float(np.std(values, ddof=1)), 3)
    low, high = t.interval(0.95, 2, loc=np.mean(values), scale=np.std(values, ddof=1) / np.sqrt(3))
    assert found is not None and (found.low, found.high) == pytest.approx((low, high))
    assert seeds_interval(90.0, None, 1) is None


def test_an_accuracy_s_interval_is_as_wide_as_seeds_and_images_make_it() -> None:
    images = [(np.arange(100) < 90).astype(float)]
    narrow, wide = accuracy_interval(90.0, 0.001, 3, images, scale=100), accuracy_interval(90.0, 5.0, 3)
    assert narrow is not None and wide is not None
    assert narrow.low == pytest.approx(90 - 5.9, abs=1.2) and narrow.high == pytest.approx(90 + 5.9, abs=1.2)
    assert wide.low < 80
    assert accuracy_interval(90.0, None, 1) is None
