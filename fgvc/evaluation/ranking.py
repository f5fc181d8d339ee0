"""Methods ranked over several datasets: Friedman's test, Nemenyi's critical difference, Bonferroni-Dunn.

After J. Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006), 1-30,
section 3.2.2. The unit is the dataset: images and seeds only make each cell's mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fgvc.evaluation.statistics import ALPHA, Floats


@dataclass(frozen=True)
class Friedman:
    """Friedman's test over ``datasets`` x ``methods`` cells.

    ``ranks`` [k]: average rank of each method, 1 the best. ``chi2`` has k-1 degrees of freedom; ``f`` is Iman
    and Davenport's form with (k-1) and (k-1)(N-1), which is less cautious, infinite where all datasets rank
    alike, and None for one dataset.
    """

    datasets: int
    methods: int
    ranks: tuple[float, ...]
    chi2: float
    chi2_p: float
    f: float | None
    f_p: float


def dataset_ranks(values: npt.ArrayLike) -> Floats:
    """Ranks ``[N, k]`` within each row of accuracies ``[N, k]``: 1 the highest, ties share a rank."""
    from scipy.stats import rankdata

    table: Floats = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise ValueError("ranks need a full [datasets, methods] table of finite numbers")
    ranks: Floats = rankdata(-table, axis=1)
    return ranks


def friedman(values: npt.ArrayLike) -> Friedman:
    """Friedman's test of accuracies ``[N, k]`` (rows are datasets), without a correction for ties.

    Demšar 2006, equations on page 11. Raises ValueError for fewer than two methods or a table with gaps.
    """
    from scipy.stats import chi2 as chi2_distribution
    from scipy.stats import f as f_distribution

    by_dataset = dataset_ranks(values)
    n, k = by_dataset.shape
    if k < 2:
        raise ValueError("ranks need two methods at least")
    ranks = by_dataset.mean(axis=0)
    chi2 = 12 * n / (k * (k + 1)) * (float((ranks**2).sum()) - k * (k + 1) ** 2 / 4)
    rest = n * (k - 1) - chi2
    f: float | None
    if n < 2:
        f, f_p = None, 1.0
    elif rest < 1e-9:
        f, f_p = math.inf, 0.0
    else:
        f = (n - 1) * chi2 / rest
        f_p = float(f_distribution.sf(f, k - 1, (k - 1) * (n - 1)))
    chi2_p = float(chi2_distribution.sf(chi2, k - 1))
    return Friedman(n, k, tuple(map(float, ranks)), chi2, chi2_p, f, f_p)


def nemenyi_q(methods: int, alpha: float = ALPHA) -> float:
    """Critical value for all pairs: the studentized range statistic (infinite df) divided by √2."""
    from scipy.stats import studentized_range

    # scipy takes infinite degrees of freedom for its asymptotic form.
    return float(studentized_range.isf(alpha, methods, np.inf)) / math.sqrt(2)


def critical_difference(methods: int, datasets: int, alpha: float = ALPHA) -> float:
    """Nemenyi's critical difference of average ranks (Demšar 2006, page 12)."""
    return nemenyi_q(methods, alpha) * _standard_error(methods, datasets)


def bonferroni_dunn_difference(methods: int, datasets: int, alpha: float = ALPHA) -> float:
    """Critical difference when every method is compared with one control only (Demšar 2006, page 12)."""
    from scipy.stats import norm

    return float(norm.isf(alpha / (2 * (methods - 1)))) * _standard_error(methods, datasets)


def least_datasets(methods: int, alpha: float = ALPHA) -> int:
    """The smallest number of datasets on which any two methods could differ at all.

    Average ranks lie at most k-1 apart; with fewer datasets the critical difference is larger than that.
    """
    needed = (nemenyi_q(methods, alpha) / (methods - 1)) ** 2 * methods * (methods + 1) / 6
    return max(2, math.ceil(needed - 1e-9))


def alike_groups(ranks: Sequence[float], difference: float) -> list[tuple[int, ...]]:
    """The largest groups of methods whose ranks lie less than ``difference`` apart: the bars of the diagram.

    Returns indices into ``ranks``, best first; a method that differs from every other is in no group.
    """
    order = sorted(range(len(ranks)), key=lambda i: (ranks[i], i))
    groups: list[tuple[int, ...]] = []
    last_end = 0
    for start in range(len(order)):
        end = start
        while end < len(order) and ranks[order[end]] - ranks[order[start]] < difference - 1e-12:
            end += 1
        if end - start > 1 and end > last_end:
            groups.append(tuple(order[start:end]))
            last_end = end
    return groups


def _standard_error(methods: int, datasets: int) -> float:
    if methods < 2 or datasets < 1:
        raise ValueError(f"no ranks of {methods} methods on {datasets} datasets can differ")
    return math.sqrt(methods * (methods + 1) / (6 * datasets))
