"""One process at a time; a lock ends with its holder, however that ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fgvc.errors import FgvcError
from fgvc.provenance.locks import LockHeldError, exclusive_lock

HOLDER = """
import sys, time
from pathlib import Path
from fgvc.provenance.locks import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "a test"):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(path: Path) -> subprocess.Popen[str]:
    """A process that holds the lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=30)


def test_a_second_holder_is_told_who_the_first_one_is(tmp_path: Path) -> None:
    path = tmp_path / "state" / "lock"
    process = hold(path)
    with pytest.raises(LockHeldError) as caught, exclusive_lock(path, "training x"):
        pytest.fail("two hold the lock")
    assert f"training x is under way already, in process {process.pid} on host {socket.gethostname()}" in str(
        caught.value
    )
    assert isinstance(caught.value, FgvcError) and caught.value.file == str(path)
    end(process)
    with exclusive_lock(path, "training x"):
        assert json.loads(path.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_lock_ends_with_its_holder_however_that_ends(tmp_path: Path, number: int) -> None:
    path = tmp_path / "lock"
    process = hold(path)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert path.exists()  # the file stays; it is no lock
    with exclusive_lock(path, "x"):
        pass


def test_waiting_is_announced_once_and_ends_when_the_holder_does(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = hold(path)
    said: list[str] = []
    freed: list[bool] = []
    letting_go = threading.Timer(0.5, lambda: (freed.append(True), end(process)))
    letting_go.start()
    with exclusive_lock(path, "fetching", wait_s=30, on_wait=said.append):
        assert freed
    letting_go.join()
    assert said == [f"waiting: fetching is under way in process {process.pid} on host {socket.gethostname()}"]


def test_waiting_ends_with_an_error_when_the_time_is_up(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = hold(path)
    with pytest.raises(LockHeldError), exclusive_lock(path, "x", wait_s=0.3):
        pytest.fail("two hold the lock")
    end(process)


def test_a_lock_ends_with_its_block_also_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), exclusive_lock(tmp_path / "lock", "x"):
        raise RuntimeError
    with exclusive_lock(tmp_path / "lock", "x"):
        pass


def test_a_lock_file_of_anything_serves(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("no JSON at all")
    with exclusive_lock(tmp_path / "lock", "x"):
        pass
    process = hold(tmp_path / "lock")
    (tmp_path / "lock").write_text("overwritten")
    with pytest.raises(LockHeldError, match="in another process"), exclusive_lock(tmp_path / "lock", "x"):
        pytest.fail("two hold the lock")
    end(process)
