"""What no restart mends by itself: NaN, too little memory, a full disk, stale state, another writer."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import trainfaults
from PIL import Image
from trainfaults import (
    EVALUATE,
    KILLED,
    TRAIN,
    NoLocks,
    OtherSoftware,
    SmallMemory,
    Verb,
    assert_same,
    fgvc,
    result_bytes,
    run_dir,
    state_files,
    wait_for,
)
from trainkit import SIZE, SUITE, Fate, variant, write_yaml

from fgvc.config.project import Project
from fgvc.device import is_out_of_memory
from fgvc.provenance.digests import file_sha256
from fgvc.provenance.stopping import STOPPED

pristine, fresh, project, undisturbed, small_disk = (
    trainfaults.pristine,
    trainfaults.fresh,
    trainfaults.project,
    trainfaults.undisturbed,
    trainfaults.small_disk,
)

Fresh = Callable[..., Project]
Bytes = dict[str, bytes]
Mount = Callable[[Path, int], Callable[[], None]]


def of(method: str, *more: str) -> tuple[str, ...]:
    return tuple(method if word == "plain" else word for word in (*TRAIN, *more))


def card(project: Project, method: str = "plain") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir(project, method) / "run.json").read_text())
    return found


# --- other writers ---------------------------------------------------------------------------------


def test_f04_a_second_trainer_waits_and_names_the_first(project: Project, undisturbed: Bytes) -> None:
    """Two trainers of one run (the first outlived its killed driver) never write at once: the second waits,
    says for which process on which host, and takes the result that the first made."""
    first = Verb(project, befalls=Fate(3, "after saving", (signal.SIGSTOP,)).await_it)
    wait_for(lambda: len(state_files(project)) >= 4)
    second = Verb(project)
    holder = f"is under way in process {first.pid} on host {socket.gethostname()}"
    wait_for(lambda: holder in second.said)
    os.kill(first.pid, signal.SIGCONT)
    assert first.end().code == 0
    ended = second.end()
    assert ended.code == 0 and "(cached)" in ended.said
    assert_same(project, undisturbed)


@pytest.mark.parametrize("host", ["node17", socket.gethostname()], ids=["other host", "this host"])
def test_f05_a_lock_file_that_nobody_holds(project: Project, undisturbed: Bytes, host: str) -> None:
    """The kernel decides who holds a lock, not what stands in its file: one left by a host that died, or that
    names a living process which has nothing to do with it, stops nobody and needs no cleaning up."""
    lock = project.paths.state_dir(run_dir(project)) / "lock"
    lock.parent.mkdir(parents=True)
    lock.write_text(json.dumps({"pid": os.getpid(), "host": host, "doing": "training"}))
    ended = fgvc(project)
    assert ended.code == 0 and "waiting" not in ended.said
    assert (f"process {os.getpid()} on host node17 left training" in ended.said) == (host == "node17")
    assert lock.read_text() == "", "it was given back"
    assert_same(project, undisturbed)


def test_f05_a_file_system_without_locks(project: Project) -> None:
    """Where a file system has no locks, two jobs could write the same results: nothing is begun."""
    refused = fgvc(project, befalls=NoLocks(errno.ENOLCK))
    assert refused.code == 2 and "error: this file system has no locks" in refused.said
    assert "Lustre: -o flock" in refused.said and not (run_dir(project) / "run.json").exists()


# --- the disk is full ------------------------------------------------------------------------------


def test_f06_no_room_for_the_state(project: Project, undisturbed: Bytes, small_disk: Mount) -> None:
    """Where the disk is full when the state is saved, the error says which file and what to do; what was
    saved before is whole, and the run goes on from there once there is room."""
    state_bytes = 2 * len(undisturbed["model.safetensors"])  # weights, and a momentum for each
    enlarge = small_disk(project.root / "state", int(1.6 * state_bytes))
    full = fgvc(project)
    assert full.code == 2 and "Traceback" not in full.said
    error = full.said[full.said.index("error: ") :].splitlines()
    assert error[0] == "error: cannot write: No space left on device"
    assert "step-00000002.pt" in error[1] and "free some space and run the same command again" in error[2]
    assert not (run_dir(project) / "run.json").exists()
    enlarge()
    again = fgvc(project)
    assert again.code == 0 and "resuming at step 1 of 10" in again.said
    assert_same(project, undisturbed)


def test_f06_no_room_for_the_results(project: Project, undisturbed: Bytes, small_disk: Mount) -> None:
    """Where the disk is full when the results are written, no empty or half file stands in their place, and
    nothing is trained again once there is room."""
    enlarge = small_disk(project.root / "results/runs", len(undisturbed["model.safetensors"]) // 2)
    full = fgvc(project)
    assert full.code == 2 and "error: cannot write: No space left on device" in full.said
    assert "model.safetensors" in full.said and "free some space" in full.said
    assert list(run_dir(project).iterdir()) == []
    enlarge()
    again = fgvc(project)
    assert again.code == 0 and "resuming at step 9 of 10" in again.said
    assert_same(project, undisturbed)
    assert fgvc(project, *EVALUATE).code == 0
    assert_same(project, undisturbed, ("predictions.parquet", "metrics.json"))


def test_f06_no_room_for_the_predictions(project: Project, undisturbed: Bytes, small_disk: Mount) -> None:
    """An evaluation that finds the disk full leaves no empty file, and makes the same ones later."""
    enlarge = small_disk(project.root / "results/runs", len(undisturbed["model.safetensors"]) + 24 * 1024)
    assert fgvc(project).code == 0
    folder = run_dir(project)
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as stream, pytest.raises(OSError):
        while True:
            stream.write(bytes(1024))
    full = fgvc(project, *EVALUATE)
    assert full.code == 2 and "error: cannot write: No space left on device" in full.said
    assert not (folder / "predictions.parquet").exists() and not (folder / "metrics.json").exists()
    ballast.unlink()
    enlarge()
    assert fgvc(project, *EVALUATE).code == 0
    assert_same(project, undisturbed, ("predictions.parquet", "metrics.json"))


# --- stale state and results -----------------------------------------------------------------------


@pytest.mark.parametrize("what", ["timm", "code"])
def test_f15_a_state_of_other_software_is_not_continued(
    project: Project, undisturbed: Bytes, what: str
) -> None:
    """A state that another timm, another torch or other code of the training saved is removed, and the run
    begins anew: half of one and half of the other would be the result of neither."""
    saved = Fate(6, "after saving").await_it
    assert fgvc(project, befalls=trainfaults.Both(OtherSoftware(what), saved)).code == KILLED
    again = fgvc(project)
    assert again.code == 0 and "resuming" not in again.said
    words = {"timm": "(timm 1.0.20, now ", "code": "(the code of training ffffffffffff, now "}[what]
    assert f"the state of step 6 was saved by other software {words}" in again.said
    assert "the run begins anew" in again.said
    assert_same(project, undisturbed)


def test_f15_finished_results_of_another_stage_version_are_made_again(project: Project) -> None:
    """When the numeric effect of the code changes (its stage version is raised), a finished run is trained
    again; the earlier one is kept and comes back with the earlier code."""
    assert fgvc(project).code == 0
    before = card(project)["run_sha256"]
    raised = fgvc(project, befalls=OtherSoftware("stage"))
    assert raised.code == 0 and "(cached)" not in raised.said
    assert card(project)["run_sha256"] != before
    evaluated = fgvc(project, *EVALUATE)
    assert evaluated.code == 2 and "is no longer the one that this run was trained with" in evaluated.said
    back = fgvc(project)
    assert "trained before with this very recipe" in back.said and card(project)["run_sha256"] == before


def test_f15_results_of_another_timm_are_told(project: Project) -> None:
    """A finished run stands, as its record does, when timm or torch is upgraded; the words of its reuse name
    the versions that it was made with."""
    assert fgvc(project, befalls=OtherSoftware("timm")).code == 0
    again = fgvc(project)
    assert again.code == 0 and "is there already (made with timm 1.0.20, here " in again.said


def test_f15_a_changed_split_is_refused_or_trained_anew(project: Project) -> None:
    """A list that was edited is refused; one that was prepared anew is another experiment, and neither the
    state nor the results of the former stand for it."""
    assert fgvc(project).code == 0
    before = card(project)["run_sha256"]
    listed = project.paths.split_list("tiny", "train_val")
    text = listed.read_text()
    lines = text.splitlines(keepends=True)
    listed.write_text("".join([lines[0], *lines[2:]]))
    edited = fgvc(project, *TRAIN, "--seed", "2")
    assert edited.code == 2 and "train_val.csv" in edited.said and "fgvc data split tiny" in edited.said
    listed.write_text(text)
    # A new picture: the images are no longer those that were split, and then they are.
    pictures = project.root / "pictures/train/ant"
    Image.open(pictures / "0.png").transpose(Image.Transpose.ROTATE_90).save(pictures / "9.png")
    assert fgvc(project, "data", "fetch", "tiny", "--replace").code == 0
    changed = fgvc(project, *TRAIN, "--seed", "2")
    assert changed.code == 2 and "the images of 'tiny' changed since they were split" in changed.said
    assert fgvc(project, "data", "split", "tiny").code == 0
    again = fgvc(project)
    assert again.code == 0 and "(cached)" not in again.said and card(project)["run_sha256"] != before


def test_f15_weights_that_changed_under_the_same_name(project: Project) -> None:
    """Weights whose file is not the one that was fetched are refused; weights that were fetched anew and are
    others make another run: neither state nor results of the former stand for it."""
    weights = "tf_efficientnet_lite0.in1k"
    shipped = trainfaults.REPOSITORY / f"params/weights/{weights}.yaml"
    (project.root / "params/weights").mkdir(exist_ok=True)
    (project.root / f"params/weights/{weights}.yaml").write_text(shipped.read_text())
    lite = variant(method="cnn", backbone="tf_efficientnet_lite0", dropout=0.0)
    write_yaml(project.root / "params/methods/lite.yaml", {**lite, "weights": weights})
    assert fgvc(project, "weights", "fetch", weights).code == 0
    assert fgvc(project, *of("lite"), befalls=Fate(3, "after saving").await_it).code == KILLED
    assert state_files(project, "lite")

    file = project.paths.weights(weights)
    tensors = safetensors.torch.load_file(file)
    first = next(iter(tensors))
    safetensors.torch.save_file({**tensors, first: tensors[first] + 1}, file)
    changed = fgvc(project, *of("lite"))
    assert changed.code == 2 and "were changed since they were fetched" in changed.said

    record = project.paths.weights_record(weights)
    facts = {**json.loads(record.read_text()), "sha256": file_sha256(file)}
    record.write_text(json.dumps(facts))
    anew = fgvc(project, *of("lite"))
    assert anew.code == 0 and "resuming" not in anew.said
    assert card(project, "lite")["identity"]["weights_sha256"] == facts["sha256"]


# --- what a table shows ------------------------------------------------------------------------------


def with_suite(project: Project, **changes: Any) -> None:
    write_yaml(project.root / "params/suites/quick.yaml", {**SUITE, "learning_rates": [0.01], **changes})


def test_f16_missing_seeds_are_told_in_the_cell(project: Project) -> None:
    """A mean over fewer seeds than the suite asks for says so in its cell (n=1/2), is written as a partial
    table only, and the table itself is refused with the runs that lack."""
    with_suite(project, seeds=[1, 2])
    assert fgvc(project, "select-lr", "tiny", "plain", "--size", str(SIZE)).code == 0
    assert fgvc(project).code == 0 and fgvc(project, *EVALUATE).code == 0
    shown = fgvc(project, "table", "acc", "--suite", "quick", "--allow-missing")
    assert shown.code == 0 and "(n=1/2)" in shown.said and "PARTIAL: 0 of 1 cells" in shown.said
    refused = fgvc(project, "table", "acc", "--suite", "quick")
    assert refused.code == 2 and f"1 of 2 runs are missing: tiny/plain/{SIZE}/seed2" in refused.said


def test_f17_a_loss_that_is_not_finite(project: Project) -> None:
    """A run whose loss is NaN or infinite ends as `diverged`: a finished job that the table counts and names,
    in no mean, and that the same command does not train again."""
    with_suite(project, methods=["hot"])
    diverged = fgvc(project, *of("hot", "--lr", "1e30"))
    assert diverged.code == 0 and "diverged: the loss is not finite at step 5 of 10" in diverged.last
    assert (card(project, "hot")["status"], card(project, "hot")["steps"]) == ("diverged", 5)
    again = fgvc(project, *of("hot", "--lr", "1e30"))
    assert again.code == 0 and "(cached)" in again.said and "training on" not in again.said
    evaluated = fgvc(project, "evaluate", "tiny", "hot", "--size", str(SIZE))
    assert evaluated.code == 0 and "the run diverged: the loss is not finite" in evaluated.said
    shown = fgvc(project, "table", "acc", "--suite", "quick")
    assert shown.code == 0 and "DIVERGED" in shown.said and "PARTIAL" not in shown.said


# --- too little memory -------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_f18_out_of_memory_halves_the_passes(project: Project, where: str) -> None:
    """Where a batch does not fit into memory, it is given in halves, with the same pictures and the same
    effective batch: the same numbers as a recipe with half the batch and twice the accumulation. The record
    says since which step."""
    full = fgvc(project, befalls=SmallMemory(2, where=where))
    assert full.code == 0 and "out of memory at step 1; from here on 2 images a pass" in full.said
    record = card(project)["out_of_memory"]
    assert record["halvings"] == [{"step": 1, "images_per_pass": 2}]
    assert "the same pictures" in record["note"] and card(project)["status"] == "ok"
    assert fgvc(project, *of("halved")).code == 0
    assert card(project, "halved")["out_of_memory"] is None
    got, expected = (
        safetensors.torch.load_file(run_dir(project, name) / "model.safetensors")
        for name in ("plain", "halved")
    )
    assert [name for name in expected if not torch.equal(got[name], expected[name])] == []
    history = result_bytes(project, names=("history.csv",))
    assert history == result_bytes(project, "halved", ("history.csv",))


def test_f18_the_halving_survives_a_kill(fresh: Fresh) -> None:
    """What was halved stays halved after a kill, also on a device with more memory: the same bytes as the run
    that was not killed. Memory that another process takes in the middle is met in the same way."""
    whole, killed = fresh(), fresh()
    assert fgvc(whole, befalls=SmallMemory(1, from_step=4)).code == 0
    halvings = [{"step": 4, "images_per_pass": 2}, {"step": 4, "images_per_pass": 1}]
    assert card(whole)["out_of_memory"]["halvings"] == halvings
    assert fgvc(killed, befalls=SmallMemory(1, from_step=4, kill_at=7)).code == KILLED
    again = fgvc(killed)
    assert again.code == 0 and "resuming at step 6 of 10" in again.said
    assert card(killed)["out_of_memory"]["halvings"] == halvings
    assert_same(killed, result_bytes(whole))


def test_f18_a_method_that_couples_its_batch_is_refused(project: Project) -> None:
    """A batch whose images depend on one another (batch norm, metric losses) may not be split: one clear
    error that says what to change, and the table shows it."""
    full = fgvc(project, *of("centers"), befalls=SmallMemory(2, method="cal"))
    assert full.code == 2 and "Traceback" not in full.said
    assert (
        "out of memory at step 1 with 4 images a pass, and 'cal' couples the images of a batch" in full.said
    )
    assert "'recipe.batch_size'" in full.said and "with a smaller batch_size" in full.said
    failure = project.paths.state_dir(run_dir(project, "centers")) / "failure.json"
    assert "out of memory at step 1" in json.loads(failure.read_text())["error"]


@pytest.mark.parametrize("workers", [0, 2])
def test_f18_a_single_image_that_does_not_fit(fresh: Fresh, workers: int) -> None:
    """Where not even one image fits, the error says so instead of halving for ever; the process ends, and its
    loader's workers with it."""
    full = fgvc(fresh(loader_workers=workers), befalls=SmallMemory(0))
    assert full.code == 2 and "error: out of memory at step 1 with a single image" in full.said
    with pytest.raises(ProcessLookupError):
        os.killpg(full.pid, 0)


def test_f18_an_evaluation_is_given_in_parts(project: Project, undisturbed: Bytes) -> None:
    """Where a batch of the evaluation does not fit, it is predicted in parts: the same classes."""
    assert fgvc(project).code == 0
    full = fgvc(project, *EVALUATE, befalls=SmallMemory(2, training=False))
    assert full.code == 0 and "out of memory; from here on 2 images a pass" in full.said
    expected = json.loads(undisturbed["metrics.json"])
    metrics = json.loads((run_dir(project) / "metrics.json").read_text())
    assert metrics["top1_pct"] == expected["top1_pct"]
    assert metrics["nll_nats"] == pytest.approx(expected["nll_nats"], abs=1e-5)
    none = fgvc(project, *EVALUATE, befalls=SmallMemory(0, training=False))
    assert none.code == 2 and "error: out of memory with a single image" in none.said


def test_f18_a_real_allocation_that_fails_is_known() -> None:
    """What torch raises where the memory of the host does not suffice counts as out of memory, too."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("a shape is wrong"))


def test_f18_a_stopped_run_in_halves_goes_on_in_halves(project: Project) -> None:
    """Out of memory and preemption together: the state that is saved at the end has the halving in it."""
    both = trainfaults.Both(SmallMemory(2, from_step=3), Fate(5, "in the step", (signal.SIGTERM,)).await_it)
    assert fgvc(project, befalls=both).code == STOPPED
    assert fgvc(project).code == 0
    assert card(project)["out_of_memory"]["halvings"] == [{"step": 3, "images_per_pass": 2}]
