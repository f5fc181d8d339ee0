"""The table of faults in docs/reliability.md, from the names and docstrings of the tests.

A fault test is any function ``test_fNN_…`` below tests/; its docstring is the promise. ``python -m
tests.faults.table`` writes the table anew; a test fails while the page is stale.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"

BEGIN, END = "<!-- begin: python -m tests.faults.table -->\n", "<!-- end -->\n"

FAULTS = {
    1: "a trainer is killed in a step of an epoch",
    2: "a job is asked to stop, or its time runs out",
    3: "a kill while a checkpoint is written",
    4: "the driver is killed and its trainer lives on",
    5: "the lock of a host that died",
    6: "the disk is full",
    7: "results are read-only",
    8: "pictures that are none, or unusual ones",
    9: "hostile archives",
    10: "hostile lists of images",
    11: "checkpoints that were tampered with",
    12: "an edited metric",
    13: "hostile parameter files",
    14: "servers that lie",
    15: "stale results",
    16: "missing seeds",
    17: "a loss that is not finite",
    18: "out of memory",
    19: "the states of SLURM",
    20: "two drivers on one project",
    21: "new times, old contents",
    22: "the number of workers",
    23: "odd names and locales",
    24: "a kill while a table or figure is written",
}

_NAME = re.compile(r"test_f(\d\d)_(\w+)")


@dataclass(frozen=True, order=True)
class FaultTest:
    """A test of one fault: its number, file (relative to the repository), place in it, words and promise."""

    fault: int
    file: str
    line: int
    words: str
    promise: str


def fault_tests() -> list[FaultTest]:
    """Every fault test. Raises ValueError for one without a docstring, or of a fault that has no name."""
    return sorted(found for path in (ROOT / "tests").rglob("test_*.py") for found in _in_file(path))


def _in_file(path: Path) -> Iterator[FaultTest]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match = _NAME.fullmatch(node.name) if isinstance(node, ast.FunctionDef) else None
        if match is None or not isinstance(node, ast.FunctionDef):
            continue
        promise, file = " ".join((ast.get_docstring(node) or "").split()), str(path.relative_to(ROOT))
        if not promise:
            raise ValueError(f"{file}:{node.lineno}: {node.name} needs a docstring: what is promised?")
        if int(match[1]) not in FAULTS:
            raise ValueError(f"{file}:{node.lineno}: {node.name} is of a fault that FAULTS does not name")
        yield FaultTest(int(match[1]), file, node.lineno, match[2].replace("_", " "), promise)


def table() -> str:
    """The Markdown table: a row a test, under its fault."""
    rows = ["| Fault | What is promised | Test |", "| :--- | :--- | :--- |"]
    tests = fault_tests()
    for number, title in FAULTS.items():
        own = [test for test in tests if test.fault == number]
        head = f"**F{number}** {title}"
        if not own:
            rows.append(f"| {head} | nothing yet | none |")
        for place, test in enumerate(own):
            promise = test.promise.replace("|", "\\|")
            rows.append(f"| {'' if place else head} | {promise} | [{test.words}](../{test.file}) |")
    return "\n".join(rows) + "\n"


def page(text: str) -> str:
    """The page with its table as the tests are now."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE} lacks the lines between which the table stands")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
