"""Where a file is looked for: the user's folder, a mirror, earlier downloads, the network; always checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from fgvc.config.project import Project
from fgvc.data.lists import published_rows, read_list_text
from fgvc.data.progress import Progress, tell
from fgvc.data.transfer import Transfer
from fgvc.data.web import TransferError, host_of
from fgvc.errors import FgvcError
from fgvc.provenance.digests import split_sha256
from fgvc.provenance.locks import exclusive_lock

#: How long one fetch waits for another that downloads the same file.
SHARED_DOWNLOAD_WAIT_S = 24 * 3600.0
CHUNK = 1 << 20

Place = Literal["local", "mirror", "network"]


class Wanted(Protocol):
    """A file as its YAML describes it; a digest may be given by its first digits.

    ``file`` is its path below a mirror, and below data/.downloads.
    """

    @property
    def file(self) -> str: ...
    @property
    def urls(self) -> Sequence[str]: ...
    @property
    def bytes(self) -> int | None: ...
    @property
    def sha256(self) -> str | None: ...
    @property
    def md5(self) -> str | None: ...
    @property
    def list_sha256(self) -> str | None: ...


@dataclass(frozen=True)
class Found:
    """A checked file on this machine.

    Attributes:
        place: where it came from; files in data/.downloads count as from the network.
        checked: which of its stated properties were compared ("bytes", "sha256", "md5", "list_sha256").
        url: which URL gave it; None for a file that was here.
    """

    wanted: Wanted
    path: Path
    place: Place
    sha256: str
    checked: tuple[str, ...]
    url: str | None = None


class UnobtainableError(Exception):
    """No source gives a file; ``failures`` says of each one why."""

    def __init__(self, failures: list[str]) -> None:
        super().__init__("; ".join(failures))
        self.failures = failures


def mirror_folder(project: Project, mirror: Path | None) -> Path | None:
    """The mirror in use: the argument, else ``$FGVC_MIRROR``, else the settings' ``mirror``, else None.

    Raises FgvcError when it is named but is no folder.
    """
    # What is typed is relative to where it is typed; what stands in a file, to the project.
    named_by = {
        "--mirror": (mirror, Path.cwd()),
        "FGVC_MIRROR": (os.environ.get("FGVC_MIRROR"), Path.cwd()),
        "params/config.yaml": (project.settings.mirror, project.root),
    }
    for by, (named, start) in named_by.items():
        if named:
            folder = start / Path(named).expanduser()
            if not folder.is_dir():
                problem = f"the mirror that {by} names is not a folder"
                raise FgvcError(problem, file=folder, cure="correct its path")
            return folder
    return None


def local_folder(local: Path | None) -> Path | None:
    """The folder of ``--from-local``, absolute. Raises FgvcError when it is no folder."""
    if local is None:
        return None
    folder = Path.cwd() / local.expanduser()
    if not folder.is_dir():
        raise FgvcError("what --from-local names is not a folder", file=folder, cure="correct its path")
    return folder


class Sources:
    """The places where files are looked for, in order of preference.

    Args:
        mirror: folder laid out like data/.downloads.
        local: folder in which the user put files under their own names; nothing in it is changed.
    """

    def __init__(self, project: Project, mirror: Path | None, local: Path | None = None) -> None:
        self.project = project
        self.mirror, self.local = mirror_folder(project, mirror), local_folder(local)
        self.cache = project.root / "data" / ".downloads"

    def in_local(self, wanted: Wanted) -> Path | None:
        """The user's file of that name, if there is one."""
        if self.local is None:
            return None
        places = (self.local / wanted.file, self.local / Path(wanted.file).name)
        return next((path for path in places if path.is_file()), None)

    def here(self, wanted: Wanted) -> Path | None:
        """A place on this machine that has a file of that name."""
        mirrored = self.mirror / wanted.file if self.mirror else None
        candidates = (self.in_local(wanted), mirrored, self.cache / wanted.file)
        return next((path for path in candidates if path is not None and path.is_file()), None)

    def bytes_to_come(self, wanted: Wanted) -> int | None:
        """What is still to be downloaded of a file; None where its size is unknown."""
        if self.here(wanted):
            return 0
        part = self.part(wanted)
        held = part.stat().st_size if part.exists() else 0
        return None if wanted.bytes is None else max(wanted.bytes - held, 0)

    def part(self, wanted: Wanted) -> Path:
        """Where a file grows while it is downloaded."""
        return self.cache / f"{wanted.file}.part"

    def where_to_put(self, wanted: Wanted) -> str:
        """``put it at …``, for a file that only the user can get."""
        if self.mirror is not None:
            return f"put it at {self.mirror / wanted.file}"
        return f"put it at {self.project.paths.shown(self.cache / wanted.file)}"

    def obtain(self, wanted: Wanted, progress: Progress, *, online: bool = True) -> Found:
        """The file, from the first place that has it as its YAML describes it.

        Args:
            online: whether the network is asked, after the places on this machine.

        Raises UnobtainableError; FgvcError when the disk does not take it.
        """
        failures: list[str] = []
        for place, path in self._folders(wanted):
            if path is None or not path.is_file():
                failures += [f"the {place} does not have it"] if place == "mirror" and path else []
                continue
            try:
                return _found(wanted, path, place, progress)
            except TransferError as error:
                failures.append(f"the mirror's file {error}" if place == "mirror" else f"{path} {error}")
        lock = self.project.paths.state("data", "downloads", f"{wanted.file}.lock")
        with exclusive_lock(
            lock,
            f"downloading {wanted.file}",
            wait_s=SHARED_DOWNLOAD_WAIT_S,
            on_wait=partial(tell, progress),
        ):
            return self._from_downloads(wanted, wanted.urls if online else (), failures, progress)

    def _folders(self, wanted: Wanted) -> list[tuple[Place, Path | None]]:
        mirrored = self.mirror / wanted.file if self.mirror else None
        return [("local", self.in_local(wanted)), ("mirror", mirrored)]

    def _from_downloads(
        self, wanted: Wanted, urls: Sequence[str], failures: list[str], progress: Progress
    ) -> Found:
        cached = self.cache / wanted.file
        if cached.is_file():
            try:
                return _found(wanted, cached, "network", progress)
            except TransferError as error:
                # Perhaps someone put it there by hand: out of the way, but not lost.
                aside = cached.with_name(f"{cached.name}.refused")
                cached.replace(aside)
                failures.append(f"{self.project.paths.shown(cached)} {error}; it is now {aside.name}")
        for url in urls:
            try:
                return self._from_network(wanted, url, cached, progress)
            except TransferError as error:
                failures.append(f"{host_of(url)} {error}")
        raise UnobtainableError(failures)

    def _from_network(self, wanted: Wanted, url: str, target: Path, progress: Progress) -> Found:
        target.parent.mkdir(parents=True, exist_ok=True)
        part, settings = self.part(wanted), self.project.settings
        has_digest = bool(wanted.sha256 or wanted.md5 or wanted.list_sha256)
        transfer = Transfer(
            settings.network_timeout_s, settings.network_retry_wait_s, wanted.bytes, has_digest, progress
        )
        resumed = part.exists() and has_digest
        while True:
            transfer.run(url, part)
            try:
                found = _found(wanted, part, "network", progress)
            except TransferError:
                part.unlink()
                if not resumed:
                    raise
                resumed = False  # perhaps two versions were joined: once more, from the beginning
            else:
                part.replace(target)
                return Found(wanted, target, "network", found.sha256, found.checked, url)


def _found(wanted: Wanted, path: Path, place: Place, progress: Progress) -> Found:
    sha256, checked = check_file(path, wanted, progress)
    return Found(wanted, path, place, sha256, checked)


def check_file(path: Path, wanted: Wanted, progress: Progress | None = None) -> tuple[str, tuple[str, ...]]:
    """The file's SHA-256 and which stated properties it was compared with.

    Raises TransferError when one differs, naming both values.
    """
    checked: list[str] = []
    size = path.stat().st_size
    if size == 0:
        raise TransferError("is empty")
    if wanted.bytes is not None:
        if size != wanted.bytes:
            raise TransferError(f"has {size} bytes instead of {wanted.bytes}")
        checked.append("bytes")
    sha256, md5 = _digests(path, wanted.md5 is not None, progress)
    for name, kind, found, stated in (
        ("SHA-256", "sha256", sha256, wanted.sha256),
        ("MD5", "md5", md5, wanted.md5),
    ):
        if stated is not None and found is not None:
            if not found.startswith(stated):
                raise TransferError(f"has another {name} ({found[:12]}… instead of {stated[:12]}…)")
            checked.append(kind)
    if wanted.list_sha256 is not None:
        if _list_sha256(path) != wanted.list_sha256:
            raise TransferError("is another list than the published one (digest of its rows)")
        checked.append("list_sha256")
    return sha256, tuple(checked)


def _digests(path: Path, with_md5: bool, progress: Progress | None) -> tuple[str, str | None]:
    """SHA-256 and, if asked for, MD5, in one reading."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False) if with_md5 else None
    done, size = 0, path.stat().st_size
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            sha256.update(chunk)
            if md5:
                md5.update(chunk)
            done += len(chunk)
            if progress:
                progress(f"checking {path.name.removesuffix('.part')}", done, size, "bytes")
    return sha256.hexdigest(), md5.hexdigest() if md5 else None


def _list_sha256(path: Path) -> str:
    try:
        return split_sha256(published_rows(read_list_text(path, path.name), path.name))
    except FgvcError as error:
        raise TransferError(f"is no list of 'class_id,dir' ({error.problem})") from None
