"""The figure of layers through the workflow: the runs it needs, their records, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from workflowkit import SIZE, counts, make_project, planned, read, snakemake, suite, variant, write_params

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

LARGER = 64


def record(method: str) -> str:
    return f"results/cka/shapes/{method}/{LARGER}/seed1.json"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear probe, ILA and a CNN; grids of 4 × 4, so that one of them can shrink."""
    root = make_project(tmp_path_factory.mktemp("layers") / "project")
    few = {"recipe": {"epochs": 1}}
    write_params(root, "methods/linear_tiny", variant(title="Linear", train=["head.*"], **few))
    write_params(
        root, "methods/ila_tiny", variant(title="ILA", method="ila", options={"ds_blocks": [1]}, **few)
    )
    shown = {"kind": "layer_similarity", "title": "Layers", "caption": "Made for a test."}
    for name, of in (("layers_64", "attention"), ("features_64", "features")):
        write_params(root, f"figures/{name}", {**shown, "image_size": LARGER, "of": of})
    table = {
        "kind": "accuracy",
        "title": "Top-1 accuracy",
        "caption": "Made for a test.",
        "image_size": LARGER,
    }
    write_params(root, "tables/acc_64", table)
    own = {
        "methods": ["linear_tiny", "cnn_tiny", "ila_tiny"],
        "image_sizes": [LARGER],
        "learning_rates": [0.003],
    }
    write_params(root, "suites/mini", suite(**own, tables=["acc_64"], figures=["layers_64", "features_64"]))
    return root


def test_runs_their_records_and_the_figure_are_made(root: Path) -> None:
    target = "results/figures/layers_64.png"
    expected = {"fetch": 1, "split": 1, "select_lr": 2, "train": 2, "cka": 2, "figure": 1}
    assert counts(planned(root, target)) == expected, "one seed, no CNN, no evaluation"
    outcome = snakemake(root, target).check()
    assert f"compare layers shapes/ila_tiny/{LARGER} seed 1" in outcome.done
    assert (root / target).stat().st_size > 5000 and (root / target).with_suffix(".pdf").is_file()
    linear, ila = read(root / record("linear_tiny")), read(root / record("ila_tiny"))
    assert linear["tokens"] == [17] * 4 and ila["tokens"] == [17, 17, 5, 5]
    assert linear["images"] == ila["images"] == 20
    assert planned(root, target) == []


def test_another_figure_of_the_same_records_is_a_job_of_its_own_only(root: Path) -> None:
    snakemake(root, "results/figures/layers_64.png").check()
    assert counts(planned(root, "results/figures/features_64.pdf")) == {"figure": 1}


def test_a_record_is_a_target_of_its_own(root: Path) -> None:
    other = f"results/cka/shapes/ila_tiny/{LARGER}/seed10.json"
    assert counts(planned(root, other))["cka"] == 1


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (f"results/cka/shapes/ila_tinny/{LARGER}/seed1.json", "did you mean 'ila_tiny'?"),
        (f"results/cka/shapes/ila_tiny/{LARGER}/1.json", "results/cka/DATASET/METHOD/SIZE/seedK.json"),
        (f"results/figures/layers_{SIZE}.pdf", "'layers_64'"),
    ],
)
def test_mistyped_targets_are_answered(root: Path, target: str, told: str) -> None:
    outcome = snakemake(root, target)
    assert outcome.status == 1 and told in outcome.text and len(outcome.lines) <= 5


def test_a_suite_that_has_not_what_the_figure_shows_is_told_before_any_work(root: Path) -> None:
    own = {"methods": ["cnn_tiny"], "image_sizes": [LARGER], "learning_rates": [0.003]}
    write_params(root, "suites/cnns", suite(**own, tables=["acc_64"], figures=["layers_64"]))
    try:
        outcome = snakemake(root, "results/cnns/figures/layers_64.pdf")
        assert outcome.status == 1 and "the suite 'cnns' has no method on a ViT" in outcome.text
    finally:
        (root / "params/suites/cnns.yaml").unlink()
