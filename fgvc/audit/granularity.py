"""Which accuracies are possible: a share of correct images is k/N, and nothing between.

Accuracies and stds are in percent, N counts test images, n runs. Every answer is exact: "not possible" means
that no numbers of correct images give what is printed, with any tie rule of rounding to the nearest.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor

import numpy as np
import numpy.typing as npt
from scipy.signal import fftconvolve

from fgvc.audit.rounding import Interval, Printed, ceil_sqrt, floor_sqrt, step

Flags = npt.NDArray[np.bool_]
#: Combinations of runs that the search for a std looks at before it gives up.
MAX_NODES = 200_000


def counts(accuracy: Interval, images: int) -> range:
    """The numbers of correct images k, of ``images``, with 100·k/images inside ``accuracy``."""
    first = max(0, ceil(accuracy.low * images / 100))
    last = min(images, floor(accuracy.high * images / 100))
    return range(first, last + 1)


def is_share(printed: Printed, images: int, runs: int = 1) -> bool:
    """Whether ``printed`` can be the accuracy of one run over ``images``, or the mean of ``runs`` such."""
    return len(counts(printed.interval, images * runs)) > 0


def attainable_share(decimals: int, images: int, runs: int = 1) -> float:
    """Which part of the printable accuracies is possible at all; 1.0: the check can say nothing.

    With N images there are N+1 accuracies, among 100·10^decimals + 1 printable ones.
    """
    return min(1.0, (images * runs + 1) / (100 * int(10**decimals) + 1))


def is_everything_possible(decimals: int, images: int, runs: int = 1) -> bool:
    """Whether every printable accuracy is possible, so that nothing can be told."""
    return images * runs >= 100 * int(10**decimals)


def padded(images: int, processes: int) -> int:
    """Images that ``processes`` evaluate: a distributed sampler repeats some to fill the last round."""
    return ceil(images / processes) * processes


def true_accuracies(printed: Printed, images: int, processes: int) -> Interval | None:
    """Between which accuracies the true one lies when an evaluation counted its padding, too.

    The repeated images were all right or all wrong at worst. None: not possible with this padding.
    """
    total = padded(images, processes)
    found = counts(printed.interval, total)
    if not found:
        return None
    lowest, highest = max(0, found[0] - (total - images)), min(images, found[-1])
    return Interval(Fraction(100 * lowest, images), Fraction(100 * highest, images))


# --- means of runs that were rounded first ---------------------------------------------------------------


def is_mean_of_rounded(printed: Printed, images: int, runs: int, run_decimals: int) -> bool:
    """Whether ``printed`` can be the mean of ``runs`` accuracies that were each rounded first.

    A sum of rounded accuracies is an integer in units of 10^-run_decimals; which integers are possible is
    known from convolving what each run can be.
    """
    unit = step(run_decimals)
    possible = _sums_of_rounded(images, runs, run_decimals)
    low, high = printed.interval.low * runs / unit, printed.interval.high * runs / unit
    return bool(possible[max(0, ceil(low)) : floor(high) + 1].any())


@lru_cache(maxsize=256)
def _sums_of_rounded(images: int, runs: int, decimals: int) -> Flags:
    """By sum of ``runs`` rounded accuracies, in units of the last digit: whether it is possible."""
    single = _rounded(images, decimals)
    if runs == 1:
        return single
    # Counts of pairs are whole numbers, far below where the transform's rounding would reach one half.
    pairs = fftconvolve(_sums_of_rounded(images, runs - 1, decimals).astype(float), single.astype(float))
    return np.asarray(pairs > 0.5)


def _rounded(images: int, decimals: int) -> Flags:
    """By accuracy in units of the last digit: whether some k/N is rounded to it; ties both ways."""
    scale = 100 * 10**decimals
    doubled, rest = np.divmod(2 * np.arange(images + 1, dtype=np.int64) * scale, images)
    possible = np.zeros(scale + 1, dtype=bool)
    possible[(doubled + 1) // 2] = True
    halfway = (rest == 0) & (doubled % 2 == 1)
    possible[doubled[halfway] // 2] = True
    return possible


# --- the std of a few runs ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SpreadAnswer:
    """Whether a printed mean ± std is possible. ``possible`` None: the search was given up.

    ``example``: numbers of correct images that give it. ``ddof``: 1: the sample's std, 0: the population's.
    """

    possible: bool | None
    ddof: int | None = None
    example: tuple[int, ...] = ()


class _GivenUpError(Exception):
    """The search took too many steps."""


def spread_of_runs(
    mean: Printed, std: Printed, images: int, runs: int, *, run_decimals: int | None = None
) -> SpreadAnswer:
    """Whether ``runs`` runs over ``images`` can have this mean and this std, of the sample or the population.

    Args:
        run_decimals: the runs may have been rounded to so many decimals first; the mean then moves by half a
            step at most, and the std by half a step times √(n/(n−ddof)). Both are allowed for in full.
    """
    if runs < 2:
        return SpreadAnswer(std.value == 0)
    slack = step(run_decimals) / 2 if run_decimals is not None else Fraction(0)
    budget = [MAX_NODES]
    given_up = False
    for ddof in (1, 0):
        # √(n/(n−1)) ≤ √2 < 3/2 for two runs and more; a bound from above is enough.
        stds = std.interval.widened(slack * Fraction(3, 2))
        try:
            found = _runs_with(mean.interval.widened(slack), stds, images, runs, ddof, budget)
        except _GivenUpError:
            given_up = True
            continue
        if found is not None:
            return SpreadAnswer(True, ddof, found)
    return SpreadAnswer(None if given_up else False)


def _runs_with(
    means: Interval, stds: Interval, images: int, runs: int, ddof: int, budget: list[int]
) -> tuple[int, ...] | None:
    """Numbers of correct images with such a mean and std.

    With K = Σk and Q = Σk², the std is 100/N · √((Q − K²/n) / (n − ddof)).
    """
    scale = Fraction(images * images * (runs - ddof), 10_000)
    low, high = max(stds.low, Fraction(0)) ** 2 * scale, stds.high**2 * scale
    for total in counts(means, images * runs):
        base = Fraction(total * total, runs)
        squares = Interval(base + low, base + high)
        found = _split(total, squares, runs, 0, images, budget)
        if found is not None:
            return found
    return None


def _split(
    total: int, squares: Interval, parts: int, least: int, most: int, budget: list[int]
) -> tuple[int, ...] | None:
    """``parts`` integers from ``least`` to ``most``, ascending, of this sum and a sum of squares inside."""
    budget[0] -= 1
    if budget[0] < 0:
        raise _GivenUpError
    if parts == 2:
        return _split_in_two(total, squares, least, most)
    # Equal parts have the least sum of squares: it bounds how far one part may lie from the mean.
    room = squares.high - Fraction(total * total, parts)
    if room < 0:
        return None
    reach = floor_sqrt(room * (parts - 1) / parts) + 1
    middle = total // parts
    for first in range(middle, max(least, middle - reach) - 1, -1):  # the least part is at most the mean
        rest = Interval(squares.low - first * first, squares.high - first * first)
        found = _split(total - first, rest, parts - 1, first, most, budget)
        if found is not None:
            return (first, *found)
    return None


def _split_in_two(total: int, squares: Interval, least: int, most: int) -> tuple[int, int] | None:
    """Two integers a ≤ b with a + b = total: their difference δ has δ² = 2·(a² + b²) − total²."""
    low = max(2 * squares.low - total * total, Fraction(0))
    high = 2 * squares.high - total * total
    if high < 0:
        return None
    first = ceil_sqrt(low)
    first += (first - total) % 2
    last = floor_sqrt(high)
    # Both numbers have to stay inside: the smallest difference keeps them closest together.
    if first <= last:
        a, b = (total - first) // 2, (total + first) // 2
        if least <= a and b <= most:
            return a, b
    return None
