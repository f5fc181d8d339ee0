"""A run that was killed, wherever it was, ends with the bytes of one that was not. Real processes die."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from trainkit import MOMENTS, RATE, SIZE, Fate, Moment, exact_files, finish, run_dir, spec_of, start, train

from fgvc.config.project import Project

Fresh = Callable[..., Project]
Uninterrupted = Callable[[str], dict[str, bytes]]

#: Variant → its number of optimizer steps (see trainkit).
STEPS = {"plain": 10, "norms": 10, "centers": 10, "groups": 10, "everything": 6, "frozen": 10}


def state_files(project: Project, method: str) -> list[Path]:
    return sorted(project.paths.state_dir(run_dir(project, method)).rglob("*step-*"))


def assert_same(project: Project, method: str, expected: dict[str, bytes]) -> None:
    found = exact_files(run_dir(project, method))
    assert [name for name in expected if found[name] != expected[name]] == []
    assert state_files(project, method) == []


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("where", ["first", "middle", "last"])
@pytest.mark.parametrize("method", ["everything"])
def test_killed_at_any_moment_of_a_step(
    project: Project, uninterrupted: Uninterrupted, method: str, where: str, moment: Moment
) -> None:
    """With strong augmentation, mixing, dropout, stochastic depth, AdamW, accumulation, moving average."""
    saved_last = STEPS[method] - 1
    step = {"first": 1, "middle": 3, "last": saved_last + (moment == "in the step")}[where]
    died = train(project, method, Fate(step, moment))
    assert died.code == -signal.SIGKILL, died.said
    whole = step if moment == "after saving" else step - 1
    again = train(project, method)
    assert again.code == 0, again.said
    resumed = f"resuming at step {whole} of {STEPS[method]}; nothing before it is repeated"
    assert (resumed in again.said) == (whole > 0)
    record = json.loads((run_dir(project, method) / "run.json").read_text())
    assert record["resumed_from_step"] == (whole or None)
    assert record["steps"] == STEPS[method]
    assert_same(project, method, uninterrupted(method))


@pytest.mark.parametrize("method", ["plain", "norms", "centers", "groups", "frozen"])
def test_killed_again_and_again(project: Project, uninterrupted: Uninterrupted, method: str) -> None:
    """A plain ViT; a CNN whose norms keep statistics, in another memory format; CAL, which draws crops;
    SC4001 on batches of whole classes, which counts epochs, with every key that published recipes have; ILA
    beside a frozen backbone."""
    fates: list[tuple[int, Moment]] = [
        (2, "in the step"),
        (4, "in the state"),
        (7, "after saving"),
        (10, "in the step"),
    ]
    for step, moment in fates:
        assert train(project, method, Fate(step, moment)).code == -signal.SIGKILL
    assert train(project, method).code == 0
    assert_same(project, method, uninterrupted(method))


@pytest.mark.parametrize(("first", "then"), [(0, 2), (2, 1)])
def test_f22_any_number_of_loader_workers(
    fresh: Fresh, uninterrupted: Uninterrupted, first: int, then: int
) -> None:
    """A run that is killed and resumed with another number of loader workers (0, 1, 2) ends with the same
    bytes."""
    project = fresh(loader_workers=first)
    assert train(project, "everything", Fate(3, "after saving")).code == -signal.SIGKILL
    settings = project.root / "params/config.yaml"
    settings.write_text(settings.read_text().replace(f"loader_workers: {first}", f"loader_workers: {then}"))
    assert train(project, "everything").code == 0
    assert_same(project, "everything", uninterrupted("everything"))


@pytest.mark.parametrize("settings", [{"image_cache_gib": 0}, {"loader_workers": 2}], ids=str)
def test_with_or_without_the_image_cache(
    fresh: Fresh, uninterrupted: Uninterrupted, settings: dict[str, int]
) -> None:
    project = fresh(**settings)
    assert train(project).code == 0
    assert_same(project, "plain", uninterrupted("plain"))


def test_a_run_that_was_never_saved_begins_anew(fresh: Fresh, uninterrupted: Uninterrupted) -> None:
    project = fresh(checkpoint_interval_s=3600)
    assert train(project, fate=Fate(9, "in the step")).code == -signal.SIGKILL
    assert state_files(project, "plain") == []
    again = train(project)
    assert again.code == 0 and "resuming" not in again.said
    assert_same(project, "plain", uninterrupted("plain"))


# --- signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
@pytest.mark.parametrize(("step", "workers"), [(4, 0), (4, 2), (10, 0)])
def test_a_stopped_run_finishes_its_step_saves_and_repeats_nothing(
    fresh: Fresh, uninterrupted: Uninterrupted, number: int, code: int, step: int, workers: int
) -> None:
    """Also where nothing would have been saved for an hour."""
    project = fresh(checkpoint_interval_s=3600, loader_workers=workers)
    stopped = train(project, fate=Fate(step, "in the step", (number,)))
    assert stopped.code == code, stopped.said
    assert f"stopped at step {step} of 10 by {signal.Signals(number).name}; the same" in stopped.said
    assert not (run_dir(project) / "run.json").exists()
    again = train(project)
    assert again.code == 0 and f"resuming at step {step} of 10" in again.said
    assert_same(project, "plain", uninterrupted("plain"))


def test_a_second_signal_stops_at_once_and_loses_only_what_was_not_saved(
    project: Project, uninterrupted: Uninterrupted
) -> None:
    hurried = train(project, fate=Fate(5, "in the step", (signal.SIGINT, signal.SIGINT)))
    assert hurried.code not in (0, 75, 130)
    again = train(project)
    assert again.code == 0 and "resuming at step 4 of 10" in again.said
    assert_same(project, "plain", uninterrupted("plain"))


def test_a_stopped_run_is_no_failed_run(project: Project) -> None:
    train(project, fate=Fate(2, "in the step", (signal.SIGTERM,)))
    state = project.paths.state_dir(run_dir(project))
    assert not (state / "failure.json").exists()
    assert not (state / "progress.json").exists()


# --- damaged and foreign state --------------------------------------------------------------------


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "a flipped bit":
        path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


@pytest.mark.parametrize(
    ("suffix", "how"),
    [
        *((".pt", how) for how in ("truncated", "a flipped bit", "empty", "missing")),
        *((".json", how) for how in ("truncated", "empty", "missing")),
    ],
)
def test_a_damaged_state_gives_way_to_the_one_before(
    project: Project, uninterrupted: Uninterrupted, suffix: str, how: str
) -> None:
    train(project, fate=Fate(6, "after saving"))
    newest = [path for path in state_files(project, "plain") if path.suffix == suffix][-1]
    assert newest.name == f"step-00000006{suffix}"
    damage(newest, how)
    again = train(project)
    assert again.code == 0 and "resuming at step 5 of 10" in again.said
    assert_same(project, "plain", uninterrupted("plain"))


def test_only_two_generations_are_kept(project: Project) -> None:
    train(project, fate=Fate(6, "after saving"))
    names = {path.name for path in state_files(project, "plain") if not path.name.startswith(".")}
    assert names == {f"step-{step:08d}.{kind}" for step in (5, 6) for kind in ("pt", "json")}


def test_the_state_of_another_recipe_is_never_loaded(project: Project, uninterrupted: Uninterrupted) -> None:
    """Not even when it lies where this recipe's own state would."""
    file = project.file("method", "plain")
    text = file.read_text()
    file.write_text(text.replace("warmup_steps: 3", "warmup_steps: 2"))
    train(project, fate=Fate(6, "after saving"))
    (other,) = {path.parent for path in state_files(project, "plain")}
    file.write_text(text)
    own = spec_of(project)
    other.rename(other.with_name(own.sha256[:16]))
    again = train(project)
    assert again.code == 0 and "resuming" not in again.said
    assert_same(project, "plain", uninterrupted("plain"))


# --- two at once ----------------------------------------------------------------------------------


def test_a_second_writer_waits_and_then_finds_the_result(
    project: Project, uninterrupted: Uninterrupted
) -> None:
    """It says for which process it waits, and on which host."""
    first = start(project, fate=Fate(3, "after saving", (signal.SIGSTOP,)))
    wait_for(lambda: len(state_files(project, "plain")) >= 4)
    second = start(project)
    log = project.root / "log-plain"
    holder = f"is under way in process {first.pid} on host {socket.gethostname()}"
    wait_for(lambda: holder in log.read_text())
    # A signal to go on that comes before the one to stop would be lost.
    wait_for(lambda: psutil.Process(first.pid).status() == psutil.STATUS_STOPPED)
    os.kill(first.pid or 0, signal.SIGCONT)
    assert finish(first, project).code == 0
    ended = finish(second, project)
    assert ended.code == 0
    assert_same(project, "plain", uninterrupted("plain"))
    assert json.loads((run_dir(project) / "run.json").read_text())["resumed_from_step"] is None


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_the_lock_of_a_dead_process_is_no_lock(project: Project) -> None:
    assert train(project, fate=Fate(3, "after saving")).code == -signal.SIGKILL
    lock = project.paths.state_dir(run_dir(project)) / "lock"
    assert json.loads(lock.read_text())["pid"] != os.getpid()
    again = train(project)
    assert again.code == 0 and "waiting" not in again.said


# --- the command itself ---------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_killed_stopped_and_interrupted_from_outside(
    fresh: Fresh, uninterrupted: Uninterrupted
) -> None:
    """Signals arrive whenever they arrive; exit codes are those that shells expect."""
    project = fresh()
    command = [sys.executable, "-m", "fgvc", "train", "tiny", "long", "--size", str(SIZE), "--lr", str(RATE)]
    environment = {**os.environ, "FGVC_PROJECT": str(project.root)}
    seen: set[str] = set()
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 75), (signal.SIGINT, 130)):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: bool({path.name for path in state_files(project, "long")} - seen))  # noqa: B023
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == code, said
        assert "Traceback" not in said
        seen |= {path.name for path in state_files(project, "long")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "nothing before it is repeated" in done.stderr
    assert done.stdout == f"results/runs/tiny/long/{SIZE}/seed1/run.json\n"
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (again.returncode, again.stdout) == (0, done.stdout) and "(cached)" in again.stderr
    expected = uninterrupted("long")
    found = run_dir(project, "long")
    for name in ("model.safetensors", "history.csv"):
        assert (found / name).read_bytes() == expected[name], name
