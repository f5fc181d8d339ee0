"""Your own folder of images, and a public dataset, from the first command to the first number."""

from __future__ import annotations

from pathlib import Path

import pytest
from workflowkit import (
    CLASSES,
    REPOSITORY,
    SIZE,
    copy_workflow,
    counts,
    draw_shapes,
    fgvc,
    planned,
    read,
    snakemake,
)

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def test_a_folder_of_images_in_two_commands(copy: Path, tmp_path: Path) -> None:
    draw_shapes(tmp_path, {"pictures": 10})
    added = fgvc(copy, "data", "add", "my_shapes", tmp_path / "pictures").check()
    run = "results/runs/my_shapes/METHOD/224/seed1/metrics.json"
    assert f"snakemake --cores 2 -- {run}" in added.text
    run = run.replace("METHOD", "vit_tiny").replace("224", str(SIZE))
    outcome = snakemake(copy, run).check()
    metrics = read(copy / run)
    assert metrics["images"] == 2 * len(CLASSES) and metrics["status"] == "ok"
    assert f"top-1 {metrics['top1_pct']:.2f} % of {metrics['images']} images" in outcome.lines[-1]
    assert [job.split()[0] for job in outcome.done] == ["fetch", "split", "choose", "train", "evaluate"]
    split = read(copy / "results/splits/my_shapes/split.json")
    assert split["provenance"] == "ours" and split["parts"]["train"]["rows"] > split["parts"]["val"]["rows"]


def test_grocery35_from_the_mirror(shared: Path, tmp_path: Path) -> None:
    import shutil

    mirror = shared / "mirror"
    if not (mirror / "grocery").is_dir():
        pytest.skip("the shared mirror has no grocery archive")
    root = tmp_path / "project"
    copy_workflow(root)
    shutil.copytree(REPOSITORY / "params", root / "params")
    target = "results/stats/grocery35.json"
    assert counts(planned(root, target)) == {"fetch": 1, "split": 1, "stats": 1}
    outcome = snakemake(root, target, FGVC_MIRROR=str(mirror)).check()
    assert outcome.done == ["fetch grocery35", "split grocery35", "measure grocery35"]
    parts = read(root / "results/splits/grocery35/split.json")["parts"]
    assert {part: facts["rows"] for part, facts in parts.items()} == {
        "train": 1216,
        "val": 125,
        "train_val": 1341,
        "test": 1130,
    }
    assert read(root / target)["all"]["images"] == 2471
