"""Kills and Ctrl-C at any moment: the same command goes on, repeats nothing finished, and ends alike."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import pytest
from workflowkit import (
    FINAL,
    SIZE,
    Driver,
    Outcome,
    contents,
    driving,
    fgvc,
    forget_method,
    gone,
    group_lives,
    identities,
    read,
    result_files,
    snakemake,
    states,
    suite,
    variant,
    write_params,
)

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

VIT_JOBS = 12  # of the jobs of one method, and of the tables and figures


def finished_outputs(root: Path, outcome: Outcome) -> list[Path]:
    """The outputs of the jobs that a driver saw end."""
    files: list[Path] = []
    for job in outcome.done:
        kind, ids = job.split(" ", 1)
        path = re.sub(r" (seed|lr) ", r"/\1", ids)
        if kind == "train":
            names = ("run.json", "model.safetensors", "history.csv")
            files += [root / "results/runs" / path / name for name in names]
        elif kind == "evaluate":
            files += [root / "results/runs" / path / n for n in ("metrics.json", "predictions.parquet")]
        elif kind == "try":
            names = ("run.json", "metrics.json", "history.csv", "predictions.parquet")
            files += [root / "results/sweeps" / path / name for name in names]
    assert all(path.is_file() for path in files)
    return files


def test_killed_stopped_and_orphaned_it_ends_with_the_same_bytes(copy: Path) -> None:
    expected = contents(copy, *FINAL)
    others = identities(result_files(copy, "runs/shapes/cnn_tiny/*/*/*", "sweeps/shapes/cnn_tiny/*/*/*"))
    forget_method(copy, "vit_tiny")
    kept: dict[Path, tuple[int, int]] = {}

    # 1. Everything is killed at once, in the middle of the learning-rate search.
    with driving(copy) as driver:
        driver.wait_until(lambda: states(copy, "sweeps"), "state of a search")
        driver.signal(signal.SIGKILL, group=True)
        outcome = driver.end()
    assert outcome.status == -signal.SIGKILL
    assert gone(driver.process.pid)
    kept |= identities(finished_outputs(copy, outcome))

    # 2. Ctrl-C in the middle of a final run: state is saved, nothing counts as failed.
    with driving(copy) as driver:
        driver.wait_until(lambda: states(copy, "runs"), "state of a run")
        driver.signal(signal.SIGINT, group=True)
        outcome = driver.end()
    assert outcome.status not in (0, -signal.SIGINT) and not group_lives(driver.process.pid)
    assert outcome.lines[-1].startswith("stopped on request; the same command goes on from here")
    assert "FAILED" not in outcome.text and "Traceback" not in outcome.text
    assert not list(copy.glob("state/**/failure.json")) and not list(copy.glob("results/**/*.partial.*"))
    assert identities(kept) == kept and outcome.reused >= 11
    kept |= identities(finished_outputs(copy, outcome))
    assert len(kept) >= 8, "the search was finished"

    # 3. The driver alone is killed; its trainings live on. The next waits for them or uses what they made.
    with driving(copy) as orphaner:
        orphaner.wait_until(lambda: states(copy, "runs"), "state of a run")
        orphaner.signal(signal.SIGKILL, group=False)
        kept |= identities(finished_outputs(copy, orphaner.end()))
        outcome = snakemake(copy).check()
    assert "--unlock" not in outcome.text and "already" in outcome.lines[0]
    assert identities(kept) == kept and identities(others) == others
    assert contents(copy, *FINAL) == expected
    assert not list(copy.glob("state/**/step-*")), "no state is left of finished runs"
    assert snakemake(copy).check().lines[0].startswith("nothing to be done")


@pytest.fixture
def long_training(copy: Path) -> Path:
    """A project with a training that takes minutes, in a suite of its own."""
    write_params(copy, "methods/vit_long", variant(title="Long", recipe={"epochs": 9000}))
    methods = ["vit_tiny", "vit_long"]
    rates = {"vit_tiny": [0.001, 0.003], "vit_long": [0.001]}
    long = suite(methods=methods, seeds=[1], learning_rates=rates, tables=["acc_32"], figures=[])
    write_params(copy, "suites/long", long)
    return copy


TARGET = "results/long/tables/acc_32.tex"


def train(root: Path, driver: Driver) -> int:
    """Wait until the long training trains, and return its process."""
    driver.wait_until(lambda: states(root, "runs"), "state of the run")
    holder = read(root / f"state/runs/shapes/vit_long/{SIZE}/seed1/lock")
    return int(holder["pid"])


def test_f20_two_drivers_of_one_project(long_training: Path) -> None:
    """A second Snakemake on the same project is refused before any job, with pid and host of the first, which
    goes on; what needs no job is answered meanwhile."""
    root = long_training
    with driving(root, TARGET) as driver:
        trainer = train(root, driver)
        second = snakemake(root, TARGET)
        assert second.status == 1 and len(second.lines) <= 5, second.text
        assert f"in process {driver.process.pid} on host {socket.gethostname()}" in second.lines[0]
        assert "to run" not in second.text and driver.process.poll() is None
        # What needs no driver goes on meanwhile.
        assert "nothing to be done" in snakemake(root, "results/tables/hw_stats.md").check().text

        os.kill(trainer, signal.SIGKILL)  # as the kernel does where memory runs out
        outcome = driver.end()
    assert outcome.status == 1
    run = f"results/runs/shapes/vit_long/{SIZE}/seed1/run.json"
    assert (
        f"  train {run}: the job ended without an error message (killed, or out of memory?)" in outcome.text
    )
    assert re.search(rf"rerun: \S*snakemake --cores 1 -- {run}$", outcome.lines[-1])
    partial = (root / "results/long/tables/acc_32.partial.md").read_text()
    assert "| FAILED |" in partial and "killed, or out of memory?" in partial
    assert not (root / TARGET).exists()


def test_an_interrupted_verb_says_so_and_goes_on(long_training: Path) -> None:
    """The same by hand: the verb is stopped, and its state is there for the workflow."""
    root = long_training
    arguments = ("train", "shapes", "vit_long", "--size", str(SIZE), "--seed", "1", "--lr", "0.001")
    import subprocess

    from workflowkit import BIN, environment

    process = subprocess.Popen(
        [BIN / "fgvc", *arguments], cwd=root, env=environment(), stderr=subprocess.PIPE, text=True
    )
    try:
        while not states(root, "runs"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, text = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "the same command goes on from here" in text
    steps = [int(path.stem.removeprefix("step-")) for path in states(root, "runs")]
    stopped = re.search(r"stopped at step (\d+)", text)
    assert stopped and max(steps) == int(stopped[1])
    assert fgvc(root, "table", "acc_32", "--suite", "long", "--allow-missing").check()
