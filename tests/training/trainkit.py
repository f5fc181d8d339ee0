"""Tools of these tests: a tiny project, and real processes that train in it and die where they are told to.

Processes come from a server that imported torch once, so that each starts in a moment; they are processes
like any other and are killed with real signals.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
import yaml
from PIL import Image

from fgvc.backbones.fetch_weights import fetch_weights
from fgvc.config.project import Project
from fgvc.data.fetch import fetch
from fgvc.data.splits import prepare_splits
from fgvc.evaluation.predict import evaluate_directory
from fgvc.provenance.stopping import StoppedError, StopRequest
from fgvc.training import engine, resume, run
from fgvc.training.run import RunResult, train_run
from fgvc.training.search import run_candidate
from fgvc.training.spec import RunSpec

CLASSES = ("ant", "bee", "cow")
#: Images of a class in each part; 21 to train on, 4 a batch: 5 batches an epoch and one image left out.
COUNTS = {"train": 5, "val": 2, "test": 2}
EPOCHS, BATCH, SIZE, RATE = 2, 4, 32, 0.01

#: Shipped weights, and where this project has them.
WEIGHTS = "vit_pico_patch16_224.debian_faces"
SHIPPED = Path(__file__).resolve().parents[2] / "params/weights"

#: The files that must come out the same to the byte.
EXACT = ("model.safetensors", "history.csv", "predictions.parquet", "metrics.json")


def variant(**recipe: Any) -> dict[str, Any]:
    """A method's YAML; its own keys may be among the given ones, the rest is the recipe's."""
    return {
        "method": recipe.pop("method", "vit"),
        "title": "T",
        "group": "ViT-based",
        "backbone": recipe.pop("backbone", "vit_pico_patch16_224"),
        "backbone_title": "B",
        "weights": recipe.pop("weights", None),
        "options": recipe.pop("options", {}),
        "train": recipe.pop("train", "all"),
        "frozen_mode": recipe.pop("frozen_mode", "eval"),
        "recipe": {
            "epochs": EPOCHS,
            "batch_size": BATCH,
            "learning_rate": RATE,
            "warmup_steps": 3,
            "augmentation": "medium",
            **recipe,
        },
        "source": "made up",
    }


def groups_variant() -> dict[str, Any]:
    """Batches of two classes, a method that counts epochs, and every key of published recipes."""
    made = variant(
        method="sc4001",
        backbone="test_vit",
        epochs=5,
        accumulate=2,
        samples_per_class=2,
        learning_rate_factors={"backbone.*": 0.5, "head.*": 3},
        warmup_epochs=1.5,
        augmentation="weak",
        resize="short_side",
        interpolation="bilinear",
        brightness_jitter=0.4,
        contrast_jitter=0.4,
        saturation_jitter=0.2,
        blur_probability=0.5,
        sharpen_probability=0.5,
    )
    del made["recipe"]["warmup_steps"]
    options = {"vote_perhead": 2, "total_num": 5, "key_tokens": 3, "dynamic_warm_epochs": 1}
    return {**made, "options": options}


#: Variant → its YAML.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": variant(),
    # Five micro-batches an epoch, two a step: two steps an epoch.
    "everything": variant(
        epochs=3,
        augmentation="strong",
        stochastic_depth=0.2,
        dropout=0.1,
        mix_probability=1.0,
        optimizer="adamw",
        weight_decay=0.05,
        accumulate=2,
        ema_decay=0.8,
    ),
    "norms": variant(
        method="cnn", backbone="test_efficientnet", ema_decay=0.9, dropout=0.2, channels_last=True
    ),
    "centers": variant(method="cal", backbone="test_resnet"),
    # Checkpoint and state hold what trains; the rest comes from the weights file again.
    "frozen": variant(
        method="ila",
        weights=WEIGHTS,
        options={"ds_blocks": [], "same_blocks": [1]},
        train=["between.*", "head.*", "backbone.vit.cls_token"],
        frozen_mode="train",
        dropout=0.1,
        ema_decay=0.8,
        optimizer="adamw",
    ),
    "half": variant(precision="fp16"),
    "long": variant(epochs=12, optimizer="adamw"),
    "groups": groups_variant(),
}

DATASET = {
    "title": "Tiny",
    "description": "three classes of noise",
    "classes": len(CLASSES),
    "licence": "none",
    "citation": "none",
    "source": {"kind": "folder", "path": "pictures"},
    "layout": {"kind": "class_folders"},
    "split": {"provenance": "ours"},
}
SUITE = {
    "title": "Quick",
    "description": "d",
    "datasets": ["tiny"],
    "methods": ["plain"],
    "image_sizes": [SIZE],
    "seeds": [1],
    "learning_rates": [0.001, 0.003, 0.01],
    "tables": ["acc"],
}
TABLE = {"kind": "accuracy", "title": "Accuracy", "caption": "Made for a test.", "image_size": SIZE}
#: Every step's state is saved.
SETTINGS = {"device": "cpu", "loader_workers": 0, "checkpoint_interval_s": 0}


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def make_project(root: Path) -> Project:
    """The tiny project, its dataset fetched and split."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        for part, count in COUNTS.items():
            for number in range(count):
                pixels = rng.integers(0, 120, (36, 40, 3), dtype=np.uint8)
                pixels[..., label] += 100
                path = root / "pictures" / part / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    write_yaml(root / "params/config.yaml", SETTINGS)
    write_yaml(root / "params/datasets/tiny.yaml", DATASET)
    write_yaml(root / "params/suites/quick.yaml", SUITE)
    write_yaml(root / "params/tables/acc.yaml", TABLE)
    for name, content in VARIANTS.items():
        write_yaml(root / f"params/methods/{name}.yaml", content)
    for file in SHIPPED.rglob(f"{WEIGHTS}.*"):
        target = root / "params/weights" / file.relative_to(SHIPPED)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    fetch_weights(Project(root), WEIGHTS)
    fetch(Project(root), "tiny")
    prepare_splits(Project(root), "tiny")
    return Project(root)


def copy_project(project: Project, root: Path, **settings: Any) -> Project:
    """A copy elsewhere: no result depends on where a project lies."""
    shutil.copytree(project.root, root)
    if settings:
        write_yaml(root / "params/config.yaml", {**SETTINGS, **settings})
    return Project(root)


def spec_of(project: Project, method: str = "plain", **more: Any) -> RunSpec:
    """A run of the tiny project, read from its files as they are now."""
    facts = {"image_size": SIZE, "seed": 1, "learning_rate": RATE, **more}
    return RunSpec(Project(project.root), "tiny", method, **facts)


def run_dir(project: Project, method: str = "plain", seed: int = 1) -> Path:
    return project.paths.run_dir("tiny", method, SIZE, seed)


def exact_files(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in EXACT}


# --- processes ------------------------------------------------------------------------------------

Moment = Literal["in the step", "before saving", "in the state", "before its record", "after saving"]
MOMENTS: tuple[Moment, ...] = (
    "in the step",
    "before saving",
    "in the state",
    "before its record",
    "after saving",
)


@dataclass(frozen=True)
class Fate:
    """What happens to a process: ``signals`` at one moment of one step.

    The state of step k is saved right after it; the last step's is not, since the results follow.
    """

    step: int
    moment: Moment
    signals: tuple[int, ...] = (signal.SIGKILL,)

    def strike(self) -> None:
        for number in self.signals:
            os.kill(os.getpid(), number)

    def await_it(self) -> None:
        """Put the moment into this process's code."""
        save, write, tell = resume.ResumeState.save, torch.save, resume.write_json
        accumulate = engine.Trainer._accumulate

        def in_step(trainer: engine.Trainer, batch: Any, micro: int) -> None:
            accumulate(trainer, batch, micro)
            if trainer.step + 1 == self.step:  # gradients are there, the update is not
                self.strike()

        def around_save(state: resume.ResumeState, step: int, content: dict[str, Any]) -> None:
            if step == self.step and self.moment == "before saving":
                self.strike()
            at_step[0] = step
            save(state, step, content)
            if step == self.step and self.moment == "after saving":
                self.strike()

        def half_a_state(content: Any, stream: BinaryIO) -> None:
            if at_step[0] != self.step:
                return write(content, stream)
            whole = io.BytesIO()
            write(content, whole)
            stream.write(whole.getvalue()[: len(whole.getvalue()) // 2])
            stream.flush()
            self.strike()
            return None

        def no_record(path: Path, record: Any) -> None:
            if at_step[0] == self.step:
                self.strike()
            tell(path, record)

        at_step = [0]
        if self.moment == "in the step":
            engine.Trainer._accumulate = in_step  # type: ignore[method-assign]
        else:
            resume.ResumeState.save = around_save  # type: ignore[method-assign]
        if self.moment == "in the state":
            resume.torch.save = half_a_state  # type: ignore[assignment]
        if self.moment == "before its record":
            resume.write_json = no_record  # type: ignore[assignment]


def _work(root: Path, method: str, log: Path, fate: Fate | None, facts: dict[str, Any]) -> None:
    """In the process: train and evaluate one run (or one candidate of a search)."""
    multiprocessing.set_start_method("fork", force=True)  # as in a process from a shell, for loader workers
    # A run of several devices may have started the server of all tests, with stop signals blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, StopRequest.SIGNALS)
    stream = log.open("a", encoding="utf-8")
    os.dup2(stream.fileno(), 1)
    os.dup2(stream.fileno(), 2)
    sys.stderr = stream
    if fate:
        fate.await_it()
    spec = spec_of(Project(root), method, **facts)
    try:
        with StopRequest() as stop:
            if spec.is_search:
                run_candidate(spec, stop=stop)
                return
            run.train_run(spec, stop=stop)
            evaluate_directory(spec.project, spec.directory, "test")
    except StoppedError as stopped:
        print(stopped.message, file=stream, flush=True)
        raise


@dataclass
class Ended:
    """How a process ended: its exit code (-9: killed) and what it said."""

    code: int | None
    said: str


def start(
    project: Project, method: str = "plain", fate: Fate | None = None, **facts: Any
) -> multiprocessing.process.BaseProcess:
    """Start training (and evaluating) in a process of its own; its words go to ``log-METHOD``."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["fgvc.training.search", "torchmetrics.functional.classification"])
    log = project.root / f"log-{method}"
    process = server.Process(target=_work, args=(project.root, method, log, fate, facts))
    process.start()
    return process


def finish(process: multiprocessing.process.BaseProcess, project: Project, method: str = "plain") -> Ended:
    """Wait for a process of `start`; what it said is taken out of the log."""
    process.join(120)
    assert process.exitcode is not None, "the process hangs"
    log = project.root / f"log-{method}"
    said = log.read_text(encoding="utf-8") if log.exists() else ""
    log.unlink(missing_ok=True)
    return Ended(process.exitcode, said)


def train(project: Project, method: str = "plain", fate: Fate | None = None, **facts: Any) -> Ended:
    return finish(start(project, method, fate, **facts), project, method)


def made(project: Project, method: str = "plain", **facts: Any) -> RunResult:
    """Train (or find) and evaluate in this process."""
    spec = spec_of(project, method, **facts)
    result = train_run(spec)
    evaluate_directory(spec.project, spec.directory, "test")
    return result
