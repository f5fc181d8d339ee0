"""Tools of the fault tests of training: verbs of ``fgvc`` in processes of their own, and what befalls them.

A process is forked from a server that imported torch once, and runs the command line as a shell would; its
exit status, its words and its files are what the tests look at.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

from trainkit import RATE, SIZE, Fate, copy_project, make_project, run_dir, variant, write_yaml

from fgvc.cli.main import main
from fgvc.config.project import Project
from fgvc.config.stages import STAGES, Stage
from fgvc.evaluation import predict
from fgvc.methods import Method, method_class
from fgvc.provenance import locks
from fgvc.training import engine, run

REPOSITORY = Path(__file__).resolve().parents[2]

#: What a resumed run must give to the byte.
EXACT = ("model.safetensors", "history.csv")

TRAIN = ("train", "tiny", "plain", "--size", str(SIZE), "--lr", str(RATE))
EVALUATE = ("evaluate", "tiny", "plain", "--size", str(SIZE))


@dataclass
class Ended:
    """How a verb ended, what it said, and how many seconds it took."""

    code: int
    said: str
    seconds: float
    pid: int = 0

    @property
    def last(self) -> str:
        return self.said.splitlines()[-1]


@dataclass
class Verb:
    """A verb that runs. ``befalls`` is called in its process before it begins."""

    project: Project
    arguments: tuple[str, ...] = TRAIN
    befalls: Callable[[], None] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        server = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload(["fgvc.training.search", "torchmetrics.functional.classification"])
        self.log = self.project.root / f"log-{time.monotonic_ns()}"
        told = (self.project.root, self.arguments, self.log, self.befalls, self.environment)
        self.began = time.monotonic()
        self.process = server.Process(target=_run, args=told)
        self.process.start()

    @property
    def pid(self) -> int:
        return self.process.pid or 0

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def end(self) -> Ended:
        self.process.join(120)
        assert self.process.exitcode is not None, f"the process hangs:\n{self.said}"
        return Ended(self.process.exitcode, self.said, time.monotonic() - self.began, self.pid)


def _run(
    root: Path,
    arguments: tuple[str, ...],
    log: Path,
    befalls: Callable[[], None] | None,
    environment: dict[str, str],
) -> None:
    os.setsid()  # a process group of its own, as of a job
    multiprocessing.set_start_method("fork", force=True)  # as in a process from a shell, for loader workers
    stream = log.open("a", encoding="utf-8")
    os.dup2(stream.fileno(), 1)
    os.dup2(stream.fileno(), 2)
    sys.stdout = sys.stderr = stream
    os.environ.update({"FGVC_PROJECT": str(root), **environment})
    os.chdir(root)
    if befalls:
        befalls()
    main(arguments)


def fgvc(
    project: Project,
    *arguments: str,
    befalls: Callable[[], None] | None = None,
    environment: dict[str, str] | None = None,
) -> Ended:
    """Run a verb to its end; without arguments, the training of ``plain``."""
    return Verb(project, arguments or TRAIN, befalls, environment or {}).end()


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def result_bytes(project: Project, method: str = "plain", names: tuple[str, ...] = EXACT) -> dict[str, bytes]:
    return {name: (run_dir(project, method) / name).read_bytes() for name in names}


def state_files(project: Project, method: str = "plain") -> list[Path]:
    return sorted(project.paths.state_dir(run_dir(project, method)).rglob("step-*"))


# --- what befalls a process: each can be sent to it ------------------------------------------------


class Both:
    """Several things at once."""

    def __init__(self, *all_of: Callable[[], None]) -> None:
        self.all_of = all_of

    def __call__(self) -> None:
        for one in self.all_of:
            one()


class GroupFate(Fate):
    """As `Fate`, but to the whole process group: the trainer and the workers of its loader."""

    def strike(self) -> None:
        for number in self.signals:
            os.killpg(0, number)


@dataclass(frozen=True)
class SlowSteps:
    """Every step takes so many seconds more."""

    seconds: float

    def __call__(self) -> None:
        accumulate = engine.Trainer._accumulate

        def slowly(trainer: engine.Trainer, batch: Any, micro: int) -> None:
            time.sleep(self.seconds)
            accumulate(trainer, batch, micro)

        engine.Trainer._accumulate = slowly  # type: ignore[method-assign]


@dataclass(frozen=True)
class StopWhilePredicting:
    """A signal comes in the middle of an evaluation."""

    number: int

    def __call__(self) -> None:
        collect = predict.batches_of

        def then_signalled(loader: Any) -> Iterator[Any]:
            for batch in collect(loader):
                os.kill(os.getpid(), self.number)
                yield batch

        predict.batches_of = then_signalled  # type: ignore[assignment]


@dataclass(frozen=True)
class StopWhilePublishing:
    """A signal comes between the model's file and the others."""

    number: int

    def __call__(self) -> None:
        write = run.write_text

        def signalled(path: Path, text: str) -> None:
            os.kill(os.getpid(), self.number)
            write(path, text)

        run.write_text = signalled


@dataclass(frozen=True)
class SmallMemory:
    """A device on which no more than ``images`` fit into a pass, of training or of evaluation.

    Args:
        from_step: where it begins (1-based): another process took memory.
        kill_at: SIGKILL in this step.
        where: ``forward``, or ``backward``, when gradients of some layers are there already.
    """

    images: int
    from_step: int = 1
    kill_at: int | None = None
    method: str = "vit"
    where: str = "forward"
    training: bool = True

    def __call__(self) -> None:
        if self.kill_at:
            Fate(self.kill_at, "in the step").await_it()
        one_step, cls = engine.Trainer._one_step, method_class(self.method)
        forward, step = cls.forward, [0]
        hooks: list[Any] = []

        def counted(trainer: engine.Trainer, *arguments: Any) -> int:
            step[0] = trainer.step + 1
            return one_step(trainer, *arguments)

        def full(*_: Any) -> None:
            while hooks:
                hooks.pop().remove()
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        def limited(model: Method, images: torch.Tensor) -> Any:
            fits = len(images) <= self.images or model.training != self.training
            fits = fits or (self.training and step[0] < self.from_step)
            if not fits and self.where == "forward":
                full()
            output = forward(model, images)
            if not fits:
                # The first layer's gradient is the last to be computed.
                first = next(p for p in model.parameters() if p.requires_grad)
                hooks.append(first.register_hook(full))
            return output

        engine.Trainer._one_step = counted  # type: ignore[method-assign, assignment]
        cls.forward = limited  # type: ignore[method-assign, assignment]


@dataclass(frozen=True)
class OtherSoftware:
    """Another version of a package is installed, or the training's code or stage version is another."""

    what: str

    def __call__(self) -> None:
        if self.what == "timm":
            there = run.package_versions()
            run.package_versions = lambda: {**there, "timm": "1.0.20"}
        elif self.what == "code":
            run.source_digest = lambda _stage: "f" * 64
        else:
            STAGES["train"] = Stage(STAGES["train"].version + 1, STAGES["train"].sources)


@dataclass(frozen=True)
class NoLocks:
    """A file system whose locks answer with this error number."""

    number: int

    def __call__(self) -> None:
        def refuse(_handle: int, _operation: int) -> None:
            raise OSError(self.number, os.strerror(self.number))

        locks.fcntl.flock = refuse  # type: ignore[assignment]


# --- projects --------------------------------------------------------------------------------------


@cache
def _pristine(folder: Path) -> Project:
    """Fetched and split; never trained in."""
    project = make_project(folder / "project")
    write_yaml(folder / "project/params/methods/hot.yaml", variant(clip_grad_norm=None))
    # Batches of half the size and twice as many of them a step: the same steps.
    write_yaml(folder / "project/params/methods/halved.yaml", variant(batch_size=2, accumulate=2))
    return project


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return _pristine(tmp_path_factory.getbasetemp() / "faults-pristine")


@pytest.fixture
def fresh(pristine: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Project]:
    """``fresh(**settings)``: another copy of the tiny project."""
    for name in ("FGVC_MIRROR", "FGVC_PROJECT", "SLURM_JOB_END_TIME"):
        monkeypatch.delenv(name, raising=False)
    made: list[Project] = []

    def one(**settings: Any) -> Project:
        made.append(copy_project(pristine, tmp_path / f"copy{len(made)}", **settings))
        return made[-1]

    return one


@pytest.fixture
def project(fresh: Callable[..., Project]) -> Project:
    return fresh()


@pytest.fixture(scope="session")
def undisturbed(pristine: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of the training and evaluation of ``plain`` that nobody disturbed."""
    project = copy_project(pristine, tmp_path_factory.mktemp("undisturbed") / "project")
    assert fgvc(project).code == 0
    assert fgvc(project, *EVALUATE).code == 0
    return result_bytes(project, names=(*EXACT, "predictions.parquet", "metrics.json"))


def assert_same(project: Project, expected: dict[str, bytes], names: tuple[str, ...] = EXACT) -> None:
    found = result_bytes(project, names=names)
    assert [name for name in names if found[name] != expected[name]] == []
    assert state_files(project) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[Path, int], Callable[[], None]]]:
    """``mount(folder, free)`` puts a file system of ``free`` bytes there; what it returns makes it larger.

    Skips where this process may not mount one.
    """
    import subprocess

    mounted: list[Path] = []

    def mount(folder: Path, free: int) -> Callable[[], None]:
        folder.mkdir(parents=True, exist_ok=True)
        size = f"size={free // 1024}k"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")
        mounted.append(folder)
        return lambda: subprocess.run(["mount", "-o", "remount,size=1g", folder], check=True) and None

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


KILLED = -signal.SIGKILL
