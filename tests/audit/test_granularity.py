"""Which accuracies and stds are possible, against counting them all."""

from __future__ import annotations

import itertools
import math
import statistics
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgvc.audit.granularity import (
    attainable_share,
    is_mean_of_rounded,
    is_share,
    padded,
    spread_of_runs,
    true_accuracies,
)
from fgvc.audit.rounding import Printed

few_images = st.integers(3, 18)
few_runs = st.integers(2, 4)
few_decimals = st.integers(0, 2)


def shown(value: Fraction | float, decimals: int) -> str:
    """As a program prints it (half-even on the exact value)."""
    return f"{float(round(Fraction(value), decimals)):.{decimals}f}"


def printed(text: str) -> Printed:
    return Printed(float(text), len(text.partition(".")[2]))


@given(few_images, few_runs, few_decimals, st.integers(0, 1000))
def test_a_mean_is_a_share_exactly_if_some_numbers_of_right_answers_print_it(
    images: int, runs: int, decimals: int, pick: int
) -> None:
    possible = {shown(Fraction(100 * k, images * runs), decimals) for k in range(images * runs + 1)}
    scale = 10**decimals
    text = f"{(pick % (100 * scale + 1)) / scale:.{decimals}f}"
    # Ties may be rounded either way, so that a few more are possible than one rounding gives.
    either = {
        f"{(v + d) / scale:.{decimals}f}"
        for k in range(images * runs + 1)
        for v in [math.floor(Fraction(100 * k * scale, images * runs))]
        for d in (0, 1)
        if abs(Fraction(100 * k * scale, images * runs) - (v + d)) <= Fraction(1, 2)
    }
    assert is_share(printed(text), images, runs) == (text in either)
    assert possible <= either


@given(few_images, few_runs, few_decimals, st.data())
def test_the_mean_of_rounded_runs_is_found_possible(
    images: int, runs: int, decimals: int, data: st.DataObject
) -> None:
    right = data.draw(st.lists(st.integers(0, images), min_size=runs, max_size=runs))
    rounded = [Fraction(shown(Fraction(100 * k, images), decimals)) for k in right]
    text = shown(sum(rounded) / runs, decimals)
    assert is_mean_of_rounded(printed(text), images, runs, decimals)


def test_the_mean_of_rounded_runs_against_all_combinations() -> None:
    images, runs, decimals = 7, 3, 1
    single = [Fraction(shown(Fraction(100 * k, images), decimals)) for k in range(images + 1)]
    sums = {sum(runs_) for runs_ in itertools.combinations_with_replacement(single, runs)}
    for units in range(1001):
        value = printed(f"{units / 10:.1f}")
        expected = any(s / runs in value.interval for s in sums)
        assert is_mean_of_rounded(value, images, runs, decimals) == expected, value


def every_spread(mean: Printed, std: Printed, images: int, runs: int) -> bool:
    """Whether any runs at all have this mean and this std, of the sample or the population."""
    for right in itertools.combinations_with_replacement(range(images + 1), runs):
        values = [Fraction(100 * k, images) for k in right]
        middle = statistics.mean(values)
        if middle not in mean.interval:
            continue
        squares = sum((v - middle) ** 2 for v in values)
        low = max(std.interval.low, Fraction(0)) ** 2
        if any(low <= squares / (runs - ddof) <= std.interval.high**2 for ddof in (0, 1)):
            return True
    return False


@settings(max_examples=150, deadline=None)
@given(st.integers(5, 22), few_runs, st.integers(0, 1), st.floats(0, 100), st.floats(0, 45))
def test_a_spread_is_possible_exactly_if_some_runs_have_it(
    images: int, runs: int, decimals: int, mean: float, std: float
) -> None:
    m, s = (printed(f"{value:.{decimals}f}") for value in (mean, std))
    assert spread_of_runs(m, s, images, runs).possible == every_spread(m, s, images, runs)


@settings(deadline=None)
@given(st.integers(50, 30_000), st.integers(2, 5), st.booleans(), st.data())
def test_real_runs_always_have_a_possible_spread(
    images: int, runs: int, sample: bool, data: st.DataObject
) -> None:
    near = data.draw(st.integers(0, images))
    right = [min(images, near + data.draw(st.integers(0, max(1, images // 100)))) for _ in range(runs)]
    accuracies = [100 * k / images for k in right]
    spread = statistics.stdev(accuracies) if sample else statistics.pstdev(accuracies)
    mean, std = printed(f"{statistics.fmean(accuracies):.2f}"), printed(f"{spread:.2f}")
    answer = spread_of_runs(mean, std, images, runs, run_decimals=2)
    assert answer.possible is not False
    # ... also when each run was rounded before.
    rounded = [round(a, 2) for a in accuracies]
    spread = statistics.stdev(rounded) if sample else statistics.pstdev(rounded)
    mean, std = printed(f"{statistics.fmean(rounded):.2f}"), printed(f"{spread:.2f}")
    assert spread_of_runs(mean, std, images, runs, run_decimals=2).possible is not False


def test_an_example_has_the_mean_and_the_spread_that_were_asked_for() -> None:
    answer = spread_of_runs(printed("90.33"), printed("4.28"), 116_931, 3)
    accuracies = [100 * k / 116_931 for k in answer.example]
    assert f"{statistics.fmean(accuracies):.2f}" == "90.33"
    assert f"{statistics.stdev(accuracies):.2f}" == "4.28" and answer.ddof == 1


def test_a_spread_between_two_possible_ones_is_impossible() -> None:
    # Of ten images and two runs: stds are multiples of 10/√2 = 7.07 (sample) or 5 (population).
    assert spread_of_runs(printed("50.0"), printed("14.1"), 10, 2).possible
    assert spread_of_runs(printed("50.0"), printed("3.0"), 10, 2).possible is False


@pytest.mark.parametrize(
    ("text", "images", "possible"),
    [("88.107", 5794, False), ("88.107", 5796, False), ("88.108", 5794, True), ("91.856", 5796, True)],
)
def test_single_runs_on_cub(text: str, images: int, possible: bool) -> None:
    """The SC4001 and IELT numbers, by 5105/5794 = 88.1084 % and 5324/5796 = 91.8564 %."""
    assert is_share(printed(text), images) is possible


@given(st.integers(1, 10_000), st.integers(1, 64))
def test_padding_fills_the_last_round(images: int, processes: int) -> None:
    total = padded(images, processes)
    assert total % processes == 0 and 0 <= total - images < processes


@given(st.integers(5, 60), st.integers(2, 8), st.data())
def test_the_true_accuracy_lies_where_padding_lets_it(
    images: int, processes: int, data: st.DataObject
) -> None:
    right = data.draw(st.lists(st.booleans(), min_size=images, max_size=images))
    total = padded(images, processes)
    counted = sum(right) + sum(right[: total - images])
    value = printed(shown(Fraction(100 * counted, total), 3))
    bounds = true_accuracies(value, images, processes)
    assert bounds is not None and Fraction(100 * sum(right), images) in bounds


def test_where_everything_is_possible_nothing_can_be_told() -> None:
    assert attainable_share(2, 95_986) == 1.0
    assert attainable_share(2, 240) == pytest.approx(241 / 10_001)
    assert attainable_share(1, 5_794) == 1.0
