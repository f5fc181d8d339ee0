"""``fgvc pretrain`` from fonts to weights: what it makes, exact resumption, refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from fgvc.backbones.fetch_weights import fetch_weights
from fgvc.backbones.weights import expected_tensors
from fgvc.cli.main import main
from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.methods.build import create_model
from fgvc.pretraining.engine import FacePretrainer, one_cycle
from fgvc.pretraining.recipe import WEIGHTS, FaceRecipe
from fgvc.pretraining.run import pretrain
from fgvc.provenance.digests import file_sha256
from fgvc.training.progress import TrainingProgress
from fgvc.training.resume import ResumeState

PACKAGES = ("fonts-narrow", "fonts-wide")
#: 3 faces × 3 pictures in batches of 4: 2 steps an epoch, one picture left out of each.
TINY = replace(FaceRecipe(), renders=4, held_out=1, batch_size=4, epochs=2, threads=1)
ARCHITECTURE = "vit_pico_patch16_224"

Run = Callable[..., dict[str, Any]]
Verb = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(debian: Path, tmp_path: Path) -> Run:
    """``run(name="a", **changes)``: pre-train into folders of that name."""

    def one(name: str = "a", **changes: Any) -> dict[str, Any]:
        recipe = replace(TINY, **changes)
        return pretrain(recipe, tmp_path / name, tmp_path / "state" / name, packages=PACKAGES, root=debian)

    return one


@pytest.fixture
def fgvc(capsys: pytest.CaptureFixture[str]) -> Verb:
    """``fgvc("pretrain", …)``: exit status, standard output and standard error of the command."""

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


@pytest.fixture(scope="session")
def uninterrupted(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights that `TINY` gives when nobody disturbs it."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    pretrain(TINY, folder, folder / "state", packages=PACKAGES, root=debian)
    return (folder / f"{WEIGHTS}.safetensors").read_bytes()


# --- what it makes ---------------------------------------------------------------------------------


def test_the_verb_ends_with_weights_that_load_and_a_card(
    debian: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fgvc: Verb
) -> None:
    (tmp_path / "params/weights").mkdir(parents=True)
    (tmp_path / "params/config.yaml").write_text("{}\n")
    monkeypatch.setenv("FGVC_PROJECT", str(tmp_path))
    options = ["--root", str(debian), "--package", "fonts-narrow", "--package", "fonts-wide"]
    output = tmp_path / "params/weights"
    code, said, _ = fgvc(
        "pretrain", *options, "--epochs", "1", "--renders", "3", "--output", str(output), "--json"
    )
    assert code == 0
    record = json.loads(said)
    weights = output / f"{WEIGHTS}.safetensors"
    assert record["sha256"] == file_sha256(weights) and record["bytes"] == weights.stat().st_size
    assert record["accuracy"]["pictures"] == 3 and record["train_pictures"] == 6
    stored = safetensors.torch.load_file(weights)
    assert set(stored) == set(expected_tensors(ARCHITECTURE))
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    card = (output / f"{WEIGHTS}.md").read_text()
    for word in ("Narrow Serif", "fonts-wide", "2:1.5-3", "OFL-1.1", "Computer Modern Typewriter"):
        assert word in card
    assert record["sha256"] in card

    _register(tmp_path, weights, record)
    project = Project(tmp_path)
    made, cached = fetch_weights(project, "w")
    assert (made["source"], cached) == ("this project", False)
    model = create_model(
        "vit", backbone=ARCHITECTURE, num_classes=5, image_size=224, weights="w", project=project
    )
    loaded = {name.removeprefix("backbone.vit."): tensor for name, tensor in model.state_dict().items()}
    assert torch.equal(loaded["blocks.3.mlp.fc1.weight"], stored["blocks.3.mlp.fc1.weight"].float())
    assert loaded["pos_embed"].shape == (1, 197, 128)
    assert torch.equal(loaded["pos_embed"][:, 0], stored["pos_embed"][:, 0].float())


def _register(root: Path, weights: Path, record: dict[str, Any]) -> None:
    (root / "params/weights/w.yaml").write_text(
        f"""title: W
architecture: {ARCHITECTURE}
source: {{kind: shipped, file: {weights.name}, bytes: {record["bytes"]}, sha256: {record["sha256"]}}}
format: timm
mean: [0.5, 0.5, 0.5]
std: [0.5, 0.5, 0.5]
pretraining: [typefaces of Debian]
licence: MIT
citation: this project
"""
    )


def test_a_second_call_finds_the_result(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run()
    monkeypatch.setattr(FacePretrainer, "train", lambda *_: pytest.fail("trained again"))
    assert run() == first
    assert "(cached)" in capsys.readouterr().err


def test_another_recipe_or_damaged_weights_are_no_result(run: Run, tmp_path: Path) -> None:
    first = run()
    path = tmp_path / "a" / f"{WEIGHTS}.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    assert run()["sha256"] == first["sha256"] and path.read_bytes() == good
    assert run(seed=2)["sha256"] != first["sha256"]


def test_it_learns(tmp_path: Path) -> None:
    """Stripes across, stripes upright and no ink are told apart after some steps, whatever their colours."""
    stripes = ((torch.arange(48) // 6) % 2 * 255).to(torch.uint8).expand(48, 48)
    one_each = torch.stack([stripes, stripes.T, torch.zeros_like(stripes)])
    recipe = replace(TINY, crop_px=32, renders=20, held_out=10, batch_size=30, epochs=40)
    trainer = FacePretrainer(one_each[:, None].repeat(1, 20, 1, 1), recipe)
    before = trainer.evaluate()
    trainer.train(
        ResumeState(tmp_path, "any"), TrainingProgress("stripes", 40, 40, 0, tmp_path / "progress.json")
    )
    after = trainer.evaluate()
    assert before.pictures == after.pictures == 30
    assert after.centre_pct > 95 and after.five_crops_pct > 95 > 70 > before.centre_pct
    assert trainer.history[-1]["train_loss"] < trainer.history[0]["train_loss"] / 1.5


def test_the_learning_rate_makes_one_cycle() -> None:
    factors = [one_cycle(step / 100, 0.1) for step in range(101)]
    assert (factors[0], factors[10]) == (0.04, 1.0) and factors[100] == pytest.approx(0)
    assert factors[:11] == sorted(factors[:11]) and factors[10:] == sorted(factors[10:], reverse=True)


# --- kills -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 3])
def test_killed_and_resumed_gives_the_same_bytes(
    run: Run, uninterrupted: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Before the first state was saved (1), right after (2), and in the middle of the second epoch (3)."""
    real = FacePretrainer._one_step

    def dies(self: FacePretrainer, chosen: torch.Tensor) -> Any:
        if self.step == step:
            raise KeyboardInterrupt
        return real(self, chosen)

    with monkeypatch.context() as patch:
        patch.setattr(FacePretrainer, "_one_step", dies)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert not (tmp_path / "a" / f"{WEIGHTS}.safetensors").exists()
    steps: list[int] = []

    def counted(self: FacePretrainer, chosen: torch.Tensor) -> Any:
        steps.append(self.step)
        return real(self, chosen)

    monkeypatch.setattr(FacePretrainer, "_one_step", counted)
    run()
    assert steps == list(range(0 if step == 1 else 2, 4)), "nothing before the last state is repeated"
    assert (tmp_path / "a" / f"{WEIGHTS}.safetensors").read_bytes() == uninterrupted
    assert not list((tmp_path / "state").rglob("step-*")), "the states are gone when the result is there"


@pytest.mark.slow
def test_a_process_killed_for_real_goes_on(debian: Path, tmp_path: Path) -> None:
    (tmp_path / "params").mkdir()
    (tmp_path / "params/config.yaml").write_text("{}\n")
    options = ["--root", str(debian), "--package", "fonts-narrow", "--package", "fonts-wide"]
    command = [sys.executable, "-m", "fgvc", "pretrain", *options, "--epochs", "6", "--renders", "30"]
    environment = {**os.environ, "FGVC_PROJECT": str(tmp_path)}

    def start(output: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, "--output", str(tmp_path / output)], stderr=subprocess.PIPE, text=True, env=environment
        )

    killed = start("a")
    assert killed.stderr is not None
    for line in killed.stderr:
        if "epoch 2/6" in line:
            killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    resumed = start("a")
    _, said = resumed.communicate(timeout=300)
    assert resumed.returncode == 0 and "resuming at step" in said, said
    whole = start("b")
    _, said = whole.communicate(timeout=300)
    assert whole.returncode == 0 and "resuming" not in said and "epoch 6/6" in said, said
    names = [tmp_path / folder / f"{WEIGHTS}.safetensors" for folder in "ab"]
    assert names[0].read_bytes() == names[1].read_bytes()


# --- mistakes --------------------------------------------------------------------------------------


def test_missing_fonts_are_one_error_of_the_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fgvc: Verb
) -> None:
    (tmp_path / "params").mkdir()
    (tmp_path / "params/config.yaml").write_text("{}\n")
    monkeypatch.setenv("FGVC_PROJECT", str(tmp_path))
    code, _, said = fgvc("pretrain", "--root", str(tmp_path), "--package", "fonts-lato")
    assert code == 2 and said.startswith("error: 1 of the 1 font packages are not installed")
    assert "apt-get install fonts-lato" in said and len(said.splitlines()) <= 5
    assert not (tmp_path / "results").exists() and not (tmp_path / "state").exists()


def test_nothing_left_to_train_on_is_refused_before_anything_is_drawn(run: Run) -> None:
    with pytest.raises(FgvcError, match="nothing to train on"):
        run(renders=2, held_out=2)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_state(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FacePretrainer._one_step

    def breaks(self: FacePretrainer, chosen: torch.Tensor) -> Any:
        loss, hits = real(self, chosen)
        return (loss * float("nan") if self.step >= 2 else loss), hits

    monkeypatch.setattr(FacePretrainer, "_one_step", breaks)
    with pytest.raises(FgvcError, match="not finite in epoch 2"):
        run()
    assert [path.name for path in (tmp_path / "state").rglob("step-*.json")] == ["step-00000002.json"]
