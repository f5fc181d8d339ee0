"""The workflow on a real SLURM cluster of one node: all states that a job there can take."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurmkit import alone, ask, job_of, make_profile, one_cluster, slurm_driving, slurm_jobs
from workflowkit import (
    FINAL,
    SIZE,
    contents,
    forget_method,
    gone,
    identities,
    read,
    result_files,
    snakemake,
    suite,
    variant,
    write_params,
)

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def cluster(shared_folder: Path) -> Iterator[None]:
    with one_cluster(shared_folder):
        yield


@pytest.fixture
def project(cluster: None, shared_folder: Path, copy: Path) -> Iterator[Path]:
    """A finished project, and the cluster for this test alone."""
    with alone(shared_folder):
        yield copy


def test_two_gpu_jobs_run_at_once_and_give_the_bytes_of_a_local_run(project: Path) -> None:
    expected = contents(project, *FINAL)
    kept = identities(result_files(project, "*/shapes/cnn_tiny/**/*", "sweeps/**/*"))
    forget_method(project, "vit_tiny", "runs")
    make_profile(project, "--gpu-partition", "gpus")

    most = 0
    with slurm_driving(project) as driver:
        while driver.process.poll() is None:
            most = max(most, len(slurm_jobs(project, "RUNNING")))
            time.sleep(0.2)
        outcome = driver.end().check()

    # The cap of profiles/default (one GPU) does not hold here, and each job asked SLURM for its GPU.
    jobs = slurm_jobs(project)
    assert most == 2
    assert {(job.facts["Partition"], job.facts["TresPerJob"]) for job in jobs} == {("gpus", "gres:gpu:1")}
    assert contents(project, *FINAL) == expected and identities(kept) == kept
    # A run is trained and evaluated in one SLURM job; tables and figures are made beside the driver.
    ids = {job.id for job in slurm_jobs(project, "COMPLETED")}
    assert len(jobs) == len(ids) == 2 and len(outcome.done) == 6
    runs = [project / f"results/runs/shapes/vit_tiny/{SIZE}/seed{seed}/run.json" for seed in (1, 10)]
    assert {read(run)["host"]["slurm_job"] for run in runs} == ids
    assert "submitted" not in outcome.text and "account" not in outcome.text
    assert snakemake(project).check().lines[0].startswith("nothing to be done")


def make_states(root: Path) -> None:
    """A suite of a method that is finished, one that cannot run here, and two that take minutes."""
    write_params(root, "methods/vit_gpu", variant(title="Half", recipe={"precision": "fp16"}))
    for name in ("vit_slow", "vit_gone"):
        write_params(root, f"methods/{name}", variant(title=name, recipe={"epochs": 9000}))
    methods = ["vit_tiny", "vit_gpu", "vit_slow", "vit_gone"]
    rates = {"vit_tiny": [0.001, 0.003], **{method: [0.001] for method in methods[1:]}}
    write_params(
        root,
        "suites/states",
        suite(methods=methods, seeds=[1], learning_rates=rates, tables=["acc_32"], figures=[]),
    )


def test_a_failure_a_time_limit_and_a_cancelled_job_leave_the_rest_alone(project: Path) -> None:
    make_states(project)
    # The cluster that knows no --gpus: the same by --gres.
    make_profile(project, "states", "--gres", "gpu:1")
    kept = identities(result_files(project, "runs/**/*", "sweeps/**/*"))
    table = "results/states/tables/acc_32"
    with slurm_driving(project, f"{table}.tex", options=("--retries", "0")) as driver:
        slow = driver.wait_until(lambda: job_of(project, "vit_slow"), "state of the slow training")
        assert slow.facts["TresPerNode"] == "gres:gpu:1" and "TresPerJob" not in slow.facts
        ask("scontrol", "update", f"JobId={slow.id}", "EndTime=now+1")
        cancelled = driver.wait_until(lambda: job_of(project, "vit_gone"), "state of the other")
        ask("scancel", cancelled.id)
        outcome = driver.end()

    assert outcome.status == 1 and "Traceback" not in outcome.text, outcome.text
    states = {job.id: job.state for job in slurm_jobs(project)}
    assert (states[slow.id], states[cancelled.id]) == ("TIMEOUT", "CANCELLED")
    said = " ".join(outcome.text.split())
    run = f"results/runs/shapes/vit_gpu/{SIZE}/seed1/run.json"
    assert f"train {run}: this recipe trains in fp16, which needs a GPU" in said
    # The two others saved their state in time: they are not done, and did not fail.
    for method in ("vit_slow", "vit_gone"):
        log = (project / f"logs/train/shapes/{method}/{SIZE}/seed1.log").read_text()
        assert re.search(r"stopped at step \d+", log), log
    assert "the same command goes on from here" in said
    assert identities(kept) == kept
    partial = (project / f"{table}.partial.md").read_text()
    assert "PARTIAL: 1 of 4 cells" in partial and "FAILED (this recipe trains in fp16" in partial


def test_a_requeued_job_goes_on_and_a_new_driver_takes_over_from_a_killed_one(project: Path) -> None:
    expected = contents(project, *FINAL)
    forget_method(project, "vit_tiny")
    make_profile(project)
    log = project / f"logs/train/shapes/vit_tiny/{SIZE}/seed1.log"

    with slurm_driving(project) as driver:
        job = driver.wait_until(lambda: job_of(project, "vit_tiny"), "state of a run")
        ask("scontrol", "requeue", job.id)

        def is_back() -> bool:
            return any(j.id == job.id and j.facts["Restarts"] == "1" for j in slurm_jobs(project, "RUNNING"))

        driver.wait_until(lambda: is_back() and "resuming at step" in log.read_text(), "second start")
        # What it saved when it was told to stop is where it goes on.
        step = re.search(r"resuming at step (\d+)", log.read_text())
        assert step and int(step[1]) > 0
        driver.signal(signal.SIGKILL, group=True)
        assert driver.end().status == -signal.SIGKILL and gone(driver.process.pid)

    left = [j.id for j in slurm_jobs(project, "RUNNING", "PENDING")]
    with slurm_driving(project) as driver:
        outcome = driver.end().check()
    if left:  # they were not all at their end
        assert re.search(
            r"^\d+ SLURM jobs of a driver that was killed are cancelled", outcome.text, flags=re.M
        )
    assert contents(project, *FINAL) == expected
    assert not list(project.glob("state/**/step-*")), "no state is left of finished runs"
