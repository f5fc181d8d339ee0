"""Accuracy tables with methods as rows: some of a suite's datasets, what they train, what was published."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from fgvc.errors import FgvcError
from fgvc.reporting.tables import read_table, show_table, write_table

BenchT = Any
PICO = {"backbone": "vit_pico_patch16_224", "backbone_title": "ViT-Pico/16"}
WIDTH = 128


def shaped(bench: BenchT, **more: Any) -> None:
    """The table ``acc`` with methods as rows."""
    bench.write("tables/acc.yaml", bench._table("accuracy", image_size=64, rows="methods", **more))


def body(bench: BenchT, **options: Any) -> dict[str, list[str]]:
    """Cells of the Markdown table by the first of a row; a published row has the name of the one above."""
    contents = read_table(bench.project, "quick", "acc", **options)
    found: dict[str, list[str]] = {}
    above = ""
    for line in show_table(contents, "md", None).splitlines():
        if line.startswith("|"):
            first, *cells = line.strip("| ").split(" | ")
            above = f"{above} published" if "published" in first else first
            found[above] = [cell.strip(" |") for cell in cells]
    return found


def records(bench: BenchT) -> list[dict[str, str]]:
    text = write_table(bench.project, "quick", "acc")[2].read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


def test_the_cells_are_those_of_the_table_with_datasets_as_rows(full_bench) -> None:
    bench = full_bench({"bad": 0.5, "good": 0.9, "close": 0.89}, datasets=["birds", "dogs"], seeds=[1, 2])
    upright = body(bench)
    assert upright["Dataset"] == ["BAD (ViT-Pico)", "CLOSE (ViT-Pico)", "GOOD (ViT-Pico)"]
    shaped(bench)
    lying = body(bench)
    assert lying["Method"] == ["Birds", "Dogs", "Average"]
    for i, method in enumerate(upright["Dataset"]):
        assert lying[method] == [upright[row][i] for row in ("Birds", "Dogs", "Average")]
    text = show_table(read_table(bench.project, "quick", "acc"), "md", None)
    assert "Bold: best of the column" in text and "the best of its column by a paired bootstrap" in text


def test_groups_of_methods_have_a_rule_between_them(full_bench) -> None:
    bench = full_bench({"mad": 0.5, "bad": 0.9, "sad": 0.8}, seeds=[1])
    shaped(bench)
    grid = read_table(bench.project, "quick", "acc").grid
    assert [(row.title[0], row.rule_above) for row in grid.rows] == [("M", False), ("S", False), ("B", True)]
    assert [h.title for h in grid.headings] == ["Birds"], "of one dataset there is no average"


def test_notes_on_datasets_stand_under_the_table_without_letters(bench: BenchT) -> None:
    bench.dataset("birds", split={"provenance": "ours"})
    bench.method("m")
    bench.metrics("birds", "m", 1, status="ok", top1_pct=50.0)
    bench.suite(["birds"], ["m"], [1])
    shaped(bench)
    notes = read_table(bench.project, "quick", "acc").grid.notes
    assert [n.letter for n in notes if n.text.startswith("Birds: the split is ours")] == [""]


def test_a_table_of_some_datasets_needs_the_runs_of_those_only(full_bench) -> None:
    bench = full_bench({"a": 0.5, "b": 0.9}, datasets=["birds", "dogs", "cats"], seeds=[1])
    (bench.run_dir("birds", "a", 1) / "metrics.json").unlink()
    with pytest.raises(FgvcError, match="1 of 6 runs are missing"):
        read_table(bench.project, "quick", "acc")
    shaped(bench, datasets=["cats", "dogs"])
    rows = body(bench)
    assert rows["Method"] == ["Cats", "Dogs", "Average"], "in the order of the table"
    assert {r["dataset"] for r in records(bench)} == {"cats", "dogs"}
    bench.write("tables/acc.yaml", bench._table("accuracy", image_size=64, datasets=["dogs"]))
    rows = body(bench)
    assert "Dogs" in rows and not {"Birds", "Cats"} & set(rows)


def test_a_dataset_that_the_suite_lacks(full_bench) -> None:
    bench = full_bench({"a": 0.5}, seeds=[1])
    bench.dataset("cats")
    shaped(bench, datasets=["cats"])
    with pytest.raises(FgvcError) as caught:
        read_table(bench.project, "quick", "acc")
    assert "shows 'cats', which is no dataset of the suite 'quick'" in str(caught.value)
    assert "params/tables/acc.yaml, key 'datasets'" in str(caught.value)
    assert "datasets of the suite: birds" in str(caught.value)
    shaped(bench, datasets=["bird"])
    with pytest.raises(FgvcError, match="no dataset is called 'bird'; did you mean 'birds'") as caught:
        read_table(bench.project, "quick", "acc")
    assert "params/tables/acc.yaml:" in str(caught.value)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"rows": "datasets", "trainable_total": True}, "it needs 'rows: methods'"),
        ({"rows": "method"}, "did you mean 'methods'"),
        ({"rows": "methods", "datasets": ["birds", "birds"]}, "listed twice: birds"),
        ({"rows": "methods", "datasets": []}, "datasets"),
    ],
)
def test_impossible_forms_are_refused(full_bench, more: dict[str, Any], says: str) -> None:
    bench = full_bench({"a": 0.5}, seeds=[1])
    bench.write("tables/acc.yaml", bench._table("accuracy", image_size=64, **more))
    with pytest.raises(FgvcError) as caught:
        bench.project.table("acc")
    assert says in str(caught.value) and "params/tables/acc.yaml" in str(caught.value)


@pytest.fixture
def frozen(bench: BenchT) -> BenchT:
    """A linear probe and full fine-tuning of a real small ViT, on eight and on five classes."""
    bench.dataset("birds")
    bench.dataset("dogs", classes=5)
    bench.method("probe", title="Probe", train=["head.*"], **PICO)
    bench.method("full", title="Full", **PICO)
    for dataset in ("birds", "dogs"):
        for method in ("probe", "full"):
            bench.metrics(dataset, method, 1, status="ok", top1_pct=50.0)
    bench.suite(["birds", "dogs"], ["probe", "full"], [1])
    return bench


def test_what_a_method_trains_is_summed_over_heads_of_true_sizes(frozen: BenchT) -> None:
    shaped(frozen, trainable_total=True)
    rows = body(frozen)
    assert rows["Method"][-1] == "Trainable, all tasks (M)"
    assert rows["Probe (ViT-Pico/16)"][-1] == f"{13 * (WIDTH + 1) / 1e6:.6f}"
    totals = {r["method"]: float(r["trainable_total_m"]) for r in records(frozen)}
    assert totals["probe"] == 13 * (WIDTH + 1) / 1e6
    # Everything else of the network, once for each of the two tasks.
    import timm

    import fgvc.backbones.timm_models  # noqa: F401  # it names the small ViT to timm

    plain = timm.create_model("vit_pico_patch16_224", num_classes=0, img_size=64)
    assert totals["full"] * 1e6 == 2 * sum(p.numel() for p in plain.parameters()) + 13 * (WIDTH + 1)


def listed(bench: BenchT, variant: str, **cells: Any) -> None:
    """A published list with accuracies and a total of trainable parameters."""
    source = {
        "paper": "A paper",
        "short": "AP",
        "year": 2024,
        "table": "Table 1",
        "evidence": "abstract_text",
    }
    data = {
        "kind": "records",
        "title": "A list of theirs",
        "source": source,
        "metric": "top1",
        "unit": "%",
        "decimals": 1,
        "image_size": 64,
        "reported_by": "own paper",
        "rows": {
            "birds": {"title": "Birds", "dataset": "birds"},
            "dogs": {"title": "Dogs", "dataset": "dogs"},
            "total": {
                "title": "both",
                "dataset": None,
                "metric": "trainable_params_m",
                "unit": "M",
                "decimals": 3,
            },
        },
        "columns": {"theirs": {"method": "Theirs", "variant": variant, "cells": cells}},
    }
    bench.write("published/listed.yaml", data)


def test_a_published_list_stands_under_the_rows_of_its_methods(frozen: BenchT) -> None:
    listed(frozen, "probe", birds=50.0, dogs={"value": 49.9}, total=0.002)
    shaped(frozen, trainable_total=True, published="listed")
    rows = body(frozen)
    quoted = rows["Probe (ViT-Pico/16) published"]
    assert quoted == [
        f"<sub>{cell}</sub>" if cell else "" for cell in ("50.0 (within)", "49.9 (outside)", "", "0.002")
    ]
    assert "Full (ViT-Pico/16) published" not in rows, "nothing was published for it"
    of_probe = [r for r in records(frozen) if r["method"] == "probe"]
    assert [r["published_mean"] for r in of_probe] == ["50.0", "49.9"]
    assert {r["published_trainable_total_m"] for r in of_probe} == {"0.002"}
    shaped(frozen, published="listed")
    assert rows["Probe (ViT-Pico/16)"][:-1] == body(frozen)["Probe (ViT-Pico/16)"]


def test_what_was_only_remembered_never_stands_beside_ours(frozen: BenchT) -> None:
    listed(frozen, "probe", birds={"value": 50.0, "evidence": "none"}, dogs=49.9)
    shaped(frozen, published="listed")
    assert body(frozen)["Probe (ViT-Pico/16) published"][0] == ""


def test_a_published_file_without_accuracies_is_refused(frozen: BenchT, bench: BenchT) -> None:
    facts = {
        "kind": "selection_cost",
        "title": "Costs",
        "source": {"paper": "P", "short": "P", "table": "T", "evidence": "abstract_text"},
        "backbone": "b",
        "backbone_method": "B",
        "backbone_cost_g": {"64": 1.0},
        "backbone_cost_decimals": 1,
        "backbone_cost_unit": "G",
        "backbone_cost_source": "s",
        "percent_note": "n",
        "flops_digits": 2,
        "percent_digits": 2,
        "percent_decimals": 1,
        "columns": {
            "m": {
                "method": "M",
                "reported_by": "own paper",
                "cells": [{"image_size": 64, "flops_g": 1.0, "percent_of_backbone": 1.0}],
            }
        },
    }
    bench.write("published/costs.yaml", facts)
    shaped(frozen, published="costs")
    with pytest.raises(FgvcError, match="holds no accuracies"):
        read_table(frozen.project, "quick", "acc")
