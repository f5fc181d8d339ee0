"""Published, ours and the difference: what is tested, what cannot be compared, and what never appears."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from statsmodels.stats.weightstats import ttost_ind

from fgvc.config.project import Project
from fgvc.config.published import Protocol
from fgvc.errors import FgvcError
from fgvc.reporting.tables import read_table, show_table, write_table
from fgvc.reporting.versus_cells import protocol_reasons
from fgvc.reporting.versus_table import signed

BenchT = Any
ROOT = Path(__file__).resolve().parents[2]
SHIPPED = Project(ROOT)
OURS = [90.1, 90.2, 90.3]
KNOWN = {"split": "official", "selection": "last_epoch", "training": "full", "seeds": 3}


def rows_of(project: Project, suite: str, table: str) -> list[dict[str, str]]:
    contents = read_table(project, suite, table, allow_missing=True)
    return list(csv.DictReader(io.StringIO(contents.csv)))


# --- the shipped tables -------------------------------------------------------------------------------


def test_every_cell_of_glsim_table_4_stands_in_the_shipped_table_without_any_run() -> None:
    found = rows_of(SHIPPED, "sota", "sota_224_vs_published")
    printed = SHIPPED.published_accuracies("glsim_table4")
    assert len(found) == 60 == sum(len(c.cells) for c in printed.columns.values())
    for row in found:
        column = next(c for c in printed.columns.values() if c.variant == row["method"])
        cell = column.cells[row["dataset"]]
        assert (float(row["published_mean"]), float(row["published_std"])) == (cell.value, cell.std)
        assert row["published_n"] == "3"
    unfinished = {row["verdict"] for row in found if row["status"] == "missing"}
    assert unfinished <= {"not run"}


def test_numbers_of_checkpoints_chosen_on_the_test_images_are_not_compared() -> None:
    found = {row["published_id"]: row for row in rows_of(SHIPPED, "sota", "sota_448_vs_published")}
    for quoted in ("transfg_quoted/vit_b16/cub", "ffvt_quoted/ffvt/dogs", "cal_quoted/cal/cub"):
        assert (found[quoted]["verdict"], found[quoted]["reasons"]) == ("not comparable", "test-selected")
    assert found["transfg_quoted/vit_b16/inat17"]["reasons"] == "test-selected; image size 304"
    assert found["glsim_acc_throughput/glsim_448/cub"]["reasons"] == ""
    assert "glsim_acc_throughput/glsim_224/cub" not in found, "there is a number at 448"


def test_what_was_only_remembered_stands_in_no_table() -> None:
    quoting = [t for t in SHIPPED.names("table") if SHIPPED.table(t).kind == "versus_published"]
    assert quoting
    for table in quoting:
        for suite in SHIPPED.suites_with("table", table):
            assert not [r for r in rows_of(SHIPPED, suite, table) if r["evidence"] == "none"]


# --- verdicts -----------------------------------------------------------------------------------------


@pytest.fixture
def versus(bench: BenchT) -> Callable[..., BenchT]:
    """A suite of one cell with three seeds, and what a column says was published for it."""

    def build(published: dict[str, Any] | float, ours: list[float] | None = None, **facts: Any) -> BenchT:
        bench.dataset("birds")
        bench.method("near")
        values = OURS if ours is None else ours
        for seed, value in enumerate(values, 1):
            bench.metrics("birds", "near", seed, status="ok", top1_pct=value)
        bench.suite(["birds"], ["near"], [1, 2, 3])
        source = {"paper": "A paper", "short": "AP", "table": "Table 1", "evidence": "secondary_page"}
        column = {"method": "NEAR", "variant": "near", "cells": {"birds": published}}
        data = {
            "kind": "records",
            "title": "A list of theirs",
            "source": source,
            "metric": "top1",
            "unit": "%",
            "decimals": 2,
            "image_size": 64,
            "reported_by": "own paper",
            "protocol": KNOWN,
            "rows": {"birds": {"title": "BIRDS", "dataset": "birds"}},
            "columns": {"near": column},
        }
        bench.write("published/listed.yaml", data | facts)
        shown = {"image_size": 64, "published": ["listed"], "margin": 0.5}
        bench.write("tables/both.yaml", bench._table("versus_published", **shown))
        return bench

    return build


@pytest.mark.parametrize(
    ("mean", "std", "verdict"),
    [(90.25, 0.05, "equivalent"), (92.0, 0.05, "different"), (90.5, 0.4, "inconclusive")],
)
def test_both_with_seeds_are_tested(
    versus: Callable[..., BenchT], mean: float, std: float, verdict: str
) -> None:
    project = versus({"value": mean, "std": std}).project
    (row,) = rows_of(project, "quick", "both")
    assert row["verdict"] == verdict
    assert float(row["difference"]) == pytest.approx(90.2 - mean)
    theirs = [mean - std, mean, mean + std]  # three numbers of this mean and std
    p_value = ttost_ind(OURS, theirs, -0.5, 0.5, usevar="unequal")[0]
    assert float(row["p_equivalent"]) == pytest.approx(p_value, abs=1e-6)


@pytest.mark.parametrize(
    ("published", "facts", "verdict"),
    [
        (90.2, {}, "no test: published without ±"),
        (
            {"value": 90.2, "std": 0.1},
            {"protocol": KNOWN | {"seeds": None}},
            "no test: published seeds unknown",
        ),
        ({"value": 90.2, "std": 0.1}, {"protocol": KNOWN | {"seeds": 1}}, "no test: one seed"),
        (90.2, {"protocol": KNOWN | {"selection": "best_on_test"}}, "not comparable: test-selected"),
        (90.2, {"protocol": {}}, "not comparable: unknown selection, unknown split"),
        (90.2, {"protocol": KNOWN | {"split": "vtab1k"}}, "not comparable: other split"),
        (90.2, {"protocol": KNOWN | {"training": "frozen"}}, "not comparable: frozen backbone"),
        (90.2, {"image_size": 448}, "not comparable: image size 448"),
        (90.2, {"image_size": None}, "not comparable: unknown image size"),
    ],
)
def test_what_cannot_be_tested_says_why(
    versus: Callable[..., BenchT], published: Any, facts: dict[str, Any], verdict: str
) -> None:
    contents = read_table(versus(published, **facts).project, "quick", "both")
    (row,) = contents.grid.rows
    assert row.entries[-1].text == verdict
    assert row.entries[2].text == "0.00", "the difference is shown all the same"


def test_a_split_of_ours_is_not_the_published_one(versus: Callable[..., BenchT]) -> None:
    project = versus({"value": 90.2, "std": 0.1}).project
    path = project.paths.split_record("birds")
    path.parent.mkdir(parents=True)
    parts = {part: {"matches_expected": part != "val"} for part in ("train", "val", "train_val", "test")}
    path.write_text(json.dumps({"provenance": "ours", "parts": parts}))
    assert rows_of(project, "quick", "both")[0]["reasons"] == "", "val is in neither training nor testing"
    parts["test"]["matches_expected"] = False
    path.write_text(json.dumps({"provenance": "ours", "parts": parts}))
    assert rows_of(project, "quick", "both")[0]["reasons"] == "our split"


def test_some_seeds_are_shown_and_not_tested(versus: Callable[..., BenchT]) -> None:
    bench = versus({"value": 90.2, "std": 0.1}, ours=OURS[:2])
    grid = read_table(bench.project, "quick", "both", allow_missing=True).grid
    assert [e.plain for e in grid.rows[0].entries] == [
        "90.20 ± 0.10 [a] (n=3)",
        "90.15 ± 0.07 (n=2/3)",
        "–",
        "not run",
    ]
    assert grid.partial == "PARTIAL: 0 of 1 cells"
    with pytest.raises(FgvcError, match="1 of 3 runs are missing"):
        read_table(bench.project, "quick", "both")
    files = write_table(bench.project, "quick", "both", allow_missing=True)
    assert [f.name for f in files] == ["both.partial.tex", "both.partial.md", "both.partial.csv"]


def test_a_diverged_seed_is_not_tested(versus: Callable[..., BenchT]) -> None:
    bench = versus({"value": 90.2, "std": 0.1}, ours=OURS[:2])
    bench.metrics("birds", "near", 3, status="diverged")
    grid = read_table(bench.project, "quick", "both").grid
    assert grid.rows[0].entries[-1].text == "diverged"
    assert grid.partial is None


def test_a_remembered_number_among_others_is_left_out(versus: Callable[..., BenchT]) -> None:
    recalled = {"method": "NEAR", "variant": "near", "evidence": "none", "cells": {"birds": 99.0}}
    seen = {"method": "NEAR", "variant": "near", "cells": {"birds": 90.0}}
    project = versus(90.0, columns={"recalled": recalled, "seen": seen}).project
    assert [r["published_id"] for r in rows_of(project, "quick", "both")] == ["listed/seen/birds"]


def test_sources_and_oddities_stand_once_under_the_table(versus: Callable[..., BenchT]) -> None:
    cells = {"birds": {"value": 90.2, "std": 0.1, "note": "looks odd"}}
    columns = {key: {"method": "NEAR", "variant": "near", "cells": cells} for key in ("one", "two")}
    contents = read_table(versus(0.0, columns=columns, approximate=True).project, "quick", "both")
    assert [r.entries[0].plain for r in contents.grid.rows] == ["≈ 90.20 ± 0.10 [a,b] (n=3)"] * 2
    lettered = {n.letter: n.text for n in contents.grid.notes if n.letter}
    assert lettered == {"a": "A paper, Table 1.", "b": "looks odd."}
    shown = show_table(contents, "terminal", 80)
    assert max(map(len, shown.splitlines())) <= 80


def test_a_table_of_which_nothing_was_published_for_the_suite_says_so(versus: Callable[..., BenchT]) -> None:
    bench = versus(90.2)
    bench.method("other")
    bench.suite(["birds"], ["other"], [1])
    with pytest.raises(FgvcError, match="nothing in listed was published for a cell of suite 'quick'"):
        read_table(bench.project, "quick", "both", allow_missing=True)


def test_selection_on_val_is_not_selection_on_test() -> None:
    protocol = Protocol(split="official", selection="best_on_val")
    assert protocol_reasons(protocol) == ["selected on other validation images"]
    assert protocol_reasons(Protocol(split="glsim_lists", selection="last_epoch")) == []


@pytest.mark.parametrize(
    ("difference", "text"), [(0.124, "+0.12"), (-0.126, "−0.13"), (-0.004, "0.00"), (0.0, "0.00")]
)
def test_a_difference_has_its_sign_unless_it_is_printed_as_zero(difference: float, text: str) -> None:
    assert signed(difference, 2) == text
