"""Unpacking archives that nobody vouches for.

Nothing is created but folders and regular files below the given folder: absolute paths, ``..``, links,
devices, a name given twice and anything that grows without measure are errors, not skipped.
"""

from __future__ import annotations

import contextlib
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fgvc.data.lists import path_problem
from fgvc.data.progress import Progress, quiet
from fgvc.errors import FgvcError

CHUNK = 1 << 20
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, NotImplementedError)


@dataclass(frozen=True)
class Limits:
    """What an archive may grow to.

    Attributes:
        total_bytes: of all members together; the free disk space is a limit too.
        ratio: unpacked over packed bytes, judged once ``ratio_from_bytes`` are unpacked (photographs hardly
            shrink, text does by ten, a bomb by a thousand).
        members: files and folders.
    """

    total_bytes: int = 2 << 40
    ratio: float = 100.0
    ratio_from_bytes: int = 64 << 20
    members: int = 10_000_000


@dataclass(frozen=True)
class _Member:
    """``stream`` is None for a folder."""

    name: str
    stream: IO[bytes] | None


def unpack(
    archive: Path,
    into: Path,
    *,
    anchor: str | None = None,
    limits: Limits | None = None,
    progress: Progress = quiet,
) -> Path:
    """Unpack a tar (plain, gz, bz2, xz) or zip file, whatever its name, into the folder ``into``.

    Args:
        into: made if need be; must be empty.
        anchor: the folder that is looked for inside; None: the archive's own top.

    Returns the folder that counts as the archive's top: ``into``, or the folder that holds the highest
    folder called ``anchor``.

    Raises FgvcError for a member that is absolute, leaves the folder, is a link or a device, comes twice or
    passes the limits; for a damaged or encrypted archive; for a full disk; and where the anchor is missing
    or there are several equally high.
    """
    into.mkdir(parents=True, exist_ok=True)
    limits = limits or Limits()
    writer = _Writer(archive, into, limits)
    try:
        with _members(archive) as members:
            for member in members:
                writer.add(member)
                progress(f"unpacking {archive.name}", writer.files, None, "files")
    except _DAMAGED as error:
        raise FgvcError(
            f"the archive is damaged or incomplete: {error or type(error).__name__}",
            file=archive,
            cure="delete it and fetch it again",
        ) from None
    except OSError as error:
        raise FgvcError(f"cannot unpack: {error.strerror or error}", file=archive) from None
    return into if anchor is None else _anchored(into, anchor, archive)


class _Writer:
    """Creates members below a folder and keeps count."""

    def __init__(self, archive: Path, into: Path, limits: Limits) -> None:
        self.archive, self.into, self.limits = archive, into, limits
        self.packed_bytes = archive.stat().st_size
        self.free_bytes = shutil.disk_usage(into).free
        self.written_bytes = 0
        self.files = self.folders = 0

    def add(self, member: _Member) -> None:
        name = member.name
        while name.startswith("./"):
            name = name[2:]
        name = name.rstrip("/") if member.stream is None else name
        if name in ("", "."):
            return  # the archive's own top folder
        problem = path_problem(name)
        if problem:
            raise self._refused(problem, name)
        target = self.into / name
        try:
            if member.stream is None:
                target.mkdir(parents=True, exist_ok=True)
                self.folders += 1
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as out:
                    self._copy(member.stream, out, name)
                self.files += 1
        except (FileExistsError, NotADirectoryError):
            raise self._refused("the name is there twice", name) from None
        if self.files + self.folders > self.limits.members:
            raise self._refused(f"more than {self.limits.members} members", name)

    def _copy(self, source: IO[bytes], out: IO[bytes], name: str) -> None:
        # Counted as they come: what a header says about its size is not trusted.
        while chunk := source.read(CHUNK):
            self.written_bytes += len(chunk)
            self._check_size(name)
            out.write(chunk)

    def _check_size(self, name: str) -> None:
        written, limits = self.written_bytes, self.limits
        if written > limits.total_bytes:
            raise self._refused(f"it unpacks to more than {limits.total_bytes} bytes", name)
        if written > limits.ratio_from_bytes and written > limits.ratio * self.packed_bytes:
            raise self._refused(f"it grows more than {limits.ratio:g} times when unpacked", name)
        if written > self.free_bytes:
            raise FgvcError(
                "the disk has no room for the unpacked archive",
                file=self.archive,
                cure="free some space and run the same command again",
            )

    def _refused(self, why: str, name: str) -> FgvcError:
        return FgvcError(
            f"the archive is refused: {why} (member {name[:80]!r})",
            file=self.archive,
            cure="it is not what it should be; take it from another source",
        )


@contextlib.contextmanager
def _members(archive: Path) -> Iterator[Iterator[_Member]]:
    with archive.open("rb") as stream:
        start = stream.read(4)
    if start in (b"PK\x03\x04", b"PK\x05\x06"):
        with zipfile.ZipFile(archive) as zipped:
            yield _zip_members(zipped, archive)
        return
    try:
        # Streaming: the members of a large archive are never all in memory.
        tar = tarfile.open(archive, mode="r|*")  # noqa: SIM115 -- closed below; opening has its own error
    except tarfile.ReadError:
        raise FgvcError(
            "this is neither a tar nor a zip archive", file=archive, cure="delete it and fetch it again"
        ) from None
    with tar:
        yield _tar_members(tar, archive)


def _tar_members(tar: tarfile.TarFile, archive: Path) -> Iterator[_Member]:
    for info in tar:
        if info.isdir():
            yield _Member(info.name, None)
        elif info.isreg():
            yield _Member(info.name, tar.extractfile(info))
        else:
            raise _special(archive, info.name, "link" if info.issym() or info.islnk() else "device")
        tar.members = []  # type: ignore[attr-defined] # otherwise a list of every member grows


def _zip_members(zipped: zipfile.ZipFile, archive: Path) -> Iterator[_Member]:
    for info in zipped.infolist():
        # `filename` is cut at a NUL; what the archive really says is in `orig_filename`.
        name = info.orig_filename
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _special(archive, name, "link" if kind == stat.S_IFLNK else "device")
        if info.flag_bits & 1:
            raise FgvcError("the archive is encrypted", file=archive, cure="take an unencrypted copy")
        if name.endswith("/"):
            yield _Member(name, None)
        else:
            with zipped.open(info) as stream:
                yield _Member(name, stream)


def _special(archive: Path, name: str, kind: str) -> FgvcError:
    return FgvcError(
        f"the archive is refused: it holds a {kind} (member {name[:80]!r})",
        file=archive,
        cure="only folders and regular files are unpacked; take it from another source",
    )


def _anchored(top: Path, anchor: str, archive: Path) -> Path:
    level = [top]
    while level:
        holders = [folder for folder in level if (folder / anchor).is_dir()]
        if len(holders) == 1:
            return holders[0]
        if holders:
            raise FgvcError(f"the archive holds several folders '{anchor}'", file=archive)
        level = [sub for folder in level for sub in sorted(folder.iterdir()) if sub.is_dir()]
    raise FgvcError(
        f"the archive holds no folder '{anchor}'",
        file=archive,
        cure="it may be another file than the one asked for",
    )
