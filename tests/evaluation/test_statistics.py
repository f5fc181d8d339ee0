"""Statistics: known cases, and what must hold for any data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgvc.evaluation.statistics import (
    bootstrap_interval,
    holm,
    inseparable_from,
    paired_bootstrap,
    spread,
)

scores = st.lists(st.sampled_from([0.0, 1 / 3, 2 / 3, 1.0]), min_size=1, max_size=60).map(np.array)


def test_spread() -> None:
    assert spread([1.0, 2.0, 4.0]).mean == pytest.approx(7 / 3)
    assert spread([1.0, 2.0, 4.0]).std == pytest.approx(1.5275252316519468)  # ddof=1
    assert spread([5.0]).std is None and spread([5.0]).n == 1
    with pytest.raises(ValueError, match="no values"):
        spread([])


def test_published_average_row() -> None:
    """GLSim's Table 4 prints 91.92 ± 7.14 for GLSim: the std across its ten datasets, ddof=1."""
    column = [90.93, 93.36, 92.01, 99.48, 92.97, 73.5, 96.67, 89.11, 95.01, 96.14]
    found = spread(column)
    assert found.mean == pytest.approx(91.92, abs=0.005)
    assert found.std == pytest.approx(7.14, abs=0.005)


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.03, 0.04 times 3, 2, 1, then made monotone.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []


@settings(max_examples=15, deadline=None)
@given(scores)
def test_identical_methods_are_never_separated(first: np.ndarray) -> None:
    assert paired_bootstrap(first, first.copy(), resamples=200).p_value == 1.0
    assert inseparable_from("a", {"a": first, "b": first.copy()}) == {"b"}


@settings(max_examples=15, deadline=None)
@given(scores, st.integers(0, 2**31))
def test_the_order_of_the_pair_only_turns_the_sign(first: np.ndarray, seed: int) -> None:
    second = np.roll(first, 1)
    one = paired_bootstrap(first, second, resamples=500, seed=seed)
    other = paired_bootstrap(second, first, resamples=500, seed=seed)
    assert one.difference == pytest.approx(-other.difference)
    assert 0 < one.p_value <= 1
    assert one.p_value == pytest.approx(other.p_value, abs=0.15)


@settings(max_examples=10, deadline=None)
@given(st.integers(200, 2000), st.floats(0.15, 0.5))
def test_clear_winners_are_separated(images: int, margin: float) -> None:
    better = np.ones(images)
    worse = np.ones(images)
    worse[: int(images * margin)] = 0.0
    assert inseparable_from("a", {"a": better, "b": worse, "c": worse.copy()}) == set()


def test_one_image_more_separates_nothing() -> None:
    first = np.ones(400)
    second = first.copy()
    second[0] = 0.0
    assert inseparable_from("a", {"a": first, "b": second}) == {"b"}


def test_false_alarms_stay_near_their_level() -> None:
    """Two equally good, independent methods are told apart in about 5 % of the cases."""
    rng = np.random.default_rng(0)
    p_values = [
        paired_bootstrap(*(rng.random((2, 300)) < 0.8).astype(float), resamples=400, seed=i).p_value
        for i in range(300)
    ]
    assert 0.01 < np.mean(np.array(p_values) < 0.05) < 0.10


def test_bootstrap_agrees_with_the_normal_approximation() -> None:
    values = (np.arange(1000) < 800).astype(float)
    found = bootstrap_interval([values])
    half = 1.96 * np.sqrt(0.8 * 0.2 / 1000)
    assert found.mean == pytest.approx(0.8)
    assert (found.low, found.high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.002)


def test_interval_of_an_average_is_narrower() -> None:
    values = (np.arange(1000) < 800).astype(float)
    one, four = bootstrap_interval([values]), bootstrap_interval([values] * 4)
    assert (four.high - four.low) == pytest.approx((one.high - one.low) / 2, rel=0.1)


def test_many_distinct_scores_are_resampled_too() -> None:
    values = np.random.default_rng(0).random(5000)  # 5000 categories: several chunks
    found = bootstrap_interval([values], resamples=2000)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * values.std() / np.sqrt(5000), rel=0.1)


def test_same_seed_same_answer() -> None:
    rng = np.random.default_rng(3)
    first, second = (rng.random((2, 200)) < 0.7).astype(float)
    assert paired_bootstrap(first, second, seed=7) == paired_bootstrap(first, second, seed=7)


def test_unequal_lengths_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="equal"):
        paired_bootstrap(np.ones(3), np.ones(4))
