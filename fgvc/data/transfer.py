"""Moving one file from a URL to the disk: resumed after a break, never hanging, never trusting."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import socket
import time
import urllib.error
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fgvc.data.progress import Progress, tell
from fgvc.data.web import (
    HEAD_BYTES,
    PAGE_BYTES,
    SERVER_WORDS,
    TransferError,
    host_of,
    open_url,
    page_subject,
    retry_after_s,
)
from fgvc.errors import FgvcError, one_line
from fgvc.provenance.files import write_json

CHUNK = 1 << 18
#: Tries in a row that bring less than `GAIN_BYTES`; a try that brings more starts the count anew.
ATTEMPTS, GAIN_BYTES = 5, 1 << 20
#: The longest wait between two tries; a server that asks for more is passed over.
LONGEST_WAIT_S = 120.0
#: Slower than this over a whole time-out counts as stalled; a dripping server would hold us for ever.
MIN_BYTES_PER_S = 128
#: Free disk space that a download of unknown size leaves.
RESERVE_BYTES = 16 << 20
#: Answers of a server that may have another one later.
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)$")


class _AgainError(TransferError):
    """The file did not arrive whole, but may when asked again; what arrived is kept.

    Attributes:
        wait_s: how long the server asks to wait; None: it does not say.
    """

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


@dataclass(frozen=True)
class _Origin:
    """Which file a part is of: its URL, its validator (ETag or date) and its whole length, where known."""

    url: str
    validator: str | None
    total: int | None


class _Part:
    """The file that a download grows in, and beside it what the download is of."""

    def __init__(self, path: Path) -> None:
        self.path, self.note = path, path.with_name(f"{path.name}.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def origin(self) -> _Origin | None:
        try:
            return _Origin(**json.loads(self.note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None


@dataclass(frozen=True)
class Transfer:
    """How one file is brought here.

    Attributes:
        timeout_s: longest silence of the server; also the window over which stalling is judged.
        retry_wait_s: wait before the second try; it doubles from try to try, up to `LONGEST_WAIT_S`.
        expected_bytes: None where unknown.
        has_digest: whether a wrong join would be noticed afterwards. Without one only the server's own word
            (ETag or date) that the file is still the same lets a part be continued.
    """

    timeout_s: float
    retry_wait_s: float
    expected_bytes: int | None
    has_digest: bool
    progress: Progress

    def run(self, url: str, part: Path) -> None:
        """Bring ``url`` to the file ``part``, going on from what ``part`` holds already.

        Raises TransferError when this URL does not give the file, FgvcError when the disk does not take it.
        """
        held = _Part(part)
        failures, answered = 0, False
        while not (self.has_digest and held.size and held.size == self.expected_bytes):
            before = held.size
            try:
                self._once(url, held)
                break
            except _AgainError as error:
                answered = answered or held.size > before or error.wait_s is not None
                failures = 1 if held.size - before >= GAIN_BYTES else failures + 1
                self._wait(url, error, failures)
            except _UnreachableError as error:
                # Offline from the start: say so at once. Lost on the way: it may come back.
                failures += 1
                if not answered:
                    raise
                self._wait(url, error, failures)
        held.note.unlink(missing_ok=True)

    def _wait(self, url: str, error: TransferError, failures: int) -> None:
        if failures >= ATTEMPTS:
            raise error
        asked = getattr(error, "wait_s", None)
        if asked is not None and asked > LONGEST_WAIT_S:
            raise TransferError(f"{error} and asks to wait {asked:.0f} s") from None
        wait = min(self.retry_wait_s * 2 ** (failures - 1), LONGEST_WAIT_S) if asked is None else asked
        tell(self.progress, f"{host_of(url)} {error}; again in {wait:g} s ({failures} of {ATTEMPTS - 1})")
        time.sleep(wait)

    def _once(self, url: str, part: _Part) -> None:
        offset, headers = self._resume_from(url, part)
        try:
            response = open_url(url, headers, self.timeout_s)
        except urllib.error.HTTPError as error:
            error.close()
            return self._refused(error, part, offset)
        except urllib.error.URLError as error:
            raise _unreachable(error.reason, self.timeout_s) from None
        except ValueError as error:
            raise TransferError(f"cannot be asked ({one_line(error, SERVER_WORDS)})") from None
        except (OSError, http.client.HTTPException) as error:
            raise _AgainError(_reason(error, self.timeout_s)) from None
        with response, _disk_errors(part.path):
            offset = self._offset_given(response, url, part, offset)
            length = response.headers.get("Content-Length") or ""
            total = offset + int(length) if length.isdecimal() else None
            self._receive(response, url, part, offset, total)
        return None

    def _resume_from(self, url: str, part: _Part) -> tuple[int, dict[str, str]]:
        headers = {"User-Agent": "fgvc-bench", "Accept-Encoding": "identity"}
        origin = part.origin()
        same = origin is not None and origin.url == url and origin.validator is not None
        if not (self.has_digest or same):
            part.drop()
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
            if same and origin and origin.validator:
                headers["If-Range"] = origin.validator
        return part.size, headers

    def _offset_given(self, response: http.client.HTTPResponse, url: str, part: _Part, offset: int) -> int:
        """Where in the file the answer begins: ``offset`` or 0. Drops a part that it does not continue."""
        if response.status != 206:
            return 0  # the server starts from the beginning, so do we
        given = _RANGE.match(response.headers.get("Content-Range", ""))
        if not given or int(given[1]) != offset or not offset:
            part.drop()
            raise _AgainError("sends another part of the file than it was asked for")
        origin, total = part.origin(), None if given[3] == "*" else int(given[3])
        if origin is not None and origin.url == url:
            now = _Origin(url, _validator(response) or origin.validator, total or origin.total)
            if now != _Origin(url, origin.validator or now.validator, origin.total or now.total):
                part.drop()
                raise _AgainError("has changed since the download began")
        return offset

    def _refused(self, error: urllib.error.HTTPError, part: _Part, offset: int) -> None:
        """What an HTTP error means. Returns only when the part turns out to be the whole file."""
        said = f"answers {error.code} {one_line(error.reason, SERVER_WORDS)}"
        if error.code == 416 and offset:
            whole = (error.headers.get("Content-Range") or "").removeprefix("bytes */")
            if self.has_digest and whole == str(offset):
                return
            part.drop()  # what we hold is longer than the file: start over
            raise _AgainError(said)
        if error.code in _BUSY:
            raise _AgainError(said, retry_after_s(error.headers.get("Retry-After")))
        if 300 <= error.code < 400:
            raise TransferError(f"redirects without end or to nowhere ({error.code})")
        raise TransferError(said)

    # --- the body ----------------------------------------------------------------------------------
    def _receive(
        self, response: http.client.HTTPResponse, url: str, part: _Part, offset: int, total: int | None
    ) -> None:
        chunks = self._chunks(response)
        head = _read(chunks, HEAD_BYTES)
        if offset == 0:
            self._refuse_page(head, chunks, response.headers.get("Content-Type", ""))
        expected = self.expected_bytes
        if expected is not None and total is not None and total != expected:
            raise TransferError(f"has {total} bytes instead of {expected}")
        _need_room(part.path, (total or expected or 0) - offset)
        if offset == 0:
            part.drop()
            write_json(part.note, asdict(_Origin(url, _validator(response), total)))
        done, limit = offset, total if total is not None else expected
        label = f"downloading {part.path.name.removesuffix('.part')}"
        with part.path.open("ab") as out:
            for chunk in _and_then(head, chunks):
                if limit is None:
                    _need_room(part.path, RESERVE_BYTES)  # as long as it goes on, so much more
                elif done + len(chunk) > limit:
                    raise _dropped(part, f"sends more than {limit} bytes")
                out.write(chunk)
                done += len(chunk)
                self.progress(label, done, limit, "bytes")
        if limit is None and done == 0:
            raise _AgainError("sends nothing")
        if limit is not None and done != limit:
            raise _AgainError(f"ended after {done} of {limit} bytes")

    def _refuse_page(self, head: bytes, chunks: Iterator[bytes], content_type: str) -> None:
        if page_subject(head, content_type) is not None:
            about = page_subject(head + _read(chunks, PAGE_BYTES), content_type)
            raise TransferError(f"sends a web page instead of the file ({about or 'a login?'})")

    def _chunks(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """The body as it comes. Raises _AgainError when it stalls."""
        window_start, window_bytes = time.monotonic(), 0
        # read1 returns after one packet, so that a dripping server cannot keep us inside one call.
        while chunk := self._next(response):
            yield chunk
            window_bytes += len(chunk)
            elapsed = time.monotonic() - window_start
            if elapsed >= self.timeout_s:
                if window_bytes < MIN_BYTES_PER_S * elapsed:
                    raise _AgainError(f"sent only {window_bytes} bytes in {elapsed:.0f} s")
                window_start, window_bytes = time.monotonic(), 0

    def _next(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read1(CHUNK)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _AgainError(_reason(error, self.timeout_s)) from None


class _UnreachableError(TransferError):
    """There is no such host, or nobody there."""


def _unreachable(reason: object, timeout_s: float) -> TransferError:
    """A TransferError for what stood in the way of a connection."""
    if isinstance(reason, socket.gaierror | ConnectionRefusedError):
        return _UnreachableError(_reason(reason, timeout_s))
    certificate = type(reason).__name__ == "SSLCertVerificationError"
    return (TransferError if certificate else _AgainError)(_reason(reason, timeout_s))


def _validator(response: http.client.HTTPResponse) -> str | None:
    """What an ``If-Range`` header may hold: a strong ETag, else the date of the last change."""
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _read(chunks: Iterator[bytes], least: int) -> bytes:
    """At least ``least`` bytes of ``chunks``, or all there are."""
    found = b""
    while len(found) < least and (chunk := next(chunks, b"")):
        found += chunk
    return found


def _and_then(head: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from chunks


def _dropped(part: _Part, why: str) -> TransferError:
    part.drop()
    return TransferError(why)


def _need_room(part: Path, more_bytes: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if more_bytes > free:
        raise FgvcError(
            f"the download needs {more_bytes / 2**20:,.0f} MiB more, the disk has {free / 2**20:,.0f} left",
            file=part.parent,
            cure="free some space and run the same command again; what is fetched is kept",
        )


@contextlib.contextmanager
def _disk_errors(part: Path) -> Iterator[None]:
    """What goes wrong here is the disk's doing; the network's errors are caught where they arise."""
    try:
        yield
    except OSError as error:
        raise FgvcError(
            f"cannot write: {error.strerror or error}",
            file=part,
            cure="free some space and run the same command again; what is fetched is kept",
        ) from None


def _reason(error: object, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"does not answer within {timeout_s:g} s"
    if isinstance(error, http.client.IncompleteRead):
        return "ended before the file did"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"is not reachable ({one_line(said, SERVER_WORDS)})"
