"""Exclusive locks between processes that free themselves when their holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fgvc.errors import FgvcError


class LockHeldError(FgvcError):
    """Another living process holds the lock."""


@contextlib.contextmanager
def exclusive_lock(
    path: Path,
    doing: str,
    *,
    wait_s: float = 0.0,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Hold the lock file ``path`` for the length of the block.

    The kernel frees the lock when its holder ends, however it ends; a stale file left by a kill is no lock.

    Args:
        doing: what is protected, for messages ("training results/runs/…").
        wait_s: how long to wait for another holder; 0 fails at once.
        on_wait: called once with a sentence when waiting begins.

    Raises LockHeldError naming the holder's pid and host.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        _acquire(stream, path, doing, wait_s, on_wait)
        stream.seek(0)
        stream.truncate()
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "doing": doing}, stream)
        stream.flush()
        try:
            yield
        finally:
            fcntl.flock(stream, fcntl.LOCK_UN)


def _acquire(
    stream: object,
    path: Path,
    doing: str,
    wait_s: float,
    on_wait: Callable[[str], None] | None,
) -> None:
    deadline = time.monotonic() + wait_s
    told = False
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # type: ignore[arg-type]
            return
        except BlockingIOError:
            holder = _holder(path)
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


def _holder(path: Path) -> str:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return f"process {record['pid']} on host {record['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"
