"""Printed averages and their spread, against the cells that they are made of.

The cells are rounded, too: an average holds when *some* exact cells, all printed as they are, give it. So
nothing is contradicted that rounding alone may explain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt

from fgvc.audit.rounding import Interval, Printed


def mean_interval(cells: Sequence[Printed]) -> Interval:
    """Between which values the mean of the exact cells lies."""
    count = len(cells)
    return Interval(
        sum((cell.interval.low for cell in cells), Fraction(0)) / count,
        sum((cell.interval.high for cell in cells), Fraction(0)) / count,
    )


def mean(cells: Sequence[Printed]) -> Fraction:
    """The mean of the cells as printed."""
    return sum((cell.exact for cell in cells), Fraction(0)) / len(cells)


def std(values: Sequence[Fraction], ddof: int) -> float:
    """Standard deviation: of the sample (``ddof`` 1) or of the population (0)."""
    middle = sum(values, Fraction(0)) / len(values)
    return sqrt(sum((v - middle) ** 2 for v in values) / (len(values) - ddof))


def fitting_ddof(printed: Printed, cells: Sequence[Printed]) -> int | None:
    """1 or 0 where the std of some exact cells is printed so, with that divisor; None: with neither.

    A std moves by at most √(Σe²/(n−ddof)) when the values move by e, here half a step each.
    """
    for ddof in (1, 0):
        if len(cells) > ddof:
            center = Fraction(std([cell.exact for cell in cells], ddof))
            moves = sqrt(sum(cell.half_step**2 for cell in cells) / (len(cells) - ddof))
            if Interval(center, center).widened(Fraction(moves)).meets(printed.interval):
                return ddof
    return None


@dataclass(frozen=True)
class Mend:
    """A cell which alone, with another value, would make a printed average right.

    ``mends_std``: it would make the printed std across the cells right, too.
    """

    position: int
    value: Fraction
    mends_std: bool


def mends(average: Printed, spread: Printed | None, cells: Sequence[Printed]) -> list[Mend]:
    """For each cell of accuracies in percent, what it would have to be; those that cannot be are left out."""
    missing = (average.exact - mean(cells)) * len(cells)
    found = []
    for position, cell in enumerate(cells):
        value = cell.exact + missing
        if not 0 <= value <= 100:
            continue
        mended = [c.exact for c in cells]
        mended[position] = value
        fits = spread is not None and Fraction(std(mended, 1)) in spread.interval
        found.append(Mend(position, value, fits))
    return found
