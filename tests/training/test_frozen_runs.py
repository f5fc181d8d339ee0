"""Runs beside a frozen backbone: small checkpoints and states, which lean on the weights by their digest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor
from trainkit import WEIGHTS, made, run_dir, spec_of

from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.evaluation.predict import evaluate_directory
from fgvc.methods.build import build_variant
from fgvc.methods.checkpoints import load_checkpoint
from fgvc.provenance.digests import file_sha256
from fgvc.provenance.files import read_json, write_json
from fgvc.training.engine import Trainer
from fgvc.training.run import train_run

Fresh = Callable[..., Project]


def names_in(path: Path) -> set[str]:
    with safetensors.safe_open(path, framework="pt") as file:
        return set(file.keys())


def weights_digest(project: Project) -> str:
    return str(read_json(project.paths.weights_record(WEIGHTS))["sha256"])


def test_a_checkpoint_and_a_state_hold_only_what_trains(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[set[str]] = []
    of_trainer = Trainer.state

    def noted(trainer: Trainer) -> dict[str, object]:
        state = of_trainer(trainer)
        states.append({*state["model"], *state["ema"]})
        return state

    monkeypatch.setattr(Trainer, "state", noted)
    made(project, "frozen")
    file = run_dir(project, "frozen") / "model.safetensors"
    found = names_in(file)
    assert {name.split(".")[0] for name in found} == {"between", "head", "backbone"}
    assert [name for name in found if name.startswith("backbone.")] == ["backbone.vit.cls_token"]
    assert states and all(state == found for state in states)
    record = json.loads((run_dir(project, "frozen") / "run.json").read_text())
    assert record["model_bytes"] == file.stat().st_size < 0.05 * project.paths.weights(WEIGHTS).stat().st_size


def test_checkpoint_and_weights_are_the_model_that_was_trained(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tensor of it, the statistics of norms and the moving average included."""
    ended: list[dict[str, Tensor]] = []
    of_trainer = Trainer.final_state

    def noted(trainer: Trainer) -> dict[str, Tensor]:
        ended.append({name: t.clone() for name, t in trainer.final_model().state_dict().items()})
        return of_trainer(trainer)

    monkeypatch.setattr(Trainer, "final_state", noted)
    made(project, "frozen")
    torch.manual_seed(99)
    spec = spec_of(project, "frozen")
    again = build_variant(spec.project, "frozen", 32, spec.num_classes, with_weights=True)
    path = spec.directory / "model.safetensors"
    load_checkpoint(again, path, weights_digest(project))
    state = again.state_dict()
    assert [name for name, tensor in ended[0].items() if not torch.equal(tensor, state[name])] == []
    assert evaluate_directory(spec.project, spec.directory, "test")["status"] == "ok"


def test_a_checkpoint_is_not_put_onto_other_weights(project: Project) -> None:
    made(project, "frozen")
    trained_on, file = weights_digest(project), project.paths.weights(WEIGHTS)
    tensors = safetensors.torch.load_file(file)
    safetensors.torch.save_file({**tensors, "cls_token": tensors["cls_token"] + 1}, file)
    record = project.paths.weights_record(WEIGHTS)
    write_json(record, {**read_json(record), "sha256": file_sha256(file)})
    with pytest.raises(FgvcError) as caught:
        evaluate_directory(project, run_dir(project, "frozen"), "test")
    assert trained_on in str(caught.value) and weights_digest(project) in str(caught.value)


def test_a_backbone_from_scratch_is_in_its_checkpoint(project: Project) -> None:
    """No file has it: what is frozen was drawn with the run's seed."""
    path = project.root / "params/methods/frozen.yaml"
    path.write_text(path.read_text().replace(f"weights: {WEIGHTS}", "weights: null"))
    train_run(spec_of(project, "frozen"))
    file = run_dir(project, "frozen") / "model.safetensors"
    assert "backbone.vit.pos_embed" in names_in(file)
    assert evaluate_directory(Project(project.root), file.parent, "test")["status"] == "ok"
