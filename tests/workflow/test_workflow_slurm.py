"""The workflow on a real SLURM cluster of one node: all states that a job there can take."""

from __future__ import annotations

import os
import re
import shutil
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
    copy_tree,
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

pytestmark = [pytest.mark.workflow, pytest.mark.slow, pytest.mark.exhaustive]


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


def test_f19_two_gpu_jobs_run_at_once_and_give_the_bytes_of_a_local_run(project: Path) -> None:
    """On a cluster GPU jobs run side by side, ask SLURM for their GPUs, and give the bytes of a local run."""
    expected = contents(project, *FINAL)
    kept = identities(result_files(project, "*/shapes/cnn_tiny/**/*"))
    forget_method(project, "vit_tiny", "runs")
    sweeps = project / "results" / "sweeps" / "shapes" / "vit_tiny" / str(SIZE)
    (sweeps / "lr.json").unlink()
    for one in (sweeps / "lr0.003", project / "state" / sweeps.relative_to(project / "results") / "lr0.003"):
        shutil.rmtree(one)
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
    assert len(jobs) == len(ids) == 3 and len(outcome.done) == 9
    runs = [project / f"results/runs/shapes/vit_tiny/{SIZE}/seed{seed}/run.json" for seed in (1, 10)]
    assert {read(run)["host"]["slurm_job"] for run in runs} < ids
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


def test_f19_a_failure_a_time_limit_and_a_cancelled_job_leave_the_rest_alone(project: Path) -> None:
    """A job that fails, reaches its time limit or is cancelled is told as such; the others finish, and a
    training that was stopped keeps its state.
    """
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
    # FAILED: asked to end at its limit, it saved its state and ended (exit status 75) before it was killed.
    assert states[slow.id] in ("TIMEOUT", "FAILED") and states[cancelled.id] == "CANCELLED"
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


def make_long(root: Path) -> None:
    """A suite of one training, long enough to be met in its middle."""
    write_params(root, "methods/vit_mid", variant(title="Mid", recipe={"epochs": 60}))
    mid = suite(methods=["vit_mid"], seeds=[1], learning_rates=[0.001], tables=["acc_32"], figures=[])
    write_params(root, "suites/mid", mid)


def test_f19_a_requeued_job_goes_on_and_a_new_driver_takes_over_from_a_killed_one(
    project: Path, finished: Path, tmp_path: Path
) -> None:
    """A requeued training goes on from its state; the same command takes over from a driver that was killed,
    and the final bytes are those of a run that nothing disturbed.
    """
    target, run = "results/mid/tables/acc_32.tex", f"runs/shapes/vit_mid/{SIZE}/seed1"
    make_long(project)
    make_profile(project, "mid")
    log = project / f"logs/train/shapes/vit_mid/{SIZE}/seed1.log"

    def resumed_at() -> int:
        # Snakemake takes the log of the first start away before the second begins.
        match = re.search(r"resuming at step (\d+)", log.read_text()) if log.is_file() else None
        return int(match[1]) if match else 0

    with slurm_driving(project, target) as driver:
        job = driver.wait_until(lambda: job_of(project, "vit_mid"), "state of the training")
        ask("scontrol", "requeue", job.id)
        # Once more in the queue, the same job goes on from the state that it saved when it was told to stop.
        driver.wait_until(resumed_at, "second start")
        first = resumed_at()
        again = driver.wait_until(lambda: job_of(project, "vit_mid"), "the job's second start")
        assert again.id == job.id and again.facts["Restarts"] == "1"
        driver.signal(signal.SIGKILL, group=True)
        assert driver.end().status == -signal.SIGKILL and gone(driver.process.pid)

    # SLURM knows nothing of the driver's end: its job lives on, until the next driver comes.
    assert [left.id for left in slurm_jobs(project, "RUNNING")] == [job.id]
    with slurm_driving(project, target) as driver:
        outcome = driver.end().check()
    assert "1 SLURM jobs of a driver that was killed are cancelled" in outcome.text
    assert {j.id: j.state for j in slurm_jobs(project)}[job.id] == "CANCELLED"
    assert resumed_at() > first > 0
    assert not list(project.glob("state/**/step-*")), "no state is left of finished runs"

    reference = copy_tree(finished, tmp_path / "reference")
    make_long(reference)
    snakemake(reference, target).check()
    patterns = [f"{run}/{name}" for name in ("model*", "history*", "metrics*", "predictions*")]
    assert len(expected := contents(reference, *patterns, "mid/tables/*")) == 7
    assert contents(project, *patterns, "mid/tables/*") == expected
