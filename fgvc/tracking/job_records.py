"""What makes nothing run again in a clone: Snakemake's records of finished jobs, carried by git.

Snakemake decides by time stamps, and where these mislead by what it noted of each finished job: its params,
its inputs and their digests. A clone has new time stamps and none of these notes (``.snakemake/`` stays on
the machine), so that it would make some results again, and miss a recipe that was edited. `export` writes the
notes of tracked results to ``results/provenance.json``; `restore` puts them back where the very same
results lie. A file that is not the one of its entry gets no note.

And Snakemake compares an input's digest only where the input is newer than the output, which git and DVC do
not see to. So an output with an input that is not the noted one is made older than that input.

Only this module knows Snakemake's own format; entries of another version of it are left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fgvc.config.project import Project
from fgvc.provenance.digests import file_sha256, value_sha256
from fgvc.provenance.files import write_json

FORMAT = 1
#: As in profiles/default. Larger outputs are compared by size only: their small records vouch for them.
HASHED_BYTES = 10**7

Entry = dict[str, Any]


def path_of(project: Project) -> Path:
    return project.root / "results" / "provenance.json"


def export(project: Project, outputs: Iterable[Path]) -> Path:
    """Write the notes of ``outputs`` (files that are finished), and keep those of other outputs.

    Entries whose output is gone are dropped. Returns the file.
    """
    notes, known = _Notes(project), _entries(project)
    for path in outputs:
        name = project.paths.shown(path)
        note = notes.read(name)
        if note is not None:
            known[name] = {**note, "output": _file_facts(path)}
        elif name in known and not _is_same(path, known[name]["output"]):
            del known[name]
    known = {name: known[name] for name in sorted(known) if _may_come_back(project, name)}
    write_json(path_of(project), {"format": FORMAT, "jobs": _grouped(known)})
    _remember(project, {name: value_sha256(entry) for name, entry in known.items()})
    return path_of(project)


def restore(project: Project) -> int:
    """Give Snakemake its notes of the results that lie here, and see that it looks at them; returns how many.

    A note that is here stays, unless its entry changed since (by ``git pull`` or ``git checkout``) and the
    file is the new entry's. An output that only DVC's remote has counts as here: what stands on it (tables,
    metrics) is in git, and need not be made again to be read.
    """
    if not path_of(project).is_file():
        return 0
    notes, entries, remembered = _Notes(project), _entries(project), _remembered(project)
    restored: dict[str, str] = {}
    for name, entry in entries.items():
        digest = value_sha256(entry)
        if remembered.get(name) == digest and notes.has(name):
            continue
        path = project.root / name
        is_so = _is_same(path, entry["output"]) if path.is_file() else _is_pointed_to(path)
        if is_so and notes.write(name, entry):
            restored[name] = digest
    if restored:
        _remember(project, remembered | restored)
    _make_outdated_look_old(project, notes, entries)
    return len(restored)


def _make_outdated_look_old(project: Project, notes: _Notes, names: Iterable[str]) -> None:
    """Give outputs of which an input changed a time before that input's."""
    digests: dict[str, str | None] = {}
    for name in names:
        path = project.root / name
        note = notes.read(name) if path.is_file() else None
        for used, noted in ((note or {}).get("input_checksums") or {}).items():
            if used not in digests:
                digests[used] = _checksum(project.root / used)
            if digests[used] not in (None, noted):
                before = (project.root / used).stat().st_mtime - 1
                if path.stat().st_mtime > before:
                    with contextlib.suppress(OSError):  # another user's file
                        os.utime(path, (before, before))


def _checksum(path: Path) -> str | None:
    """As Snakemake notes it; None for a missing file, or one that it does not read either."""
    with contextlib.suppress(OSError):
        if path.stat().st_size <= HASHED_BYTES:
            return f"sha256:{file_sha256(path)}"
    return None


# --- the file ----------------------------------------------------------------------------------------


def _entries(project: Project) -> dict[str, Entry]:
    """Output → entry, of a file that can be read; a broken one counts as none."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(path_of(project).read_text(encoding="utf-8"))
        if content["format"] == FORMAT:
            return {
                name: {**{key: job[key] for key in _NOTED}, "output": facts}
                for job in content["jobs"]
                for name, facts in job["outputs"].items()
            }
    return {}


def _grouped(entries: dict[str, Entry]) -> list[dict[str, Any]]:
    """One object a job, with all its outputs."""
    jobs: dict[str, dict[str, Any]] = {}
    for name, entry in entries.items():
        note = {key: entry[key] for key in _NOTED}
        # Snakemake notes the start of a job once an output, milliseconds apart.
        key = value_sha256({k: v for k, v in note.items() if k not in ("starttime", "endtime")})
        jobs.setdefault(key, {"outputs": {}, **note})["outputs"][name] = entry["output"]
    return list(jobs.values())


def _file_facts(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    return {"bytes": size, "sha256": file_sha256(path) if size <= HASHED_BYTES else None}


def _is_same(path: Path, facts: dict[str, Any]) -> bool:
    with contextlib.suppress(OSError):
        return _file_facts(path) == facts
    return False


def _may_come_back(project: Project, name: str) -> bool:
    """An output that is here, or that ``dvc pull`` would bring."""
    path = project.root / name
    return path.is_file() or _is_pointed_to(path)


def _is_pointed_to(path: Path) -> bool:
    return path.with_name(f"{path.name}.dvc").is_file()


def _memory(project: Project) -> Path:
    return project.paths.state("provenance.json")


def _remembered(project: Project) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(_memory(project).read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}


def _remember(project: Project, digests: dict[str, str]) -> None:
    write_json(_memory(project), digests)


# --- Snakemake's side --------------------------------------------------------------------------------

#: What is kept of a note: what Snakemake compares, and what its report shows.
_NOTED = ("rule", "params", "input", "input_checksums", "shellcmd", "starttime", "endtime", "version")


class _Notes:
    """Snakemake's records in ``.snakemake/metadata``."""

    def __init__(self, project: Project) -> None:
        from snakemake.persistence import RECORD_FORMAT_VERSION, MetadataRecord
        from snakemake.persistence.file import FilePersistence

        self._store = FilePersistence(nolock=True, path=project.root / ".snakemake")
        self._record, self._version = MetadataRecord, RECORD_FORMAT_VERSION

    def has(self, name: str) -> bool:
        return self._store._read_record(name) is not None

    def read(self, name: str) -> Entry | None:
        """The note of a finished output; None without one, or when its job did not end."""
        found = self._store._read_record(name)
        if found is None or found.rule is None or self._store._filter_incomplete_keys([name]):
            return None
        note = {key: found.get(key) for key in _NOTED if key != "version"}
        return {**note, "version": found.record_format_version}

    def write(self, name: str, entry: Entry) -> bool:
        """Whether the note could be written: it is of the version of this Snakemake."""
        if entry["version"] != self._version:
            return False
        note = {key: entry[key] for key in _NOTED if key != "version"}
        self._store._write_record(
            name, self._record(**note, record_format_version=entry["version"], incomplete=False)
        )
        return True
