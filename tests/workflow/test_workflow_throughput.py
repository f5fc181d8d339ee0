"""The throughput figure through the workflow: runs, then measurements alone, then the figure."""

from __future__ import annotations

from pathlib import Path

import pytest
from workflowkit import SIZE, make_project, planned, read, snakemake, suite, write_params

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

FIGURE = "results/figures/speed_32.png"
RECORD = f"results/throughput/shapes/vit_tiny/{SIZE}/cpu-fp32-b4-t1.json"


def test_a_suite_is_measured_and_drawn(tmp_path: Path) -> None:
    root = make_project(tmp_path / "project")
    shown = {"title": "Speed", "caption": "Made for a test.", "image_size": SIZE}
    write_params(root, "figures/speed_32", {"kind": "accuracy_vs_throughput", **shown})
    conditions = {"device": "cpu", "precision": "fp32", "batch_size": 4, "threads": 1}
    own = {"methods": ["vit_tiny"], "seeds": [1], "learning_rates": [0.003], "throughput": conditions}
    write_params(root, "suites/mini", suite(**own, figures=["speed_32"]))
    snakemake(root, FIGURE).check()
    record = read(root / RECORD)
    assert record["conditions"] == conditions and record["classes"] == 4 and record["image_size"] == SIZE
    for key in ("model_throughput_images_s", "end_to_end_throughput_images_s", "training_step_ms"):
        assert record[f"{key}_min"] <= record[key] <= record[f"{key}_max"]
    assert 0 < record["latency_ms_p50"] <= record["latency_ms_p95"]
    assert record["end_to_end_images"] == 20, "the test images, all of them"
    assert record["host"]["cores"] and record["packages"]["torch"] and record["code"]["sources_sha256"]
    assert (root / FIGURE).stat().st_size > 5000
    assert planned(root, FIGURE) == [], "nothing is measured twice"
