"""Published numbers beside our own cells: not run, within, outside; never ranked, never mixed."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
import yaml

from fgvc.config.published import PublishedCell
from fgvc.reporting.published_cells import state_of
from fgvc.reporting.tables import read_table, show_table, write_table

BenchT = Any


@pytest.mark.parametrize(
    ("mean", "std", "state"),
    [
        (90.0, 0.0, "within"),
        (90.2, 0.0, "within"),  # 2 × 0.10
        (90.21, 0.0, "outside"),
        (89.79, None, "outside"),
        (90.28, 0.1, "within"),  # 2 × 0.10 √2 = 0.28
        (90.29, 0.1, "outside"),
        (89.72, 0.1, "within"),
    ],
)
def test_where_within_ends(mean: float, std: float | None, state: str) -> None:
    cell = {"status": "ok", "mean": mean, "std": std}
    assert state_of(cell, PublishedCell(value=90.0, std=0.1), 2) == state


def test_without_any_spread_the_printed_number_is_met_or_not() -> None:
    printed = PublishedCell(value=97.55, std=0.0)
    assert state_of({"status": "ok", "mean": 97.554, "std": None}, printed, 2) == "within"
    assert state_of({"status": "ok", "mean": 97.56, "std": None}, printed, 2) == "outside"


@pytest.mark.parametrize("status", ["missing", "partial", "failed"])
def test_a_mean_of_some_seeds_is_not_judged(status: str) -> None:
    mean = None if status == "missing" else 90.0
    cell = {"status": status, "mean": mean, "std": None}
    assert state_of(cell, PublishedCell(value=90.0, std=0.1), 2) == "not run"


def test_a_diverged_run_is_outside() -> None:
    cell = {"status": "diverged", "mean": None, "std": None}
    assert state_of(cell, PublishedCell(value=90.0, std=0.1), 2) == "outside"


@pytest.fixture
def compared(bench: BenchT) -> BenchT:
    """``near``, ``far`` (not run on the dogs) and ``other``, of which nothing was published."""
    for dataset in ("birds", "dogs"):
        bench.dataset(dataset)
    for method in ("near", "far", "other"):
        bench.method(method)
    values = {("birds", "near"): 90.0, ("dogs", "near"): 80.0, ("birds", "far"): 70.0}
    values |= {("birds", "other"): 60.0, ("dogs", "other"): 50.0}
    for (dataset, method), value in values.items():
        for seed in (1, 2):
            bench.metrics(dataset, method, seed, status="ok", top1_pct=value + seed / 10)
    bench.suite(["birds", "dogs"], ["near", "far", "other"], [1, 2])
    bench.published(
        {
            "theirs": {"birds": (90.2, 0.1), "dogs": (85.0, 0.1)},
            "theirs_too": {"birds": (99.0, 0.2), "dogs": (98.0, 0.2)},
        },
        variants={"theirs": "near", "theirs_too": "far"},
    )
    path = bench.root / "params/tables/acc.yaml"
    path.write_text(path.read_text() + "published: printed\n")
    return bench


def test_each_cell_has_its_published_number_and_state(compared: BenchT) -> None:
    contents = read_table(compared.project, "quick", "acc", allow_missing=True)
    found = {
        (r["dataset"], r["method"]): (r["published_mean"], r["published_std"], r["published_state"])
        for r in csv.DictReader(io.StringIO(contents.csv))
    }
    assert found == {
        ("birds", "near"): ("90.2", "0.1", "within"),
        ("birds", "far"): ("99.0", "0.2", "outside"),
        ("birds", "other"): ("", "", ""),
        ("dogs", "near"): ("85.0", "0.1", "outside"),
        ("dogs", "far"): ("98.0", "0.2", "not run"),
        ("dogs", "other"): ("", "", ""),
    }
    titles = [row.title for row in contents.grid.rows]
    assert titles == ["Birds", "published", "Dogs", "published", "Average"]
    quoted = [row for row in contents.grid.rows if row.quoted]
    assert [e.plain for e in quoted[0].entries] == ["90.20 ± 0.10 (within)", "99.00 ± 0.20 (outside)", ""]
    # 99.00 is the highest number of its column's row, and is not ours.
    assert not any(e.bold or e.underlined or e.dagger for row in quoted for e in row.entries)
    assert [e.bold for e in contents.grid.rows[0].entries] == [True, False, False]
    assert contents.grid.rows[-1].entries[0].text.startswith("85.15"), "the average is of our cells"
    assert any("never ranked" in note.text and "AP" not in titles for note in contents.grid.notes)


def test_it_is_plainly_marked_in_every_format(compared: BenchT) -> None:
    tex, md, _ = write_table(compared.project, "quick", "acc", allow_missing=True)
    assert "| <sub>published</sub> | <sub>90.20 ± 0.10 (within)</sub> |" in md.read_text()
    assert r"\quad{\scriptsize published} & {\scriptsize 90.20\,$\pm$\,0.10" in tex.read_text()
    shown = show_table(read_table(compared.project, "quick", "acc", allow_missing=True), "terminal", 80)
    assert "· published  90.20 ± 0.10 (within)" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "published: as printed in A paper (2024), Table 1" in shown


def test_nothing_stands_beside_other_sizes_metrics_and_methods(compared: BenchT) -> None:
    path = compared.root / "params/published/printed.yaml"
    data = yaml.safe_load(path.read_text())
    for column in data["columns"].values():
        column["image_size"] = 448
    path.write_text(yaml.safe_dump(data))
    grid = read_table(compared.project, "quick", "acc", allow_missing=True).grid
    assert not any(row.quoted for row in grid.rows)
    assert not any("published" in note.text for note in grid.notes)
