"""Trainings that are killed, asked to stop, or short of time: the same command ends with the same bytes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable

import pytest
import trainfaults
from trainfaults import (
    EVALUATE,
    EXACT,
    KILLED,
    TRAIN,
    GroupFate,
    SlowSteps,
    Verb,
    assert_same,
    fgvc,
    run_dir,
    state_files,
    wait_for,
)
from trainkit import Fate, Moment

from fgvc.config.project import Project
from fgvc.provenance.stopping import INTERRUPTED, STOPPED

pristine, fresh, project, undisturbed = (
    trainfaults.pristine,
    trainfaults.fresh,
    trainfaults.project,
    trainfaults.undisturbed,
)

Fresh = Callable[..., Project]
Bytes = dict[str, bytes]

#: Ten steps, five an epoch.
FIRST, MIDDLE, LAST = 6, 8, 10


@pytest.mark.parametrize("step", [FIRST, MIDDLE, LAST], ids=["first", "middle", "last"])
def test_f01_sigkill_in_a_step_of_an_epoch(project: Project, undisturbed: Bytes, step: int) -> None:
    """A trainer that is killed with SIGKILL in any step of an epoch goes on from the last saved step, and
    ends with the same model and history to the byte."""
    assert fgvc(project, befalls=Fate(step, "in the step").await_it).code == KILLED
    assert not (run_dir(project) / "run.json").exists()
    again = fgvc(project)
    assert again.code == 0 and f"resuming at step {step - 1} of 10" in again.said
    assert_same(project, undisturbed)


@pytest.mark.parametrize(
    ("name", "code"), [("SIGTERM", STOPPED), ("SIGUSR1", STOPPED), ("SIGINT", INTERRUPTED)]
)
def test_f02_a_signal_saves_the_state_within_a_step(
    fresh: Fresh, undisturbed: Bytes, name: str, code: int
) -> None:
    """SIGTERM, SIGUSR1 and Ctrl-C let the step end, save the state and exit with 75 (Ctrl-C: 130); the same
    command goes on from that very step to the same bytes. Nothing counts as failed."""
    project = fresh(checkpoint_interval_s=3600)
    stopped = fgvc(project, befalls=Fate(4, "in the step", (signal.Signals[name],)).await_it)
    assert stopped.code == code
    assert stopped.last == f"stopped at step 4 of 10 by {name}; the same command goes on from here"
    state = project.paths.state_dir(run_dir(project))
    assert not (state / "failure.json").exists() and not (state / "progress.json").exists()
    again = fgvc(project)
    assert again.code == 0 and "resuming at step 4 of 10" in again.said
    assert_same(project, undisturbed)


def test_f02_a_second_request_does_not_end_the_saving(project: Project, undisturbed: Bytes) -> None:
    """A warning and the end itself (SIGUSR1, then SIGTERM twice) are one request: the state is saved."""
    signals = (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM)
    stopped = fgvc(project, befalls=Fate(4, "in the step", signals).await_it)
    assert stopped.code == STOPPED and "stopped at step 4 of 10 by SIGUSR1" in stopped.last
    assert fgvc(project).code == 0
    assert_same(project, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_f02_a_signal_to_the_whole_process_group(fresh: Fresh, undisturbed: Bytes, number: int) -> None:
    """A cluster signals every process of a job: the loader's workers go on until the trainer has saved."""
    project = fresh(checkpoint_interval_s=3600, loader_workers=2)
    stopped = fgvc(project, befalls=GroupFate(4, "in the step", (number,)).await_it)
    assert stopped.code == STOPPED and "stopped at step 4 of 10" in stopped.last
    assert "Traceback" not in stopped.said
    assert fgvc(project).code == 0
    assert_same(project, undisturbed)


def test_f02_a_job_that_runs_out_of_time_stops_before(fresh: Fresh, undisturbed: Bytes) -> None:
    """With SLURM_JOB_END_TIME in the environment the state is saved and the process has ended in time."""
    project = fresh(checkpoint_interval_s=3600)
    ends = int(time.time()) + 16
    stopped = fgvc(project, befalls=SlowSteps(1.0), environment={"SLURM_JOB_END_TIME": str(ends)})
    assert time.time() < ends
    assert stopped.code == STOPPED and "by the deadline (SLURM_JOB_END_TIME);" in stopped.last
    again = fgvc(project, environment={"SLURM_JOB_END_TIME": str(ends - 86400)})
    assert again.code == 0 and "resuming at step" in again.said, "an end that has passed is another job's"
    assert_same(project, undisturbed)


def test_f02_max_seconds_ends_in_time(fresh: Fresh, undisturbed: Bytes) -> None:
    """`fgvc train --max-seconds` saves and stops in time; without a limit it goes on to the same bytes."""
    project = fresh(checkpoint_interval_s=3600)
    stopped = fgvc(project, *TRAIN, "--max-seconds", "5", befalls=SlowSteps(1.0))
    assert stopped.code == STOPPED and stopped.seconds < 5 + 2
    assert "by --max-seconds; the same command goes on from here" in stopped.last
    assert fgvc(project).code == 0
    assert_same(project, undisturbed)


def test_f02_a_job_that_waits_for_another_can_be_stopped(project: Project, undisturbed: Bytes) -> None:
    """A deadline and a signal also end a process that does no step: one that waits for a lock."""
    first = Verb(project, befalls=Fate(3, "after saving", (signal.SIGSTOP,)).await_it)
    wait_for(lambda: len(state_files(project)) >= 4)
    waited = fgvc(project, *TRAIN, "--max-seconds", "3")
    assert waited.code == STOPPED
    assert waited.last == "stopped by --max-seconds; the same command begins this step anew"
    second = Verb(project)
    wait_for(lambda: "waiting: training" in second.said)
    os.kill(second.pid, signal.SIGTERM)
    assert second.end().code == STOPPED
    os.kill(first.pid, signal.SIGCONT)
    assert first.end().code == 0
    assert_same(project, undisturbed)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_f02_a_stopped_evaluation_leaves_nothing_half_done(
    project: Project, undisturbed: Bytes, name: str
) -> None:
    """An evaluation that is asked to stop writes nothing and exits with 75; the next one writes the same."""
    assert fgvc(project).code == 0
    stopped = fgvc(project, *EVALUATE, befalls=trainfaults.StopWhilePredicting(signal.Signals[name]))
    assert stopped.code == STOPPED
    assert stopped.last == f"stopped by {name}; the same command begins this step anew"
    assert sorted(path.name for path in run_dir(project).iterdir()) == [
        "history.csv",
        "model.safetensors",
        "run.json",
    ]
    assert fgvc(project, *EVALUATE).code == 0
    assert_same(project, undisturbed, (*EXACT, "predictions.parquet", "metrics.json"))


def test_f02_a_search_goes_on_where_it_was_stopped(project: Project) -> None:
    """A candidate of the learning-rate search that is stopped in its last step trains none of it again."""
    search = (*TRAIN, "--split", "train", "--seed", "1")
    stopped = fgvc(project, *search, befalls=Fate(6, "in the step", (signal.SIGTERM,)).await_it)
    assert stopped.code == STOPPED and "stopped at step 6 of 6" in stopped.last
    again = fgvc(project, *search)
    assert again.code == 0 and "resuming at step 6 of 6" in again.said
    folder = project.paths.sweep_dir("tiny", "plain", trainfaults.SIZE, trainfaults.RATE)
    assert json.loads((folder / "metrics.json").read_text())["split"] == "val"


def test_f02_a_request_while_the_results_are_written(project: Project, undisturbed: Bytes) -> None:
    """Results that are being written are written to the end: a final run is then done (0), a search stops
    before its evaluation (75) and trains nothing again."""
    assert fgvc(project, befalls=trainfaults.StopWhilePublishing(signal.SIGTERM)).code == 0
    assert_same(project, undisturbed)
    search = (*TRAIN, "--split", "train", "--seed", "1")
    stopped = fgvc(project, *search, befalls=trainfaults.StopWhilePublishing(signal.SIGTERM))
    assert stopped.code == STOPPED
    assert stopped.last == "stopped after training by SIGTERM; the same command goes on from here"
    again = fgvc(project, *search)
    assert again.code == 0 and "(cached)" in again.said


@pytest.mark.parametrize("moment", ["in the state", "before its record"])
def test_f03_sigkill_inside_the_writing_of_a_state(
    project: Project, undisturbed: Bytes, moment: Moment
) -> None:
    """A kill in the middle of saving loses that save only: the generation before it loads."""
    assert fgvc(project, befalls=Fate(MIDDLE, moment).await_it).code == KILLED
    again = fgvc(project)
    assert again.code == 0 and f"resuming at step {MIDDLE - 1} of 10" in again.said
    assert_same(project, undisturbed)
