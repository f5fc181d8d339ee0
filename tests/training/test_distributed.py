"""One run on several devices: the numbers of one process; nothing hangs, nothing is lost. Real processes."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import devicekit
import psutil
import pytest
import safetensors.torch
import torch
from devicekit import trained
from torch.nn.modules.batchnorm import _BatchNorm
from trainkit import (
    BATCH,
    RATE,
    Fate,
    copy_project,
    make_project,
    run_dir,
    spec_of,
    train,
    write_yaml,
)

from fgvc import create_model
from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.provenance.stopping import StoppedError, StopRequest
from fgvc.training.distributed import Peers, positions_of, synchronised
from fgvc.training.launch import launch
from fgvc.training.run import RunResult, train_run

CPU = torch.device("cpu")
TIMEOUT_S = 60.0
#: SGD at a rate of 0.01: what reordered sums may do to a weight in a short training. Measured: 6e-17, 2e-6.
BOUND_DOUBLE, BOUND_SINGLE = 1e-15, 1e-5
#: AdamW divides a gradient by its own size, also one that is 0 but for rounding (of a key's bias), and so
#: makes rounding as large as its eps lets it. Measured: 1e-12.
BOUND_DOUBLE_ADAMW = 1e-11
SGD = ("plain", "glsim", "transfg", "ffvt", "cal", "simtrans", "cnn", "five", "groups", "all_at_once")
ADAMW = ("everything", "five_mixed")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = make_project(tmp_path_factory.mktemp("several") / "project")
    for name, content in devicekit.VARIANTS.items():
        write_yaml(project.root / f"params/methods/{name}.yaml", content)
    return project


@pytest.fixture
def project(tiny: Project, tmp_path: Path) -> Project:
    return copy_project(tiny, tmp_path / "copy")


def several(count: int, work: Callable[..., Any], *arguments: Any, timeout_s: float = TIMEOUT_S) -> Any:
    return launch(work, arguments, [CPU] * count, timeout_s, StopRequest(environment={}))


def on_two(project: Project, method: str = "plain", stop: StopRequest | None = None) -> RunResult:
    return train_run(spec_of(project, method), devices=2, stop=stop)


def weights(project: Project, method: str = "plain") -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run_dir(project, method) / "model.safetensors")


# --- the numbers ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(tiny: Project) -> dict[str, tuple[devicekit.Trained, devicekit.Trained]]:
    """Variant → (trained by one process, by two), in double precision."""
    names = [*SGD, *ADAMW]
    one = trained(tiny.root, names, torch.float64)
    two = several(2, trained, tiny.root, names, torch.float64)
    return {name: (one[name], two[name]) for name in names}


@pytest.mark.parametrize("method", [*SGD, *ADAMW])
def test_two_processes_make_the_weights_of_one(pairs: Any, method: str) -> None:
    """Every class with its dropout, stochastic depth and drawn crops; mixing, accumulation, moving average;
    contrastive losses, batches of whole classes, centres of classes; an odd batch; a split that is one."""
    one, two = pairs[method]
    assert one.distance(two) <= (BOUND_DOUBLE_ADAMW if method in ADAMW else BOUND_DOUBLE)


@pytest.mark.parametrize("method", [*SGD, *ADAMW])
def test_metrics_are_of_every_image_once(pairs: Any, method: str) -> None:
    one, two = pairs[method]
    assert [row["train_top1_pct"] for row in one.history] == [row["train_top1_pct"] for row in two.history]
    for left, right in zip(one.history, two.history, strict=True):
        assert left == pytest.approx(right, rel=1e-12)


def test_the_bound_would_tell_another_training(tiny: Project, pairs: Any) -> None:
    """Weights move, and those of another seed's run are far away."""
    one = pairs["plain"][0]
    file = tiny.file("method", "five")
    other = trained(tiny.root, [file.stem], torch.float64)[file.stem]
    common = {k: t for k, t in other.state.items() if k in one.state and t.shape == one.state[k].shape}
    assert one.distance(devicekit.Trained(common, [])) > 1e6 * BOUND_DOUBLE


def test_three_processes_share_five_images(tiny: Project, pairs: Any) -> None:
    three = several(3, trained, tiny.root, ["five"], torch.float64)
    assert pairs["five"][0].distance(three["five"]) <= BOUND_DOUBLE


@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize(("size", "count"), [(8, 2), (9, 2), (7, 3), (64, 5), (4, 2)])
def test_each_image_of_a_batch_belongs_to_one_process(size: int, count: int, mixes: bool) -> None:
    """Where images are mixed, with its partner; an odd batch then has no last image."""
    shares = [positions_of(rank, count, size, mixes) for rank in range(count)]
    wholes, owned = {whole for whole, _ in shares}, [own for _, own in shares]
    (whole,) = wholes
    assert whole == (size // 2 * 2 if mixes else size)
    assert sorted(position for own in owned for position in own) == list(range(whole))
    assert max(map(len, owned)) - min(map(len, owned)) <= 1 + mixes
    if mixes:
        assert all(own[-1 - i] == whole - 1 - position for own in owned for i, position in enumerate(own))


# --- a run ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tiny: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which two processes trained 'everything', undisturbed."""
    project = copy_project(tiny, tmp_path_factory.mktemp("made") / "project")
    on_two(project, "everything")
    return project


def test_a_run_of_two_is_recorded_and_close_to_a_run_of_one(made: Project, project: Project) -> None:
    record = json.loads((run_dir(made, "everything") / "run.json").read_text())
    assert (record["devices"], record["devices_from_step"], record["status"]) == (2, [[0, 2]], "ok")
    alone = train_run(spec_of(project, "everything")).record
    assert (alone["devices"], alone["devices_from_step"]) == (1, [[0, 1]])
    assert (alone["run_sha256"], alone["recipe_sha256"]) == (record["run_sha256"], record["recipe_sha256"])
    assert alone["train_top1_pct"] == record["train_top1_pct"]
    assert alone["train_loss"] == pytest.approx(record["train_loss"], rel=1e-5)
    assert not list(made.paths.state_dir(run_dir(made, "everything")).glob("**/step-*"))
    assert on_two(project, "everything").how == "found"  # the number of devices is not part of the recipe


def test_in_single_precision_too(project: Project, tmp_path: Path) -> None:
    other = copy_project(project, tmp_path / "other")
    train_run(spec_of(project))
    on_two(other)
    one, two = weights(project), weights(other)
    assert max((one[name] - two[name]).abs().max().item() for name in one) <= BOUND_SINGLE


@contextlib.contextmanager
def at_a_state(project: Project, method: str, act: Callable[[], None], step: int = 2) -> Iterator[None]:
    """While the block runs, ``act`` once the state of ``step`` or a later one is saved."""
    folder = project.paths.state_dir(run_dir(project, method))

    def watch() -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            if any(int(path.stem[5:]) >= step for path in folder.glob("*/step-*.json")):
                act()
                return
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    thread.join()


def ranks() -> list[psutil.Process]:
    return [psutil.Process(p.pid) for p in multiprocessing.active_children() if p.name.startswith("rank")]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_stopped_run_goes_on_with_the_same_bytes(
    project: Project, made: Project, number: int, code: int
) -> None:
    """The signal reaches the parent alone, or all of them as a cluster sends it."""
    to_all = number == signal.SIGTERM

    def stop() -> None:
        for process in ranks() if to_all else []:
            process.send_signal(number)
        os.kill(os.getpid(), number)

    with (
        StopRequest() as request,
        at_a_state(project, "everything", stop),
        pytest.raises(StoppedError) as caught,
    ):
        on_two(project, "everything", request)
    assert (caught.value.code, caught.value.reason) == (code, signal.Signals(number).name)
    assert re.fullmatch(r"at step [2-5] of 6", caught.value.done)
    assert ranks() == []
    result = on_two(project, "everything")
    assert result.how == "resumed" and result.record["resumed_from_step"] >= 2
    names = ("model.safetensors", "history.csv")
    left, right = (run_dir(p, "everything") for p in (made, project))
    assert [n for n in names if (left / n).read_bytes() != (right / n).read_bytes()] == []


def test_a_deadline_stops_all_in_time(project: Project, made: Project) -> None:
    config = project.root / "params/config.yaml"
    config.write_text(config.read_text().replace("checkpoint_interval_s: 0", "checkpoint_interval_s: 3600"))
    (project.root / "params/methods/plain.yaml").write_text(
        (project.root / "params/methods/plain.yaml").read_text().replace("epochs: 2", "epochs: 1000")
    )
    began = time.monotonic()
    with StopRequest(8.0) as request, pytest.raises(StoppedError) as caught:
        on_two(project, stop=request)
    assert time.monotonic() - began < 8 and caught.value.reason == "--max-seconds"
    assert re.fullmatch(r"at step \d+ of 5000", caught.value.done)
    steps = {int(path.stem[5:]) for path in project.paths.state_dir(run_dir(project)).glob("*/step-*.json")}
    assert int(caught.value.done.split()[2]) == max(steps)


def test_a_run_goes_on_with_another_number_of_devices(project: Project, tmp_path: Path) -> None:
    """The state is the same; which step was taken on how many is recorded."""
    assert train(project, fate=Fate(4, "after saving")).code == -signal.SIGKILL
    result = on_two(project)
    assert result.record["devices_from_step"] == [[0, 1], [4, 2]]
    assert (result.record["devices"], result.record["resumed_from_step"]) == (2, 4)
    other = copy_project(project, tmp_path / "other")
    for folder in (run_dir(other), other.paths.state_dir(run_dir(other))):
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    train_run(spec_of(other))
    one, two = weights(project), weights(other)
    assert max((one[name] - two[name]).abs().max().item() for name in one) <= BOUND_SINGLE


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_run_with_its_name(project: Project, rank: int) -> None:
    def kill() -> None:
        (process,) = (p for p in multiprocessing.active_children() if p.name == f"rank {rank}")
        process.kill()

    with at_a_state(project, "everything", kill), pytest.raises(FgvcError) as caught:
        on_two(project, "everything")
    assert f"process {rank + 1} of 2 (cpu) was killed by SIGKILL; the others were stopped" in str(
        caught.value
    )
    assert "it goes on from the last saved state" in str(caught.value)
    assert ranks() == []
    failure = project.paths.state_dir(run_dir(project, "everything")) / "failure.json"
    assert "was killed by SIGKILL" in json.loads(failure.read_text())["error"]
    assert on_two(project, "everything").how == "resumed"


def test_a_process_that_does_not_answer_ends_the_run(project: Project) -> None:
    config = project.root / "params/config.yaml"
    config.write_text(config.read_text() + "device_timeout_s: 3\n")

    def freeze() -> None:
        (pid,) = (p.pid for p in multiprocessing.active_children() if p.name == "rank 1")
        os.kill(pid or 0, signal.SIGSTOP)

    with at_a_state(project, "everything", freeze), pytest.raises(FgvcError) as caught:
        on_two(project, "everything")
    assert "process 2 of 2 (cpu) did not answer the others within 3 s" in str(caught.value)
    assert "device_timeout_s" in str(caught.value) and len(str(caught.value).splitlines()) <= 5
    assert ranks() == []


def _fails(how: str, device: torch.device, peers: Peers, stop: StopRequest) -> None:
    if peers.rank == 1:
        if how == "mistake":
            raise FgvcError("the image is broken", file="a.png", cure="fetch it again")
        raise ZeroDivisionError("no\nreason")
    peers.any(True)


def test_the_mistake_of_one_process_is_told_as_its_own() -> None:
    with pytest.raises(FgvcError) as caught:
        several(2, _fails, "mistake")
    assert (caught.value.problem, caught.value.file) == ("the image is broken", "a.png")
    assert caught.value.cure == "fetch it again"
    with pytest.raises(
        FgvcError, match=r"process 2 of 2 \(cpu\) failed: ZeroDivisionError: no reason"
    ) as caught:
        several(2, _fails, "defect")
    assert "Traceback" in str(caught.value.__cause__)


def _drifts(device: torch.device, peers: Peers, stop: StopRequest) -> None:
    model = torch.nn.Linear(3, 3)
    with torch.no_grad():
        model.weight.fill_(0.5)
        model.bias.fill_(0.0)
    peers.check_same(model, "before")
    model.weight.data[1, 1] += 1e-7 * peers.rank
    peers.check_same(model, "after epoch 1")


def test_weights_that_differ_in_one_bit_are_noticed() -> None:
    with pytest.raises(FgvcError, match="no longer the same after epoch 1"):
        several(2, _drifts)


@pytest.mark.parametrize(
    ("method", "devices", "words"),
    [
        ("norms", 2, "cnn cannot be trained on several devices like this: it has batch norms that train"),
        ("plain", BATCH + 1, f"a batch of {BATCH} images cannot be split between {BATCH + 1} devices"),
    ],
)
def test_what_cannot_be_shared_is_refused(project: Project, method: str, devices: int, words: str) -> None:
    with pytest.raises(FgvcError) as caught:
        train_run(spec_of(project, method), devices=devices)
    assert words in str(caught.value) and "--devices" in (caught.value.cure or "")


@pytest.mark.parametrize(
    ("method", "backbone", "frozen"),
    [("cnn", "test_efficientnet", ""), ("cal", "test_resnet", "backbone.*"), ("simtrans", "test_vit", "")],
)
def test_on_gpus_batch_norms_are_synchronised_and_nothing_else_changes(
    method: str, backbone: str, frozen: str
) -> None:
    """Their numbers on several GPUs are torch's own matter; what is trained and saved is ours."""
    torch.manual_seed(0)
    model = create_model(method, backbone=backbone, num_classes=3, image_size=64)
    names = [name for name, _ in model.named_parameters()]
    model.set_trainable([name for name in names if not fnmatch.fnmatchcase(name, frozen)])
    images = torch.randn(2, 3, 64, 64)
    before = model.eval()(images).logits
    state, trains = model.state_dict(), {n for n, p in model.named_parameters() if p.requires_grad}
    norms = [name for name, m in model.named_modules() if isinstance(m, _BatchNorm)]
    synchronised(model, torch.device("cuda"))
    modules = dict(model.named_modules())
    assert norms and all(isinstance(modules[name], torch.nn.SyncBatchNorm) for name in norms)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == trains
    assert list(model.state_dict()) == list(state)
    assert torch.equal(model.eval()(images).logits, before)
    moving = {name for name in norms if model.train().get_submodule(name).training}
    assert moving == {name for name in norms if not (frozen and fnmatch.fnmatchcase(name, frozen))}


# --- the command itself ---------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_end_with_a_killed_parent(project: Project) -> None:
    command = [sys.executable, "-m", "fgvc", "train", "tiny", "plain", "--size", "32", "--lr", str(RATE)]
    process = subprocess.Popen(
        [*command, "--devices", "2"],
        env={**os.environ, "FGVC_PROJECT": str(project.root)},
        stderr=subprocess.PIPE,
        text=True,
    )
    family: list[psutil.Process] = []

    def kill() -> None:
        family.extend(psutil.Process(process.pid).children(recursive=True))
        process.kill()

    with at_a_state(project, "plain", kill):
        said = process.communicate(timeout=TIMEOUT_S)[1]
    assert process.returncode == -signal.SIGKILL and len(family) >= 3
    assert psutil.wait_procs(family, timeout=10)[1] == []
    assert "training on 2 × cpu" in said and "Traceback" not in said
    assert on_two(project).how == "resumed"
