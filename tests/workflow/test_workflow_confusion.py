"""The figure of confusion matrices through the workflow: runs, then figure and counts."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from workflowkit import SIZE, call, counts, make_project, planned, read, snakemake, suite, write_params

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

FIGURE = "results/figures/confusion_32"


def test_a_suites_runs_are_drawn_and_counted(tmp_path: Path) -> None:
    root = make_project(tmp_path / "project")
    shown = {"title": "Confusion", "caption": "Made for a test.", "image_size": SIZE}
    write_params(root, "figures/confusion_32", {"kind": "confusion_matrix", **shown})
    figures = ["acc_vs_flops_32", "confusion_32"]
    own = {"methods": ["vit_tiny"], "seeds": [1], "learning_rates": [0.003]}
    write_params(root, "suites/mini", suite(**own, figures=figures))
    wanted = counts(planned(root, "results/figures/acc_vs_flops_32.pdf"))
    assert wanted["figure"] == 1 and "cost" in wanted
    jobs = counts(planned(root, f"{FIGURE}.csv"))
    assert jobs["figure_with_csv"] == jobs["evaluate"] == 1 and "cost" not in jobs
    snakemake(root, f"{FIGURE}.csv").check()
    assert all((root / f"{FIGURE}.{suffix}").is_file() for suffix in ("pdf", "png", "csv"))
    with (root / f"{FIGURE}.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    metrics = read(root / f"results/runs/shapes/vit_tiny/{SIZE}/seed1/metrics.json")
    right = sum(int(row["count"]) for row in rows if row["true"] == row["predicted"])
    assert sum(int(row["count"]) for row in rows) == metrics["images"]
    assert 100 * right / metrics["images"] == pytest.approx(metrics["top1_pct"], abs=1e-5)
    assert planned(root, f"{FIGURE}.pdf") == []
    refused = call("snakemake", root, "-n", "--", "results/figures/acc_vs_flops_32.csv")
    assert refused.status != 0 and "acc_vs_flops_32.pdf" in refused.text
