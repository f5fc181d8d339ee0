"""What a training run says while it works.

On a terminal one line that is redrawn; elsewhere at most a line an epoch, without control characters. A small
JSON file in the run's state folder tells the workflow's own display how far the job is.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from fgvc.provenance.durations import duration_text

#: Seconds between two updates of the line, and of the JSON file.
REDRAW_S, RECORD_S = 0.2, 1.0


@dataclass
class TrainingState:
    """How far a run is. Rates are of this process only; ``steps`` counts optimizer steps."""

    label: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    top1_pct: float
    images_per_s: float
    left_s: float

    def line(self) -> str:
        return (
            f"{self.label}  epoch {self.epoch}/{self.epochs}  step {self.step}/{self.steps}  "
            f"loss {self.loss:.3f}  train acc {self.top1_pct:.1f} %  {self.images_per_s:.0f} images/s  "
            f"{duration_text(self.left_s)} left"
        )


class TrainingProgress:
    """Shows a run's progress on ``stream`` and keeps it in a file.

    Args:
        label: the run's name.
        epochs, steps: totals.
        first_step: steps done before this process began (a resumed run).
        record: the JSON file for others to read; removed by `close`.
    """

    def __init__(
        self,
        label: str,
        epochs: int,
        steps: int,
        first_step: int,
        record: Path,
        stream: TextIO | None = None,
    ) -> None:
        self.label, self.epochs, self.steps, self.first_step = label, epochs, steps, first_step
        self.record = record
        self.stream = stream or sys.stderr
        self.is_terminal = self.stream.isatty()
        self.started = time.monotonic()
        self.images = 0
        self._drawn = self._recorded = 0.0

    def say(self, text: str) -> None:
        """A line of its own."""
        print(f"\r\x1b[K{text}" if self.is_terminal else text, file=self.stream, flush=True)

    def step(self, epoch: int, step: int, images: int, loss: Callable[[], tuple[float, float]]) -> None:
        """After optimizer step ``step``. ``loss`` gives (mean loss, train accuracy in %) when asked."""
        self.images += images
        now = time.monotonic()
        due_line = self.is_terminal and now - self._drawn > REDRAW_S
        due_record = now - self._recorded > RECORD_S
        if not (due_line or due_record):
            return
        state = self._state(epoch, step, *loss())
        if due_line:
            self._drawn = now
            self.stream.write(f"\r\x1b[K{state.line()}")
            self.stream.flush()
        if due_record:
            self._recorded = now
            self._write(state)

    def epoch(self, epoch: int, step: int, loss: float, top1_pct: float) -> None:
        """At the end of an epoch (1-based)."""
        state = self._state(epoch, step, loss, top1_pct)
        self.say(state.line())
        self._write(state)

    def images_per_s(self) -> float:
        """Images trained on per second since this process began."""
        return self.images / max(time.monotonic() - self.started, 1e-9)

    def close(self) -> None:
        if self.is_terminal:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
        self.record.unlink(missing_ok=True)

    def _state(self, epoch: int, step: int, loss: float, top1_pct: float) -> TrainingState:
        elapsed = time.monotonic() - self.started
        done = max(step - self.first_step, 1)
        left = elapsed / done * (self.steps - step)
        return TrainingState(
            self.label, epoch, self.epochs, step, self.steps, loss, top1_pct, self.images_per_s(), left
        )

    def _write(self, state: TrainingState) -> None:
        # For display only: a torn or missing file costs nothing, so it is not synced.
        try:
            temporary = self.record.with_suffix(".tmp")
            temporary.write_text(json.dumps(asdict(state)), encoding="utf-8")
            temporary.replace(self.record)
        except OSError:
            pass


class NoProgress(TrainingProgress):
    """Says and keeps nothing: of several processes of a run, one speaks for all."""

    def __init__(self) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def step(self, epoch: int, step: int, images: int, loss: Callable[[], tuple[float, float]]) -> None:
        pass

    def epoch(self, epoch: int, step: int, loss: float, top1_pct: float) -> None:
        pass
