"""Each step by hand, with the command of its rule: the rule's files are there, and the screen says so."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from clikit import SEED, Said, change, fgvc, make_small

ByHand = tuple[Path, dict[str, tuple[Said, list[str]]]]
STEPS = (
    "fetch",
    "split",
    "stats",
    "audit_data",
    "search",
    "select_lr",
    "train",
    "evaluate",
    "cost",
    "table",
    "figure",
)
CELL = ("typefaces", "vit_pico", "--size", "224", "--seed", str(SEED))
RUN = f"results/runs/typefaces/vit_pico/224/seed{SEED}"


@pytest.mark.parametrize("step", STEPS)
def test_the_command_of_a_rule_makes_the_files_of_the_rule(by_hand: ByHand, step: str) -> None:
    root, told = by_hand
    said, files = told[step]
    for name in files:
        assert (root / name).stat().st_size > 0, name
    # It ends with where the result is.
    assert said.out.splitlines()[-1] in files
    assert "Traceback" not in said.err and "\r" not in said.err and "\x1b" not in said.err


def test_every_rule_is_among_the_steps(by_hand: ByHand) -> None:
    """Some are missing: `weights` and audits run among the examples, the others in tests/workflow."""
    text = "".join(p.read_text() for p in (Path(__file__).resolve().parents[2] / "rules").glob("*.smk"))
    rules = {line.split()[1].rstrip(":") for line in text.splitlines() if line.startswith("rule ")}
    assert rules == {*STEPS, "weights", "track", "throughput", "cka", "audit_published", "audit_suite"}


@pytest.mark.parametrize("step", ["search", "train", "evaluate"])
def test_the_device_is_said_once(by_hand: ByHand, step: str) -> None:
    said = by_hand[1][step][0]
    assert (said.out + said.err).count("on cpu") == 1


def test_a_log_has_at_most_a_line_an_epoch(by_hand: ByHand) -> None:
    lines = by_hand[1]["train"][0].err.splitlines()
    assert sum("epoch 1/1" in line for line in lines) == 1
    assert lines[-1].startswith(f"typefaces/vit_pico/224 seed {SEED}: ok in ")


def test_the_rate_that_was_chosen_is_the_one_that_is_trained_with(by_hand: ByHand) -> None:
    root, told = by_hand
    choice = json.loads((root / "results/sweeps/typefaces/vit_pico/224/lr.json").read_text())
    assert choice["learning_rate"] in (0.001, 0.003)
    assert f"learning rate {choice['learning_rate']:g} of 0.001, 0.003 on val" in told["select_lr"][0].out
    assert json.loads((root / RUN / "run.json").read_text())["learning_rate"] == choice["learning_rate"]


def test_the_screen_and_the_files_say_the_same(by_hand: ByHand) -> None:
    root, told = by_hand
    metrics = json.loads((root / RUN / "metrics.json").read_text())
    assert f"top-1 {metrics['top1_pct']:.2f} %" in told["evaluate"][0].out
    assert f"on {metrics['images']} images" in told["evaluate"][0].out
    record = json.loads((root / "results/cost/vit_pico/224/21.json").read_text())
    assert f"{record['macs_g']:.4g} GMACs ({record['flops_g']:.4g} GFLOPs)" in told["cost"][0].out
    with (root / "results/quick/tables/sota_224.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert float(row["mean"]) == pytest.approx(metrics["top1_pct"])


def test_the_same_again_is_cached_and_changes_nothing(ready: Path) -> None:
    files = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (ready / RUN).iterdir()}
    assert len(files) == 5
    said = fgvc(ready, "train", *CELL).check()
    assert "(cached)" in said.err and said.out == f"{RUN}/run.json\n"
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (ready / RUN).iterdir()} == files
    assert "(cached)" in fgvc(ready, "data", "fetch", "typefaces").check().out


def test_evaluation_by_single_images_finds_the_same(ready: Path) -> None:
    one = json.loads(fgvc(ready, "evaluate", *CELL, "--batch-size", "1", "--json").check().out)
    many = json.loads(fgvc(ready, "evaluate", *CELL, "--json").check().out)
    assert one["top1_pct"] == many["top1_pct"]
    assert one["nll_nats"] == pytest.approx(many["nll_nats"], rel=1e-4)


def test_an_alias_is_the_dataset(tmp_path: Path) -> None:
    root = make_small(tmp_path / "project")
    change(root, "datasets/grocery35", aliases=["greens"])
    said = fgvc(root, "data", "fetch", "greens", "--mirror", "DIR").check()
    assert said.out.splitlines()[-1] == "data/grocery35.json"
    assert "warning: nobody verified: the size of the public archive" in said.err
    assert not (root / "data/greens").exists()


def test_a_split_that_is_ours_names_the_parts_that_are_not(tmp_path: Path) -> None:
    root = make_small(tmp_path / "project")
    fgvc(root, "data", "add", "my_fruit", "path/to/folder").check()
    fgvc(root, "data", "fetch", "my_fruit").check()
    parts = json.loads(fgvc(root, "data", "split", "my_fruit", "--json").check().out)["parts"]
    expected = {
        part: {"rows": facts["rows"], "sha256": facts["list_sha256"]} for part, facts in parts.items()
    }
    for part in ("train", "val"):
        expected[part]["sha256"] = "0" * 64
    change(root, "datasets/my_fruit", expected=expected)
    said = fgvc(root, "data", "split", "my_fruit").check().out
    assert "split: ours (train_val and test as published)" in said


def test_pictures_of_ones_own(tmp_path: Path) -> None:
    """Two commands by hand after the one that adds them; no split is made by hand."""
    root = make_small(tmp_path / "project")
    added = fgvc(root, "data", "add", "my_fruit", "path/to/folder").check()
    assert "3 classes; written to params/datasets/my_fruit.yaml" in added.out and "next: " in added.out
    fgvc(root, "data", "fetch", "my_fruit").check()
    split = json.loads(fgvc(root, "data", "split", "my_fruit", "--json").check().out)
    assert all(split["parts"][part]["rows"] >= 3 for part in ("train", "val", "test"))
    names = json.loads(fgvc(root, "list", "datasets", "--json").check().out)
    assert next(row for row in names if row["name"] == "my_fruit")["fetched"] == "yes"
    again = fgvc(root, "data", "add", "my_fruit", "path/to/folder")
    assert again.status == 2 and len(again.err.splitlines()) <= 5
