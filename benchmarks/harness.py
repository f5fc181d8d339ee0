"""Paired timing: two pieces of work in turn, A B A B …, and the ratio of each pair.

A ratio travels between machines; a time does not. The median of the paired ratios is what to quote, the range
says how quiet the machine was.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any, Protocol

Work = Callable[[], object]

#: glibc's names for what `mallopt` sets, and the most that it takes.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MOST_TRIM, MOST_MMAP = 2**31 - 1, 32 * 2**20


class Measurement(Protocol):
    """What a benchmark yields: a line to print, and a record to keep."""

    def line(self) -> str: ...

    def record(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Ratio:
    """Time of ours over time of the reference.

    Attributes:
        name: what was compared, and how it was measured.
        ours_s, reference_s: median seconds.
        ratios: one a pair, in order.
    """

    name: str
    ours_s: float
    reference_s: float
    ratios: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.ratios)

    def record(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ratio_median": round(self.median, 3),
            "ratio_min": round(min(self.ratios), 3),
            "ratio_max": round(max(self.ratios), 3),
            "pairs": len(self.ratios),
            "ours_ms": round(self.ours_s * 1e3, 3),
            "reference_ms": round(self.reference_s * 1e3, 3),
        }

    def line(self) -> str:
        return f"{self.name:<66} {self.median:5.2f}  ({min(self.ratios):.2f}–{max(self.ratios):.2f})"


@cache
def keep_freed_memory() -> None:
    """Let glibc keep what is freed, for this process.

    Otherwise it gives the end of its heap back to the system again and again, and whether it is the one or
    the other of two models whose tensors have to be paged in anew in each pass is an accident of what lies
    behind them: passes of the same model were seen to differ by half.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library, another allocator
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_MMAP_THRESHOLD, MOST_MMAP)
        mallopt(M_TRIM_THRESHOLD, MOST_TRIM)


def paired(name: str, ours: Work, reference: Work, *, pairs: int = 7, warm_up: int = 2) -> Ratio:
    """Time ``ours`` and ``reference`` in turn; which goes first alternates."""
    keep_freed_memory()
    for _ in range(warm_up):
        reference()
        ours()
    ours_s, reference_s = [], []
    gc.collect()
    for number in range(pairs):
        order = [(ours, ours_s), (reference, reference_s)]
        for work, times in order if number % 2 else reversed(order):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
    ratios = tuple(a / b for a, b in zip(ours_s, reference_s, strict=True))
    return Ratio(name, median(ours_s), median(reference_s), ratios)
