"""Downloads that lead elsewhere: redirects, web pages in the place of files, wrong files, no room."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from datakit import DATA, HALF, Handler, HTTPServer, Server, Toy, get, part, put_part, sha256

from fgvc.data import web
from fgvc.data.fetch import fetch
from fgvc.errors import FgvcError
from fgvc.provenance.locks import exclusive_lock

Online = Callable[..., Toy]


def to(place: str, status: int = 302) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(status, Location=place)


# --- redirects ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_to_another_host_and_the_range_goes_along(
    online: Online, server: Server, status: int
) -> None:
    elsewhere = server.url.replace("127.0.0.1", "localhost").replace("toy.tar", "moved.tar")
    server.behave = lambda h: h.send_range(DATA) if h.path == "/moved.tar" else to(elsewhere, status)(h)
    toy = online()
    put_part(toy, DATA[:HALF])
    assert get(toy).outcome == "fetched"
    assert [path for _, path in server.asked] == ["/toy.tar", "/moved.tar"]
    assert server.ranges[-1] == f"bytes={HALF}-"


def test_a_redirect_in_a_circle_ends(online: Online, server: Server) -> None:
    server.behave = to("/toy.tar")
    with pytest.raises(FgvcError, match="redirects without end or to nowhere"):
        get(online())
    assert len(server.asked) < 15


@pytest.mark.parametrize("place", ["ftp://127.0.0.1/toy.tar", "file:///etc/passwd", "data:,x"])
def test_a_redirect_out_of_the_web_is_refused(online: Online, server: Server, place: str) -> None:
    server.behave = to(place)
    with pytest.raises(FgvcError, match=r"redirects (from http to|without end or to nowhere)"):
        get(online())
    assert len(server.asked) == 1


@pytest.fixture
def tls_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A second server under https, whose certificate is trusted."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the command openssl, which makes the certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = (
        f"req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {key} -out {certificate} -subj /CN=localhost"
    )
    arguments = [*request.split(), "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([openssl, *arguments], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    http = HTTPServer(("127.0.0.1", 0), Handler)
    http.socket = context.wrap_socket(http.socket, server_side=True)
    http.owner = Server(f"https://localhost:{http.server_port}/toy.tar", lambda h: h.send(DATA))
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield http.owner
    http.shutdown()
    http.server_close()


def test_from_http_to_https_is_followed(online: Online, server: Server, tls_server: Server) -> None:
    server.behave = to(tls_server.url)
    assert get(online()).outcome == "fetched"


def test_from_https_to_http_is_refused(online: Online, server: Server, tls_server: Server) -> None:
    tls_server.behave = to(server.url)
    with pytest.raises(FgvcError, match=r"redirects from https to http .* which is refused"):
        get(online(urls=[tls_server.url]))
    assert server.asked == []


def test_an_unknown_certificate_is_refused_at_once(
    online: Online, tls_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(FgvcError, match=r"not reachable \(.*certificate"):
        get(online(urls=[tls_server.url]))


# --- web pages ------------------------------------------------------------------------------------------

QUOTA = b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head>..."
VIRUS = b"<html><body>Google Drive can't scan this file for viruses. <form>Download anyway</form>"
LOGIN = b"<html><h1>Welcome</h1><p>Please sign in</p></html>"
TERMS = b"\xef\xbb\xbf\n<HTML><p>To download, accept the Terms of Use</p>"


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
@pytest.mark.parametrize(
    ("page", "says"),
    [
        (QUOTA, r"titled 'Google Drive - Quota exceeded', it speaks of a quota"),
        (VIRUS, r"it speaks of a confirmation"),
        (LOGIN, r"it speaks of a login"),
        (TERMS, r"it speaks of terms to accept"),
        (b"<html>hello</html>", r"a login\?"),
    ],
)
def test_a_web_page_is_no_archive(online: Online, server: Server, page: bytes, says: str, kind: str) -> None:
    server.behave = lambda handler: handler.send(page, kind=kind)
    toy = online(sha256=None, bytes=len(DATA))
    with pytest.raises(FgvcError, match=rf"sends a web page instead of the file \({says}") as caught:
        get(toy)
    assert f"download {server.url}" in str(caught.value)
    assert "put it at data/.downloads/toy/toy.tar" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 5
    assert not part(toy).exists()
    assert len(server.asked) == 1  # a page is an answer: asking again does not help


def test_f14_a_login_page_does_not_destroy_what_was_fetched(online: Online, server: Server) -> None:
    """A web page in place of the rest of a file (a login, a quota) does not destroy the part that is
    there."""
    server.behave = lambda handler: handler.send(QUOTA, kind="text/html")
    toy = online()
    put_part(toy, DATA[:HALF])
    with pytest.raises(FgvcError, match="it speaks of a quota"):
        get(toy)
    assert part(toy).read_bytes() == DATA[:HALF]


def test_a_file_that_is_only_called_a_web_page_is_taken(online: Online, server: Server) -> None:
    server.behave = lambda handler: handler.send(DATA, kind="text/html")
    assert get(online()).outcome == "fetched"


def test_the_words_of_a_server_stay_on_one_line(online: Online, server: Server) -> None:
    page = b"<html><title>a\n\n\x1b[31mb" + b"c" * 500 + b"</title>"
    server.behave = lambda handler: handler.send(page)
    with pytest.raises(FgvcError) as caught:
        get(online())
    assert "\x1b" not in str(caught.value) and "c" * 120 not in str(caught.value)


# --- wrong files ----------------------------------------------------------------------------------------


def test_f14_a_wrong_digest_names_both(online: Online, server: Server) -> None:
    """A file with another digest is not used: both digests are named and the next source is asked."""
    wrong = DATA[:-1] + b"!"
    server.behave = lambda h: h.send(DATA if h.path == "/right.tar" else wrong)
    right = server.url.replace("/toy.tar", "/right.tar")
    toy = online()
    with pytest.raises(FgvcError) as caught:
        get(toy)
    assert f"another SHA-256 ({sha256(wrong)[:12]}… instead of {sha256(DATA)[:12]}…)" in str(caught.value)
    assert not part(toy).exists() and not toy.folder.exists()
    assert get(online(urls=[server.url, right])).outcome == "fetched"


def test_a_wrong_file_put_there_by_hand_is_set_aside(online: Online, server: Server) -> None:
    server.behave = lambda handler: handler.send(DATA)
    toy = online()
    mine = toy.project.root / "data/.downloads/toy/toy.tar"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    assert get(toy).outcome == "fetched"
    assert (mine.parent / "toy.tar.refused").read_bytes() == b"mine"
    assert mine.read_bytes() == DATA


# --- room on the disk -----------------------------------------------------------------------------------


def test_room_for_download_and_images_is_asked_for_first(
    make_toy: Callable[..., Toy], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 GiB to download and 6 unpacked; neither alone is too much for 8."""
    download = {"file": "toy/toy.tar", "urls": [server.url], "bytes": 4 << 30, "sha256": "0" * 64}
    toy = make_toy(source={"kind": "archive", "downloads": [download]}, disk_mib=6 * 1024)
    toy.archive.unlink()
    room = shutil._ntuple_diskusage(100 << 30, 92 << 30, 8 << 30)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    with pytest.raises(FgvcError, match=r"needs 4\.0 GiB to download and about 6\.0 GiB unpacked") as caught:
        get(toy)
    assert "the disk has 8.0 GiB left" in str(caught.value) and "free 2.0 GiB" in str(caught.value)
    assert server.asked == []


def test_a_download_of_unknown_size_stops_before_the_disk_is_full(
    online: Online, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(DATA)

    server.behave = endless
    left = iter(range(20 << 20, 0, -(1 << 20)))
    toy = online(sha256=None)
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda _: shutil._ntuple_diskusage(1 << 30, 0, next(left)),  # type: ignore[attr-defined]
    )
    with pytest.raises(FgvcError, match=r"needs 16 MiB more, the disk has 15 left"):
        get(toy)


def test_dates_and_nonsense_in_retry_after() -> None:
    assert web.retry_after_s("17") == 17
    assert web.retry_after_s("Sat, 21 Nov 2020 10:00:00 GMT") == 0
    assert [web.retry_after_s(text) for text in (None, "", "soon", "-3", "9e9")] == [None] * 5


def test_the_mirror_is_asked_before_the_network_for_each_file(online: Online, server: Server) -> None:
    server.behave = lambda handler: handler.send(DATA)
    toy = online()
    toy.archive.write_bytes(b"")
    assert fetch(toy.project, "toy", toy.mirror).outcome == "fetched"
    assert toy.archive.read_bytes() == b""


def test_who_waits_for_another_download_of_the_same_file_says_so(online: Online, server: Server) -> None:
    server.behave = lambda handler: handler.send(DATA)
    toy = online()
    lock = toy.project.paths.state("data", "downloads", "toy/toy.tar.lock")
    said: list[str] = []
    with exclusive_lock(lock, "downloading toy/toy.tar"):
        waiting = threading.Thread(
            target=fetch, args=(toy.project, "toy", None, lambda stage, *_: said.append(stage))
        )
        waiting.start()
        while not said:
            time.sleep(0.02)
        assert server.asked == []
    waiting.join()
    holder = f"process {os.getpid()} on host {socket.gethostname()}"
    assert said[0] == f"waiting: downloading toy/toy.tar is under way in {holder}"
    assert toy.folder.is_dir()
