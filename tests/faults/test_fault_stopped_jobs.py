"""Trainings under Snakemake: one that outlives its killed driver, and one that is preempted."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from trainfaults import EXACT, fgvc, result_bytes, run_dir, state_files
from trainkit import RATE, SETTINGS, SIZE, SUITE, copy_project, make_project, variant, write_yaml

from fgvc.config.project import Project

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))

from workflowkit import Driver, copy_workflow, driving, read, snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

RUN = f"results/runs/tiny/patient/{SIZE}/seed1/run.json"
LOG = f"logs/train/tiny/patient/{SIZE}/seed1.log"


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the workflow, in which one run of some seconds is to be made."""
    root = tmp_path_factory.mktemp("stopped") / "project"
    copy_workflow(root)
    project = make_project(root)
    write_yaml(root / "params/methods/patient.yaml", variant(epochs=60))
    write_yaml(root / "params/config.yaml", {**SETTINGS, "checkpoint_interval_s": 0.2})
    write_yaml(root / "params/suites/quick.yaml", {**SUITE, "methods": ["patient"], "learning_rates": [RATE]})
    assert fgvc(project, "select-lr", "tiny", "patient", "--size", str(SIZE)).code == 0
    return project


@pytest.fixture(scope="module")
def expected(one_run: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the run gives when nobody disturbs it."""
    project = copy_project(one_run, tmp_path_factory.mktemp("alone") / "project")
    assert fgvc(project, "train", "tiny", "patient", "--size", str(SIZE)).code == 0
    return result_bytes(project, "patient")


@pytest.fixture
def project(one_run: Project, tmp_path: Path) -> Project:
    return copy_project(one_run, tmp_path / "project")


def trainer_of(driver: Driver, project: Project) -> int:
    """Wait until the training saves its state, and return its process."""
    driver.wait_until(lambda: state_files(project, "patient"), "state of the run")
    return int(read(project.paths.state_dir(run_dir(project, "patient")) / "lock")["pid"])


def test_f04_a_trainer_that_outlives_its_killed_driver(project: Project, expected: dict[str, bytes]) -> None:
    """After `kill -9` of Snakemake the trainer lives on; the next Snakemake's trainer waits for it, names its
    process and host, and takes its result: the run is trained once."""
    with driving(project.root, RUN) as driver:
        trainer = trainer_of(driver, project)
        os.kill(trainer, signal.SIGSTOP)
        driver.signal(signal.SIGKILL, group=False)
        driver.end()
        log = project.root / LOG
        with driving(project.root, RUN) as second:
            holder = f"is under way in process {trainer} on host {socket.gethostname()}"
            second.wait_until(lambda: log.exists() and holder in log.read_text(), "its words")
            os.kill(trainer, signal.SIGCONT)
            second.end().check()
    assert "(cached)" in log.read_text()
    assert read(project.root / RUN)["resumed_from_step"] is None
    assert result_bytes(project, "patient") == {name: expected[name] for name in EXACT}


def test_f02_a_preempted_job_is_shown_as_stopped(project: Project, expected: dict[str, bytes]) -> None:
    """A job that was asked to stop counts as stopped, not as a failure of its method: no FAILED cell, no list
    of failures; the same command goes on to the same bytes. SIGUSR1 and SIGTERM come to Snakemake, too."""
    with driving(project.root, RUN) as driver:
        trainer_of(driver, project)
        driver.signal(signal.SIGUSR1, group=True)
        outcome = driver.end()
    assert outcome.status == 1 and "FAILED" not in outcome.text and "failed" not in outcome.text
    assert f"stopped train tiny/patient/{SIZE} seed 1" in outcome.lines
    job, last = outcome.lines[-2:]
    assert job.startswith(f"  train {RUN}: stopped at step ") and " by SIGUSR1; " in job
    assert last.startswith("stopped by a signal or a deadline; the same command goes on from here")
    assert not list(project.root.glob("state/**/failure.json"))
    assert not list(project.root.glob("results/**/*.partial.*"))

    before = {path.name for path in state_files(project, "patient")}
    with driving(project.root, RUN) as driver:
        driver.wait_until(
            lambda: {path.name for path in state_files(project, "patient")} - before, "another state"
        )
        driver.signal(signal.SIGTERM, group=True)
        outcome = driver.end()
    assert outcome.status != 0 and "FAILED" not in outcome.text and "Traceback" not in outcome.text
    assert outcome.lines[-1].startswith("stopped on request; the same command goes on from here")
    assert not list(project.root.glob("state/**/failure.json"))

    snakemake(project.root, RUN).check()
    assert "nothing before it is repeated" in (project.root / LOG).read_text()
    assert result_bytes(project, "patient") == {name: expected[name] for name in EXACT}
