"""Resume state: the last two whole states of an unfinished run, each with its digest.

A state is a torch file of tensors and plain values (read back with ``weights_only=True``) and a small JSON
that names its step, its run and its SHA-256; the JSON is written last. A kill in the middle of a write
leaves the previous generation, which loads instead.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fgvc.errors import FgvcError
from fgvc.provenance.digests import file_sha256
from fgvc.provenance.files import atomic_path, read_json, write_json

GENERATIONS = 2

#: Version or digest of what a state depends on, by name.
Software = Mapping[str, str | None]


class ResumeState:
    """The states of one run in one folder.

    Args:
        folder: undeclared state of the run.
        run_sha256: identity of the run; a state of another identity is never loaded.
        made_by: what else a state depends on (code, packages), by name. One that was made by something else
            would end with the bytes of neither: it is removed, and the run begins anew.
    """

    def __init__(self, folder: Path, run_sha256: str, made_by: Software | None = None) -> None:
        self.folder = folder
        self.run_sha256 = run_sha256
        self.made_by = dict(made_by or {})
        #: Why a state was not loaded by `load`, for the log.
        self.refused: str | None = None

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after ``step`` optimizer steps, then drop all but the last two."""
        path = self.folder / f"step-{step:08d}.pt"
        # A file of Python's own: of one that torch opens, its error would not say that the disk is full.
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            torch.save(state, stream)
        record = {
            "step": step,
            "run_sha256": self.run_sha256,
            "sha256": file_sha256(path),
            "made_by": self.made_by,
        }
        write_json(path.with_suffix(".json"), record)
        for old in self._records()[GENERATIONS:]:
            self._remove(old)

    def load(self) -> tuple[int, dict[str, Any]] | None:
        """``(step, state)`` of the newest whole state of this run, None when there is none."""
        for record_path in self._records():
            path = record_path.with_suffix(".pt")
            try:
                record = read_json(record_path)
                whole = record["run_sha256"] == self.run_sha256 and record["sha256"] == file_sha256(path)
            except Exception:
                # Whatever is wrong with it, the generation before it is the answer.
                continue
            if whole and record.get("made_by", {}) != self.made_by:
                self.refused = self.refused or self._changes(record)
                self._remove(record_path)
            elif whole:
                return int(record["step"]), _tensors(path)
        return None

    def _changes(self, record: dict[str, Any]) -> str:
        before = record.get("made_by", {})
        changed = [
            f"{name} {before.get(name)}, now {now}" if name in before else name
            for name, now in self.made_by.items()
            if before.get(name) != now
        ]
        return f"the state of step {record['step']} was saved by other software ({', '.join(changed)})"

    def clear(self) -> None:
        """Remove every state, whole or not."""
        for path in self.folder.glob("step-*"):
            path.unlink(missing_ok=True)
        for path in self.folder.glob(".step-*"):
            path.unlink(missing_ok=True)

    def _records(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.json"), reverse=True)

    @staticmethod
    def _remove(record: Path) -> None:
        # The record first: a state without one is never loaded.
        for path in (record, record.with_suffix(".pt")):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def _tensors(path: Path) -> dict[str, Any]:
    """A state whose digest is right. Raises FgvcError when it holds more than tensors and plain values."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise FgvcError(
            f"this saved state holds what no training saves; nothing in it ran ({type(error).__name__})",
            file=path,
            cure="delete it; the run then goes on from the state before, or begins anew",
        ) from None
    return state
