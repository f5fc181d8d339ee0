"""How fast each variant trained on this machine before."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

_RECORDS = ("results/runs/*/*/*/seed*/run.json", "results/sweeps/*/*/*/lr*/run.json")


def measured_speeds(root: Path) -> dict[tuple[str, int], float]:
    """Median images per second of the finished runs, by variant and image size."""
    found: dict[tuple[str, int], list[float]] = {}
    for path in (path for pattern in _RECORDS for path in root.glob(pattern)):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            key, speed = (record["method"], record["image_size"]), float(record["images_per_s"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if speed > 0:
            found.setdefault(key, []).append(speed)
    return {key: median(speeds) for key, speeds in found.items()}
