"""A training run from its ids to its files: found again, resumed or made, and published whole."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from fgvc.backbones.timm_models import parameter_count
from fgvc.config.identity import recipe_sha256
from fgvc.data.images import hash_files
from fgvc.data.loading import EpochBatches, ImageSet, batches_of, train_loader
from fgvc.data.progress import quiet
from fgvc.data.records import check_files, damage
from fgvc.data.transforms import train_pipeline
from fgvc.device import (
    choose_device,
    describe_device,
    loader_workers,
    peak_device_memory_mib,
    prepare_process,
)
from fgvc.errors import FgvcError
from fgvc.evaluation.predict import EVALUATION_FILES, drop_foreign_evaluation
from fgvc.methods.build import build_variant
from fgvc.provenance.digests import file_sha256
from fgvc.provenance.durations import duration_text
from fgvc.provenance.files import atomic_path, require_writable, write_json, write_text
from fgvc.provenance.locks import exclusive_lock
from fgvc.provenance.machine import code_identity, host, package_versions, peak_memory_mib
from fgvc.provenance.store import ResultStore
from fgvc.training.engine import Outcome, Trainer, autocast
from fgvc.training.progress import TrainingProgress
from fgvc.training.resume import ResumeState
from fgvc.training.spec import RunSpec

MODEL, HISTORY, RECORD = "model.safetensors", "history.csv", "run.json"
RUN_FILES = [MODEL, HISTORY, RECORD]

#: How long a second writer waits for the first: a driver that was killed may have left its trainer alive.
LOCK_WAIT_S = 24 * 3600.0

#: Splits up to this size are read and compared with their digests before the first epoch: that takes
#: seconds, and each image decoded when its digest was taken. Of larger ones only the file sizes are compared.
REREAD_BYTES = 2**30


@dataclass(frozen=True)
class RunResult:
    """How `train_run` ended: ``trained``, ``resumed``, ``restored`` (from the store) or ``found``."""

    how: str
    status: str
    record: dict[str, Any]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def train_run(spec: RunSpec, *, device: str | None = None, files: list[str] | None = None) -> RunResult:
    """Make the results of ``spec``, or find them already made.

    Args:
        device: overrides the settings' device.
        files: further files of a finished run that must be found too (a search's metrics).

    Raises FgvcError for everything that a user can mend; a diverged run is no error (its status says so).
    """
    wanted = RUN_FILES + (files or [])
    state = spec.state_directory
    store = ResultStore(state, spec.sha256)
    with (
        recorded_failure(state, spec.label),
        exclusive_lock(state / "lock", f"training {spec.label}", wait_s=LOCK_WAIT_S, on_wait=say),
    ):
        found = _already_there(spec, wanted, store)
        if found:
            return found
        chosen = choose_device(device or spec.project.settings.device)
        autocast(chosen, spec.recipe)  # refuses a precision that the device does not have
        _check_inputs(spec)
        require_writable(spec.directory)
        return _train(spec, store, chosen)


def _already_there(spec: RunSpec, wanted: list[str], store: ResultStore) -> RunResult | None:
    record_path = spec.directory / RECORD
    if all((spec.directory / name).is_file() for name in wanted):
        with contextlib.suppress(OSError, ValueError, KeyError):
            record = json.loads(record_path.read_text(encoding="utf-8"))
            if (record["run_sha256"], record["model_sha256"]) == (
                spec.sha256,
                file_sha256(spec.directory / MODEL),
            ):
                say(f"(cached) {spec.label} is there already")
                return RunResult("found", record["status"], record)
    drop_foreign_evaluation(spec.directory, spec.sha256)
    if store.restore(wanted, spec.directory):
        store.restore(EVALUATION_FILES, spec.directory)  # where it was evaluated, too
        record = json.loads(record_path.read_text(encoding="utf-8"))
        say(f"(cached) {spec.label} was trained before with this very recipe; its files are back")
        return RunResult("restored", record["status"], record)
    return None


def _check_inputs(spec: RunSpec) -> None:
    """Refuse, before the first epoch, what would fail or mislead later."""
    index = check_files(spec.project, spec.dataset)
    if index.record.tree_sha256 != spec.split_record["tree_sha256"]:
        raise FgvcError(
            f"the images of '{spec.dataset}' changed since they were split",
            file=spec.project.paths.shown(spec.project.paths.split_record(spec.dataset)),
            cure=f"fgvc data split {spec.dataset}",
        )
    samples = spec.samples(spec.split)
    classes = {sample.class_id for sample in samples}
    allowed = spec.project.dataset(spec.dataset).split.missing_classes.get(spec.split, 0)
    if len(classes) + allowed < spec.num_classes or max(classes) >= spec.num_classes:
        lacking = sorted(set(range(spec.num_classes)) - classes)
        raise FgvcError(
            f"the split '{spec.split}' of {spec.dataset} does not have its {spec.num_classes} classes; "
            f"lacking: {lacking[:8]}",
            file=spec.project.paths.shown(spec.project.paths.split_list(spec.dataset, spec.split)),
            cure=f"fgvc data split {spec.dataset}",
        )
    recorded = index.by_path()
    if sum(recorded[sample.path].bytes for sample in samples) <= REREAD_BYTES:
        digests = hash_files(spec.project.paths.data_dir(spec.dataset), [s.path for s in samples], quiet)
        changed = [path for path, digest in digests.items() if digest != recorded[path].sha256]
        if changed:
            raise damage(spec.project, spec.dataset, [], changed)


def _train(spec: RunSpec, store: ResultStore, device: torch.device) -> RunResult:
    recipe, started = spec.recipe, time.monotonic()
    prepare_process(recipe.threads)
    say(f"{spec.label}: training on {describe_device(device)['name']}, {recipe.threads} torch thread(s)")
    torch.manual_seed(spec.seed)
    model = build_variant(
        spec.project,
        spec.method,
        spec.image_size,
        spec.num_classes,
        with_weights=True,
        dataset=spec.dataset,
    ).to(device)
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean, std = spec.mean_std()
    pipeline = train_pipeline(recipe, spec.project.dataset(spec.dataset), spec.image_size, mean, std)
    samples = spec.samples(spec.split)
    images = ImageSet(spec.project.paths.data_dir(spec.dataset), samples, pipeline, spec.seed)
    batches = EpochBatches(len(samples), recipe.batch_size, recipe.epochs, spec.seed)
    trainer = Trainer(
        model,
        recipe,
        learning_rate=spec.learning_rate,
        seed=spec.seed,
        num_classes=spec.num_classes,
        batches_per_epoch=batches.batches_per_epoch,
        device=device,
    )
    resume = ResumeState(store.folder, spec.sha256)
    previous = resume.load()
    if previous:
        trainer.load_state(*previous)
        say(f"resuming at step {trainer.step} of {trainer.total_steps}; nothing before it is repeated")
    batches.first_batch = trainer.first_batch
    _cache_if_it_fits(images, spec)
    workers = loader_workers(spec.project.settings.loader_workers, device)
    progress = TrainingProgress(
        spec.label, recipe.epochs, trainer.total_steps, trainer.step, spec.state_directory / "progress.json"
    )
    loader = train_loader(images, batches, workers, pin_memory=device.type == "cuda")
    try:
        with stop_signals(trainer) as received:
            outcome = trainer.train(
                batches_of(loader), resume, progress, spec.project.settings.checkpoint_interval_s
            )
            if outcome.status == "stopped":
                resume.save(trainer.step, trainer.state())
                say(
                    f"stopped at step {trainer.step} of {trainer.total_steps}; "
                    "the same command goes on from here"
                )
                raise SystemExit(128 + received[0])
    finally:
        progress.close()
    record = _record(spec, trainer, outcome, device, progress, time.monotonic() - started, previous)
    _publish(spec, trainer, outcome, record)
    store.keep([spec.directory / name for name in RUN_FILES])
    resume.clear()
    say(f"{spec.label}: {outcome.status} in {duration_text(record['duration_s'])}")
    return RunResult("resumed" if previous else "trained", outcome.status, record)


def _cache_if_it_fits(images: ImageSet, spec: RunSpec) -> None:
    """Keep prepared images in memory where they fit; this also decodes every one before the first step."""
    size, settings = images.cache_bytes(), spec.project.settings
    if size is not None and size <= settings.image_cache_gib * 2**30:
        images.fill_cache(threads=max(1, min(4, os.cpu_count() or 1)))


def _publish(spec: RunSpec, trainer: Trainer, outcome: Outcome, record: dict[str, Any]) -> None:
    """Write the declared files once, whole; run.json, which vouches for the others, last."""
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in trainer.final_model().state_dict().items()
    }
    with atomic_path(spec.directory / MODEL) as temporary:
        # One entry: safetensors writes several in an order of its own, which changes the bytes.
        safetensors.torch.save_file(tensors, temporary, metadata={"run_sha256": spec.sha256})
    write_text(spec.directory / HISTORY, _history_csv(outcome.history))
    record["model_sha256"] = file_sha256(spec.directory / MODEL)
    record["model_bytes"] = (spec.directory / MODEL).stat().st_size
    write_json(spec.directory / RECORD, record)


def _history_csv(history: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(history[0]) if history else ["epoch"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def _record(
    spec: RunSpec,
    trainer: Trainer,
    outcome: Outcome,
    device: torch.device,
    progress: TrainingProgress,
    duration_s: float,
    previous: tuple[int, dict[str, Any]] | None,
) -> dict[str, Any]:
    """The run card: what ran, from what, by which code, where, and how long."""
    last = outcome.history[-1] if outcome.history else {}
    return {
        "status": outcome.status,
        "cause": outcome.cause,
        "dataset": spec.dataset,
        "method": spec.method,
        "image_size": spec.image_size,
        "seed": spec.seed,
        "learning_rate": spec.learning_rate,
        "split": spec.split,
        "run_sha256": spec.sha256,
        "recipe_sha256": recipe_sha256(spec.project, spec.dataset, spec.method),
        "identity": spec.identity,
        "steps": outcome.steps,
        "epochs": trainer.recipe.epochs,
        "train_images": len(spec.samples(spec.split)),
        "train_loss": _finite(last.get("train_loss")),
        "train_top1_pct": last.get("train_top1_pct"),
        "parameters": {
            "total": parameter_count(trainer.model),
            "trainable": parameter_count(trainer.model, trainable_only=True),
        },
        "code": code_identity(),
        "packages": package_versions(),
        "host": host(),
        "device": describe_device(device),
        "threads": torch.get_num_threads(),
        "duration_s": round(duration_s, 1),
        "resumed_from_step": previous[0] if previous else None,
        "images_per_s": round(progress.images_per_s(), 2),
        "peak_memory_mib": peak_memory_mib(),
        "peak_device_memory_mib": peak_device_memory_mib(device),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


@contextlib.contextmanager
def recorded_failure(state_directory: Path, label: str) -> Iterator[None]:
    """Leave ``failure.json`` in a job's state when the block fails; remove it when it does not.

    Tables show its cause in the cell of the run.
    """
    path = state_directory / "failure.json"
    try:
        yield
    except Exception as error:
        problem = error.problem if isinstance(error, FgvcError) else f"{type(error).__name__}: {error}"
        with contextlib.suppress(Exception):
            write_json(path, {"error": (problem.splitlines() or [""])[0], "run": label})
        raise
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def stop_signals(trainer: Trainer) -> Iterator[list[int]]:
    """Let SIGINT and SIGTERM ask the trainer to stop; gives the list of those received.

    Python would turn the signal into KeyboardInterrupt, which arrives between two instructions: possibly in
    the middle of a step, whose half-done update must not be saved. So the trainer looks between steps.
    """
    received: list[int] = []

    def remember(number: int, _frame: object) -> None:
        if received:  # a second signal: stop at once, the state of the last save remains
            raise KeyboardInterrupt
        received.append(number)
        trainer.stop_requested = True

    previous = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
