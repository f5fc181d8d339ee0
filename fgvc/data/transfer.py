"""Moving one file from a URL to the disk: resumed after a break, never hanging, never trusting."""

from __future__ import annotations

import http.client
import re
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from fgvc.data.progress import Progress
from fgvc.errors import FgvcError

CHUNK = 1 << 18
ATTEMPTS = 5
#: Slower than this over a whole time-out counts as stalled; a dripping server would hold us for ever.
MIN_BYTES_PER_S = 128
_HTML = re.compile(rb"\s*(\xef\xbb\xbf)?\s*<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)


class TransferError(Exception):
    """Why one source did not give the file; the caller goes on to the next one."""


class _BrokenError(TransferError):
    """The connection ended or stalled before the file did; what arrived is kept."""


def transfer(
    url: str,
    part: Path,
    *,
    timeout_s: float,
    expected_bytes: int | None,
    may_resume: bool,
    progress: Progress,
) -> None:
    """Bring ``url`` to the file ``part``, going on from what ``part`` holds already.

    Args:
        timeout_s: longest silence of the server; also the window over which stalling is judged.
        expected_bytes: None where unknown.
        may_resume: False where nothing could tell a wrong join afterwards (no digest).

    Raises TransferError when this URL does not give the file, FgvcError when the disk does not take it.
    """
    if not may_resume:
        part.unlink(missing_ok=True)
    for attempt in range(1, ATTEMPTS + 1):
        before = _size(part)
        if expected_bytes is not None and before == expected_bytes:
            return
        try:
            _once(url, part, before, timeout_s, expected_bytes, progress)
            return
        except _BrokenError:
            gained = _size(part) - before
            if not may_resume:
                part.unlink(missing_ok=True)
            if attempt == ATTEMPTS or gained <= 0:  # again only as long as it gets on
                raise


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _once(
    url: str, part: Path, offset: int, timeout_s: float, expected_bytes: int | None, progress: Progress
) -> None:
    headers = {"User-Agent": "fgvc-bench", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            if offset and not _continues(response, offset):
                offset = 0  # the server starts from the beginning, so do we
            length = response.headers.get("Content-Length")
            total = offset + int(length) if length and length.isdecimal() else None
            if expected_bytes is not None and total is not None and total != expected_bytes:
                raise TransferError(f"has {total} bytes instead of {expected_bytes}")
            _receive(response, part, offset, total or expected_bytes, timeout_s, progress)
    except urllib.error.HTTPError as error:
        if error.code == 416 and offset:  # what we hold is longer than the file: start over
            part.unlink()
            return _once(url, part, 0, timeout_s, expected_bytes, progress)
        raise TransferError(f"answers {error.code} {_one_line(error.reason)}") from None
    except urllib.error.URLError as error:
        raise TransferError(_reason(error.reason, timeout_s)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _BrokenError(_reason(error, timeout_s)) from None


def _continues(response: http.client.HTTPResponse, offset: int) -> bool:
    given = response.headers.get("Content-Range", "")
    return response.status == 206 and given.startswith(f"bytes {offset}-")


def _receive(
    response: http.client.HTTPResponse,
    part: Path,
    offset: int,
    total: int | None,
    timeout_s: float,
    progress: Progress,
) -> None:
    done = offset
    label = f"downloading {part.name.removesuffix('.part')}"
    _need_room(part, (total or 0) - offset)
    with part.open("ab" if offset else "wb") as out:
        window_start, window_bytes = time.monotonic(), 0
        # read1 returns after one packet, so that a dripping server cannot keep us inside one call.
        while chunk := response.read1(CHUNK):
            if done == 0 and _HTML.match(chunk):
                raise TransferError("sends a web page (a login or a confirmation?) instead of the file")
            _write(out, chunk, part)
            done += len(chunk)
            window_bytes += len(chunk)
            progress(label, done, total, "bytes")
            elapsed = time.monotonic() - window_start
            if elapsed >= timeout_s:
                if window_bytes < MIN_BYTES_PER_S * elapsed:
                    raise _BrokenError(f"sent only {window_bytes} bytes in {elapsed:.0f} s")
                window_start, window_bytes = time.monotonic(), 0
    if total is not None and done != total:
        raise _BrokenError(f"ended after {done} of {total} bytes")


def _need_room(part: Path, more_bytes: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if more_bytes > free:
        raise FgvcError(
            f"the download needs {more_bytes / 2**30:.1f} GiB, the disk has {free / 2**30:.1f}",
            file=part.parent,
            cure="free some space and run the same command again",
        )


def _write(out: IO[bytes], chunk: bytes, part: Path) -> None:
    try:
        out.write(chunk)
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
    return f"is not reachable ({_one_line(said)})"


def _one_line(text: object) -> str:
    # A server's words: whatever it sends, the message stays readable.
    return " ".join(str(text).split())[:100]
