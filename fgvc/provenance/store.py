"""Finished results by identity, so that nothing made is ever lost or made twice.

A run's files are kept under the digest of what they depend on, and appear in ``results/`` as hard links. When
a recipe changes, Snakemake removes the old results and the new ones take their path; the old ones are still
here, and come back at no cost when the recipe does.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from fgvc.provenance.digests import file_sha256
from fgvc.provenance.files import atomic_path, read_json, write_json

MANIFEST = "manifest.json"


class ResultStore:
    """The finished files of one identity.

    Args:
        state_directory: undeclared state of the path that the results go to.
        identity_sha256: digest of everything that the results depend on.
    """

    def __init__(self, state_directory: Path, identity_sha256: str) -> None:
        self.folder = state_directory / identity_sha256[:16]
        self.identity_sha256 = identity_sha256

    def keep(self, files: list[Path]) -> None:
        """Take in finished files, under their names, by hard link (or copy across file systems)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        known = self._manifest().get("files", {})
        for file in files:
            _link(file, self.folder / file.name)
            known[file.name] = file_sha256(file)
        write_json(self.folder / MANIFEST, {"identity_sha256": self.identity_sha256, "files": known})

    def restore(self, names: list[str], target: Path) -> bool:
        """Put the named files back into ``target`` if all of them are here and unchanged."""
        manifest = self._manifest()
        known: dict[str, str] = manifest.get("files", {})
        if manifest.get("identity_sha256") != self.identity_sha256:
            return False
        for name in names:
            file = self.folder / name
            if name not in known or not file.is_file() or file_sha256(file) != known[name]:
                return False
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            _link(self.folder / name, target / name)
        return True

    def forget(self, names: list[str]) -> None:
        """Let go of some of the files."""
        manifest = self._manifest()
        for name in names:
            manifest.get("files", {}).pop(name, None)
            (self.folder / name).unlink(missing_ok=True)
        write_json(self.folder / MANIFEST, manifest)

    def _manifest(self) -> dict[str, Any]:
        path = self.folder / MANIFEST
        return read_json(path) if path.is_file() else {}


def _link(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``, replacing what is there in one step."""
    if target.exists() and target.samefile(source):
        return
    with atomic_path(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copy2(source, temporary)
