"""The table printer at 80 and 40 columns: nothing hidden, nothing alike, no control characters."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from fgvc.reporting.printer import Column, render, shorten_distinct

NAMES = [f"common_prefix_of_a_long_class_name_{i:02d}_with_a_common_ending" for i in range(3)]
COLUMNS = [
    Column("name", "Class"),
    Column("group", "Group of similar classes"),
    *(Column(f"v{i}", f"Accuracy {i}", align="right", decimals=2) for i in range(9)),
]
ROWS: list[dict[str, Any]] = [
    {"name": n, "group": f"group {i}"} | {f"v{j}": 90.123 + i + j for j in range(9)}
    for i, n in enumerate(NAMES)
]


def test_fits_as_it_is() -> None:
    text = render(ROWS, [COLUMNS[1], COLUMNS[2]], "terminal", 80)
    assert text.splitlines() == [
        "Group of similar classes  Accuracy",
        "                                 0",
        "------------------------  --------",
        "group 0                      90.12",
        "group 1                      91.12",
        "group 2                      92.12",
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 200, None])
def test_every_value_is_shown_within_the_width(width: int | None) -> None:
    text = render(ROWS, COLUMNS, "terminal", width)
    assert max(map(cell_len, text.splitlines())) <= (width or 80)
    for row in ROWS:
        for j in range(9):
            assert f"{row[f'v{j}']:.2f}" in text
    blocks = text.split("\n\n")
    assert all(block.startswith("Class") for block in blocks)  # each repeats the first column
    for block in blocks:
        firsts = [line.split("  ")[0] for line in block.splitlines()[-3:]]
        assert len(set(firsts)) == 3, "two names read alike"


def test_names_that_cannot_be_told_apart_when_short_are_broken() -> None:
    names = ["a" * 100 + middle + "b" * 100 for middle in ("x", "y")]
    text = render(
        [{"n": n, "v": 1} for n in names], [Column("n", "Name"), Column("v", "V", "right")], "terminal", 40
    )
    joined = "".join(line.split("  ")[0].strip() for line in text.splitlines())
    assert all(n in joined for n in names)
    assert max(map(len, text.splitlines())) <= 40


def test_the_end_is_kept_when_it_tells() -> None:
    short = shorten_distinct(["results/runs/a/seed1", "results/runs/a/seed2"], 10)
    assert short is not None and short[0].endswith("seed1"[-3:]) and "…" in short[0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(min_size=0, max_size=60), min_size=1, max_size=6, unique=True),
    st.integers(30, 120),
)
def test_any_text_is_safe(names: list[str], width: int) -> None:
    columns = [Column("n", "Name"), Column("m", "Same again"), Column("v", "Value", "right")]
    text = render([{"n": n, "m": n, "v": 1.5} for n in names], columns, "terminal", width)
    assert all(c == "\n" or c.isprintable() for c in text)
    assert max(map(cell_len, text.splitlines()), default=0) <= width


def test_machine_styles_give_everything() -> None:
    assert json.loads(render(ROWS, COLUMNS, "json", 20)) == ROWS
    read = list(csv.DictReader(io.StringIO(render(ROWS, COLUMNS, "csv", 20))))
    assert read[2]["name"] == NAMES[2] and float(read[2]["v8"]) == ROWS[2]["v8"]
    markdown = render(ROWS, COLUMNS, "md", 20)
    assert NAMES[0].replace("_", r"\_") in markdown and markdown.count("\n") == 5


def test_nothing_is_a_dash_and_empty_tables_have_headings() -> None:
    columns = [Column("a", "A"), Column("b", "B")]
    assert render([{"a": None, "b": True}], columns, "terminal", 80).splitlines()[-1] == "–  yes"
    assert render([], columns, "terminal", 80) == "A  B\n-  -\n"
    assert render([{"a": 1}], columns, "csv", None) == "a,b\n1,\n"
