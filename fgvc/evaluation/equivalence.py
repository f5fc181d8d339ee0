"""Are two means the same, as far as their seeds can tell? Two one-sided tests, from mean, std and n alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fgvc.evaluation.statistics import ALPHA, Spread

Equivalent = Literal["equivalent", "different", "inconclusive"]


@dataclass(frozen=True)
class Equivalence:
    """How ``second - first`` stands to a margin, all in the unit of the means.

    Args:
        low, high: interval of the difference at level 1 − 2α: inside ±margin exactly when the two one-sided
            tests both reject.
        p_equivalent: the larger p-value of the two one-sided tests (that it is below −margin, above margin).
        p_different: two-sided p-value of Welch's test that it is zero.
        verdict: "equivalent" where p_equivalent < α, also when the small difference is certain; else
            "different" where p_different < α; else "inconclusive".
    """

    difference: float
    low: float
    high: float
    p_equivalent: float
    p_different: float
    verdict: Equivalent


def can_be_tested(first: Spread, second: Spread) -> bool:
    """Whether both have at least two runs and a std, and not both a std of zero."""
    stds = [spread.std for spread in (first, second) if spread.n > 1 and spread.std is not None]
    return len(stds) == 2 and any(stds)


def equivalence(first: Spread, second: Spread, margin: float, *, alpha: float = ALPHA) -> Equivalence:
    """Two one-sided tests with Welch's degrees of freedom (Schuirmann 1987; Welch 1947).

    Raises ValueError where `can_be_tested` is false.
    """
    from scipy import stats

    if first.std is None or second.std is None or not can_be_tested(first, second):
        raise ValueError("a test of equivalence needs two means of at least two runs, and a spread")

    def p_value(shift: float, alternative: str) -> float:
        """Of Welch's test of ``second + shift`` against ``first``."""
        found = stats.ttest_ind_from_stats(
            second.mean + shift,
            second.std,
            second.n,
            first.mean,
            first.std,
            first.n,
            equal_var=False,
            alternative=alternative,
        )
        return float(found.pvalue)

    parts = [first.std**2 / first.n, second.std**2 / second.n]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (first.n - 1) + parts[1] ** 2 / (second.n - 1))
    reach = float(stats.t.ppf(1 - alpha, freedom)) * math.sqrt(sum(parts))
    difference = second.mean - first.mean
    p_equivalent = max(p_value(margin, "greater"), p_value(-margin, "less"))
    p_different = p_value(0.0, "two-sided")
    verdict: Equivalent = (
        "equivalent" if p_equivalent < alpha else "different" if p_different < alpha else "inconclusive"
    )
    return Equivalence(difference, difference - reach, difference + reach, p_equivalent, p_different, verdict)
