"""The one error type that users see: what is wrong, where, and what to do, in at most five lines.

And how its messages show names and foreign words.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

#: Longest list of names that an error prints; beyond it the message names the command that lists them.
MAX_NAMES = 12
#: Longest text of such a list with what is said around it: less than three lines of a terminal.
MAX_LENGTH = 220


class FgvcError(Exception):
    """A mistake the user can mend.

    Args:
        problem: what is wrong, one line.
        file: the file it is about, if any.
        line: 1-based line in ``file``.
        key: the configuration key or column it is about.
        cure: what to do, one or two lines.
    """

    exit_code = 2

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        line: int | None = None,
        key: str | None = None,
        cure: str | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.file = str(file) if file is not None else None
        self.line = line
        self.key = key
        self.cure = cure

    @property
    def where(self) -> str | None:
        """``file:line (key …)``, or None when the error is about no file."""
        if self.file is None:
            return None if self.key is None else f"key '{self.key}'"
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return place if self.key is None else f"{place}, key '{self.key}'"

    def __str__(self) -> str:
        lines = [f"error: {self.problem}"]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.cure:
            lines.append("  to do: " + self.cure.replace("\n", "\n         "))
        return "\n".join(lines)


class UnknownNameError(FgvcError):
    """A name that nothing answers to, with the nearest one that exists."""

    def __init__(
        self,
        kind: str,
        name: str,
        known: Iterable[str],
        *,
        listing: str | None = None,
        file: str | Path | None = None,
        line: int | None = None,
        key: str | None = None,
    ) -> None:
        names = sorted(known)
        guess = nearest(name, names)
        problem = f"no {kind} is called '{name}'"
        if guess:
            problem += f"; did you mean '{guess}'?"
        super().__init__(problem, file=file, line=line, key=key, cure=available(kind, names, listing))
        self.guess = guess


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to ``name``, or the shortest that begins with it; None when none is close."""
    by_folded = {k.casefold(): k for k in known}
    found = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.55)
    if found:
        return by_folded[found[0]]
    begins = [k for folded, k in by_folded.items() if len(name) > 2 and folded.startswith(name.casefold())]
    return min(begins, key=len, default=None)


def available(kind: str, names: list[str], listing: str | None = None) -> str:
    """``Available method names are: …``, cut to a readable length."""
    if not names:
        return f"there is no {kind} yet"
    count = min(len(names), MAX_NAMES)
    while count > 1 and len(_available(kind, names, listing, count)) > MAX_LENGTH:
        count -= 1
    return _available(kind, names, listing, count)


def _available(kind: str, names: list[str], listing: str | None, count: int) -> str:
    shown, rest = ", ".join(names[:count]), len(names) - count
    text = f"available {kind} names: {shown}" + (f" … and {rest} more" if rest > 0 else "")
    return text + (f" (all of them: {listing})" if listing else "")


def first_few(names: Sequence[str], most: int = 5) -> str:
    """The first names of many, joined by commas, and … where more follow."""
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")


def one_line(text: object, limit: int = 200) -> str:
    """Foreign words on one line: control characters and runs of white space become one space."""
    clean = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
