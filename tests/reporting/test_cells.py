"""Cells: status of every kind, ranks, and which methods the images cannot separate."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fgvc.config.identity import recipe_sha256
from fgvc.errors import FgvcError
from fgvc.reporting.cells import COLUMNS, average, collect, gather, rank

BenchT = Any


def test_complete_table(full_bench) -> None:
    bench = full_bench({"good": 0.9, "close": 0.89, "bad": 0.5}, datasets=["birds", "dogs"], seeds=[1, 2, 3])
    cells = collect(bench.project, "quick", "acc")
    assert tuple(cells.frame.columns) == COLUMNS
    assert list(zip(cells.frame["dataset"], cells.frame["method"], strict=True)) == [
        (d, m) for d in ("birds", "dogs") for m in ("good", "close", "bad")
    ]
    good = cells.cell("birds", "good")
    values = [
        pd.read_parquet(bench.run_dir("birds", "good", s) / "predictions.parquet")
        .apply(lambda row: row["label"] == row["top_classes"][0], axis=1)
        .mean()
        for s in (1, 2, 3)
    ]
    assert good["mean"] == pytest.approx(100 * np.mean(values))
    assert good["std"] == pytest.approx(100 * np.std(values, ddof=1))
    assert (good["n"], good["expected_n"], good["status"]) == (3, 3, "ok")
    assert good["is_best"] and not good["inseparable"]
    assert cells.cell("birds", "close")["is_second"] and cells.cell("birds", "close")["inseparable"]
    assert not cells.cell("birds", "bad")["inseparable"]
    assert cells.finished_cells == 6 and cells.comparisons == 4


def test_one_seed_has_no_std(full_bench) -> None:
    cells = collect(full_bench({"a": 0.8, "b": 0.5}, seeds=[1]).project, "quick", "acc")
    assert cells.frame["std"].tolist() == [None, None]


def test_ranks_are_judged_as_printed() -> None:
    assert rank([90.114, 90.112, 89.0, None, 70.0], 2) == [1, 1, 2, None, None]
    assert rank([90.114, 90.112], 3) == [1, 2]
    assert rank([None, None], 2) == [None, None]


@pytest.fixture
def troubled(bench: BenchT) -> BenchT:
    """One row with a cell of every status."""
    bench.dataset("birds")
    for method in ("ok", "part", "fail", "div", "none"):
        bench.method(method)
    for seed in (1, 2):
        bench.result("birds", "ok", seed, bench.hits(0.8, seed=seed))
    bench.result("birds", "part", 1, bench.hits(0.7))
    bench.failure("runs", "birds", "fail", "64", "seed1", error="out of\nmemory\x1b[0m")
    bench.result("birds", "div", 1, bench.hits(0.95))
    bench.metrics("birds", "div", 2, status="diverged", cause="loss is nan")
    bench.suite(["birds"], ["ok", "part", "fail", "div", "none"], [1, 2])
    return bench


def test_every_status(troubled: BenchT) -> None:
    cells = gather(troubled.project, "quick", 64, "top1_pct", 2)
    statuses = {row["method"]: row["status"] for row in cells.frame.to_dict("records")}
    assert statuses == {"ok": "ok", "part": "partial", "fail": "failed", "div": "diverged", "none": "missing"}
    assert cells.cell("birds", "part")["n"] == 1 and cells.cell("birds", "part")["expected_n"] == 2
    assert cells.cell("birds", "fail")["cause"] == "seed 1: out of memory [0m; seed 2: not run yet"
    assert cells.cell("birds", "div")["cause"] == "seed 2: loss is nan"
    assert cells.cell("birds", "none")["cause"] == "seeds 1, 2: not run yet"
    assert cells.finished_cells == 2  # ok, and div: a diverged run is finished


def test_diverged_runs_are_in_no_mean_and_never_win(troubled: BenchT) -> None:
    cells = gather(troubled.project, "quick", 64, "top1_pct", 2)
    assert cells.cell("birds", "div")["mean"] == pytest.approx(95.0)  # of the run that did not diverge
    assert not cells.cell("birds", "div")["is_best"]
    assert cells.cell("birds", "ok")["is_best"]
    assert average(cells, "div") is None and average(cells, "ok") is not None


def test_missing_runs_are_named_with_the_command(troubled: BenchT) -> None:
    with pytest.raises(FgvcError) as caught:
        collect(troubled.project, "quick", "acc", suite_path="quick")
    text = str(caught.value)
    assert "5 of 10 runs" in text and "birds/part/64/seed2" in text and "seed1 (failed)" in text
    assert "snakemake --cores all -- results/quick/tables/acc.tex" in text
    assert len(text.splitlines()) <= 5
    collect(troubled.project, "quick", "acc", allow_missing=True)


def test_a_failed_search_fails_its_cell(bench: BenchT) -> None:
    bench.dataset("birds")
    bench.method("m")
    bench.failure("sweeps", "birds", "m", "64", "lr0.1", error="every rate diverged")
    bench.suite(["birds"], ["m"], [1])
    cells = gather(bench.project, "quick", 64, "top1_pct", 2)
    assert cells.cell("birds", "m")["status"] == "failed"
    assert "learning-rate search: every rate diverged" in cells.cell("birds", "m")["cause"]


def run_card(bench: BenchT, method: str, **other: str) -> None:
    """The run card beside seed 1's metrics, of the recipe as it is now."""
    folder = bench.run_dir("birds", method, 1)
    metrics = json.loads((folder / "metrics.json").read_text())
    card = {"run_sha256": "r", "recipe_sha256": recipe_sha256(bench.project, "birds", method)}
    (folder / "metrics.json").write_text(json.dumps(metrics | {"run_sha256": "r"}))
    (folder / "run.json").write_text(json.dumps(card | other))


def test_a_result_outlives_an_older_failure(full_bench) -> None:
    bench = full_bench({"a": 0.8})
    run_card(bench, "a")
    bench.failure("runs", "birds", "a", "64", "seed1", error="once")
    assert collect(bench.project, "quick", "acc").cell("birds", "a")["status"] == "ok"


def test_metrics_of_another_recipe_or_run_do_not_count(full_bench) -> None:
    bench = full_bench({"a": 0.8, "b": 0.7, "c": 0.6, "d": 0.5})
    run_card(bench, "a", recipe_sha256="that of last week")
    run_card(bench, "b", run_sha256="that of last week")
    run_card(bench, "c")
    # The run card is removed for a new run; that one failed.
    bench.failure("runs", "birds", "d", "64", "seed1", error="out of memory")
    cells = gather(bench.project, "quick", 64, "top1_pct", 2)
    found = {m: (cells.cell("birds", m)["status"], cells.cell("birds", m)["n"]) for m in "abcd"}
    assert found == {"a": ("partial", 1), "b": ("partial", 1), "c": ("ok", 2), "d": ("failed", 1)}
    assert "its recipe was changed" in cells.cell("birds", "a")["cause"]
    with pytest.raises(FgvcError, match="3 of 8 runs are missing"):
        collect(bench.project, "quick", "acc")


def test_a_broken_failure_record_is_told(bench: BenchT) -> None:
    bench.dataset("birds")
    bench.method("m")
    bench.failure("runs", "birds", "m", "64", "seed1", nothing="here")
    bench.suite(["birds"], ["m"], [1])
    assert "cannot be read" in gather(bench.project, "quick", 64, "top1_pct", 2).cell("birds", "m")["cause"]


def test_predictions_that_are_not_here(full_bench) -> None:
    bench = full_bench({"a": 0.9, "b": 0.89})
    (bench.run_dir("birds", "b", 1) / "predictions.parquet").unlink()
    cells = collect(bench.project, "quick", "acc")
    assert cells.untested == (("birds", "b"),)
    assert not cells.cell("birds", "b")["inseparable"]


def test_methods_tested_on_other_images(full_bench) -> None:
    bench = full_bench({"a": 0.9, "b": 0.5})
    for seed in (1, 2):
        file = bench.run_dir("birds", "b", seed) / "predictions.parquet"
        pd.read_parquet(file).replace({"sample_id": {"00000.png": "another.png"}}).to_parquet(file)
    with pytest.raises(FgvcError, match="different images"):
        collect(bench.project, "quick", "acc")


def test_a_table_of_a_size_that_the_suite_lacks(full_bench) -> None:
    bench = full_bench({"a": 0.9})
    bench.write("tables/big.yaml", bench._table("accuracy", image_size=448))
    with pytest.raises(FgvcError, match="no runs at image size 448"):
        collect(bench.project, "quick", "big")
    with pytest.raises(FgvcError, match="holds no accuracies"):
        collect(bench.project, "quick", "sizes")


def test_top5_of_few_classes(full_bench) -> None:
    bench = full_bench({"a": 0.9}, seeds=[1])
    made = json.loads((bench.run_dir("birds", "a", 1) / "metrics.json").read_text())
    bench.metrics("birds", "a", 1, **(made | {"top5_pct": None}))
    with pytest.raises(FgvcError, match="not defined for birds"):
        gather(bench.project, "quick", 64, "top5_pct", 2)
