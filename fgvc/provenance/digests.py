"""Digests: of files, of JSON-like values, of trees and of split lists."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CHUNK = 1 << 20


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON value: sorted keys, no white space, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def value_sha256(value: Any) -> str:
    """SHA-256 of `canonical_json`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def tree_sha256(files: Iterable[tuple[str, str]]) -> str:
    """Digest of a tree of ``(relative path, sha256)``: SHA-256 of the sorted ``sha256  path`` lines."""
    lines = sorted(f"{digest}  {path}\n" for path, digest in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def split_sha256(rows: Iterable[tuple[int, str]]) -> str:
    """Digest of a split list, independent of row order.

    As the published digests were taken: the lines ``class_id,dir``, sorted, joined with newlines, UTF-8.
    """
    return hashlib.sha256("\n".join(sorted(f"{c},{d}" for c, d in rows)).encode()).hexdigest()


def seed_from(*parts: object) -> int:
    """A 63-bit seed that depends on every part and on nothing else (not on PYTHONHASHSEED)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
