"""The account of the stages' code: ``workflow/stages.lock.json`` and its upkeep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fgvc.config.project import Project
from fgvc.config.stages import STAGES, source_digest
from fgvc.errors import FgvcError
from fgvc.provenance.files import read_json, write_json


def lock_path(project: Project) -> Path:
    return project.root / "workflow" / "stages.lock.json"


def _read(project: Project) -> dict[str, Any]:
    path = lock_path(project)
    return read_json(path) if path.is_file() else {}


def overview(project: Project) -> list[dict[str, Any]]:
    """One row a stage: its version and whether its code is accounted for."""
    lock = _read(project)
    rows = []
    for name, stage in STAGES.items():
        known = lock.get(name, {})
        if known.get("sources_sha256") == source_digest(name) and known.get("version") == stage.version:
            state = "accounted for"
        else:
            state = "changed: raise its version, or say that nothing changes in the numbers"
        rows.append({"stage": name, "version": stage.version, "state": state})
    return rows


def unaccounted(project: Project) -> list[str]:
    """Stages whose code or version differs from the lock."""
    return [str(row["stage"]) for row in overview(project) if row["state"] != "accounted for"]


def account(project: Project, name: str, why: str, *, raised: bool) -> str:
    """Enter the present code of a stage into the lock, with the reason.

    Raises FgvcError when ``raised`` does not fit the version in stages.py.
    """
    lock = _read(project)
    known = lock.get(name, {"version": 0, "entries": []})
    version = STAGES[name].version
    if raised != (version > known["version"]):
        state = f"'{name}' has version {version} in fgvc/config/stages.py, {known['version']} in the lock"
        cure = "raise it in stages.py first" if raised else "it was raised: use --raised"
        raise FgvcError(state, cure=cure)
    entry = {"version": version, "effect": "numeric" if raised else "none", "why": why}
    lock[name] = {
        "version": version,
        "sources_sha256": source_digest(name),
        "entries": [*known["entries"], entry],
    }
    write_json(lock_path(project), {key: lock[key] for key in STAGES if key in lock})
    return f"{name}: version {version} accounted for ({entry['effect']} effect: {why})"
