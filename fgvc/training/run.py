"""A training run from its ids to its files: found again, resumed or made, and published whole."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fgvc.backbones.timm_models import parameter_count
from fgvc.config.identity import recipe_sha256
from fgvc.config.stages import source_digest
from fgvc.data.class_batches import batches_of_recipe
from fgvc.data.loading import Batch
from fgvc.device import (
    choose_device,
    describe_device,
    peak_device_memory_mib,
    prepare_process,
)
from fgvc.device_lease import leased_devices
from fgvc.errors import FgvcError
from fgvc.evaluation.predict import drop_foreign_evaluation, restore_evaluation
from fgvc.methods import Method
from fgvc.methods.build import build_variant
from fgvc.methods.checkpoints import save_checkpoint
from fgvc.provenance.digests import file_sha256
from fgvc.provenance.durations import duration_text
from fgvc.provenance.files import atomic_path, require_writable, write_json, write_text
from fgvc.provenance.locks import exclusive_lock
from fgvc.provenance.machine import code_identity, host, package_versions, peak_memory_mib
from fgvc.provenance.stopping import StopRequest
from fgvc.provenance.store import ResultStore
from fgvc.training.distributed import Peers, synchronised
from fgvc.training.engine import Outcome, Trainer, autocast
from fgvc.training.frozen_features import refuse_unless_exact
from fgvc.training.inputs import batches_of_run, check_inputs
from fgvc.training.launch import launch
from fgvc.training.progress import NoProgress, TrainingProgress
from fgvc.training.resume import ResumeState
from fgvc.training.spec import RunSpec

MODEL, HISTORY, RECORD = "model.safetensors", "history.csv", "run.json"
RUN_FILES = [MODEL, HISTORY, RECORD]

#: How long a second writer waits for the first: a driver that was killed may have left its trainer alive.
LOCK_WAIT_S = 24 * 3600.0


@dataclass(frozen=True)
class RunResult:
    """How `train_run` ended: ``trained``, ``resumed``, ``restored`` (from the store) or ``found``."""

    how: str
    status: str
    record: dict[str, Any]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def train_run(
    spec: RunSpec,
    *,
    device: str | None = None,
    devices: int = 1,
    files: list[str] | None = None,
    stop: StopRequest | None = None,
) -> RunResult:
    """Make the results of ``spec``, or find them already made.

    Args:
        device: overrides the settings' device.
        devices: how many of them share each batch; on a CPU, processes.
        files: further files of a finished run that must be found too (a search's metrics).
        stop: asked between steps.

    Raises FgvcError for everything that a user can mend, and StoppedError, with the state saved, when
    ``stop`` says so; a diverged run is no error (its status says so).
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
        settings = spec.project.settings
        kind = device or settings.device
        autocast(choose_device(kind), spec.recipe)  # refuses a precision that the device does not have
        check_inputs(spec)
        require_writable(spec.directory)
        doing = f"training {spec.label}"
        stop = stop or StopRequest(environment={})
        with leased_devices(kind, devices, doing, jobs_per_gpu=settings.jobs_per_gpu) as chosen:
            if devices == 1:
                return _train(spec, store, chosen[0], Peers(), stop)
            result: RunResult = launch(_train, (spec, store), chosen, settings.device_timeout_s, stop)
            return result


def _already_there(spec: RunSpec, wanted: list[str], store: ResultStore) -> RunResult | None:
    record_path = spec.directory / RECORD
    if all((spec.directory / name).is_file() for name in wanted):
        with contextlib.suppress(OSError, ValueError, KeyError):
            record = json.loads(record_path.read_text(encoding="utf-8"))
            if (record["run_sha256"], record["model_sha256"]) == (
                spec.sha256,
                file_sha256(spec.directory / MODEL),
            ):
                say(f"(cached) {spec.label} is there already{_made_otherwise(record)}")
                ResumeState(store.folder, spec.sha256).clear()  # where the disk was full, or a kill came late
                return RunResult("found", record["status"], record)
    drop_foreign_evaluation(spec.directory, spec.sha256)
    if store.restore(wanted, spec.directory):
        restore_evaluation(store, spec.directory)  # where it was evaluated, too
        record = json.loads(record_path.read_text(encoding="utf-8"))
        say(
            f"(cached) {spec.label} was trained before with this very recipe; its files are back"
            f"{_made_otherwise(record)}"
        )
        return RunResult("restored", record["status"], record)
    return None


def _made_otherwise(record: dict[str, Any]) -> str:
    """Words on packages that a finished run was made with and that are here in another version."""
    here, then = package_versions(), record.get("packages", {})
    changed = [name for name in ("torch", "timm") if then.get(name) != here[name]]
    other = [f"{name} {then.get(name)}, here {here[name]}" for name in changed]
    return f" (made with {'; '.join(other)})" if other else ""


def _train(
    spec: RunSpec, store: ResultStore, device: torch.device, peers: Peers, stop: StopRequest
) -> RunResult:
    started = time.monotonic()
    prepare_process(spec.recipe.threads)
    if peers.is_first:
        times = f"{peers.count} × " if peers.count > 1 else ""
        name = describe_device(device)["name"]
        say(f"{spec.label}: training on {times}{name}, {spec.recipe.threads} torch thread(s)")
    samples = spec.samples(spec.split)
    batches = batches_of_recipe(spec.recipe, samples, spec.seed)
    trainer = _trainer(spec, batches.batches_per_epoch, device, peers)
    resume = ResumeState(store.folder, spec.sha256, _software())
    previous = _load(trainer, resume)
    batches.first_batch = trainer.first_batch
    taken = batches_of_run(spec, trainer, samples, peers.share(batches, mixes=trainer.mixing is not None))
    peers.check_same(trainer.model, f"at step {trainer.step}")
    trainer.stop = stop
    if not peers.is_first:
        return _follow(trainer, taken, resume)
    progress = TrainingProgress(
        spec.label,
        spec.recipe.epochs,
        trainer.total_steps,
        trainer.step,
        spec.state_directory / "progress.json",
    )
    with stop.deferred():
        try:
            outcome = trainer.train(taken, resume, progress, spec.project.settings.checkpoint_interval_s)
        finally:
            progress.close()
        if outcome.status == "stopped":
            raise stop.error(f"at step {trainer.step} of {trainer.total_steps}")
        # A request that comes now waits for the files, which are quickly written.
        record = _record(spec, trainer, outcome, device, progress, time.monotonic() - started, previous)
        _publish(spec, trainer, outcome, record)
        store.keep([spec.directory / name for name in RUN_FILES])
        resume.clear()
    say(f"{spec.label}: {outcome.status} in {duration_text(record['duration_s'])}")
    return RunResult("resumed" if previous else "trained", outcome.status, record)


def _trainer(spec: RunSpec, batches_per_epoch: int, device: torch.device, peers: Peers) -> Trainer:
    return Trainer(
        _model(spec, device, peers),
        spec.recipe,
        learning_rate=spec.learning_rate,
        seed=spec.seed,
        num_classes=spec.num_classes,
        batches_per_epoch=batches_per_epoch,
        device=device,
        peers=peers,
        whole_state=spec.frozen_backbone_sha256 is None,
    )


def _model(spec: RunSpec, device: torch.device, peers: Peers) -> Method:
    """The model as training begins: a function of the run's identity."""
    torch.manual_seed(spec.seed)
    model = build_variant(
        spec.project,
        spec.method,
        spec.image_size,
        spec.num_classes,
        with_weights=True,
        dataset=spec.dataset,
    )
    if spec.recipe.frozen_features == "once":
        refuse_unless_exact(model, spec.recipe)
    if peers.count > 1:
        model = synchronised(model, device)
    model = model.to(device)
    if spec.recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _load(trainer: Trainer, resume: ResumeState) -> tuple[int, dict[str, Any]] | None:
    """Let the trainer go on from the saved state, if there is one; returns that, or None."""
    previous = resume.load()
    if resume.refused and trainer.peers.is_first:
        say(f"{resume.refused}: the run begins anew")
    if previous:
        trainer.load_state(*previous)
        if trainer.peers.is_first:
            say(f"resuming at step {trainer.step} of {trainer.total_steps}; nothing before it is repeated")
    return previous


def _follow(trainer: Trainer, taken: Iterator[Batch], resume: ResumeState) -> RunResult:
    """Take every step beside the first process, which writes all that is written."""
    with trainer.stop.deferred():
        outcome = trainer.train(taken, resume, NoProgress(), save_every_s=math.inf)
        if outcome.status == "stopped":
            raise trainer.stop.error(f"at step {trainer.step} of {trainer.total_steps}")
        _peaks(trainer)
    return RunResult("trained", outcome.status, {})


def _peaks(trainer: Trainer) -> dict[str, float | None]:
    """The most memory that a process of the run took."""
    return {
        "peak_memory_mib": trainer.peers.largest(peak_memory_mib()),
        "peak_device_memory_mib": trainer.peers.largest(peak_device_memory_mib(trainer.device)),
    }


def _software() -> dict[str, str | None]:
    """What a half-trained state depends on besides the run's identity."""
    versions = package_versions()
    return {
        **{name: versions[name] for name in ("torch", "torchvision", "timm", "numpy", "pillow")},
        "the code of training": source_digest("train")[:12],
    }


def _publish(spec: RunSpec, trainer: Trainer, outcome: Outcome, record: dict[str, Any]) -> None:
    """Write the declared files once, whole; run.json, which vouches for the others, last."""
    with atomic_path(spec.directory / MODEL) as temporary:
        save_checkpoint(trainer.final_state(), temporary, spec.sha256, spec.frozen_backbone_sha256)
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
        "devices": trainer.peers.count,
        "devices_from_step": [list(since) for since in trainer.devices],
        "threads": torch.get_num_threads(),
        "duration_s": round(duration_s, 1),
        "resumed_from_step": previous[0] if previous else None,
        "out_of_memory": trainer.memory.record(),
        "images_per_s": round(progress.images_per_s(), 2),
        **_peaks(trainer),
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
