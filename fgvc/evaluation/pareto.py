"""Accuracy against cost: which methods another one beats on both, as far as the numbers can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fgvc.evaluation.statistics import Floats, Interval, bootstrap_interval

Standing = Literal["dominated", "not_dominated", "inconclusive"]


@dataclass(frozen=True)
class Tradeoff:
    """A method's accuracy and cost, each with the interval that it is known to lie in.

    Less cost is better; a throughput is turned into a cost by its reciprocal (seconds an image). What was
    counted and not measured has an interval of no width.
    """

    accuracy: Interval
    cost: Interval


@dataclass(frozen=True)
class Placed:
    """How a method stands, and the methods that dominate it (or may, where that is inconclusive)."""

    standing: Standing
    by: tuple[str, ...]


def exactly(value: float) -> Interval:
    """A number without uncertainty."""
    return Interval(value, value, value)


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The methods that no other dominates, cheapest first, by their (accuracy, cost) as they stand.

    Of methods with the same cost and accuracy the first is kept.
    """
    kept: list[str] = []
    for name in sorted(points, key=lambda n: (points[n][1], -points[n][0])):
        if not kept or points[name][0] > points[kept[-1]][0]:
            kept.append(name)
    return kept


def dominates(first: Tradeoff, second: Tradeoff) -> bool | None:
    """Whether ``first`` is at least as accurate and as cheap as ``second``, and one of them more so.

    None where the intervals leave it open: they hold values for which it does, and others for which not.
    """
    a, b = first.accuracy, second.accuracy
    c, d = first.cost, second.cost
    if a.high < b.low or c.low > d.high or (a.high == b.low and c.low == d.high):
        return False
    surely = a.low >= b.high and c.high <= d.low
    if surely and (a.low > b.high or c.high < d.low):
        return True
    return None


def standings(methods: Mapping[str, Tradeoff]) -> dict[str, Placed]:
    """How each method stands among all.

    *dominated*: some method dominates it whatever the true values within the intervals are; *not_dominated*:
    none does, whatever they are; else *inconclusive*. Each rival is judged by itself, so a method that some
    of several rivals surely beats, without one doing so always, stays inconclusive.
    """
    found: dict[str, Placed] = {}
    for name, own in methods.items():
        judged = {other: dominates(methods[other], own) for other in methods if other != name}
        sure = tuple(other for other, answer in judged.items() if answer)
        perhaps = tuple(other for other, answer in judged.items() if answer is None)
        standing: Standing = "dominated" if sure else "inconclusive" if perhaps else "not_dominated"
        found[name] = Placed(standing, sure or perhaps)
    return found


def seeds_interval(mean: float, std: float | None, n: int, level: float = 0.95) -> Interval | None:
    """Student's interval of the mean of ``n`` runs from their standard deviation; None for a single run."""
    from scipy.stats import t

    if std is None or n < 2:
        return None
    reach = float(t.ppf(0.5 + level / 2, n - 1)) * std / float(np.sqrt(n))
    return Interval(mean, mean - reach, mean + reach)


def accuracy_interval(
    mean: float,
    std: float | None,
    n: int,
    images: Sequence[Floats] | None = None,
    *,
    scale: float = 1.0,
    seed: int = 0,
) -> Interval | None:
    """The interval that an accuracy is known to lie in, from seeds and images: on each side the wider one.

    Args:
        mean, std, n: of the runs; see `seeds_interval`.
        images: scores ``[N_d]`` of each dataset's images, averaged over seeds, if they are here.
        scale: what turns the mean of the scores into the unit of ``mean`` (100 for percent).

    None where one run and no scores say nothing.
    """
    known = [seeds_interval(mean, std, n)]
    if images:
        boot = bootstrap_interval(images, seed=seed)
        known.append(Interval(mean, scale * boot.low, scale * boot.high))
    ends = [interval for interval in known if interval is not None]
    if not ends:
        return None
    return Interval(mean, min(i.low for i in ends), max(i.high for i in ends))
