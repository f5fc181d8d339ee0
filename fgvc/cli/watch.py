"""Showing the progress of downloads and preparations on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from fgvc.provenance.durations import duration_text

#: Seconds between two updates on a terminal, and between two lines in a log.
REDRAW_S, LINE_S = 0.2, 15.0


@contextlib.contextmanager
def resumable(command: str) -> Iterator[None]:
    """Say after Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nstopped; what is fetched is kept, and this goes on from there: {command}", file=sys.stderr)
        raise


class Watcher:
    """A `fgvc.data.progress.Progress` that shows stage, share, speed and time left."""

    def __init__(self) -> None:
        self.stream = sys.stderr
        self.is_terminal = self.stream.isatty()
        self.stage = ""
        self.began = self.shown = 0.0
        self.first = 0

    def __call__(self, stage: str, done: int, total: int | None, unit: str, /) -> None:
        now = time.monotonic()
        if not unit:
            self.stream.write(("\r\x1b[K" if self.is_terminal else "") + stage + "\n")
            self.stream.flush()
            return
        if stage != self.stage:
            self.stage, self.began, self.first, self.shown = stage, now, done, now
            return
        whole = total is not None and done >= total
        if now - self.shown < (REDRAW_S if self.is_terminal else LINE_S) and not (whole and self.is_terminal):
            return
        self.shown = now
        text = self._text(done, total, unit, now - self.began)
        if self.is_terminal:
            self.stream.write(f"\r\x1b[K{text}" + ("\n" if whole else ""))
        else:
            self.stream.write(text + "\n")
        self.stream.flush()

    def _text(self, done: int, total: int | None, unit: str, elapsed: float) -> str:
        speed = (done - self.first) / elapsed if elapsed > 0 else 0.0
        amount = f"{_amount(done, unit)} of {_amount(total, unit)}" if total else _amount(done, unit)
        left = (
            f", {duration_text((total - done) / speed)} left" if total and speed > 0 and done < total else ""
        )
        return f"{self.stage}: {amount} ({_amount(speed, unit)}/s{left})"


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e6:,.1f} MB"
    return f"{value:,.0f} {unit}"
