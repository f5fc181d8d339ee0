"""The table of comparisons: its numbers are those of the predictions, and what is missing is told."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fgvc.errors import FgvcError
from fgvc.reporting.tables import read_table, write_table

BenchT = Any


@pytest.fixture
def compared(full_bench) -> BenchT:
    bench = full_bench({"bad": 0.5, "good": 0.9, "close": 0.89}, seeds=[1, 2, 3])
    bench.write("tables/pairs.yaml", bench._table("comparisons", image_size=64))
    return bench


def rows_of(bench: BenchT, **options: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(read_table(bench.project, "quick", "pairs", **options).csv)))


def correct(bench: BenchT, method: str, seed: int) -> np.ndarray:
    frame = pd.read_parquet(bench.run_dir("birds", method, seed) / "predictions.parquet")
    right = np.array([top[0] for top in frame["top_classes"]]) == frame["label"].to_numpy()
    return right[np.argsort(frame["sample_id"].to_numpy())].astype(float)


def test_differences_and_counts_are_those_of_the_predictions(compared: BenchT) -> None:
    rows = rows_of(compared)
    assert [(r["first"], r["second"]) for r in rows] == [("bad", "good"), ("bad", "close"), ("good", "close")]
    for row in rows:
        first, second = (
            np.mean([correct(compared, row[which], seed) for seed in (1, 2, 3)], axis=0)
            for which in ("first", "second")
        )
        assert float(row["difference"]) == pytest.approx(100 * (first.mean() - second.mean()), abs=1e-5)
        assert int(row["first_only_images"]) == (first > second + 1e-9).sum()
        assert int(row["second_only_images"]) == (second > first + 1e-9).sum()
        assert float(row["low"]) < float(row["difference"]) < float(row["high"])
    assert [r["verdict"] for r in rows] == ["worse", "worse", "inconclusive"]


def test_one_seed_is_always_inconclusive_and_the_notes_say_why(full_bench) -> None:
    bench = full_bench({"bad": 0.3, "good": 0.9}, seeds=[1])
    bench.write("tables/pairs.yaml", bench._table("comparisons", image_size=64))
    (row,) = rows_of(bench)
    assert row["verdict"] == "inconclusive" and "one seed" in row["reason"]
    files = write_table(bench.project, "quick", "pairs")
    text = next(f for f in files if f.suffix == ".md").read_text()
    assert "every verdict is inconclusive" in text and "| BAD − GOOD | −" in text


def test_rows_name_their_dataset_where_there_are_several(full_bench) -> None:
    bench = full_bench({"a": 0.5, "b": 0.9}, datasets=["birds", "dogs"])
    bench.write("tables/pairs.yaml", bench._table("comparisons", image_size=64))
    grid = read_table(bench.project, "quick", "pairs").grid
    assert [r.title for r in grid.rows] == ["Birds: A − B", "Dogs: A − B"]


def test_missing_predictions_are_an_error_or_a_plain_mark(compared: BenchT) -> None:
    (compared.run_dir("birds", "bad", 2) / "predictions.parquet").unlink()
    with pytest.raises(FgvcError, match="predictions of 1 cells are not here: birds/bad"):
        rows_of(compared)
    contents = read_table(compared.project, "quick", "pairs", allow_missing=True)
    assert contents.grid.partial and len(contents.records) == 1
    assert any("its predictions are not here: Birds / BAD" in n.text for n in contents.grid.notes)


def test_a_diverged_method_is_compared_with_none_and_the_table_is_whole(compared: BenchT) -> None:
    compared.metrics("birds", "bad", 2, status="diverged", cause="the loss is not a number")
    contents = read_table(compared.project, "quick", "pairs")
    assert contents.grid.partial is None and len(contents.records) == 1
    assert any("a run diverged: Birds / BAD" in n.text for n in contents.grid.notes)
