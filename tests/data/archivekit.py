"""Tools to fabricate archives: packing, text and MATLAB files, pictures, rows of three classes."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from datakit import picture
from scipy.io import savemat

Row = tuple[int, str]

TRAIN, TEST = 5, 2
#: Numbers of a class's images, in the order of the lists.
NUMBERS = {"train": [3, 1, 5, 2, 4], "test": [7, 6]}


@dataclass
class Archive:
    """One dataset in small.

    Attributes:
        files: member path → bytes, by download (its path below a mirror).
        rows: the parts as the archive tells them; paths relative to data/D.
        names: class names by id.
        provenance: whose split it is without published lists.
    """

    files: dict[str, dict[str, bytes]]
    rows: dict[str, list[Row]]
    names: list[str]
    provenance: str = "official"

    def packed(self) -> dict[str, bytes]:
        return {download: pack(download, members) for download, members in self.files.items()}


def pack(download: str, members: dict[str, bytes]) -> bytes:
    """The bytes of a download: a tar, tgz or zip with folder entries, or the plain file."""
    if not download.endswith((".tar", ".tgz", ".gz", ".zip")):
        (data,) = members.values()
        return data
    out = io.BytesIO()
    if download.endswith(".zip"):
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, data in members.items():
                zipped.writestr(name, data)
        return out.getvalue()
    with tarfile.open(fileobj=out, mode="w" if download.endswith(".tar") else "w:gz") as tar:
        folders = {str(p) for name in members for p in PurePosixPath(name).parents if str(p) != "."}
        for folder in sorted(folders):
            entry = tarfile.TarInfo(folder)
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def pictures(paths: list[str]) -> dict[str, bytes]:
    return {path: picture(17 * number) for number, path in enumerate(paths)}


def lines(texts: list[str]) -> bytes:
    return ("\n".join(texts) + "\n").encode()


def mat(**variables: Any) -> bytes:
    out = io.BytesIO()
    savemat(out, variables)
    return out.getvalue()


def cell(values: list[str]) -> Any:
    """A column of MATLAB cells."""
    column = np.empty((len(values), 1), dtype=object)
    column[:, 0] = values
    return column


def annotations(entries: list[dict[str, object]]) -> Any:
    """A 1 × n struct array of MATLAB."""
    found = np.empty((1, len(entries)), dtype=[(field, object) for field in entries[0]])
    for number, entry in enumerate(entries):
        found[0, number] = tuple(entry.values())
    return found


def parts(path: Callable[[int, int, str], str], prefix: str) -> dict[str, list[Row]]:
    """Rows of train_val and test; ``path(class id, number, train|test)`` is relative to the image folder."""
    return {
        ours: [(c, prefix + path(c, n, theirs)) for c in range(3) for n in NUMBERS[theirs]]
        for ours, theirs in (("train_val", "train"), ("test", "test"))
    }


def all_paths(rows: dict[str, list[Row]]) -> list[str]:
    return [path for own in rows.values() for _, path in own]
