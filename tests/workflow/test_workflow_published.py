"""Published tables through the workflow: made of parameters and costs alone, and mistyped names answered."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from workflowkit import SIZE, call, counts, make_project, planned, snakemake, suite, write_params

from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.workflow import hooks
from fgvc.workflow.jobs import suite_jobs

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

CLASSES = 7
TABLE, FIGURE = "results/tables/theirs.csv", "results/figures/field.png"


def column(name: str, variant: str | None, value: float) -> dict[str, object]:
    return {
        "method": name,
        "group": "ViT-based",
        "backbone": "pico",
        "backbone_title": "ViT-Pico/16",
        "pretraining": "none",
        "image_size": SIZE,
        "reported_by": "own paper",
        "variant": variant,
        "cells": {"shapes": {"value": value, "std": 0.1}},
        "average": {"value": value},
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose default suite also shows a published table and its figure; nothing was run."""
    root = make_project(tmp_path_factory.mktemp("published") / "project")
    source = {"paper": "A paper", "short": "AP", "year": 2024, "table": "Table 1"}
    facts = {
        "kind": "accuracy",
        "title": "Theirs",
        "metric": "top1_pct",
        "unit": "%",
        "decimals": 2,
        "source": {**source, "evidence": "abstract_text"},
        "spread": "standard deviation over seeds",
        "cost_classes": CLASSES,
        "rows": {"shapes": {"title": "Shapes", "dataset": "shapes"}},
        "columns": {"vit": column("Plain", "vit_tiny", 90.0), "elsewhere": column("Other", None, 95.0)},
    }
    write_params(root, "published/printed", facts)
    shown = {"title": "T", "caption": "C.", "published": "printed", "image_size": SIZE}
    write_params(root, "tables/theirs", {"kind": "published", **shown})
    write_params(root, "figures/field", {"kind": "published_vs_cost", **shown})
    changes = {"tables": ["acc_32", "theirs"], "figures": ["acc_vs_flops_32", "field"]}
    write_params(root, "suites/mini", suite(**changes))
    return root


def test_they_need_one_cost_and_nothing_else(project: Path) -> None:
    jobs = planned(project, TABLE, FIGURE)
    assert counts(jobs) == {"cost": 1, "table": 1, "figure": 1}
    cost = next(job for job in jobs if job.rule == "cost")
    assert cost.wildcards == {"method": "vit_tiny", "size": str(SIZE), "classes": str(CLASSES)}


def test_the_plan_counts_as_the_workflow_does(project: Path) -> None:
    planned_jobs = counts(planned(project))
    listed: dict[str, int] = {}
    for job in suite_jobs(Project(project), "mini", short=True):
        listed[job.kind] = listed.get(job.kind, 0) + 1
    # Splits are measured for a table that this suite does not have.
    assert listed.pop("stats") == 1
    assert planned_jobs == listed
    assert listed["cost"] == 3, "two of the suite's four classes, one of the published table's seven"


def test_mistyped_names(project: Path) -> None:
    for target, meant in (
        ("results/tables/thiers.tex", "theirs"),
        ("results/figures/feild.pdf", "field"),
        ("results/mini/figures/fields.png", "field"),
    ):
        with pytest.raises(FgvcError, match=f"did you mean '{meant}'"):
            hooks.checked_rules(Project(project), [target])


def test_a_mistake_in_the_published_file_is_told_before_any_work(project: Path) -> None:
    path = project / "params/published/printed.yaml"
    kept = path.read_text()
    path.write_text(kept.replace("variant: vit_tiny", "variant: vit_tinny"))
    try:
        outcome = call("snakemake", project, "-n", "--", TABLE)
    finally:
        path.write_text(kept)
    assert outcome.status == 1 and len(outcome.lines) <= 5, outcome.text
    assert "no method is called 'vit_tinny'; did you mean 'vit_tiny'?" in outcome.text
    assert "params/published/printed.yaml:" in outcome.text


def test_they_are_made_and_remade_when_a_number_changes(project: Path) -> None:
    outcome = snakemake(project, TABLE, FIGURE).check()
    assert sorted(job.split()[0] for job in outcome.done) == ["cost", "figure", "table"]
    ending = [line.partition(":")[0] for line in outcome.lines[-3:]]
    assert ending == ["Table", "Figure", "Next"] and "cells complete" not in outcome.text
    assert (project / FIGURE).stat().st_size > 10_000

    def accuracies() -> list[str]:
        with (project / TABLE).open() as stream:
            return [r["value"] for r in csv.DictReader(stream) if r["quantity"] == "top1_pct"]

    assert accuracies() == ["90.0", "95.0"]
    assert planned(project, TABLE, FIGURE) == []
    path = project / "params/published/printed.yaml"
    path.write_text(path.read_text().replace("value: 95.0", "value: 95.5"))
    again = snakemake(project, TABLE).check()
    assert again.done == ["table theirs"] and accuracies() == ["90.0", "95.5"]
