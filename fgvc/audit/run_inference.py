"""How many runs stand behind printed means, told by the grid that they lie on.

A single run over N images lies on multiples of 1/N, a mean of three on a grid three times as fine. All
answers are counts over what could have been printed near a cell; none assumes a distribution.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

from fgvc.audit.granularity import counts, is_everything_possible, is_mean_of_rounded, is_share
from fgvc.audit.rounding import Interval, Printed, exact
from fgvc.audit.tables import Score

#: Numbers of runs that are tried where a source does not say how many stand behind a mean.
RUNS_TRIED = (1, 2, 3, 4, 5)
#: A number of runs is inferred from cells when they all fit it, and blindly printed ones would this rarely.
CHANCE = 1e-3
#: Numbers near a cell that are looked at: so many points to each side, and no more than so many of them.
#: "Near" is told in tens, so that the cells of a table share what was found.
NEAR, MOST_LOOKED_AT, BUCKET = 5, 150, 10


def fits(score: Score, runs: int) -> bool:
    """Whether a cell whose test images are known can be the mean of so many runs.

    Allowed, too: that the runs, or the parts of the test images, were each rounded before their mean.
    """
    return _fits(score.value, score.images or 1, score.parts, runs)


def _fits(value: Printed, images: int, parts: int, runs: int) -> bool:
    if is_share(value, images, runs):
        return True
    if runs > 1 and is_mean_of_rounded(value, images, runs, value.decimals):
        return True
    return parts > 1 and is_mean_of_rounded(value, images // parts, runs * parts, value.decimals)


def informative(scores: list[Score], runs: int) -> list[Score]:
    """The cells that could tell whether so many runs stand behind them."""
    return [score for score in scores if score.images is not None and _share_fitting(score, runs) < 1]


def chance(scores: list[Score], runs: int) -> float:
    """How often numbers that are nobody's accuracy, printed near these cells, would all fit so many runs."""
    return prod(_share_fitting(score, runs) for score in informative(scores, runs))


def accident(scores: list[Score], runs: int, given: int) -> float:
    """How often means of ``given`` runs near these cells would all look like means of ``runs``."""
    return prod(
        _share_of_means(_bucket(s), s.value.decimals, s.images or 1, s.parts, runs, given)
        for s in informative(scores, runs)
    )


def runs_behind(scores: list[Score]) -> int | None:
    """The smallest number of runs that every cell fits, where that is no accident; None: cannot be told."""
    for runs in RUNS_TRIED:
        told = informative(scores, runs)
        if told and all(fits(score, runs) for score in told):
            return runs if chance(scores, runs) < CHANCE else None
    return None


def _share_fitting(score: Score, runs: int) -> float:
    images = score.images or 1
    if is_everything_possible(score.value.decimals, images, runs):
        return 1.0
    return _share_of_numbers(_bucket(score), score.value.decimals, images, score.parts, runs)


def _bucket(score: Score) -> int:
    return BUCKET * round(score.value.value / BUCKET)


@lru_cache(maxsize=4096)
def _share_of_numbers(middle: int, decimals: int, images: int, parts: int, runs: int) -> float:
    """Which part of the printable numbers within `NEAR` points fits ``runs``."""
    scale = 10**decimals
    units = range(max(0, (middle - NEAR) * scale), min(100, middle + NEAR) * scale + 1)
    looked_at = units[:: max(1, len(units) // MOST_LOOKED_AT)]
    found = [_fits(Printed(unit / scale, decimals), images, parts, runs) for unit in looked_at]
    return sum(found) / len(found)


@lru_cache(maxsize=4096)
def _share_of_means(middle: int, decimals: int, images: int, parts: int, runs: int, given: int) -> float:
    """Which part of the means of ``given`` runs within `NEAR` points is printed so that it fits ``runs``."""
    near = Interval(exact(max(0, middle - NEAR), 0), exact(min(100, middle + NEAR), 0))
    totals = counts(near, images * given)
    looked_at = totals[:: max(1, len(totals) // MOST_LOOKED_AT)] or range(1)
    # An even step would meet only every second or third total: the rests of the division have to be mixed.
    mixed = [min(totals[-1], total + i % given) if len(totals) else 0 for i, total in enumerate(looked_at)]
    printed = [Printed(round(100 * total / (images * given), decimals), decimals) for total in mixed]
    return sum(_fits(value, images, parts, runs) for value in printed) / len(printed)
