"""Bringing pre-trained weights here: from this project, an installed package, a mirror, or the network."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from fgvc.backbones.weights import package_file, store
from fgvc.config.method import PackageSource, ShippedSource, UrlSource
from fgvc.config.project import Project
from fgvc.data.downloads import mirror_folder
from fgvc.data.progress import Progress, quiet
from fgvc.data.transfer import TransferError, transfer
from fgvc.errors import FgvcError
from fgvc.provenance.digests import file_sha256
from fgvc.provenance.files import read_json
from fgvc.provenance.locks import exclusive_lock

#: Another process may be downloading the same file.
LOCK_WAIT_S = 6 * 3600.0
#: What to do about a file that the checkout should hold.
RESTORE = "restore it from the repository: git checkout -- params/weights"


def fetch_weights(
    project: Project,
    name: str,
    mirror: Path | None = None,
    progress: Progress = quiet,
    *,
    force: bool = False,
) -> tuple[dict[str, Any], bool]:
    """Make ``data/weights/NAME.safetensors`` and its record, unless both are there and whole.

    Args:
        mirror: folder whose ``weights/`` is looked in before the network.
        force: fetch and convert again.

    Returns the record, and whether it was there already. Raises FgvcError when no source gives the file
    (with what to do), when a digest differs, or when the tensors do not fit the architecture.
    """
    weights = project.weights(name)
    with exclusive_lock(
        project.paths.state("weights", f"{name}.lock"), f"fetching weights '{name}'", wait_s=LOCK_WAIT_S
    ):
        found = None if force else _already_there(project, name)
        if found is not None:
            return found, True
        if isinstance(weights.source, PackageSource):
            path, place = package_file(weights.source), f"package {weights.source.package}"
            _check(path, weights.source.sha256, None, weights.source.bytes, name)
        elif isinstance(weights.source, ShippedSource):
            path, place = _shipped(project, weights.source), "this project"
            _check(path, weights.source.sha256, None, weights.source.bytes, name, cure=RESTORE)
        else:
            path, place = _obtain(project, name, weights.source, mirror, progress)
        return store(project, name, path, place), False


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


def _obtain(
    project: Project, name: str, source: UrlSource, mirror: Path | None, progress: Progress
) -> tuple[Path, str]:
    folder = mirror_folder(project, mirror)
    in_mirror = folder / "weights" / source.file if folder else None
    if in_mirror and in_mirror.is_file():
        _check(in_mirror, source.sha256, source.md5, source.bytes, name)
        return in_mirror, f"mirror weights/{source.file}"
    cached = project.paths.data_dir(".downloads") / source.file
    if not cached.is_file():
        part = cached.with_name(cached.name + ".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            transfer(
                source.url,
                part,
                timeout_s=project.settings.network_timeout_s,
                expected_bytes=source.bytes,
                may_resume=True,
                progress=progress,
            )
        except TransferError as error:
            place = f"{in_mirror or 'MIRROR/weights/' + source.file}"
            raise FgvcError(
                f"{source.file} could not be had: {error}",
                file=project.paths.shown(project.file("weights", name)),
                key="source.url",
                cure=f"run this again with a network, or download {source.url}\n"
                f"to {place} and give --mirror (or FGVC_MIRROR)",
            ) from None
        try:
            _check(part, source.sha256, source.md5, source.bytes, name)
        except FgvcError:
            part.unlink()  # a wrong file must not be resumed
            raise
        part.replace(cached)
    _check(cached, source.sha256, source.md5, source.bytes, name)
    return cached, source.url


def _check(
    path: Path, sha256: str | None, md5: str | None, size: int | None, name: str, cure: str | None = None
) -> None:
    """Compare a file with what the registry says of it (digests may be given by their first digits)."""
    problem = None
    if size is not None and path.stat().st_size != size:
        problem = f"it has {path.stat().st_size} bytes instead of {size}"
    elif sha256 is not None and not file_sha256(path).startswith(sha256):
        problem = "its SHA-256 differs"
    elif md5 is not None:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        problem = None if digest.startswith(md5) else "its MD5 differs"
    if problem:
        raise FgvcError(
            f"this is not the file that the registry names: {problem}",
            file=path,
            cure=cure or f"delete it and fetch again; the registry's facts: fgvc describe {name}",
        )
