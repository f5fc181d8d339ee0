"""How long steps tell what they are at, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called from one thread, often; the listener decides how much of it to show."""

    def __call__(self, stage: str, done: int, total: int | None, unit: str, /) -> None:
        """``done`` of ``total`` (None: unknown) ``unit`` of ``stage``, as 5 of 80 images of "drawing".

        Without a unit, ``stage`` is a sentence to be shown at once.
        """


def quiet(_stage: str, _done: int, _total: int | None, _unit: str, /) -> None:
    """Tells nobody."""


def tell(progress: Progress, sentence: str) -> None:
    """Let the listener show a sentence."""
    progress(sentence, 0, None, "")
