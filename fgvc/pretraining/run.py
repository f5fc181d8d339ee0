"""``fgvc pretrain`` from font packages to weights and their card: found again, resumed or made."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from fgvc.data.progress import Progress, quiet
from fgvc.device import prepare_process
from fgvc.errors import FgvcError
from fgvc.pretraining.card import card_text
from fgvc.pretraining.engine import FacePretrainer
from fgvc.pretraining.faces import text_faces
from fgvc.pretraining.packages import PACKAGES, Package, installed_packages
from fgvc.pretraining.pictures import draw_all
from fgvc.pretraining.recipe import WEIGHTS, FaceRecipe
from fgvc.pretraining.selection import Selection, select
from fgvc.provenance.digests import file_sha256, value_sha256
from fgvc.provenance.durations import duration_text
from fgvc.provenance.files import atomic_path, read_json, write_json, write_text
from fgvc.provenance.locks import exclusive_lock
from fgvc.provenance.machine import code_identity, host, package_versions, peak_memory_mib
from fgvc.training.progress import TrainingProgress
from fgvc.training.resume import ResumeState


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def pretrain(
    recipe: FaceRecipe,
    output: Path,
    state: Path,
    *,
    packages: Sequence[str] = PACKAGES,
    root: Path = Path("/"),
    faces: int | None = None,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Make ``output/WEIGHTS.{safetensors,md,json}``, or find them already made.

    Args:
        state: folder for resume states, which outlive a kill.
        packages: font packages to draw from.
        root: of the Debian system that they are installed in.
        faces: use at most so many (for a quick try).

    Returns the record (the JSON). Raises FgvcError when packages are missing or too few faces remain.
    """
    _check(recipe)
    code_identity()  # of the code that runs, not of what stands there when the run ends (the answer is kept)
    found = installed_packages(tuple(packages), root)
    chosen = select(*text_faces(found), limit=faces, progress=progress)
    identity = _identity(recipe, chosen)
    made = _already_there(output, identity)
    if made:
        say(f"(cached) {WEIGHTS} was made before from these very faces with this recipe")
        return made
    with exclusive_lock(state / "lock", "pre-training"):
        prepare_process(recipe.threads)
        say(f"pre-training on {len(chosen.faces)} typefaces, {len(chosen.refused)} files refused")
        drawn = draw_all(chosen.faces, recipe.renders, recipe.side_px, progress)
        resume = ResumeState(state / identity[:16], identity)
        trainer = _trained(FacePretrainer(drawn, recipe), resume, state)
        record = _publish(trainer, chosen, found, identity, output)
        resume.clear()
    return record


def _check(recipe: FaceRecipe) -> None:
    if not 0 < recipe.held_out < recipe.renders:
        raise FgvcError(
            f"{recipe.renders} renders a face leave nothing to train on or nothing to test with",
            key="--renders",
            cure="at least 2",
        )


def _identity(recipe: FaceRecipe, chosen: Selection) -> str:
    """Digest of what the weights depend on: the recipe and the font files under their class numbers."""
    return value_sha256([asdict(recipe), [[face.name, file_sha256(face.path)] for face in chosen.faces]])


def _already_there(output: Path, identity: str) -> dict[str, Any] | None:
    weights, record_path = (output / f"{WEIGHTS}{suffix}" for suffix in (".safetensors", ".json"))
    with contextlib.suppress(FgvcError, OSError, KeyError):
        record: dict[str, Any] = read_json(record_path)
        if (record["identity_sha256"], record["sha256"]) == (identity, file_sha256(weights)):
            return record
    return None


def _trained(trainer: FacePretrainer, resume: ResumeState, state: Path) -> FacePretrainer:
    previous = resume.load()
    if previous:
        trainer.load_state(*previous)
        say(f"resuming at step {trainer.step} of {trainer.total_steps}; nothing before it is repeated")
    progress = TrainingProgress(
        "pretrain", trainer.recipe.epochs, trainer.total_steps, trainer.step, state / "progress.json"
    )
    try:
        trainer.train(resume, progress)
    finally:
        progress.close()
    return trainer


def _publish(
    trainer: FacePretrainer, chosen: Selection, packages: Sequence[Package], identity: str, output: Path
) -> dict[str, Any]:
    """Write the weights, the card and, last, the record that vouches for both."""
    tensors = trainer.backbone_state()
    # What is measured is what is shipped: the halved tensors.
    trainer.model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)
    accuracy = trainer.evaluate()
    weights = output / f"{WEIGHTS}.safetensors"
    with atomic_path(weights) as temporary:
        # One entry: safetensors writes several in an order of its own, which changes the bytes.
        safetensors.torch.save_file(tensors, temporary, metadata={"weights": WEIGHTS})
    record = {
        "weights": WEIGHTS,
        "sha256": file_sha256(weights),
        "bytes": weights.stat().st_size,
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "identity_sha256": identity,
        "recipe": asdict(trainer.recipe),
        "steps": trainer.total_steps,
        "train_pictures": len(trainer.train_numbers),
        "train_top1_pct": round(trainer.history[-1]["train_top1_pct"], 2),
        "train_loss": round(trainer.history[-1]["train_loss"], 4),
        "accuracy": asdict(accuracy),
        "seconds": round(trainer.seconds, 1),
        "cpu_seconds": round(trainer.cpu_seconds, 1),
        "faces": [
            {"name": face.name, "package": face.package, "file": face.path.name} for face in chosen.faces
        ],
        "packages": [{"name": p.name, "version": p.version, "licences": list(p.licences)} for p in packages],
        "refused": [asdict(refusal) for refusal in chosen.refused],
        "nearest": [asdict(nearest) for nearest in chosen.nearest],
        "code": code_identity(),
        "software": package_versions(),
        "host": host(),
        "threads": torch.get_num_threads(),
        "peak_memory_mib": peak_memory_mib(),
    }
    write_text(output / f"{WEIGHTS}.md", card_text(record))
    write_json(output / f"{WEIGHTS}.json", record)
    say(f"{WEIGHTS}: {accuracy.centre_pct:.1f} % top-1 in {duration_text(trainer.seconds)}")
    return record
