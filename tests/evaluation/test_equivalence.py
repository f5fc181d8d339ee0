"""Equivalence of two means from mean, std and n alone, against the test on raw numbers."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW, ttost_ind

from fgvc.evaluation.equivalence import can_be_tested, equivalence
from fgvc.evaluation.statistics import Spread, spread

PAIRS = [
    ([90.1, 90.3, 90.2], [90.2, 90.4, 90.1]),
    ([90.1, 90.3, 90.2], [91.9, 92.0, 92.4]),
    ([88.0, 91.0, 90.0], [89.0, 90.5, 92.5, 88.0]),
    ([90.0, 90.0, 90.0], [90.1, 90.3, 90.2]),
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
@pytest.mark.parametrize("margin", [0.3, 1.0])
def test_summaries_give_the_p_values_and_the_interval_of_the_raw_numbers(
    first: list[float], second: list[float], margin: float
) -> None:
    found = equivalence(spread(first), spread(second), margin)
    p_value = ttost_ind(np.array(second), np.array(first), -margin, margin, usevar="unequal")[0]
    assert found.p_equivalent == pytest.approx(p_value, rel=1e-9)
    compared = CompareMeans(DescrStatsW(second), DescrStatsW(first))
    assert found.p_different == pytest.approx(compared.ttest_ind(usevar="unequal")[1], rel=1e-9)
    assert (found.low, found.high) == pytest.approx(compared.tconfint_diff(0.1, usevar="unequal"), rel=1e-9)
    assert found.difference == pytest.approx(np.mean(second) - np.mean(first))


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        (Spread(90.0, 0.05, 3), Spread(90.1, 0.05, 3), "equivalent"),
        (Spread(90.0, 0.05, 3), Spread(91.0, 0.05, 3), "different"),
        (Spread(90.0, 0.30, 3), Spread(90.1, 0.30, 3), "inconclusive"),
        (Spread(90.0, 0.50, 3), Spread(91.0, 0.50, 3), "inconclusive"),
        # Certainly not zero, and as certainly too small to matter.
        (Spread(90.0, 0.02, 10), Spread(90.1, 0.02, 10), "equivalent"),
    ],
)
def test_three_seeds_say_inconclusive_unless_they_agree_closely(
    first: Spread, second: Spread, verdict: str
) -> None:
    assert equivalence(first, second, 0.5).verdict == verdict


def test_the_interval_lies_inside_the_margin_exactly_when_the_means_are_equivalent() -> None:
    rng = np.random.default_rng(0)
    verdicts = set()
    for _ in range(200):
        stds = rng.uniform(0.01, 0.4, 2)
        found = equivalence(
            Spread(90.0, stds[0], 3), Spread(90.0 + rng.normal(0, 0.3), stds[1], int(rng.integers(2, 6))), 0.5
        )
        inside = found.low > -0.5 and found.high < 0.5
        assert inside == (found.p_equivalent < 0.05) == (found.verdict == "equivalent")
        verdicts.add(found.verdict)
    assert verdicts == {"equivalent", "different", "inconclusive"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Spread(90.0, None, 3), Spread(90.0, 0.1, 3)),
        (Spread(90.0, 0.1, 3), Spread(90.0, None, 1)),
        (Spread(90.0, 0.1, 0), Spread(90.0, 0.1, 3)),
        (Spread(90.0, 0.0, 3), Spread(90.0, 0.0, 3)),
    ],
)
def test_without_seeds_or_spread_there_is_no_test(first: Spread, second: Spread) -> None:
    assert not can_be_tested(first, second)
    with pytest.raises(ValueError, match="at least two runs"):
        equivalence(first, second, 0.5)
