"""What makes which job run again, and what does not."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from PIL import Image
from workflowkit import (
    METHODS,
    SIZE,
    counts,
    fgvc,
    identities,
    planned,
    read,
    result_files,
    snakemake,
    variant,
    write_params,
)

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

NOTHING = "nothing to be done: everything asked for is there and up to date"


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_second_run_has_nothing_to_do_and_says_where_the_results_are(copy: Path) -> None:
    made = identities(result_files(copy, "**/*"))
    outcome = snakemake(copy).check()
    assert outcome.lines == [
        NOTHING,
        "table:  results/tables/acc_32.md",
        "table:  results/tables/hw_stats.md",
        "figure: results/figures/acc_vs_flops_32.png",
    ]
    run = f"results/runs/shapes/vit_tiny/{SIZE}/seed1/metrics.json"
    assert snakemake(copy, run).check().lines == [NOTHING, f"file:   {run}"]
    assert identities(made) == made


def test_f21_touching_every_file_runs_nothing(copy: Path) -> None:
    """As after ``git checkout``, ``dvc checkout`` or a copy without times, in whatever order."""
    files = [p for top in ("data", "results", "images") for p in (copy / top).rglob("*") if p.is_file()]
    assert len(files) > 100
    now = time.time()
    for number, path in enumerate(sorted(files, key=lambda p: hash(p.name))):
        os.utime(path, (now + number, now + number))
    assert snakemake(copy).check().lines[0] == NOTHING


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("params/config.yaml", "checkpoint_interval_s: 0", "checkpoint_interval_s: 30\nloader_workers: 2"),
        ("rules/train.smk", "--seed {wildcards.seed} >", " --seed={wildcards.seed} >"),
        ("params/methods/vit_tiny.yaml", "source: this test", "source: another\nnotes: of no effect"),
        ("params/datasets/shapes.yaml", "description: Four", "description: A few"),
        ("params/suites/mini.yaml", "title: Mini", "title: Another title"),
    ],
    ids=["settings", "shell command", "source of a recipe", "description", "title of the suite"],
)
def test_words_without_effect_run_nothing_again(module_copy: Path, file: str, old: str, new: str) -> None:
    kept = (module_copy / file).read_text()
    try:
        replace(module_copy / file, old, new)
        # The suite's title stands in its tables; nothing else does.
        expected = {"table": 2, "figure": 1} if file.startswith("params/suites") else {}
        assert counts(planned(module_copy)) in ({}, expected)
    finally:
        (module_copy / file).write_text(kept)


def test_a_method_s_title_makes_tables_and_figures_only(copy: Path) -> None:
    replace(copy / "params/methods/vit_tiny.yaml", "title: ViT\n", "title: Small ViT\n")
    outcome = snakemake(copy).check()
    assert sorted(outcome.done) == ["figure acc_vs_flops_32", "table acc_32", "table hw_stats"]
    assert "Small ViT (ViT-Pico/16)" in (copy / "results/tables/acc_32.md").read_text()


def test_a_recipe_s_value_makes_the_runs_of_that_method_only(module_copy: Path) -> None:
    file = module_copy / "params/methods/vit_tiny.yaml"
    kept = file.read_text()
    try:
        replace(file, "epochs: 6", "epochs: 7")
        jobs = planned(module_copy)
        assert counts(jobs) == {
            "search": 2,
            "select_lr": 1,
            "train": 2,
            "evaluate": 2,
            "table": 1,
            "figure": 1,
        }
        assert {job.wildcards["method"] for job in jobs if "method" in job.wildcards} == {"vit_tiny"}
    finally:
        file.write_text(kept)


def test_a_recipe_s_value_that_comes_back_finds_its_results(copy: Path) -> None:
    """Nothing made is made twice: the earlier run is kept by what it depends on."""
    path = write_params(copy, "methods/vit_solo", variant())
    folder = f"results/runs/shapes/vit_solo/{SIZE}/seed1"
    inodes: list[list[int]] = []
    for epochs, jobs in ((6, 2), (1, 1), (6, 1)):
        path.write_text(re.sub(r"epochs: \d", f"epochs: {epochs}", path.read_text()))
        outcome = snakemake(copy, f"{folder}/run.json").check()
        assert len(outcome.done) == jobs
        assert read(copy / folder / "run.json")["epochs"] == epochs
        inodes.append([p.stat().st_ino for p in result_files(copy, "runs/shapes/vit_solo/*/*/*")])
    assert (
        "was trained before with this very recipe"
        in (copy / f"logs/train/shapes/vit_solo/{SIZE}/seed1.log").read_text()
    )
    assert inodes[0] == inodes[2] != inodes[1]


def test_one_changed_picture_makes_all_that_depends_on_it(copy: Path) -> None:
    """Pictures are checked when they are fetched and before they are trained on, by their record."""
    picture = copy / "images/shapes/train/circle/000.png"
    with Image.open(picture) as image:
        image.putpixel((0, 0), (1, 2, 3))
        changed = image.copy()
    picture.unlink()  # a new file, as an editor leaves it; data/ holds the old one
    changed.save(picture)
    assert counts(planned(copy)) == {}, "what was fetched is still what it was"
    before = read(copy / "data/shapes.json")["tree_sha256"]
    fgvc(copy, "data", "fetch", "shapes", "--replace").check()
    assert read(copy / "data/shapes.json")["tree_sha256"] != before
    jobs = planned(copy)
    assert counts(jobs) == {
        "split": 1,
        "stats": 1,
        "search": 4,
        "select_lr": 2,
        "train": 4,
        "evaluate": 4,
        "table": 2,
        "figure": 1,
    }
    assert {job.wildcards["method"] for job in jobs if "method" in job.wildcards} == set(METHODS)


def test_a_picture_that_was_damaged_is_named_before_the_first_epoch(copy: Path) -> None:
    (copy / "data/shapes/train/circle/000.png").write_bytes(b"no picture")
    run = f"results/runs/shapes/vit_tiny/{SIZE}/seed3/run.json"
    outcome = snakemake(copy, run)
    assert outcome.status == 1 and "Traceback" not in outcome.text
    assert "1 changed since they were fetched: train/circle/000.png" in outcome.text
    assert "epoch" not in (copy / f"logs/train/shapes/vit_tiny/{SIZE}/seed3.log").read_text()
