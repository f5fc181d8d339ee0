"""Ranks over datasets against the worked example of Demšar 2006 and against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from fgvc.evaluation.ranking import (
    alike_groups,
    bonferroni_dunn_difference,
    critical_difference,
    dataset_ranks,
    friedman,
    least_datasets,
    nemenyi_q,
)

#: AUC of C4.5, C4.5+m, C4.5+cf and C4.5+m+cf on fourteen datasets: Demšar, JMLR 7 (2006), table 6. In the
#: row 'voting' two values are printed alike (0.975) and ranked 2 and 3, so the first was larger before it
#: was rounded; 0.9751 stands for that.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],  # adult (sample)
        [0.599, 0.591, 0.590, 0.569],  # breast cancer
        [0.954, 0.971, 0.968, 0.967],  # breast cancer wisconsin
        [0.628, 0.661, 0.654, 0.657],  # cmc
        [0.882, 0.888, 0.886, 0.898],  # ionosphere
        [0.936, 0.931, 0.916, 0.931],  # iris
        [0.661, 0.668, 0.609, 0.685],  # liver disorders
        [0.583, 0.583, 0.563, 0.625],  # lung cancer
        [0.775, 0.838, 0.866, 0.875],  # lymphography
        [1.000, 1.000, 1.000, 1.000],  # mushroom
        [0.940, 0.962, 0.965, 0.962],  # primary tumor
        [0.619, 0.666, 0.614, 0.669],  # rheum
        [0.972, 0.981, 0.9751, 0.975],  # voting
        [0.957, 0.978, 0.946, 0.970],  # wine
    ]
)


def test_friedman_gives_the_numbers_of_the_worked_example() -> None:
    found = friedman(DEMSAR)
    assert [f"{rank:.3f}" for rank in found.ranks] == ["3.143", "2.000", "2.893", "1.964"]
    assert f"{found.chi2:.2f}" == "9.28" and found.f is not None and f"{found.f:.2f}" == "3.69"
    # Above the critical value of F(3, 39) for 0.05, which is 2.85.
    assert found.f_p < 0.05


def test_the_critical_differences_are_those_of_the_worked_example() -> None:
    assert f"{critical_difference(4, 14):.2f}" == "1.25"
    assert f"{critical_difference(4, 14, alpha=0.10):.2f}" == "1.12"
    # Printed as 1.16 (cut off) from q = 2.394, and as 1.04 from q = 2.128.
    assert bonferroni_dunn_difference(4, 14) == pytest.approx(2.394 * math.sqrt(20 / 84), abs=5e-4)
    assert f"{bonferroni_dunn_difference(4, 14, alpha=0.10):.2f}" == "1.04"


def test_the_worked_example_ends_as_printed() -> None:
    """Nemenyi at 0.10: C4.5 differs from C4.5+m and C4.5+m+cf; C4.5+cf cannot be placed."""
    ranks = friedman(DEMSAR).ranks
    groups = alike_groups(ranks, critical_difference(4, 14, alpha=0.10))
    assert groups == [(3, 1, 2), (2, 0)]


@pytest.mark.parametrize(
    ("alpha", "printed"),
    [
        (0.05, [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]),
        (0.10, [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]),
    ],
)
def test_nemenyi_s_critical_values_are_the_printed_ones(alpha: float, printed: list[float]) -> None:
    """Demšar 2006, table 5a, for two to ten methods; some of its last digits are cut off."""
    assert [nemenyi_q(k, alpha) for k in range(2, 11)] == pytest.approx(printed, abs=1e-3)


def test_without_ties_chi2_is_scipy_s() -> None:
    values = np.random.default_rng(1).random((12, 5))
    theirs = friedmanchisquare(*values.T)
    found = friedman(values)
    assert found.chi2 == pytest.approx(theirs.statistic) and found.chi2_p == pytest.approx(theirs.pvalue)


def test_ranks_share_ties_and_begin_with_the_highest() -> None:
    assert dataset_ranks([[90.0, 95.0, 90.0, 80.0]]).tolist() == [[2.5, 1.0, 2.5, 4.0]]


def test_datasets_that_all_rank_alike_and_a_single_one() -> None:
    same = friedman([[3.0, 2.0, 1.0]] * 4)
    assert same.f == math.inf and same.f_p == 0.0 and same.chi2 == pytest.approx(8.0)
    one = friedman([[3.0, 2.0, 1.0]])
    assert one.f is None and one.f_p == 1.0


def test_gaps_and_lonely_methods_are_mistakes() -> None:
    with pytest.raises(ValueError, match="full"):
        friedman([[1.0, float("nan")]])
    with pytest.raises(ValueError, match="two methods"):
        friedman([[1.0], [2.0]])


@pytest.mark.parametrize("methods", [2, 3, 6, 10])
def test_fewer_datasets_than_the_least_can_separate_nothing(methods: int) -> None:
    least = least_datasets(methods)
    assert critical_difference(methods, least) <= methods - 1 < critical_difference(methods, least - 1)


def test_groups_are_the_largest_runs_within_the_difference() -> None:
    assert alike_groups([1.0, 1.5, 2.4, 4.0], 1.0) == [(0, 1), (1, 2)]
    assert alike_groups([4.0, 1.0], 1.0) == []
    assert alike_groups([1.0, 1.2, 1.4], 1.0) == [(0, 1, 2)]
