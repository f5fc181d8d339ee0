"""What a cluster asks of the driver and of each job: little work, whatever the size of the suite."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from workflowkit import FILES, REPOSITORY, SIZE, call, environment, fgvc, make_project, suite, variant
from workflowkit import write_params as write

from fgvc.config.grid import cells
from fgvc.config.project import Project
from fgvc.workflow.cluster import ending
from fgvc.workflow.rules import Rules

pytestmark = [pytest.mark.workflow]

RUNS = 5000
TABLE = "results/large/tables/acc_32.tex"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a suite of 20 datasets, 25 methods and 10 seeds."""
    root = make_project(tmp_path_factory.mktemp("large") / "project")
    datasets, methods = [f"shapes{n}" for n in range(20)], [f"vit_{n}" for n in range(25)]
    for name in datasets:
        write(root, f"datasets/{name}", FILES["datasets/shapes"] | {"title": name})
    for name in methods:
        write(root, f"methods/{name}", variant(title=name))
    large = suite(datasets=datasets, methods=methods, seeds=list(range(1, 11)), learning_rates=[0.001])
    write(root, "suites/large", large)
    return root


def test_what_the_rules_ask_of_5000_runs_takes_a_second_or_two(large: Path) -> None:
    started = time.process_time()
    rules = Rules(Project(large))
    runs = len(rules.table_inputs("large", "acc_32"))
    for cell in cells(rules.project, "large"):
        rules.search(cell.dataset, cell.method, str(cell.size))
        for _seed in range(10):
            rules.training_inputs(cell.dataset, cell.method)
            rules.recipe_sha256(cell.dataset, cell.method)
            rules.threads(cell.dataset, cell.method)
    assert runs == RUNS and time.process_time() - started < 2.5


@pytest.mark.slow
def test_a_dry_run_of_5000_runs_takes_seconds(large: Path) -> None:
    """Of processor time, so that a busy machine does not matter; nearly all of it is Snakemake's own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    call("snakemake", large, "-n", "--quiet", "all", "--", TABLE).check()
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 45


MEASURED = """
import sys, time
import snakemake.cli
from snakemake.workflow import Workflow
started = time.process_time()
import fgvc.workflow.hooks, snakemake_logger_plugin_fgvc
spent = [time.process_time() - started]
include = Workflow.include
def timed(self, *args, **kwargs):
    started = time.process_time()
    include(self, *args, **kwargs)
    spent.append(time.process_time() - started)
Workflow.include = timed
try:
    snakemake.cli.main()
finally:
    heavy = {"torch", "torchvision", "timm"} & set(sys.modules)
    print(f"parsed in {spent[0] + spent[-1]:.3f} s; imported: {sorted(heavy)}", file=sys.stderr)
"""


def test_a_job_on_a_node_parses_the_snakefile_in_less_than_a_second(large: Path) -> None:
    arguments = ("--mode", "remote", "-n", "--", "results/cost/vit_0/32/4.json")
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments],
        cwd=large,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    match = re.search(r"parsed in ([\d.]+) s; imported: \[(.*)\]", done.stderr)
    assert match and float(match[1]) < 1 and match[2] == ""


# --- the profile ---------------------------------------------------------------------------------------


def profile(root: Path, *options: str) -> Any:
    return yaml.safe_load(fgvc(root, "slurm-profile", *options).check().text)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("tiny") / "project")


def test_a_profile_does_all_that_the_default_one_does_but_its_cap(tiny: Path) -> None:
    default = yaml.safe_load((REPOSITORY / "profiles/default/config.yaml").read_text())
    made = profile(tiny)
    shipped = yaml.safe_load((REPOSITORY / "profiles/slurm/config.yaml").read_text())
    for one in (made, shipped):
        assert default.pop("resources", ["gpu=1"]) == ["gpu=1"] and one["resources"] == ["small=1"]
        assert {key: one[key] for key in default} == default
        assert one["executor"] == "slurm"
        assert all(one["set-resources"][rule]["gpu"] == 1 for rule in ("search", "train", "evaluate"))
    made.pop("slurm-status-command", None)  # depends on the cluster
    assert set(made) == set(shipped) and set(made["set-resources"]) == set(shipped["set-resources"])
    rules = {
        m[1] for p in (REPOSITORY / "rules").glob("*.smk") for m in re.finditer(r"rule (\w+):", p.read_text())
    }
    assert set(made["set-resources"]) <= rules


def test_what_a_cluster_is_called_stands_in_its_profile(tiny: Path) -> None:
    made = profile(tiny, "--account", "birds", "--partition", "cpu", "--gpu-partition", "gpu", "--gpus", "2")
    assert made["default-resources"]["slurm_account"] == "birds"
    assert made["default-resources"]["slurm_partition"] == "cpu"
    train = made["set-resources"]["train"]
    assert (train["gpu"], train["slurm_partition"]) == (2, "gpu") and "gres" not in train
    train = profile(tiny, "--gres", "gpu:a100:1")["set-resources"]["train"]
    assert (train["gpu"], train["gres"]) == (0, "gpu:a100:1")
    none = profile(tiny, "--gpus", "0")["set-resources"]
    assert not any(asked.get("gpu") for asked in none.values())


def test_time_and_memory_follow_from_finished_runs(tiny: Path) -> None:
    speeds = {"vit_tiny": 0.05, "cnn_tiny": 4.0}
    for method, speed in speeds.items():
        folder = tiny / f"results/runs/shapes/{method}/{SIZE}/seed1"
        folder.mkdir(parents=True)
        record = {"method": method, "image_size": SIZE, "images_per_s": speed, "peak_memory_mib": 4000}
        (folder / "run.json").write_text(json.dumps(record))
    lists = tiny / "results/splits/shapes/split.json"
    lists.parent.mkdir(parents=True)
    parts = {part: {"rows": 48} for part in ("train", "val", "train_val", "test")}
    lists.write_text(json.dumps({"parts": parts}))
    train = profile(tiny, "--time-factor", "2")["set-resources"]["train"]
    minutes = 48 * 6 / 0.05 / 60 * 2 + 15  # the slower method, six epochs
    assert 0 <= train["runtime"] - minutes < 60
    memory = int(train["mem_mb"].removesuffix(" * attempt"))
    assert 0 <= memory - 4000 * 1.048576 * 1.5 < 1000
    # A training that is longer than the longest job goes on in the next.
    capped = profile(tiny, "--max-hours", "1")
    assert capped["set-resources"]["train"]["runtime"] == 60
    assert capped["retries"] == 5 > profile(tiny)["retries"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--gres a100:1", "--gres a100:1 names no GPU"),
        ("--gres gpu:1 --gpu-model a100", "exclude one another"),
        ("--gpus 0 --gres gpu:1", "with --gpus 0 nothing asks for a GPU"),
        ("--account two;words", "--account 'two;words' is no name"),
        ("sota --write profiles/../elsewhere", "is not below profiles/"),
        ("--write profiles/default", "this profile is there already"),
        ("soat", "no suite is called 'soat'"),
    ],
)
def test_a_wrong_profile_is_refused(tiny: Path, options: str, says: str) -> None:
    outcome = fgvc(tiny, "slurm-profile", *options.replace("sota ", "").split())
    assert outcome.status != 0 and says in outcome.text and len(outcome.lines) <= 5


@pytest.mark.parametrize(
    ("message", "log", "words"),
    [
        ("", "error: *** JOB 7 ON n1 CANCELLED AT 2026-01-02T03:04:05 DUE TO TIME LIMIT ***", "time limit"),
        ("", "error: *** JOB 7 ON n1 CANCELLED AT 2026-01-02T03:04:05 DUE TO PREEMPTION ***", "priority"),
        ("", "*** STEP 7.0 ON n1 CANCELLED AT 2026-01-02T03:04:05 DUE TO NODE FAILURE, SEE …", "node failed"),
        ("", "error: *** JOB 7 ON n1 CANCELLED AT 2026-01-02T03:04:05 ***", "scancel"),
        ("", "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0.", "lack of memory"),
        ("", "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.", "lack of memory"),
        ("SLURM-job '7' failed, SLURM status is: 'TIMEOUT'.", "", "time limit"),
        ("SLURM-job '7' failed, SLURM status is: 'CANCELLED'.", "", "scancel"),
        ("SLURM-job '7' failed, SLURM status is: 'FAILED'.", "RuleException:", None),
    ],
)
def test_why_slurm_ended_a_job_is_said_in_words(message: str, log: str, words: str | None) -> None:
    said = ending(message, log)
    assert said is None if words is None else said is not None and words in said
