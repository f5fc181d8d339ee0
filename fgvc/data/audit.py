"""``fgvc data audit``: what a benchmark should know of a dataset's pictures before it believes a number.

Identical and near-identical pictures within and across the parts of the split, classes that a part lacks, the
order of class ids, how many pictures the classes have, and files that decode in an unusual way.
"""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from fgvc.config.project import Project
from fgvc.data.decoding import UNUSUAL, failure, look_at
from fgvc.data.layouts import natural_key
from fgvc.data.near_duplicates import BITS, MAX_DISTANCE, close_pairs, perceptual_hash
from fgvc.data.progress import Progress, quiet
from fgvc.data.records import ImageEntry, read_index
from fgvc.data.splits import read_class_names, read_split
from fgvc.data.threads import in_threads
from fgvc.provenance.files import read_json

#: The parts that do not overlap, and the name for images that no part names.
AUDITED_PARTS = ("train", "val", "test")
UNUSED = "in no part"
#: Entries of each list in the record; what is beyond is counted.
LISTED = 10_000


@dataclass(frozen=True)
class _Seen:
    """What reading one file showed. ``hash`` None: unreadable, or without structure to compare."""

    hash: int | None
    unusual: tuple[str, ...]
    why: str = ""


def audit_dataset(project: Project, name: str, progress: Progress = quiet) -> dict[str, Any]:
    """The audit's record of a fetched and split dataset. Every image is decoded once.

    The same files give the same record. Raises FgvcError when the dataset is not fetched or not split;
    images that are missing or broken are no error here: they are what the audit is to find.
    """
    name = project.canonical_dataset(name)
    index = read_index(project, name)
    names = read_class_names(project, name)
    rows = {part: read_split(project, name, part) for part in AUDITED_PARTS}
    part_of = {path: part for part in AUDITED_PARTS for _, path in rows[part]}
    seen = _look(project, name, index.images, progress)
    pictures = _Pictures(index.images, names, part_of)
    split = read_json(project.paths.split_record(name))
    return {
        "dataset": name,
        "title": index.record.title,
        "tree_sha256": index.record.tree_sha256,
        "split_sha256": split["sha256"],
        "split_provenance": split["provenance"],
        "images": len(index.images),
        "classes": len(names),
        "parts": {part: len(rows[part]) for part in AUDITED_PARTS},
        "in_no_part": len(index.images) - len(part_of),
        "identical": _identical(pictures),
        "near_duplicates": _near_duplicates(pictures, seen),
        "class_sets": {part: _class_set(rows[part], names) for part in AUDITED_PARTS},
        "label_order": _label_order(names),
        "balance": {part: _balance(rows[part], len(names)) for part in AUDITED_PARTS},
        "unusual": [_unusual(pictures, seen, kind) for kind in UNUSUAL],
    }


def _look(project: Project, name: str, images: Sequence[ImageEntry], progress: Progress) -> list[_Seen]:
    root = project.paths.data_dir(name)

    def one(entry: ImageEntry) -> _Seen:
        try:
            data = (root / entry.path).read_bytes()
        except OSError as error:
            return _Seen(None, ("unreadable",), str(error.strerror))
        is_changed = hashlib.sha256(data).hexdigest() != entry.sha256
        changed = ("changed",) if is_changed else ()
        try:
            picture, unusual = look_at(data)
        except MemoryError:
            raise
        except Exception as error:  # whatever a decoder raises for broken bytes
            return _Seen(None, ("unreadable", *changed), failure(error))
        return _Seen(perceptual_hash(picture), (*changed, *unusual))

    return list(in_threads(one, images, "auditing images", "images", progress))


# --- identical and near-identical ------------------------------------------------------------------


@dataclass(frozen=True)
class _Pictures:
    """Images by position, and how a record shows them."""

    images: Sequence[ImageEntry]
    names: Sequence[str]
    part_of: dict[str, str]

    def part(self, at: int) -> str:
        return self.part_of.get(self.images[at].path, UNUSED)

    def shown(self, at: int) -> dict[str, str]:
        entry = self.images[at]
        return {"path": entry.path, "class": self.names[entry.class_id], "part": self.part(at)}

    def leaks(self, positions: Iterable[int]) -> bool:
        """Whether some are in test and others where models train."""
        parts = {self.part(at) for at in positions}
        return "test" in parts and bool(parts & {"train", "val"})

    def disagree(self, positions: Iterable[int]) -> bool:
        """Whether they are of several classes."""
        return len({self.images[at].class_id for at in positions}) > 1


def _identical(pictures: _Pictures) -> dict[str, Any]:
    """Files with the same bytes (by the index's digests), in groups; the worst first."""
    by_digest: dict[str, list[int]] = {}
    for at, entry in enumerate(pictures.images):
        by_digest.setdefault(entry.sha256, []).append(at)
    groups = [group for group in by_digest.values() if len(group) > 1]
    groups.sort(key=lambda g: (not pictures.leaks(g), not pictures.disagree(g), pictures.images[g[0]].path))
    return {
        "groups": len(groups),
        "images": sum(map(len, groups)),
        "groups_across_train_val_and_test": sum(map(pictures.leaks, groups)),
        "groups_of_several_classes": sum(map(pictures.disagree, groups)),
        "listed": [
            {
                "sha256": pictures.images[group[0]].sha256,
                "images": [pictures.shown(at) for at in group[:LISTED]],
            }
            for group in groups[:LISTED]
        ],
    }


def _near_duplicates(pictures: _Pictures, seen: Sequence[_Seen]) -> dict[str, Any]:
    """Pairs of different files whose hashes are close; the worst first."""
    compared = [at for at, one in enumerate(seen) if one.hash is not None]
    hashes = np.array([seen[at].hash for at in compared], dtype=np.uint64)
    found = close_pairs(hashes)
    digests = [entry.sha256 for entry in pictures.images]
    pairs = [
        (compared[first], compared[second], distance)
        for first, second, distance in zip(
            found.first.tolist(), found.second.tolist(), found.distance.tolist(), strict=True
        )
        if digests[compared[first]] != digests[compared[second]]
    ]
    pairs.sort(key=lambda p: (not pictures.leaks(p[:2]), not pictures.disagree(p[:2]), p[2], p[:2]))
    between = Counter(frozenset((pictures.part(a), pictures.part(b))) for a, b, _ in pairs)
    return {
        "hash": "pHash",
        "bits": BITS,
        "max_distance_bits": MAX_DISTANCE,
        "compared": len(compared),
        "not_compared": len(seen) - len(compared),
        "all_found": found.is_complete,
        "pairs": len(pairs),
        "pairs_across_train_val_and_test": sum(pictures.leaks(p[:2]) for p in pairs),
        "pairs_of_several_classes": sum(pictures.disagree(p[:2]) for p in pairs),
        "pairs_by_parts": _by_parts(between),
        "listed": [
            {"distance_bits": distance, "first": pictures.shown(a), "second": pictures.shown(b)}
            for a, b, distance in pairs[:LISTED]
        ],
    }


def _by_parts(between: Counter[frozenset[str]]) -> dict[str, int]:
    parts = (*AUDITED_PARTS, UNUSED)
    within = {f"within {part}": between[frozenset((part,))] for part in parts}
    across = {f"{a} and {b}": between[frozenset((a, b))] for a, b in combinations(parts, 2)}
    return {where: count for where, count in (within | across).items() if count}


# --- classes ---------------------------------------------------------------------------------------


def _class_set(rows: Sequence[tuple[int, str]], names: Sequence[str]) -> dict[str, Any]:
    present = {class_id for class_id, _ in rows}
    return {"classes": len(present), "missing": [n for i, n in enumerate(names) if i not in present]}


def _label_order(names: Sequence[str]) -> dict[str, Any]:
    """Whether class ids follow the names in order; where several orders fit, the plainest is named."""
    orders = {
        "by_code_point": sorted(names),
        "by_code_point_without_case": sorted(names, key=lambda n: (n.casefold(), n)),
        "natural": sorted(names, key=natural_key),
    }
    followed = next((order for order, expected in orders.items() if list(names) == expected), None)
    first = next((i for i, (a, b) in enumerate(pairwise(names)) if a > b), None)
    return {
        "ids_follow_sorted_names": followed,
        "first_out_of_order": None if followed or first is None else [names[first], names[first + 1]],
        "names_of_several_ids": sorted(name for name, times in Counter(names).items() if times > 1),
    }


def _balance(rows: Sequence[tuple[int, str]], classes: int) -> dict[str, Any]:
    """Images a class: the extremes, the median, and the largest over the smallest class that is there."""
    of_class = Counter(class_id for class_id, _ in rows)
    counts = sorted(of_class[class_id] for class_id in range(classes))
    there = [count for count in counts if count]
    return {
        "smallest": counts[0],
        "median": statistics.median(counts),
        "largest": counts[-1],
        "imbalance": round(there[-1] / there[0], 3) if there else None,
    }


# --- files -----------------------------------------------------------------------------------------


def _unusual(pictures: _Pictures, seen: Sequence[_Seen], kind: str) -> dict[str, Any]:
    """The images of one kind of `UNUSUAL`, and what the loader makes of them."""
    found = [at for at, one in enumerate(seen) if kind in one.unusual]
    why = kind == "unreadable"
    return {
        "kind": kind,
        "loader": UNUSUAL[kind],
        "images": len(found),
        "listed": [pictures.shown(at) | ({"why": seen[at].why} if why else {}) for at in found[:LISTED]],
    }
