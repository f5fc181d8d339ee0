"""`fgvc data fetch` and `fgvc weights fetch` at the command line: progress, notes, mistakes, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from datakit import DATA, Handler, Server, Toy, part, toy_files

Online = Callable[..., Toy]
FGVC = Path(sys.executable).parent / "fgvc"


def environment() -> dict[str, str]:
    return {**os.environ, "no_proxy": "*", "COLUMNS": "200"}


def run(toy: Toy, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FGVC, *arguments],
        cwd=toy.project.root,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def slowly(handler: Handler) -> None:
    start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
    whole = f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"
    status, more = (206, {"Content_Range": whole}) if start else (200, {})
    handler.answer(status, b"", Content_Length=len(DATA) - start, **more)
    for at in range(start, len(DATA), 2000):
        handler.wfile.write(DATA[at : at + 2000])
        handler.wfile.flush()
        time.sleep(0.3)


def test_ctrl_c_says_that_it_goes_on_and_it_does(online: Online, server: Server) -> None:
    server.behave = slowly
    toy = online(settings={"network_timeout_s": 20})
    process = subprocess.Popen(
        [FGVC, "data", "fetch", "toy"],
        cwd=toy.project.root,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets what it starts in the background ignore Ctrl-C; whoever waits for it does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (part(toy).exists() and part(toy).stat().st_size > 0):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "what is fetched is kept, and this goes on from there: fgvc data fetch toy" in text
    assert "Traceback" not in text and len(text.strip().splitlines()) <= 5
    kept = part(toy).stat().st_size
    assert 0 < kept < len(DATA)
    server.behave = lambda handler: handler.send_range(DATA)
    done = run(toy, "data", "fetch", "toy")
    assert done.returncode == 0, done.stderr
    assert server.ranges[-1] == f"bytes={kept}-"


def test_mistakes_are_at_most_five_lines_and_retries_are_told(online: Online, server: Server) -> None:
    server.behave = lambda handler: handler.answer(503)
    done = run(online(), "data", "fetch", "toy")
    assert done.returncode == 2
    retries = [line for line in done.stderr.splitlines() if "again in" in line]
    error = [line for line in done.stderr.splitlines() if line not in retries]
    assert len(retries) == 4 and len(error) <= 5 and error[0].startswith("error: ")


def test_from_local_at_the_command_line(make_toy: Callable[..., Toy], tmp_path: Path) -> None:
    archive = {"file": "toy/toy.tar", "anchor": "img"}
    toy = make_toy(source={"kind": "archive", "downloads": [archive]})
    toy.archive.unlink()
    for name, data in toy_files().items():
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_bytes(data)
    done = run(toy, "data", "fetch", "toy", "--from-local", tmp_path / "mine")
    assert done.returncode == 0 and "15 images of 3 classes" in done.stdout
    assert "note: the images come from a folder that was unpacked before" in done.stderr


@pytest.mark.parametrize("verb", ["data", "weights"])
def test_the_helps_name_the_option(make_toy: Callable[..., Toy], verb: str) -> None:
    assert "--from-local" in run(make_toy(), verb, "fetch", "--help").stdout
