"""Unpacking archives that nobody vouches for.

Nothing is created but folders and regular files below the given folder: absolute paths, ``..``, links,
devices, a name given twice and anything that grows without measure are errors, not skipped.
"""

from __future__ import annotations

import contextlib
import io
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self, cast

from fgvc.data.lists import path_problem
from fgvc.data.progress import Progress, quiet
from fgvc.errors import FgvcError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK = 1 << 20
#: A tar keeps long names and extended headers as data of their own, which tarfile reads into memory.
HEADER_BYTES = 1 << 20
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
    archive: Path | Sequence[Path],
    into: Path,
    *,
    anchor: str | None = None,
    limits: Limits | None = None,
    progress: Progress = quiet,
) -> Path:
    """Unpack a tar (plain, gz, bz2, xz) or zip file, whatever its name, into the folder ``into``.

    Args:
        archive: the file, or the files that it was cut into, in order.
        into: made if need be; must be empty.
        anchor: the folder that is looked for inside; None: the archive's own top.

    Returns the folder that counts as the archive's top: ``into``, or the folder that holds the highest
    folder called ``anchor``.

    Raises FgvcError for a member that is absolute, leaves the folder, is a link or a device, comes twice or
    passes the limits; for a damaged or encrypted archive; for a full disk; and where the anchor is missing
    or there are several equally high.
    """
    into.mkdir(parents=True, exist_ok=True)
    paths = [archive] if isinstance(archive, Path) else list(archive)
    archive = paths[0]
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(_Joined(paths))
        _unpack_stream(stream, archive, _Writer(archive, stream.size, into, limits or Limits()), progress)
    return into if anchor is None else _anchored(into, anchor, archive)


def _unpack_stream(stream: _Joined, archive: Path, writer: _Writer, progress: Progress) -> None:
    try:
        with _members(stream, archive) as members:
            for member in members:
                writer.add(member)
                # Told by what was read: how many members there are, nobody knows beforehand.
                progress(f"unpacking {archive.name}", stream.tell(), stream.size, "bytes")
    except _DAMAGED as error:
        raise FgvcError(
            f"the archive is damaged or incomplete: {error or type(error).__name__}",
            file=archive,
            cure="delete it and fetch it again",
        ) from None
    except OSError as error:
        raise FgvcError(f"cannot unpack: {error.strerror or error}", file=archive) from None


class _Joined(io.RawIOBase):
    """Files read as if they were one, without joining them on the disk."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__()
        with contextlib.ExitStack() as opened:
            self._files = [opened.enter_context(path.open("rb")) for path in paths]
            self._opened = opened.pop_all()
        self._starts = [0, *accumulate(path.stat().st_size for path in paths)]
        self.size = self._starts[-1]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError("seek before the beginning")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        if self._at >= self.size:
            return 0
        number = bisect_right(self._starts, self._at) - 1
        file = self._files[number]
        file.seek(self._at - self._starts[number])
        view = memoryview(buffer)
        data = file.read(len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._opened.close()
        super().close()


class _Writer:
    """Creates members below a folder and keeps count."""

    def __init__(self, archive: Path, packed_bytes: int, into: Path, limits: Limits) -> None:
        self.archive, self.into, self.limits = archive, into, limits
        self.packed_bytes = packed_bytes
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
def _members(stream: _Joined, archive: Path) -> Iterator[Iterator[_Member]]:
    buffered = io.BufferedReader(stream, CHUNK)
    start = buffered.read(4)
    buffered.seek(0)
    if start in (b"PK\x03\x04", b"PK\x05\x06"):
        with zipfile.ZipFile(cast("IO[bytes]", buffered)) as zipped:
            yield _zip_members(zipped, archive)
        return
    try:
        # Streaming: the members of a large archive are never all in memory.
        tar = tarfile.open(fileobj=buffered, mode="r|*", tarinfo=_info_of(archive))  # noqa: SIM115 -- below
    except tarfile.ReadError:
        raise FgvcError(
            "this is neither a tar nor a zip archive", file=archive, cure="delete it and fetch it again"
        ) from None
    with tar:
        yield _tar_members(tar, archive)


def _info_of(archive: Path) -> type[tarfile.TarInfo]:
    """How tarfile reads the headers of ``archive``: refusing extended ones that would fill the memory."""

    class Info(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
            info = super().frombuf(buf, encoding, errors)
            if info.size > HEADER_BYTES and info.type in b"LKxgX":
                raise FgvcError(
                    f"the archive is refused: a header of {info.size} bytes",
                    file=archive,
                    cure="it is not what it should be; take it from another source",
                )
            return info

    return Info


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


def anchor_folders(top: Path, anchor: str) -> list[Path]:
    """The highest folders from ``top`` on that hold a folder called ``anchor``; links are not followed."""
    level = [top]
    while level:
        holders = [folder for folder in level if (folder / anchor).is_dir()]
        if holders:
            return holders
        level = [
            sub
            for folder in level
            for sub in sorted(folder.iterdir())
            if sub.is_dir() and not sub.is_symlink()
        ]
    return []


def _anchored(top: Path, anchor: str, archive: Path) -> Path:
    holders = anchor_folders(top, anchor)
    if len(holders) == 1:
        return holders[0]
    if holders:
        raise FgvcError(f"the archive holds several folders '{anchor}'", file=archive)
    raise FgvcError(
        f"the archive holds no folder '{anchor}'",
        file=archive,
        cure="it may be another file than the one asked for",
    )
