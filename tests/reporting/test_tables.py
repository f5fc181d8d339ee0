"""Tables: layout, emphasis, notes, formats, and where partial ones go."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from fgvc.config.identity import recipe_sha256
from fgvc.errors import FgvcError
from fgvc.reporting.summary import write_partial_tables
from fgvc.reporting.tables import read_table, remove_partial_tables, show_table, write_table

BenchT = Any


def table_text(bench: BenchT, suffix: str, **options: Any) -> str:
    files = write_table(bench.project, "quick", "acc", **options)
    return next(f for f in files if f.suffix == suffix).read_text(encoding="utf-8")


def body(markdown: str) -> dict[str, list[str]]:
    rows = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows}


def test_layout_and_emphasis(full_bench) -> None:
    bench = full_bench({"bad": 0.5, "good": 0.9, "close": 0.89}, datasets=["birds", "dogs"], seeds=[1, 2, 3])
    text = table_text(bench, ".md")
    rows = body(text)
    # Groups stand together in order of first appearance: bad and close are ViT-based, good is CNN-based.
    assert rows["Dataset"] == ["BAD (ViT-Pico)", "CLOSE (ViT-Pico)", "GOOD (ViT-Pico)"]
    bad, close, good = rows["Birds"]
    assert good.startswith("**") and "±" in good and "†" not in good
    assert close.startswith("<u>8") and close.endswith("</u> †")
    assert "*" not in bad and "†" not in bad
    assert rows["Average"][2].startswith("**")
    assert "n = 3 seeds (1, 2, 3)" in text and "Holm" in text and "across datasets" in text
    assert "PARTIAL" not in text


def test_ties_are_both_bold_and_the_next_is_second(bench: BenchT) -> None:
    bench.dataset("birds")
    for method, value in (("a", 90.001), ("b", 89.999), ("c", 80.0)):
        bench.method(method)
        bench.metrics("birds", method, 1, status="ok", top1_pct=value)
    bench.suite(["birds"], ["a", "b", "c"], [1])
    assert body(table_text(bench, ".md"))["Birds"] == ["**90.00**", "**90.00**", "<u>80.00</u>"]


def test_runs_of_several_devices_are_named(full_bench) -> None:
    bench = full_bench({"a": 0.9, "b": 0.5, "c": 0.4}, seeds=[1, 2])
    before = table_text(bench, ".md")
    for method, seed, since in (("a", 1, [[0, 2]]), ("b", 2, [[0, 1], [7, 4], [9, 1]]), ("c", 1, [[0, 1]])):
        folder = bench.run_dir("birds", method, seed)
        metrics = json.loads((folder / "metrics.json").read_text())
        (folder / "metrics.json").write_text(json.dumps(metrics | {"run_sha256": "r"}))
        recipe = recipe_sha256(bench.project, "birds", method)
        card = {"run_sha256": "r", "recipe_sha256": recipe, "devices_from_step": since}
        (folder / "run.json").write_text(json.dumps(card))
    text = table_text(bench, ".md")
    assert "on 2 devices together, at the same batch size: Birds / A (ViT-Pico), seed 1." in text
    assert "on 4 devices together, at the same batch size: Birds / B (ViT-Pico), seed 2." in text
    assert "devices" not in before and body(text) == body(before)


def test_tidy_csv(full_bench) -> None:
    bench = full_bench({"a": 0.9, "b": 0.5}, seeds=[1])
    rows = list(csv.DictReader(io.StringIO(table_text(bench, ".csv"))))
    assert list(rows[0]) == [
        "dataset",
        "method",
        "size",
        "metric",
        "mean",
        "std",
        "n",
        "expected_n",
        "status",
        "published_mean",
        "published_std",
        "published_state",
        "pretraining_overlap",
    ]
    assert rows[0]["published_mean"] == rows[0]["published_state"] == "", "nothing was published for it"
    assert [r["method"] for r in rows] == ["a", "b"]
    assert rows[0]["std"] == "" and rows[0]["n"] == "1" and rows[0]["status"] == "ok"


def test_one_dataset_has_an_average_without_spread(full_bench) -> None:
    rows = body(table_text(full_bench({"a": 0.9, "b": 0.5}), ".md"))
    assert "±" in rows["Birds"][0] and "±" not in rows["Average"][0]


def test_the_same_bytes_twice(full_bench) -> None:
    bench = full_bench({"a": 0.9, "b": 0.88})
    first = [f.read_bytes() for f in write_table(bench.project, "quick", "acc")]
    assert [f.read_bytes() for f in write_table(bench.project, "quick", "acc")] == first


def test_headings_name_method_and_backbone_once(bench: BenchT) -> None:
    bench.dataset("birds")
    bench.method("plain", title="ViT", backbone_title="ViT-B/16")
    bench.method("cal", title="CAL", backbone_title="ResNet-101")
    bench.method("cal_frozen", title="CAL", backbone_title="ResNet-101")
    for method in ("plain", "cal", "cal_frozen"):
        bench.metrics("birds", method, 1, status="ok", top1_pct=50.0)
    bench.suite(["birds"], ["plain", "cal", "cal_frozen"], [1])
    heads = body(table_text(bench, ".md"))["Dataset"]
    assert heads == ["ViT-B/16", r"CAL \[cal\] (ResNet-101)", r"CAL \[cal\_frozen\] (ResNet-101)"]


def test_whose_split_and_what_pretraining_saw(bench: BenchT) -> None:
    bench.dataset("birds", split={"provenance": "ours"}, pretraining_overlap=["imagenet-1k"])
    bench.dataset("dogs", split={"provenance": "published"}, pretraining_overlap=["imagenet-1k"])
    bench.weights("w", ["imagenet-1k", "imagenet-21k"])
    bench.method("seen", weights="w")
    bench.method("scratch")
    for d in ("birds", "dogs"):
        for m in ("seen", "scratch"):
            bench.metrics(d, m, 1, status="ok", top1_pct=50.0)
    bench.suite(["birds", "dogs"], ["seen", "scratch"], [1])
    text = table_text(bench, ".md")
    assert "| Birds<sup>a,b</sup> |" in text and "| Dogs<sup>c</sup> |" in text
    assert "<sup>a</sup> Birds: the split is ours" in text
    assert "<sup>c</sup> Dogs shares images with imagenet-1k, seen in pre-training by SEEN (ViT-Pico)" in text
    assert "SCRATCH (ViT-Pico): read" not in text
    latex = table_text(bench, ".tex")
    assert r"Dogs\textsuperscript{c} &" in latex and "Dogs shares images with imagenet-1k, seen in" in latex
    rows = list(csv.DictReader(io.StringIO(table_text(bench, ".csv"))))
    seen = {(r["dataset"], r["method"]): r["pretraining_overlap"] for r in rows}
    assert seen[("dogs", "seen")] == seen[("birds", "seen")] == "imagenet-1k"
    assert seen[("dogs", "scratch")] == seen[("birds", "scratch")] == ""


def test_every_overlap_that_is_told(bench: BenchT) -> None:
    bench.dataset("dogs", pretraining_overlap=["imagenet-1k", "ImageNet-21k", "lvd-142m"])
    bench.weights("w", ["imagenet-21k", "imagenet-1k"])
    bench.method("seen", weights="w")
    bench.metrics("dogs", "seen", 1, status="ok", top1_pct=50.0)
    bench.suite(["dogs"], ["seen"], [1])
    text = table_text(bench, ".md")
    assert "| Dogs<sup>a,b</sup> |" in text and "lvd-142m" not in text
    (row,) = csv.DictReader(io.StringIO(table_text(bench, ".csv")))
    assert row["pretraining_overlap"] == "imagenet-1k;ImageNet-21k"


PARTS = {"train": False, "val": False, "train_val": True, "test": True}
OURS = {part: {"matches_expected": matches} for part, matches in PARTS.items()}
LISTS = {"said_by": "x", "url": "https://x/{}", "mirror_folder": "x", "lists": ["train_val", "test"]}


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"provenance": "published", "parts": {}}, None),
        ({"provenance": "official", "parts": {}}, None),
        ({"provenance": "ours", "parts": {}}, "the split is ours, neither official nor published."),
        (
            {"provenance": "ours", "parts": OURS},
            "the split is ours, but train_val and test are as published.",
        ),
        ({"provenance": "unverified", "parts": {}}, "its digests are not all known."),
        (None, "whose split it is is not recorded here (results/splits/birds/split.json)."),
    ],
)
def test_the_table_says_whose_split_was_found_and_not_what_was_claimed(
    bench: BenchT, record: dict[str, object] | None, says: str | None
) -> None:
    source = {"kind": "archive", "downloads": [{"file": "birds.tar"}]}
    bench.dataset("birds", source=source, layout={"kind": "class_folders"}, published=LISTS)
    bench.method("plain")
    bench.metrics("birds", "plain", 1, status="ok", top1_pct=50.0)
    bench.suite(["birds"], ["plain"], [1])
    if record is not None:
        path = bench.root / "results/splits/birds/split.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(record))
    text = table_text(bench, ".md")
    if says is None:
        assert "split is" not in text and "Birds<sup>" not in text
    else:
        assert "| Birds<sup>a</sup> |" in text and says in text.replace("\\_", "_")


@pytest.fixture
def troubled(bench: BenchT) -> BenchT:
    bench.dataset("birds", title="Birds & 50%_more")
    for method in ("ok", "part", "fail", "half", "div", "none"):
        bench.method(method)
    for seed in (1, 2):
        bench.result("birds", "ok", seed, bench.hits(0.8, seed=seed))
        bench.metrics("birds", "div", seed, status="diverged", cause="loss is nan")
    bench.result("birds", "part", 1, bench.hits(0.7))
    bench.failure("runs", "birds", "fail", "64", "seed1", error="out of memory")
    bench.result("birds", "half", 2, bench.hits(0.6))
    bench.failure("runs", "birds", "half", "64", "seed1", error="out of memory")
    bench.suite(["birds"], ["ok", "part", "fail", "half", "div", "none"], [1, 2])
    bench.stats("birds")
    return bench


def test_trouble_is_visible_with_its_cause(troubled: BenchT) -> None:
    text = table_text(troubled, ".md", allow_missing=True)
    ok, part, fail, half, div, none = body(text)["Birds & 50%\\_more"]
    assert ok.startswith("**80.00 ±")
    assert part == "<u>70.00</u> (n=1/2)"
    assert (fail, div, none) == ("FAILED", "DIVERGED", "not run")
    assert half == "60.00 (n=1/2, FAILED)"
    assert "**PARTIAL: 2 of 6 cells**" in text
    assert "FAILED (out of memory): Birds & 50%\\_more / FAIL (ViT-Pico), seed 1; " in text
    assert "DIVERGED (loss is nan)" in text and "not ranked" in text
    assert body(text)["Average"] == ["**80.00**", "–", "–", "–", "–", "–"]


def test_partial_tables_never_take_the_declared_path(troubled: BenchT) -> None:
    with pytest.raises(FgvcError, match="runs are missing"):
        write_table(troubled.project, "quick", "acc")
    files = write_table(troubled.project, "quick", "acc", allow_missing=True)
    assert [f.name for f in files] == ["acc.partial.tex", "acc.partial.md", "acc.partial.csv"]
    assert sorted(p.name for p in files[0].parent.iterdir()) == sorted(f.name for f in files)


def test_a_complete_table_removes_the_partial_one(full_bench) -> None:
    bench = full_bench({"a": 0.9, "b": 0.5})
    metrics = bench.run_dir("birds", "b", 2) / "metrics.json"
    kept = metrics.read_text()
    metrics.unlink()
    partial = write_table(bench.project, "quick", "acc", suite_path="quick", allow_missing=True)
    metrics.write_text(kept)
    whole = write_table(bench.project, "quick", "acc", suite_path="quick", allow_missing=True)
    assert [f.name for f in whole] == ["acc.tex", "acc.md", "acc.csv"]
    assert whole[0].parent == bench.root / "results" / "quick" / "tables"
    assert not any(f.exists() for f in partial)


def test_partial_tables_of_a_whole_suite(troubled: BenchT) -> None:
    shown = write_partial_tables(troubled.project, "quick", short=True)
    assert [f.relative_to(troubled.root).as_posix() for f in shown] == ["results/tables/acc.partial.md"]
    # The size table is complete: the workflow's to write.
    assert not (troubled.root / "results/tables/sizes.md").exists()
    assert not write_partial_tables(troubled.project, "quick", short=True, tables=["sizes"])
    remove_partial_tables(troubled.project, "quick", short=True)
    assert not list((troubled.root / "results/tables").glob("*.partial.*"))


def test_a_diverged_run_does_not_make_a_table_partial(bench: BenchT) -> None:
    bench.dataset("birds")
    bench.method("a")
    bench.metrics("birds", "a", 1, status="diverged", cause="loss is nan")
    bench.suite(["birds"], ["a"], [1])
    text = table_text(bench, ".md")
    assert "DIVERGED" in text and "PARTIAL" not in text


# --- image sizes -------------------------------------------------------------------------------------


def test_size_table(full_bench) -> None:
    bench = full_bench({"a": 0.9}, datasets=["birds", "dogs"], seeds=[1])
    bench.stats("birds")
    with pytest.raises(FgvcError, match="1 of 2 size statistics are missing: dogs"):
        write_table(bench.project, "quick", "sizes")
    partial = write_table(bench.project, "quick", "sizes", allow_missing=True)
    assert "PARTIAL: 1 of 2 datasets" in partial[1].read_text()
    bench.stats("dogs")
    tex, md, tidy = write_table(bench.project, "quick", "sizes")
    rows = body(md.read_text())
    assert rows["Birds, train"][:4] == ["1,200", "8", "260.2 ± 12.5", "240–300"]
    assert rows["Dogs, all"][6:] == ["1.00 ± 0.12", "0.50–2.00"]
    assert tex.read_text().count(r"\midrule") == 2  # under the headings, and between the datasets
    records = list(csv.DictReader(io.StringIO(tidy.read_text())))
    assert len(records) == 2 * 3 * 3 and records[2]["quantity"] == "aspect_ratio"


# --- on a terminal -----------------------------------------------------------------------------------


def test_shown_on_a_terminal(full_bench) -> None:
    contents = read_table(full_bench({"a": 0.9, "b": 0.89}).project, "quick", "acc")
    text = show_table(contents, "terminal", 80)
    assert max(map(len, text.splitlines())) <= 80
    line = next(line for line in text.splitlines() if line.startswith("Birds"))
    assert " *" in line and " +†" in line
    assert "Here * stands for bold and + for underlined." in text


def test_other_styles_give_everything(full_bench) -> None:
    contents = read_table(full_bench({"a": 0.9, "b": 0.5}).project, "quick", "acc")
    assert show_table(contents, "csv", None) == contents.csv
    assert json.loads(show_table(contents, "json", None)) == contents.records
    assert show_table(contents, "md", None).startswith("# A accuracy result")
