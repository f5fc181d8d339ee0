"""Opening a URL: redirects within limits, no endless headers, web pages told from files."""

from __future__ import annotations

import contextlib
import email.utils
import html
import http.client
import re
import socket
import threading
import time
import urllib.request
from typing import IO, Any
from urllib.parse import urlsplit

from fgvc.errors import one_line

#: How many time-outs the head of an answer may take, however often a byte of it arrives.
HEAD_TIMEOUTS = 2
#: So much of an answer tells whether it is a web page; so much of a web page tells what it wants.
HEAD_BYTES, PAGE_BYTES = 512, 1 << 16
#: Characters of a server's own words that a message repeats.
SERVER_WORDS = 100

_HTML = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html|head|body|title|script)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
#: Words of a page, and what it is about; the first that fits.
_SUBJECTS = {
    "a quota": ("quota", "too many users", "download limit", "rate limit"),
    "a login": ("sign in", "log in", "login", "password"),
    "a confirmation": (
        "scan this file for viruses",
        "virus scan",
        "uc-warning",
        "download anyway",
        "confirm",
    ),
    "terms to accept": ("terms of use", "i agree", "i accept", "licence agreement", "license agreement"),
}


class TransferError(Exception):
    """Why one source did not give the file; the caller goes on to the next one."""


def open_url(url: str, headers: dict[str, str], timeout_s: float) -> http.client.HTTPResponse:
    """The answer to a GET request, after redirects.

    Redirects may lead to another host and from http to https, never from https to http, and at most ten
    times. Raises TransferError for a refused redirect, urllib's and socket errors for the rest.
    """
    opener = urllib.request.build_opener(_Redirects, _Http, _Https)
    request = urllib.request.Request(url, headers=headers)
    answer: http.client.HTTPResponse = opener.open(request, timeout=timeout_s)
    return answer


def page_subject(head: bytes, content_type: str) -> str | None:
    """What the web page is about that begins with ``head``; None when ``head`` begins no web page."""
    says_so = content_type.lower().startswith(("text/html", "application/xhtml"))
    if not (_HTML.match(head) or (says_so and head.lstrip().startswith(b"<"))):
        return None
    text = head.decode("utf-8", "replace")
    title = _TITLE.search(text)
    known = [about for about, words in _SUBJECTS.items() if any(word in text.lower() for word in words)]
    said = one_line(html.unescape(title[1]), SERVER_WORDS) if title else ""
    hints = [f"titled '{said}'"] if said else []
    hints += [f"it speaks of {known[0]}"] if known else []
    return ", ".join(hints)


def retry_after_s(header: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for (a number, or a date); None without a usable one."""
    if not header:
        return None
    if header.strip().isdecimal():
        return float(header)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    return None


def host_of(url: str) -> str:
    """The host (and port) that a URL names."""
    return urlsplit(url).netloc or url[:60]


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        scheme = urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme != "https"):
            fp.close()
            raise TransferError(
                f"redirects from {req.type} to {scheme} ({host_of(newurl)}), which is refused"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Guard(http.client.HTTPConnection):
    """A connection that hangs up when the head of an answer never ends (a time-out only sees silence)."""

    def getresponse(self) -> http.client.HTTPResponse:
        seconds = HEAD_TIMEOUTS * (self.timeout or 60.0)
        late = threading.Event()

        def hang_up() -> None:
            late.set()
            if isinstance(self.sock, socket.socket):
                with contextlib.suppress(OSError):
                    # The plain socket's, also under TLS: whoever waits for a byte gets the end instead.
                    socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

        timer = threading.Timer(seconds, hang_up)
        timer.daemon = True
        timer.start()
        try:
            answer = super().getresponse()
        except (OSError, http.client.HTTPException):
            if late.is_set():
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()
        if late.is_set():  # http.client takes a head that breaks off for a whole one
            raise TimeoutError
        return answer


class _GuardTls(_Guard, http.client.HTTPSConnection):
    pass


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_Guard, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_GuardTls, req)
