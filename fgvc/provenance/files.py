"""Writing files whole or not at all, and reading small records."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fgvc.errors import FgvcError


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target`` that replaces it when the block ends without an exception.

    The bytes are on disk (fsync) before the name appears, so that a kill at any moment leaves either the
    old file or the whole new one. Raises FgvcError when the disk is full or the folder is read-only.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise _unwritable(target, error) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        # mkstemp makes files private; results are as readable as the user's umask allows.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
        _sync_folder(target.parent)
    except Exception as error:
        system = _system_error(error)
        if system is None:
            raise
        raise _unwritable(target, system) from error
    finally:
        temporary.unlink(missing_ok=True)


def _system_error(error: BaseException) -> OSError | None:
    """What the system said, also where a library that writes hides it in an exception of its own."""
    if isinstance(error, OSError):
        return error
    if isinstance(error, FgvcError):
        return None
    named = re.search(r"\(os error (\d+)\)", str(error))  # libraries in Rust: safetensors
    if named:
        return OSError(int(named[1]), os.strerror(int(named[1])))
    # torch.save: the exception of the file's write() comes first, then one about its own bookkeeping.
    inner = error.__cause__ or error.__context__
    return inner if isinstance(error, RuntimeError) and isinstance(inner, OSError) else None


def require_writable(folder: Path) -> None:
    """Raise the FgvcError of a later `atomic_path` in ``folder`` now, before hours of work for its sake."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".writable.", dir=folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    os.close(handle)
    Path(name).unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _unwritable(target: Path, error: OSError) -> FgvcError:
    cures = {
        errno.ENOSPC: "free some space and run the same command again; nothing finished is lost",
        errno.EDQUOT: "the quota is used up; free some space and run the same command again",
        errno.EROFS: "the file system is read-only; write elsewhere or remount it",
        errno.EACCES: "check the permissions of the folder",
    }
    number = error.errno or 0
    # Libraries add words of their own to what the system said.
    said = os.strerror(number) if number in cures else error.strerror or error
    return FgvcError(f"cannot write: {said}", file=target, cure=cures.get(number))


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 text with newlines as they stand, whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(target: Path, value: Any) -> None:
    """Write a record: two-space indented, keys in the order given, a final newline."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, *, made_by: str | None = None) -> Any:
    """Read a record. ``made_by`` is the command that makes it, named when it is missing."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        cure = f"make it with: {made_by}" if made_by else None
        raise FgvcError("the record does not exist yet", file=path, cure=cure) from None
    except (OSError, ValueError) as error:
        raise FgvcError(
            f"the record cannot be read: {error}", file=path, cure="delete it and make it again"
        ) from None
