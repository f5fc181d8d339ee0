"""Published totals of trainable parameters against two readings of them; those of ILA's Table 1 by hand."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
import yaml

from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.reporting.tables import read_table, write_table

BenchT = Any
PICO = {"backbone": "vit_pico_patch16_224", "backbone_title": "ViT-Pico/16"}
SHIPPED = Project(Path(__file__).resolve().parents[2])


def totals(
    bench: BenchT, columns: dict[str, tuple[str | None, float]], decimals: int = 3, **more: Any
) -> None:
    """A published list of totals, and the table ``totals``: of birds and dogs, by the mean of cats, too."""
    data = {
        "kind": "records",
        "title": "Totals of theirs",
        "source": {"paper": "P", "short": "P", "table": "Table 1", "evidence": "abstract_text"},
        "metric": "trainable_params_m",
        "unit": "M",
        "decimals": decimals,
        "image_size": 64,
        "reported_by": "own paper",
        "rows": {
            "total": {"title": "all", "dataset": None, "metric": "trainable_params_m"},
            "other": {"title": "Birds", "dataset": "birds", "metric": "top1"},
        },
        "columns": {
            name: {"method": name.capitalize(), "variant": variant, "cells": {"total": value, "other": 1.0}}
            for name, (variant, value) in columns.items()
        },
    }
    bench.write("published/listed.yaml", data | more)
    shown = {"published": "listed", "row": "total", "datasets": ["birds", "dogs"]}
    bench.write(
        "tables/totals.yaml",
        bench._table("trainable_parameters", **shown, mean_of=["birds", "dogs", "cats"]),
    )


@pytest.fixture
def tasks(bench: BenchT) -> BenchT:
    """Heads of 100, 300 and 500 classes on a width of 128: two need 400 · 129, by the mean 600 · 129."""
    for name, classes in (("birds", 100), ("dogs", 300), ("cats", 500)):
        bench.dataset(name, classes=classes)
    bench.method("probe", title="Probe", train=["head.*"], **PICO)
    bench.method("wide", title="Wide", train=["head.*", "backbone.vit.cls_token"], **PICO)
    bench.suite(["birds"], ["probe"], [1])
    return bench


def rows_of(bench: BenchT) -> dict[str, dict[str, str]]:
    text = write_table(bench.project, "quick", "totals")[2].read_text(encoding="utf-8")
    return {row["published_method"]: row for row in csv.DictReader(io.StringIO(text))}


def test_the_printed_digits_tell_which_reading_was_meant(tasks: BenchT) -> None:
    totals(
        tasks,
        {"one": ("probe", 0.052), "two": ("probe", 0.077), "three": ("probe", 0.06), "four": (None, 1.0)},
    )
    rows = rows_of(tasks)
    assert float(rows["One"]["sum_of_tasks_m"]) == 400 * 129 / 1e6
    assert float(rows["One"]["mean_based_m"]) == 600 * 129 / 1e6
    assert [rows[name]["agrees_with"] for name in ("One", "Two", "Three", "Four")] == [
        "sum",
        "mean",
        "neither",
        "",
    ]
    assert float(rows["Two"]["difference_m"]) == pytest.approx(0.0516 - 0.077)
    assert rows["Four"]["method"] == rows["Four"]["sum_of_tasks_m"] == ""
    grid = read_table(tasks.project, "quick", "totals").grid
    told = {row.title: row.entries[-1].text for row in grid.rows}
    assert told == {"One": "the sum", "Two": "by the mean", "Three": "neither", "Four": "–"}
    assert any("Of 3 totals that can be counted, 1 are by the mean, 1 the sum" in n.text for n in grid.notes)
    assert any("100 + 300 = 400 classes" in n.text for n in grid.notes)


def test_few_digits_fit_either(tasks: BenchT) -> None:
    totals(tasks, {"one": ("probe", 0.1)}, decimals=1)
    assert rows_of(tasks)["One"]["agrees_with"] == "both"


def test_what_is_no_head_is_counted_once_a_task(tasks: BenchT) -> None:
    totals(tasks, {"one": ("wide", 1.0)})
    row = rows_of(tasks)["One"]
    assert float(row["trainable_per_task_without_head_m"]) == 128 / 1e6
    assert float(row["sum_of_tasks_m"]) == (400 * 129 + 2 * 128) / 1e6


def test_a_variant_that_only_computes_the_same_is_told(tasks: BenchT) -> None:
    column = {"method": "One", "cost_variant": "probe", "cells": {"total": 0.052}}
    totals(tasks, {"one": ("probe", 1.0)})
    file = tasks.root / "params/published/listed.yaml"
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    tasks.write("published/listed.yaml", data | {"columns": {"one": column}})
    grid = read_table(tasks.project, "quick", "totals").grid
    (letters,) = [row.note_letters for row in grid.rows]
    assert any(n.letter == letters and "whose inference is the same" in n.text for n in grid.notes)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"row": "totla"}, "no published row is called 'totla'; did you mean 'total'?"),
        ({"row": "other"}, "the row 'other' of 'listed' holds no trainable parameters"),
        ({"datasets": ["birds", "dgos"]}, "no dataset is called 'dgos'; did you mean 'dogs'?"),
        ({"mean_of": []}, "mean_of"),
        ({"published": "lisetd"}, "did you mean 'listed'?"),
    ],
)
def test_a_mistake_is_named_with_its_place(tasks: BenchT, change: dict[str, Any], says: str) -> None:
    totals(tasks, {"one": ("probe", 0.052)})
    data = {"published": "listed", "row": "total", "datasets": ["birds", "dogs"], "mean_of": ["cats"]}
    tasks.write("tables/totals.yaml", tasks._table("trainable_parameters", **(data | change)))
    with pytest.raises(FgvcError) as caught:
        read_table(tasks.project, "quick", "totals")
    assert says in str(caught.value) and "params/tables/totals.yaml" in str(caught.value)


def test_an_image_size_must_be_said(tasks: BenchT) -> None:
    totals(tasks, {"one": ("probe", 0.052)}, image_size=None)
    with pytest.raises(FgvcError, match="the image size of the column 'one' is not said"):
        read_table(tasks.project, "quick", "totals")


#: What a task trains besides its head, and the head's parameters a class: by hand, of width 768.
CLS = 768
BLOCK = 12 * 768**2 + 13 * 768
BY_HAND = {
    "vit_b16": (CLS, 769),
    "ifa": (CLS + 12 + 1 + 2 * 768, 769),  # weights and bias over twelve layers, a layer norm
    "mpnc": (768 * 64 + 2 * 64, 64 * 65 // 2 + 1),  # down to 64 channels without bias, a batch norm; no CLS
    "transfg": (CLS + BLOCK, 769),
    "ffvt": (CLS + BLOCK, 769),
    "cal": (32 * 768 + 2 * 32, 32 * 768),  # 32 maps, without CLS; the classifier has no bias
    "rams_trans": (2 * CLS, 769),
    "glsim": (2 * CLS + BLOCK + 2 * 768, 769),  # a block and a norm that fuse, a CLS token for each pass
    "vpt_shallow": (CLS + 100 * 768, 769),
    "vpt_deep": (CLS + 12 * 100 * 768, 769),
    "vqt": (CLS + 12 * 5 * 768, (1 + 12 * 5) * 768 + 1),
    "convpass": (CLS + 24 * 13_648, 769),
    "adapter": (CLS + 24 * 13_064, 769),
    "ila_p": (CLS + 2 * 20_248 + 10 * (20_248 - 9 * 768), 769),
    "ila_pp": (CLS + 2 * 20_248 + 24 * 13_064, 769),
}
CLASSES = {"five": 80 + 198 + 1110 + 1938 + 200, "ten": 80 + 6 * 198 + 1110 + 1938 + 200}


@pytest.mark.slow
def test_the_totals_of_ila_are_five_times_a_mean_over_ten_datasets() -> None:
    """Finding A6, row by row: none of them is the sum over five tasks that the caption says."""
    rows = {
        r["published_id"].split("/")[1]: r
        for r in read_table(SHIPPED, "quick", "trainable_parameters").records
    }
    assert len(rows) == 18
    for column, (rest, a_class) in BY_HAND.items():
        row = rows[column]
        assert row["sum_of_tasks_m"] == pytest.approx(
            (5 * rest + CLASSES["five"] * a_class) / 1e6, abs=1e-6
        ), column
        assert row["mean_based_m"] == pytest.approx(
            (5 * rest + CLASSES["ten"] / 2 * a_class) / 1e6, abs=1e-6
        ), column
        assert row["agrees_with"] == "mean", column
