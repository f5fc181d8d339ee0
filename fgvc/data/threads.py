"""Doing one thing to many files, several at a time, in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fgvc.data.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Items handed out at once: enough to keep threads busy, few enough to stop soon when interrupted.
SLAB = 512


def default_workers() -> int:
    """Threads that suit this machine: as many as this process may use, at most 16."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return min(16, len(allowed))


def in_threads(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    stage: str,
    unit: str,
    progress: Progress,
    workers: int | None = None,
) -> Iterator[Result]:
    """Results in the order of ``items``; the first exception of ``function`` is raised here.

    Threads serve because Pillow and hashlib let others run while they decode and hash.
    """
    progress(stage, 0, len(items), unit)
    done = 0
    with ThreadPoolExecutor(workers or default_workers()) as pool:
        for start in range(0, len(items), SLAB):
            for result in pool.map(function, items[start : start + SLAB]):
                done += 1
                progress(stage, done, len(items), unit)
                yield result
