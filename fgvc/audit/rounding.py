"""What a printed number says: the exact values that it may stand for.

All arithmetic is in fractions, so that a verdict never hangs on the last bit of a float.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import isqrt
from typing import Literal

#: nearest: half-even and half-up are both allowed, so both ends belong to the interval. truncated: only where
#: a source says that it cuts digits off.
Rounding = Literal["nearest", "truncated"]


@dataclass(frozen=True)
class Interval:
    """Closed interval of exact values."""

    low: Fraction
    high: Fraction

    def __contains__(self, value: Fraction | int) -> bool:
        return self.low <= value <= self.high

    def meets(self, other: Interval) -> bool:
        return self.low <= other.high and other.low <= self.high

    def widened(self, by: Fraction) -> Interval:
        return Interval(self.low - by, self.high + by)


def exact(value: float, decimals: int) -> Fraction:
    """The printed number as it stands: 88.107 is 88107/1000, whatever the float behind it."""
    return Fraction(Decimal(f"{value:.{decimals}f}"))


def step(decimals: int) -> Fraction:
    """The distance between two printable numbers."""
    return Fraction(1, 10**decimals)


@dataclass(frozen=True)
class Printed:
    """A number as printed, with ``decimals`` digits behind the point."""

    value: float
    decimals: int
    rounding: Rounding = "nearest"

    @property
    def exact(self) -> Fraction:
        return exact(self.value, self.decimals)

    @property
    def half_step(self) -> Fraction:
        return step(self.decimals) / 2

    @property
    def interval(self) -> Interval:
        """Every exact value that is printed so. Truncation's upper end is let in, too."""
        if self.rounding == "truncated":
            return Interval(self.exact, self.exact + step(self.decimals))
        return Interval(self.exact - self.half_step, self.exact + self.half_step)

    def __str__(self) -> str:
        return f"{self.value:.{self.decimals}f}"


def ceil_sqrt(value: Fraction) -> int:
    """The smallest integer whose square is at least ``value``; 0 for what is not positive."""
    if value <= 0:
        return 0
    root = isqrt(value.numerator // value.denominator)
    return root if root * root >= value else root + 1


def floor_sqrt(value: Fraction) -> int:
    """The largest integer whose square is at most ``value``, which is not negative."""
    return isqrt(value.numerator // value.denominator)
