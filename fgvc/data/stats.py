"""``fgvc data stats``: heights, widths and aspect ratios of a dataset's images, part by part.

Taken from the index, so that no image is opened. Sizes are pixels as stored (EXIF orientation is not
applied), as in the source of the published figures (GLSim at 99cc474, tools/preprocess/calc_hw.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fgvc.config.project import Project
from fgvc.data.records import ImageEntry, read_index
from fgvc.data.splits import PARTS, read_split
from fgvc.provenance.files import write_json

DIGITS = 6


def size_statistics(project: Project, name: str) -> dict[str, Any]:
    """Write ``results/stats/D.json`` and return it: for each part, and for all images that a part names,
    images, classes, and mean, std, min and max of height_px, width_px and aspect_ratio (width / height).

    The std is that of the population (divided by n): the images are all there are. ``ratio_of_means`` is
    mean width over mean height, the number that the published tool prints.

    Raises FgvcError when the dataset is not fetched or its split is not prepared.
    """
    name = project.canonical_dataset(name)
    index = read_index(project, name)
    by_path = index.by_path()
    parts = {part: [by_path[path] for _, path in read_split(project, name, part)] for part in PARTS}
    everything = sorted({e.path: e for part in parts.values() for e in part}.values(), key=lambda e: e.path)
    record = {
        "dataset": name,
        "title": index.record.title,
        "tree_sha256": index.record.tree_sha256,
        "parts": {part: describe(images) for part, images in parts.items()},
        "all": describe(everything),
    }
    write_json(project.paths.stats(name), record)
    return record


def describe(images: Sequence[ImageEntry]) -> dict[str, Any]:
    """Counts and size statistics of some images (at least one)."""
    heights = [image.height for image in images]
    widths = [image.width for image in images]
    return {
        "images": len(images),
        "classes": len({image.class_id for image in images}),
        "height_px": moments(heights),
        "width_px": moments(widths),
        "aspect_ratio": moments([image.width / image.height for image in images]),
        "ratio_of_means": round(sum(widths) / sum(heights), DIGITS),
    }


def moments(values: Sequence[float]) -> dict[str, float]:
    """Mean, population std, min and max. Sums are exact, so the order of ``values`` does not matter."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    return {
        "mean": round(mean, DIGITS),
        "std": round(math.sqrt(variance), DIGITS),
        "min": round(min(values), DIGITS),
        "max": round(max(values), DIGITS),
    }
