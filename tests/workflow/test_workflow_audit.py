"""Audits as targets: of published numbers from costs alone, and of a suite's finished runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from workflowkit import counts, make_project, planned, snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_audit_of_a_suite_is_made_from_its_runs(copy: Path) -> None:
    target = "results/audit/mini.html"
    assert counts(planned(copy, target)) == {"audit_suite": 1}, "every run is there"
    snakemake(copy, target).check()
    assert "<title>" in (copy / target).read_text()
    assert isinstance(json.loads((copy / "results/audit/mini.json").read_text()), list)
    assert "othing to be done" in snakemake(copy, target).check().text


@pytest.fixture(scope="module")
def unmade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny project in which nothing was run."""
    root = tmp_path_factory.mktemp("unmade") / "project"
    make_project(root)
    return root


def test_the_audit_of_a_suite_asks_for_its_runs(unmade: Path) -> None:
    asked = counts(planned(unmade, "results/audit/mini.md"))
    assert asked["audit_suite"] == 1 and asked["train"] == asked["evaluate"] > 1 and asked["table"] > 0


def test_the_audit_of_published_numbers_asks_for_no_run_and_no_data(unmade: Path) -> None:
    table = (REPOSITORY / "params/published/sc4001_table1.yaml").read_text()
    (unmade / "params/published").mkdir(exist_ok=True)
    foreign = re.compile(r"^ +variant: .*\n", re.MULTILINE)  # the made-up project has no such methods
    table = foreign.sub("", table.replace("dataset: flowers", "dataset: null"))
    (unmade / "params/published/made_up.yaml").write_text(table)
    target = "results/audit/published.json"
    assert counts(planned(unmade, target)) == {"audit_published": 1}
    outcome = snakemake(unmade, target).check()
    assert outcome.done == ["audit published numbers"] and "error" not in outcome.text
    checks = {finding["check"] for finding in json.loads((unmade / target).read_text())}
    assert {"granularity", "test_selection", "licences"} <= checks
    assert "othing to be done" in snakemake(unmade, target).check().text
    (unmade / "params/published/made_up.yaml").unlink()
    assert counts(planned(unmade, target)) == {"audit_published": 1}, "what it reads of params is a reason"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("results/audit/minni.html", "did you mean 'mini'"),
        ("results/audit/publishd.md", "did you mean 'published'"),
        ("results/audit/mini.pdf", "files there: mini.html, mini.md, mini.json"),
        ("results/audit/shapes.md", "did you mean 'results/audit/data/shapes.md'"),
    ],
)
def test_a_mistyped_audit_is_answered(unmade: Path, target: str, says: str) -> None:
    outcome = snakemake(unmade, target)
    assert outcome.status == 1 and says in outcome.text and len(outcome.lines) <= 5
