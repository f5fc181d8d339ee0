"""Tables of all datasets: what their files say, and the sizes of those that are here."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
import yaml

from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.reporting.tables import read_table, show_table, write_table
from fgvc.workflow.rules import Rules
from fgvc.workflow.targets import check

REPOSITORY = Path(__file__).resolve().parents[2]
BenchT = Any
DIGEST = "a" * 64


@pytest.fixture
def bench(bench: BenchT) -> BenchT:
    bench.write("tables/datasets.yaml", bench._table("datasets"))
    bench.write("tables/sizes_all.yaml", bench._table("hw_stats", datasets="present"))
    source = {"counts": {"train": 3, "val": 1, "test": 2}, "tree_sha256": DIGEST}
    bench.dataset("drawn", source={"kind": "generated", "generator": "typefaces", **source})
    archives = [{"file": "a.tar", "sha256": DIGEST}, {"file": "b.tar"}]
    lists = [{"file": "l.csv", "unpack": False, "to": "l.csv", "list_sha256": DIGEST}]
    bench.dataset(
        "birds",
        licence="free for research (by mail); see the page",
        access="by_hand",
        instructions="ask",
        source={"kind": "archive", "downloads": archives + lists},
        layout={"kind": "class_folders"},
        expected={
            "train": {"rows": 1200},
            "train_val": {"rows": 1500, "sha256": DIGEST},
            "test": {"rows": 7},
        },
        unverified=["licence", "sizes"],
    )
    bench.dataset("mine", source={"kind": "folder", "path": "x"}, layout={"kind": "class_folders"})
    bench.method("m")
    bench.suite(["drawn"], ["m"], [1])
    return bench


def test_what_the_files_say_of_every_dataset(bench: BenchT) -> None:
    tex, md, tidy = write_table(bench.project, "quick", "datasets")
    assert tex == bench.root / "results/tables/datasets.tex"
    rows = {r["dataset"]: r for r in csv.DictReader(io.StringIO(tidy.read_text()))}
    assert list(rows) == ["birds", "drawn", "mine"]
    birds, drawn, mine = rows.values()
    parts = ("train", "val", "train_val", "test")
    assert [birds[p] for p in parts] == ["1200", "300", "1500", "7"], "val is what the others leave"
    assert [drawn[p] for p in parts] == ["24", "8", "32", "16"], "pictures a class times classes"
    assert [mine[p] for p in parts] == [""] * 4
    assert (birds["archive_digests"], birds["split_digests"], birds["tree_digest"]) == ("1/2", "1", "False")
    assert (drawn["archive_digests"], drawn["tree_digest"]) == ("", "True")
    assert birds["licence"] == "free for research (by mail); see the page"
    assert birds["unverified"] == "licence; sizes" and drawn["unverified"] == ""
    text = md.read_text()
    line = next(line for line in text.splitlines() if line.startswith("| Birds"))
    assert "| 1,200 | 300 | 1,500 | 7 | by hand | free for research |" in line
    assert "archive 1/2, split 1/4" in line and line.startswith("| Birds<sup>a,b</sup> |")
    assert "<sup>a</sup> licence" in text and "| Mine |" in text
    assert "PARTIAL" not in text + tex.read_text()


def test_no_dataset_is_asked_for_by_the_table_of_all(bench: BenchT) -> None:
    rules = Rules(bench.project)
    assert rules.table_inputs(None, "datasets") == []
    check(rules, ["results/tables/datasets.tex"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("licence", "another"),
        ("expected", {"train_val": {"rows": 1501, "sha256": DIGEST}}),
        ("unverified", []),
        ("access", "gated"),
    ],
)
def test_it_is_made_again_when_a_dataset_says_otherwise(bench: BenchT, key: str, value: object) -> None:
    before = Rules(bench.project).shown_sha256(None, "table", "datasets")
    assert Rules(bench.project).shown_sha256(None, "table", "datasets") == before
    file = bench.root / "params/datasets/birds.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {key: value}))
    assert Rules(bench.project).shown_sha256(None, "table", "datasets") != before


def test_accuracies_are_shown_anew_when_weights_saw_other_images(bench: BenchT) -> None:
    bench.weights("w", ["imagenet-1k"])
    bench.method("m", weights="w")
    before = Rules(bench.project).shown_sha256(None, "table", "acc")
    bench.weights("w", ["imagenet-21k"])
    assert Rules(bench.project).shown_sha256(None, "table", "acc") != before


def test_sizes_of_the_datasets_that_are_here(bench: BenchT) -> None:
    for name in ("birds", "drawn"):
        bench.stats(name)
    record = bench.project.paths.data_record("birds")
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    assert Rules(bench.project).table_inputs(None, "sizes_all") == ["results/stats/birds.json"]
    tidy = write_table(bench.project, "quick", "sizes_all")[2].read_text()
    assert "birds,all" in tidy and "drawn" not in tidy
    before = Rules(bench.project).shown_sha256(None, "table", "sizes_all")
    bench.project.paths.data_record("drawn").write_text("{}")
    assert Rules(bench.project).shown_sha256(None, "table", "sizes_all") != before


def test_a_dataset_that_came_while_the_table_was_made_is_named_and_not_waited_for(bench: BenchT) -> None:
    bench.project.paths.data_record("birds").parent.mkdir(parents=True)
    for name in ("birds", "drawn"):
        bench.project.paths.data_record(name).write_text("{}")
    with pytest.raises(FgvcError, match="2 of 2 size statistics are missing"):
        read_table(bench.project, "quick", "sizes_all")
    bench.stats("birds")
    _, md, tidy = write_table(bench.project, "quick", "sizes_all")
    assert "Here, but not measured yet: Drawn." in md.read_text() and "PARTIAL" not in md.read_text()
    assert "birds,all" in tidy.read_text() and "drawn" not in tidy.read_text()
    bench.stats("drawn")
    _, md, tidy = write_table(bench.project, "quick", "sizes_all")
    assert "not measured" not in md.read_text() and "drawn,all" in tidy.read_text()


def test_sizes_of_nothing(bench: BenchT) -> None:
    for call in (
        lambda: read_table(bench.project, "quick", "sizes_all"),
        lambda: check(Rules(bench.project), ["results/tables/sizes_all.md"]),
    ):
        with pytest.raises(FgvcError, match="no dataset is here yet"):
            call()


def test_they_belong_to_no_suite(bench: BenchT) -> None:
    with pytest.raises(FgvcError, match="the same in every suite") as caught:
        check(Rules(bench.project), ["results/quick/tables/datasets.tex"])
    assert "results/tables/datasets.tex" in str(caught.value)
    file = bench.root / "params/suites/quick.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"tables": ["acc", "datasets"]}))
    with pytest.raises(FgvcError, match="belongs to none") as caught:
        bench.project.suite("quick")
    assert caught.value.line and caught.value.key == "tables"


def test_the_shipped_datasets_fit_a_terminal() -> None:
    project = Project(REPOSITORY)
    contents = read_table(project, project.settings.default_suite, "datasets")
    text = show_table(contents, "terminal", 80)
    assert max(map(len, text.splitlines())) <= 80
    assert all(project.dataset(name).title in text for name in project.names("dataset"))
