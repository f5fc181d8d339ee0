"""Exclusive locks between processes that free themselves when their holder dies.

The kernel decides who holds a lock (on a shared file system, its server): a lock file is no lock, whatever
stands in it. So a job that died on another host needs no cleaning up, and a process id that was given to
another process misleads nobody. Where a file system has no locks, nothing is begun.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fgvc.errors import FgvcError

Say = Callable[[str], None]

#: What systems answer that have no locks on a file system.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class LockHeldError(FgvcError):
    """Another living process holds the lock."""


@contextlib.contextmanager
def exclusive_lock(
    path: Path,
    doing: str,
    *,
    wait_s: float = 0.0,
    on_wait: Say | None = None,
) -> Iterator[None]:
    """Hold the lock file ``path`` for the length of the block.

    The kernel frees the lock when its holder ends, however it ends; a stale file left by a kill is no lock.

    Args:
        doing: what is protected, for messages ("training results/runs/…").
        wait_s: how long to wait for another holder; 0 fails at once.
        on_wait: called once with a sentence when waiting begins, and with one where a process on another host
            left the lock without giving it back.

    Raises LockHeldError naming the holder's pid and host, and FgvcError where the file cannot be written or
    its file system has no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise FgvcError(f"cannot write: {error.strerror}", file=path) from error
    try:
        _acquire(handle, path, doing, wait_s, on_wait)
        left = _record(path)
        if left and left["host"] != socket.gethostname() and on_wait:
            on_wait(f"{_words(left)} left {doing} unfinished; it holds no lock any more")
        _tell(handle, {"pid": os.getpid(), "host": socket.gethostname(), "doing": doing})
        try:
            yield
        finally:
            _tell(handle, None)
            # Closing is not enough: a forked process (a loader's worker) may have the file open, too.
            fcntl.flock(handle, fcntl.LOCK_UN)
    finally:
        os.close(handle)


def _acquire(handle: int, path: Path, doing: str, wait_s: float, on_wait: Say | None) -> None:
    deadline = time.monotonic() + wait_s
    told = False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            record = _record(path)
            holder = _words(record) if record else "another process"
            if time.monotonic() >= deadline:
                raise LockHeldError(
                    f"{doing} is under way already, in {holder}",
                    file=path,
                    cure="wait until it ends, or stop that process",
                ) from None
            if not told and on_wait:
                on_wait(f"waiting: {doing} is under way in {holder}")
                told = True
            time.sleep(0.2)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            raise FgvcError(
                "this file system has no locks, so two processes could write the same results",
                file=path,
                cure="mount it with locks (Lustre: -o flock), or make state/ a link to one that has them",
            ) from error


def _tell(handle: int, record: dict[str, Any] | None) -> None:
    """Write who holds the lock, or that nobody does. For messages only: a full disk is not its business."""
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        if record:
            os.pwrite(handle, json.dumps(record).encode(), 0)


def _record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"pid": record["pid"], "host": record["host"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _words(record: dict[str, Any]) -> str:
    return f"process {record['pid']} on host {record['host']}"
