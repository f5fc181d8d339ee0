"""How fast each variant trained on this machine before, and how much memory it took."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

_RECORDS = ("results/runs/*/*/*/seed*/run.json", "results/sweeps/*/*/*/lr*/run.json")


def measured_speeds(root: Path) -> dict[tuple[str, int], float]:
    """Median images per second of the finished runs, by variant and image size."""
    found: dict[tuple[str, int], list[float]] = {}
    for record in _records(root):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            key, speed = (record["method"], record["image_size"]), float(record["images_per_s"])
            if speed > 0:
                found.setdefault(key, []).append(speed)
    return {key: median(speeds) for key, speeds in found.items()}


def _records(root: Path) -> Iterator[Any]:
    for path in (path for pattern in _RECORDS for path in root.glob(pattern)):
        with contextlib.suppress(OSError, ValueError):
            yield json.loads(path.read_text(encoding="utf-8"))


def measured_memory(root: Path) -> dict[tuple[str, int], float]:
    """Largest host memory of the finished runs, in MB, by variant and image size."""
    found: dict[tuple[str, int], float] = {}
    for record in _records(root):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            key = (record["method"], record["image_size"])
            found[key] = max(found.get(key, 0.0), float(record["peak_memory_mib"]) * 1.048576)
    return found
