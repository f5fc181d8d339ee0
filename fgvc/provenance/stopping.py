"""Ending a process in time: signals that ask for it, deadlines, and the exit status that says so."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any, Self

from fgvc.errors import FgvcError

#: Exit status of a verb that was asked to stop: nothing failed, the same command goes on (EX_TEMPFAIL).
STOPPED = 75
#: Exit status after Ctrl-C, as shells expect it.
INTERRUPTED = 130

#: SLURM's variable: when the job will be ended, in seconds since 1970.
SLURM_END = "SLURM_JOB_END_TIME"

#: Seconds kept free before the end, besides a step and a save: for the process to end, and under SLURM for
#: the processes around it.
SLACK_S, SLURM_SLACK_S = 1.0, 10.0

#: Steps and saves take up to this many times as long as the longest of the last ones.
CAUTION = 1.5
_LAST_STEPS, _LAST_SAVES = 50, 3


class StoppedError(SystemExit):
    """The process was asked to stop. No error of anyone's, so nothing that handles errors handles it.

    Args:
        reason: ``SIGTERM``, ``SIGUSR1``, ``SIGINT`` or the deadline's name.
        done: how far it came, such as ``at step 4 of 10``, where something was saved.
    """

    def __init__(self, reason: str, done: str = "") -> None:
        super().__init__(INTERRUPTED if reason == "SIGINT" else STOPPED)
        self.reason, self.done = reason, done
        what = "goes on from here" if done else "begins this step anew"
        self.message = f"stopped {done + ' ' if done else ''}by {reason}; the same command {what}"


class StopRequest:
    """Listens for requests to stop, from signals and from the clock, while its block runs.

    SIGTERM, SIGUSR1 and the deadline raise `StoppedError` where the process is, SIGINT raises
    KeyboardInterrupt as ever. Inside `deferred` they are only noted, and `is_due` tells: an exception between
    two instructions may come in the middle of a step, whose half-done update must not be saved.

    Args:
        max_seconds: stop this long after now, at the latest; more than 0.
        environment: where ``SLURM_JOB_END_TIME`` is looked for.

    Raises FgvcError for a time that is none.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGALRM)

    def __init__(self, max_seconds: float | None = None, environment: Mapping[str, str] = os.environ) -> None:
        self.reason: str | None = None
        self._deferring = self._leaving = False
        self._ends: list[tuple[float, str]] = []
        self._steps: deque[float] = deque(maxlen=_LAST_STEPS)
        self._saves: deque[float] = deque(maxlen=_LAST_SAVES)
        self._previous: dict[int, Any] = {}
        if max_seconds is not None:
            if not (math.isfinite(max_seconds) and max_seconds > 0):
                raise FgvcError(f"--max-seconds {max_seconds:g} is no time", cure="give more than 0")
            self._ends.append((time.monotonic() + max_seconds - SLACK_S, "--max-seconds"))
        left = _slurm_seconds(environment)
        if left is not None:
            self._ends.append((time.monotonic() + left - SLURM_SLACK_S, f"the deadline ({SLURM_END})"))

    # --- listening --------------------------------------------------------------------------------
    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._receive) for number in self.SIGNALS}
        if self._ends:
            # Like a signal, the deadline reaches the process wherever it is: while it waits or reads, too.
            signal.setitimer(signal.ITIMER_REAL, max(min(self._ends)[0] - time.monotonic(), 1e-3))
        return self

    def __getstate__(self) -> dict[str, Any]:
        """For another process of this machine, whose clock is the same; it listens for itself."""
        return {**self.__dict__, "reason": None, "_previous": {}, "_deferring": False, "_leaving": False}

    def __exit__(self, *_error: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        again = self.reason is not None
        name = min(self._ends)[1] if number == signal.SIGALRM else signal.Signals(number).name
        self.reason = self.reason or name
        if number == signal.SIGINT and (again or not self._deferring):
            raise KeyboardInterrupt  # pressed again: at once; what was saved last remains
        if not self._deferring and not self._leaving:
            raise StoppedError(name)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Let requests that come in the block wait until `is_due` is asked."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    # --- being asked ------------------------------------------------------------------------------
    def is_due(self) -> bool:
        """Whether to stop now: a signal came, or the time left is that of a step and a save."""
        if self.reason is None and self._ends:
            ends, name = min(self._ends)
            if time.monotonic() + self.margin_s() >= ends:
                self.reason = name
        return self.reason is not None

    def margin_s(self) -> float:
        """Seconds to keep: what the longest of the last steps and of the last saves took, and more."""
        return CAUTION * (max(self._steps, default=0.0) + max(self._saves, default=0.0))

    def should_save(self) -> bool:
        """Whether a first save should not wait: with a deadline it tells how long the last one will take."""
        return bool(self._ends) and not self._saves

    @contextlib.contextmanager
    def timing(self, what: str) -> Iterator[None]:
        """Around a ``step`` or a ``save``: note how long it took."""
        began = time.monotonic()
        yield
        (self._saves if what == "save" else self._steps).append(time.monotonic() - began)

    def error(self, done: str, reason: str = "request") -> StoppedError:
        """What to raise once everything is saved; signals that come on the way out change nothing.

        Args:
            done: how far the run came, as `StoppedError` has it.
            reason: told by another process, where none has reached this one.
        """
        self._leaving = True
        return StoppedError(self.reason or reason, done)


def _slurm_seconds(environment: Mapping[str, str]) -> float | None:
    """Seconds until SLURM ends the job; None outside of one.

    A time that has passed is another job's (one that started this shell, say): ours would not run now.
    """
    text = environment.get(SLURM_END, "")
    if not text:
        return None
    try:
        left = float(text) - time.time()
    except ValueError:
        raise FgvcError(
            f"'{text}' is no time", key=SLURM_END, cure="seconds since 1970, as SLURM sets it; or unset it"
        ) from None
    return left if math.isfinite(left) and left > 0 else None
