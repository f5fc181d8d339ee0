"""Downloads that break: resumed where the file is still the same, tried again with growing waits, bounded."""

from __future__ import annotations

import email.utils
import itertools
import time
from collections.abc import Callable

import pytest
from datakit import DATA, HALF, Handler, Server, Toy, get, part, put_part

from fgvc.data import transfer as transfer_module
from fgvc.data.fetch import fetch
from fgvc.errors import FgvcError

Behaviour = Callable[[Handler], None]
Online = Callable[..., Toy]


def half(tag: str | None = None, **headers: object) -> Behaviour:
    """Half of the file, then the end of the connection."""
    more = {"ETag": tag} if tag else {}

    def behave(handler: Handler) -> None:
        handler.answer(200, DATA[:HALF], Content_Length=len(DATA), **more, **headers)
        handler.close_connection = True

    return behave


def rest(tag: str | None = None, data: bytes = DATA) -> Behaviour:
    more = {"ETag": tag} if tag else {}
    return lambda handler: handler.send_range(data, **more)


def error(status: int, **headers: object) -> Behaviour:
    return lambda handler: handler.answer(status, b"no", **headers)


# --- the same file or not -------------------------------------------------------------------------------


def test_a_server_that_vouches_for_its_file_is_resumed_without_a_digest(
    online: Online, server: Server
) -> None:
    server.in_turn(half('"one"'), rest('"one"'))
    assert get(online(sha256=None)).outcome == "fetched"
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_a_date_of_the_last_change_serves_as_well(online: Online, server: Server) -> None:
    server.in_turn(half(Last_Modified="Sat, 21 Nov 2026 10:00:00 GMT"), rest())
    assert get(online(sha256=None)).outcome == "fetched"
    assert server.ranges == [None, f"bytes={HALF}-"]


@pytest.mark.parametrize("obeys", [True, False], ids=["sends it all", "ignores If-Range"])
def test_a_file_that_changed_meanwhile_is_started_over(online: Online, server: Server, obeys: bool) -> None:
    """With another tag: half of the old file and half of the new one are no file."""
    old = bytes(reversed(DATA))

    def first(handler: Handler) -> None:
        handler.answer(200, old[:HALF], Content_Length=len(old), ETag='"old"')
        handler.close_connection = True

    def later(handler: Handler) -> None:
        if not obeys:
            del handler.headers["If-Range"]
        handler.send_range(DATA, ETag='"new"')

    server.in_turn(first, later)
    assert get(online(sha256=None)).outcome == "fetched"
    assert server.ranges == [None, f"bytes={HALF}-", *([] if obeys else [None])]


def test_a_file_that_has_another_length_now_is_started_over(online: Online, server: Server) -> None:
    def first(handler: Handler) -> None:
        handler.answer(200, b"x" * HALF, Content_Length=len(DATA) + 7)
        handler.close_connection = True

    server.in_turn(first, rest())
    assert get(online()).outcome == "fetched"
    assert server.ranges == [None, f"bytes={HALF}-", None]


def test_f14_a_server_that_lies_about_ranges_is_not_believed(online: Online, server: Server) -> None:
    """A server that sends another part than was asked for is not believed; the download starts over."""

    def wrong(handler: Handler) -> None:
        handler.answer(206, DATA[:100], Content_Range=f"bytes 0-99/{len(DATA)}")

    server.in_turn(half(), wrong, rest())
    assert get(online()).outcome == "fetched"
    assert server.ranges == [None, f"bytes={HALF}-", None]


def test_a_part_that_nobody_asked_for_is_refused(online: Online, server: Server) -> None:
    server.behave = lambda h: h.answer(206, DATA[:100], Content_Range=f"bytes 0-99/{len(DATA)}")
    with pytest.raises(FgvcError, match="another part of the file than it was asked for"):
        get(online())


def test_a_whole_part_of_unknown_size_is_recognised(online: Online, server: Server) -> None:
    server.behave = error(416, Content_Range=f"bytes */{len(DATA)}")
    toy = online()
    put_part(toy, DATA)
    assert get(toy).outcome == "fetched"
    assert server.ranges == [f"bytes={len(DATA)}-"]


def test_a_part_of_another_url_is_joined_only_under_a_digest(online: Online, server: Server) -> None:
    """The first URL breaks off, the second goes on; the digest says whether they fit."""
    second = server.url.replace("/toy.tar", "/other.tar")

    def behave(handler: Handler) -> None:
        rest()(handler) if handler.path == "/other.tar" else half()(handler)

    server.behave = behave
    toy = online(urls=[server.url, second])
    assert get(toy).outcome == "fetched"
    assert server.ranges[-1] == f"bytes={HALF}-"
    server.ranges.clear()
    part(toy).with_name("toy.tar").unlink()
    toy = online(urls=[server.url, second], sha256=None)
    assert fetch(toy.project, "toy", replace=True).outcome == "fetched"
    assert set(server.ranges) == {None}


# --- again, and how often -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(online: Online, server: Server, status: int) -> None:
    server.in_turn(error(status), error(status), rest())
    assert get(online()).outcome == "fetched"
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_a_server_that_says_no_is_asked_once_and_the_next_source_serves(
    online: Online, server: Server, status: int
) -> None:
    server.behave = lambda h: rest()(h) if h.path == "/other.tar" else error(status)(h)
    assert get(online(urls=[server.url, server.url.replace("/toy.tar", "/other.tar")])).outcome == "fetched"
    assert [path for _, path in server.asked] == ["/toy.tar", "/other.tar"]


def test_tries_are_bounded_and_the_waits_double(
    online: Online, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.behave = error(503)
    waits: list[float] = []
    monkeypatch.setattr(transfer_module.time, "sleep", waits.append)
    with pytest.raises(FgvcError, match="answers 503"):
        get(online(settings={"network_retry_wait_s": 3}))
    assert waits == [3, 6, 12, 24]
    assert len(server.asked) == 5


def test_who_brings_little_each_time_is_given_up_too(online: Online, server: Server) -> None:
    """A thousand bytes at a time is no way to bring a dataset."""

    def some(handler: Handler) -> None:
        start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        whole = f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"
        status, more = (206, {"Content_Range": whole}) if start else (200, {})
        handler.answer(status, DATA[start : start + 1000], Content_Length=len(DATA) - start, **more)
        handler.close_connection = True

    server.behave = some
    toy = online()
    with pytest.raises(FgvcError, match="ended after 5000 of"):
        get(toy)
    assert part(toy).read_bytes() == DATA[:5000]  # the next call goes on from here
    server.behave = rest()
    assert get(toy).outcome == "fetched"
    assert server.ranges[-1] == "bytes=5000-"


def test_a_try_that_brings_much_does_not_count(
    online: Online, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_module, "GAIN_BYTES", 1000)
    steps = [range(i, i + 1500) for i in range(0, len(DATA), 1500)]
    assert len(steps) > transfer_module.ATTEMPTS

    def some(handler: Handler) -> None:
        start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        whole = f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"
        status, more = (206, {"Content_Range": whole}) if start else (200, {})
        handler.answer(status, DATA[start : start + 1500], Content_Length=len(DATA) - start, **more)
        handler.close_connection = True

    server.behave = some
    assert get(online()).outcome == "fetched"


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_server_that_says_when_to_come_back_is_obeyed(online: Online, server: Server, form: str) -> None:
    wait = 1 if form == "seconds" else email.utils.formatdate(time.time() + 2, usegmt=True)
    server.in_turn(error(429, Retry_After=wait), rest())
    assert get(online()).outcome == "fetched"
    (first, _), (second, _) = server.asked
    assert 0.9 < second - first < 4


def test_a_server_that_asks_to_wait_for_hours_is_passed_over(online: Online, server: Server) -> None:
    server.behave = error(503, Retry_After=7200)
    with pytest.raises(FgvcError, match=r"answers 503 .* and asks to wait 7200 s"):
        get(online())
    assert len(server.asked) == 1


def test_retries_are_told(online: Online, server: Server) -> None:
    server.in_turn(error(503), rest())
    said: list[str] = []
    fetch(online().project, "toy", None, lambda stage, *_: said.append(stage))
    assert any("answers 503" in line and "again in 0.01 s (1 of 4)" in line for line in said)


def test_progress_knows_the_end(online: Online, server: Server) -> None:
    server.in_turn(half(), rest())
    calls: list[tuple[str, int, int | None, str]] = []
    fetch(online().project, "toy", None, lambda *call: calls.append(call))
    amounts = [(done, total) for stage, done, total, _ in calls if stage == "downloading toy.tar"]
    assert amounts[-1] == (len(DATA), len(DATA))
    assert all(a[0] < b[0] for a, b in itertools.pairwise(amounts))


# --- never a hang ---------------------------------------------------------------------------------------


def endless_head(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100):
        handler.wfile.write(f"X-{number}: y\r\n".encode())
        handler.wfile.flush()
        time.sleep(0.1)


def stops_in_the_middle(handler: Handler) -> None:
    handler.answer(200, DATA[:HALF], Content_Length=len(DATA))
    handler.wfile.flush()
    time.sleep(3)


@pytest.mark.parametrize("behave", [endless_head, stops_in_the_middle])
def test_f14_a_server_that_stalls_is_left(online: Online, server: Server, behave: Behaviour) -> None:
    """A server that stops in the middle or never ends its headers is left after the timeout, and the next try
    goes on."""
    server.in_turn(behave, rest())
    begin = time.monotonic()
    assert get(online(settings={"network_timeout_s": 0.3})).outcome == "fetched"
    assert time.monotonic() - begin < 3


def test_f14_a_download_without_end_is_cut(online: Online, server: Server) -> None:
    """A download that goes on for ever is ended at the size that is known."""

    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(DATA)

    server.behave = endless
    toy = online(bytes=len(DATA))
    with pytest.raises(FgvcError, match=f"sends more than {len(DATA)} bytes"):
        get(toy)
    assert not part(toy).exists()
