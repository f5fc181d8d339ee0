"""The workflow as it is shipped: what it plans, that it is tidy, that it is quick to read."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from workflowkit import BIN, REPOSITORY, call, copy_workflow, counts, environment, fgvc, planned

from fgvc.config.project import Project
from fgvc.workflow import hooks
from fgvc.workflow.rules import Rules

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone: everything that git tracks and the workflow reads, no results."""
    root = tmp_path_factory.mktemp("shipped") / "project"
    copy_workflow(root)
    shutil.copytree(REPOSITORY / "params", root / "params")
    return root


def listed(root: Path, kind: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((root / "params" / kind / f"{name}.yaml").read_text())


def rates_by_method(suite: dict[str, Any]) -> dict[str, list[float]]:
    rates = suite["learning_rates"]
    if isinstance(rates, list):
        return dict.fromkeys(suite["methods"], rates)
    return {method: rates.get(method, rates.get("default")) for method in suite["methods"]}


SUITES = sorted(path.stem for path in (REPOSITORY / "params" / "suites").glob("*.yaml"))


@pytest.mark.parametrize("suite", SUITES)
def test_every_table_of_every_suite_is_planned_with_the_right_jobs(shipped: Path, suite: str) -> None:
    facts = listed(shipped, "suites", suite)
    for table in facts["tables"]:
        if listed(shipped, "tables", table)["kind"] != "accuracy":
            continue
        jobs = planned(shipped, f"results/{suite}/tables/{table}.tex")
        datasets = len(listed(shipped, "tables", table).get("datasets") or facts["datasets"])
        cells = datasets * len(facts["methods"])
        # A single rate is not searched.
        searched = [n for n in map(len, rates_by_method(facts).values()) if n > 1]
        expected = {"search": datasets * sum(searched)} if searched else {}
        weights = {listed(shipped, "methods", m)["weights"] for m in facts["methods"]} - {None}
        assert counts(jobs) == {
            **expected,
            "fetch": datasets,
            "split": datasets,
            "weights": len(weights),
            "select_lr": cells,
            "train": cells * len(facts["seeds"]),
            "evaluate": cells * len(facts["seeds"]),
            "table": 1,
        }
        size = str(listed(shipped, "tables", table)["image_size"])
        assert {job.wildcards["size"] for job in jobs if "size" in job.wildcards} == {size}


def test_the_paper_s_grid_is_planned(shipped: Path) -> None:
    """Ten datasets at 224 pixels: four learning rates with one seed, then three seeds."""
    jobs = planned(shipped, "results/sota/tables/sota_224.tex")
    found = counts(jobs)
    methods = len(listed(shipped, "suites", "sota")["methods"])
    assert found["fetch"] == found["split"] == 10
    assert found["search"] == 40 * methods and found["train"] == found["evaluate"] == 30 * methods
    assert {job.wildcards["seed"] for job in jobs if job.rule == "train"} == {"1", "10", "100"}


@pytest.mark.parametrize("suite", [None, *SUITES])
def test_every_target_of_every_suite_is_one_that_users_may_ask_for(shipped: Path, suite: str | None) -> None:
    project = Project(shipped)
    targets = Rules(project).targets(suite)
    assert targets
    hooks.checked_rules(project, targets)
    assert fgvc(shipped, "plan", *([suite] if suite else [])).check().lines[0].startswith("suite ")


def test_reading_the_snakefile_and_planning_import_no_torch(shipped: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "snakemake", "-n", "-q", "all"],
        cwd=shipped,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert {"snakemake.cli", "fgvc.workflow.rules"} <= imported
    # Not pandas: Snakemake's own SLURM plugin imports it, wherever it is installed.
    heavy = ("torch", "torchvision", "timm", "matplotlib", "scipy", "seaborn")
    assert not [name for name in heavy if name in imported]


def test_lint_finds_nothing(shipped: Path) -> None:
    outcome = call("snakemake", shipped, "--lint")
    assert outcome.status == 0 and "in a good condition" in outcome.text, outcome.text


def test_snakefmt_finds_nothing() -> None:
    files = [str(REPOSITORY / "Snakefile"), *map(str, (REPOSITORY / "rules").glob("*.smk"))]
    done = subprocess.run(
        [BIN / "snakefmt", "--check", "--line-length", "100", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_each_rule_has_a_log_a_benchmark_and_an_environment() -> None:
    for path in (REPOSITORY / "rules").glob("*.smk"):
        rules = re.split(r"^rule ", path.read_text(), flags=re.M)[1:]
        assert rules
        for rule in rules:
            for word in ("log:", "benchmark:", "conda:", "shell:"):
                assert f"    {word}" in rule, f"{path.name}: {rule.splitlines()[0]} {word}"
