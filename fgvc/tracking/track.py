"""``fgvc track``: finished results into DVC and onto the remote, and what git should hold of them."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.provenance.digests import file_sha256, value_sha256
from fgvc.provenance.files import write_json
from fgvc.provenance.locks import exclusive_lock
from fgvc.tracking import job_records
from fgvc.tracking.dvc import LOCK_WAIT_S, Dvc, Say
from fgvc.tracking.dvc_yaml import write_dvc_yaml
from fgvc.tracking.units import Unit, all_units, chosen, is_below, obstacle, pointer_of

#: What git should hold after tracking; .gitignore keeps the large files out of it.
FOR_GIT = ("data", "results", "dvc.yaml")


@dataclass
class Tracked:
    """What one call did.

    Attributes:
        added: paths that DVC took now.
        files: every path of the finished units that DVC tracks, with its ``md5`` and ``bytes``.
        left_out: path of a record → why its files are not tracked.
        remote: name of the remote; None when there is none, or nothing was to be pushed to it.
        pushed_files, pushed_bytes: what the remote lacked and now has.
        for_git: files below `FOR_GIT` that git does not hold as they are.
    """

    added: list[str] = field(default_factory=list)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    remote: str | None = None
    pushed_files: int = 0
    pushed_bytes: int = 0
    for_git: list[str] = field(default_factory=list)


def track(
    project: Project, targets: Sequence[Path], say: Say, *, push: bool = True, wait_s: float = LOCK_WAIT_S
) -> Tracked:
    """Track what is finished at or below ``targets`` (absolute paths; everything without any).

    Files are added to DVC's cache and left as they are; nothing that is being made is touched. The summaries
    for ``dvc metrics`` and ``dvc plots``, the job records and ``dvc.yaml`` are brought up to date.

    Args:
        push: send what the default remote lacks, where there is a remote.
        wait_s: how long to wait for another process that tracks, or another DVC process.

    Raises FgvcError: no DVC repository; nothing lies at a target; DVC fails (its own error is told); another
    DVC process holds its lock for too long.
    """
    from fgvc.tracking.summaries import write_summaries

    dvc, done = Dvc(project.root, say, wait_s), Tracked()
    lock = project.paths.state("track.lock")
    with exclusive_lock(lock, "fgvc track", wait_s=wait_s, on_wait=say):
        job_records.restore(project)
        units = chosen(all_units(project), targets)
        _refuse_empty(project, targets, units)
        finished = _add(project, dvc, units, done)
        job_records.export(project, [path for unit in finished for path in unit.outputs])
        write_summaries(project)
        write_dvc_yaml(project)
        for path in (path for unit in finished for path in unit.large):
            done.files[project.paths.shown(path)] = _pointed(path)
        if push:
            _push(dvc, finished, done, say)
        done.for_git = _for_git(project.root)
    return done


def _refuse_empty(project: Project, targets: Sequence[Path], units: list[Unit]) -> None:
    for target in targets:
        if not chosen(units, [target]) and not target.exists():
            raise FgvcError(
                f"there is nothing to track at {project.paths.shown(target)}",
                cure="name files or folders below data/ or results/, such as results/runs/cub",
            )


def _add(project: Project, dvc: Dvc, units: list[Unit], done: Tracked) -> list[Unit]:
    """Add what is finished and new; returns all finished units. What lies as it was tracked is not read."""
    known, finished, new = _remembered(project), [], []
    for unit in units:
        name = project.paths.shown(unit.record)
        if unit.large and known.get(name) == _fingerprint(unit):
            finished.append(unit)
            continue
        why = obstacle(project, unit)
        if why:
            done.left_out[name] = why
            known.pop(name, None)
        else:
            finished.append(unit)
            new += [unit] if unit.large else []
    before = [_fingerprint(unit, pointers=False) for unit in new]
    dvc.add([path for unit in new for path in unit.large])
    for unit, was in zip(new, before, strict=True):
        name = project.paths.shown(unit.record)
        if _fingerprint(unit, pointers=False) != was:  # made again in this very moment
            done.left_out[name] = "it changed while it was tracked; run this again"
            finished.remove(unit)
            continue
        known[name] = _fingerprint(unit)
        done.added += [project.paths.shown(path) for path in unit.large]
    write_json(_memory(project), known)
    return finished


def _push(dvc: Dvc, finished: list[Unit], done: Tracked, say: Say) -> None:
    large = [path for unit in finished for path in unit.large]
    done.remote = dvc.remote() if large else None
    if done.remote is None:
        return
    mine = set(large)
    lacking = [path for path in (dvc.root / name for name in dvc.not_in_remote()) if is_below(path, mine)]
    if lacking:
        size = sum(path.stat().st_size for path in lacking if path.is_file())
        say(f"pushing {len(lacking)} files, {size / 1e6:.1f} MB, to the remote '{done.remote}'")
        dvc.push([pointer_of(path) for path in large])
        done.pushed_files, done.pushed_bytes = len(lacking), size


def _pointed(path: Path) -> dict[str, Any]:
    """MD5 and bytes that the ``.dvc`` file of ``path`` names (of a folder: MD5 of its list, bytes of all)."""
    content = yaml.safe_load(pointer_of(path).read_text(encoding="utf-8"))
    return {"md5": content["outs"][0]["md5"], "bytes": content["outs"][0]["size"]}


def _for_git(root: Path) -> list[str]:
    command = ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=all", "--", *FOR_GIT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [line[3:] for line in done.stdout.splitlines()]


# --- what was tracked already ------------------------------------------------------------------------


def _fingerprint(unit: Unit, *, pointers: bool = True) -> str:
    """Changes when a file of the unit is replaced, or when its ``.dvc`` file says something else."""
    facts: list[Any] = []
    for path in (*unit.small, *unit.large):
        with contextlib.suppress(OSError):
            stat = path.stat()
            facts.append([path.name, stat.st_ino, stat.st_mtime_ns, stat.st_size])
    for path in unit.large if pointers else ():
        with contextlib.suppress(OSError):
            facts.append(file_sha256(pointer_of(path)))
    return value_sha256(facts)


def _memory(project: Project) -> Path:
    return project.paths.state("tracked.json")


def _remembered(project: Project) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(_memory(project).read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}


# --- what is said ------------------------------------------------------------------------------------

#: Records that are left out and spelt out; the rest is counted.
SHOWN = 5


def tracked_lines(done: Tracked) -> list[str]:
    """What was tracked, pushed and left out, and what git should take: at most a dozen lines."""
    size = sum(facts["bytes"] for facts in done.files.values())
    lines = [f"tracked by DVC: {len(done.files)} paths, {size / 1e6:.1f} MB, {len(done.added)} of them new"]
    if done.remote:
        lines.append(
            f"pushed to '{done.remote}': {done.pushed_files} files, {done.pushed_bytes:,} bytes"
            if done.pushed_files
            else f"pushed to '{done.remote}': nothing, it has everything"
        )
    else:
        lines.append("not pushed: there is no default remote (dvc remote add --default NAME URL)")
    for name, why in list(done.left_out.items())[:SHOWN]:
        lines.append(f"left out: {name}: {why}")
    if len(done.left_out) > SHOWN:
        lines.append(f"left out: {len(done.left_out) - SHOWN} more")
    if done.for_git:
        lines.append(f"for git: {len(done.for_git)} small files are new or changed; commit them with")
        lines.append(f"  git add {' '.join(FOR_GIT)} && git commit")
    return lines
