"""Downloads from a server that breaks off, lies, stalls or says something else."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from datakit import DATA, HALF, Handler, Server, Toy, get, list_text, part, put_part, toy_files, toy_yaml

from fgvc.data.fetch import fetch
from fgvc.errors import FgvcError
from fgvc.provenance.digests import split_sha256


def test_plain(online: Callable[..., Toy], server: Server) -> None:
    server.behave = lambda handler: handler.send(DATA)
    toy = online(bytes=len(DATA), md5=hashlib.md5(DATA).hexdigest())
    file = get(toy).record.source.files[0]
    assert (file.place, file.urls, file.checked) == ("network", [server.url], ["bytes", "sha256", "md5"])
    assert not part(toy).exists()
    # The download is kept: the same dataset again, with no server.
    server.behave = lambda handler: handler.send_error(500)
    assert fetch(toy.project, "toy", replace=True).outcome == "fetched"
    assert len(server.ranges) == 1


def test_the_mirror_comes_first(online: Callable[..., Toy], server: Server) -> None:
    toy = online()
    toy.archive.write_bytes(DATA)
    assert toy.fetch().record.source.files[0].place == "mirror"
    assert server.ranges == []


def test_a_bad_file_in_the_mirror_is_passed_over(online: Callable[..., Toy], server: Server) -> None:
    server.behave = lambda handler: handler.send(DATA)
    toy = online()
    toy.archive.write_bytes(DATA[:-1])
    assert toy.fetch().record.source.files[0].place == "network"
    assert toy.archive.read_bytes() == DATA[:-1]


def test_f14_a_broken_connection_is_resumed(online: Callable[..., Toy], server: Server) -> None:
    """A connection that breaks is resumed where it broke."""

    def breaks_once(handler: Handler) -> None:
        if handler.headers.get("Range"):
            handler.send_range(DATA)
        else:
            handler.send(DATA[:HALF], claim=len(DATA))

    server.behave = breaks_once
    assert get(online()).outcome == "fetched"
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_what_an_earlier_process_left_is_resumed(online: Callable[..., Toy], server: Server) -> None:
    server.behave = lambda handler: handler.send_range(DATA)
    toy = online()
    put_part(toy, DATA[:1000])
    get(toy)
    assert server.ranges == ["bytes=1000-"]


CHILD = """
import sys, time
from pathlib import Path
from fgvc.config.project import Project
from fgvc.data.fetch import fetch

def progress(stage, done, total, unit):
    if stage.startswith("downloading"):
        print(done, flush=True)
        time.sleep(60)

fetch(Project(Path(sys.argv[1])), "toy", None, progress)
"""


def test_a_download_that_was_killed_is_resumed(online: Callable[..., Toy], server: Server) -> None:
    server.behave = lambda handler: handler.send_range(DATA)
    toy = online()
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(toy.project.root)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert int(child.stdout.readline()) > 0
    child.kill()
    child.wait()
    kept = part(toy).stat().st_size
    assert get(toy).outcome == "fetched"
    assert server.ranges == [None, f"bytes={kept}-" if kept else None]


def test_a_server_without_ranges_starts_over(online: Callable[..., Toy], server: Server) -> None:
    server.behave = lambda handler: handler.send(DATA)
    toy = online()
    put_part(toy, b"x" * 1000)
    get(toy)
    assert server.ranges == ["bytes=1000-"]


def test_f14_two_halves_that_do_not_fit_are_noticed(online: Callable[..., Toy], server: Server) -> None:
    """A resumed download whose halves are of different files is noticed by its digest and started over."""
    server.behave = lambda handler: handler.send_range(DATA)
    toy = online()
    put_part(toy, b"x" * 1000)
    get(toy)
    assert server.ranges == ["bytes=1000-", None]


def test_a_part_that_is_too_long_is_started_over(online: Callable[..., Toy], server: Server) -> None:
    def strict(handler: Handler) -> None:
        if handler.headers.get("Range"):
            handler.send_error(416)
        else:
            handler.send(DATA)

    server.behave = strict
    toy = online()
    put_part(toy, DATA + b"x")
    assert get(toy).outcome == "fetched"
    assert server.ranges == [f"bytes={len(DATA) + 1}-", None]


def test_a_complete_part_needs_no_network(online: Callable[..., Toy], server: Server) -> None:
    toy = online(bytes=len(DATA))
    put_part(toy, DATA)
    get(toy)
    assert server.ranges == []


def test_without_a_digest_nothing_is_resumed(online: Callable[..., Toy], server: Server) -> None:
    server.behave = lambda handler: handler.send_range(DATA)
    toy = online(sha256=None)
    put_part(toy, DATA[:1000])
    get(toy)
    assert server.ranges == [None]


def drip(handler: Handler) -> None:
    handler.send(b"", claim=len(DATA))
    for _ in range(100):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.05)


def silence(handler: Handler) -> None:
    time.sleep(2)


@pytest.mark.parametrize(
    ("behave", "says"),
    [
        (lambda h: h.send(b"\n<!DOCTYPE html><html>log in</html>", kind="text/html"), "sends a web page"),
        (lambda h: h.send(DATA + b"!"), "another SHA-256"),
        (lambda h: h.send(b""), "is empty"),
        (lambda h: h.send_error(404), "answers 404"),
        (lambda h: h.send_error(503), "answers 503"),
        (lambda h: h.send(b"", claim=len(DATA)), "ended after 0 of"),
        (lambda h: h.send(DATA, claim=HALF), "another SHA-256"),
        (
            lambda h: h.answer(200, b"ffff\r\nhalf a chunk", Transfer_Encoding="chunked"),
            "ended before the file",
        ),
        (lambda h: h.wfile.write(b"what?\r\n\r\n"), "not reachable"),
        (silence, "does not answer within 0.5 s"),
        (drip, "sent only"),
    ],
    ids=[
        "html",
        "digest",
        "empty",
        "404",
        "503",
        "nothing",
        "length too short",
        "torn chunk",
        "no http",
        "silence",
        "drip",
    ],
)
def test_f14_lying_servers_are_told_and_left(
    online: Callable[..., Toy], server: Server, behave: Callable[[Handler], None], says: str
) -> None:
    """A server that sends a web page, another file, too much, too little, nothing, drop by drop or no HTTP is
    left within bounded time; the error says what it did and how to get the file by hand."""
    server.behave = behave
    toy = online()
    begin = time.monotonic()
    with pytest.raises(FgvcError, match=says) as caught:
        fetch(toy.project, "toy", toy.mirror)
    assert time.monotonic() - begin < 5
    message = str(caught.value)
    assert server.url in message and str(toy.archive) in message and "params/datasets/toy.yaml" in message
    assert len(message.splitlines()) <= 5
    assert not toy.folder.exists()


def test_a_length_that_differs_stops_before_the_download(online: Callable[..., Toy], server: Server) -> None:
    server.behave = lambda handler: handler.send(DATA)
    with pytest.raises(FgvcError, match=f"has {len(DATA)} bytes instead of 5"):
        get(online(bytes=5))


def test_nobody_listens(online: Callable[..., Toy], server: Server) -> None:
    with pytest.raises(FgvcError, match="not reachable"):
        get(online(urls=["http://127.0.0.1:9/toy.tar"]))


def test_the_second_url_serves_when_the_first_does_not(online: Callable[..., Toy], server: Server) -> None:
    server.behave = lambda handler: handler.send(DATA)
    assert get(online(urls=["http://127.0.0.1:9/toy.tar", server.url])).outcome == "fetched"


def test_no_disk_space_is_told_before_the_download(
    online: Callable[..., Toy], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.behave = lambda handler: handler.send(DATA)
    toy = online()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 5, 5))  # type: ignore[attr-defined]
    with pytest.raises(FgvcError, match="the disk has"):
        get(toy)


def test_published_lists_are_checked_by_their_rows(make_toy: Callable[..., Toy]) -> None:
    files = toy_files()
    rows = [(0, "ant/4.jpg"), (1, "bee/4.jpg"), (2, "cow/4.jpg")]
    entry = {
        "file": "lists/test.csv",
        "unpack": False,
        "to": "lists/test.csv",
        "list_sha256": split_sha256(rows),
    }
    source = {"kind": "archive", "downloads": [*toy_yaml()["source"]["downloads"], entry]}
    del files["lists/test.csv"]
    toy = make_toy(files, source=source)
    published = toy.mirror / "lists/test.csv"
    published.parent.mkdir()
    published.write_bytes(list_text(rows[:2]))
    with pytest.raises(FgvcError, match="another list than the published one"):
        toy.fetch()
    published.write_bytes(list_text(rows[::-1]).replace(b"\n", b"\r\n"))  # order and line ends do not count
    assert toy.fetch().record.source.files[1].checked == ["list_sha256"]
