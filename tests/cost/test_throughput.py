"""Speeds are measured under named conditions, and written with all that they depend on."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fgvc.config.conditions import Conditions
from fgvc.config.recipe import Recipe
from fgvc.cost.speed import PeakMemory, Subject
from fgvc.errors import FgvcError
from fgvc.methods.build import create_model

ROOT = Path(__file__).resolve().parents[2]
CPU = Conditions(device="cpu", precision="fp32", batch_size=4, threads=1)


@pytest.mark.parametrize("text", ["cpu-fp32-b8-t2", "cpu-bf16-b1-t16", "cuda-fp16-b64", "mps-fp32-b8"])
def test_conditions_read_back_from_their_name(text: str) -> None:
    assert Conditions.parse(text).text == text


@pytest.mark.parametrize("text", ["", "cpu", "cpu-fp32-b8", "cpu-fp16-b8-t1", "cuda-fp32-b0", "gpu-fp32-b8"])
def test_a_name_of_no_conditions_is_refused(text: str) -> None:
    with pytest.raises(FgvcError, match="names no conditions"):
        Conditions.parse(text)


def subject(batch_size: int = 4, size: int = 32) -> Subject:
    model = create_model("cnn", backbone="test_efficientnet", num_classes=5, image_size=size)
    recipe = Recipe(epochs=1, batch_size=batch_size, learning_rate=0.1)
    return Subject(model, recipe, CPU, size, torch.device("cpu"))


def test_a_slower_model_is_measured_slower() -> None:
    """Sixteen times the pixels: by far slower on any machine."""
    fast, slow = subject(), subject(size=128)
    fast_speed, slow_speed = fast.model_throughput(2), slow.model_throughput(2)
    assert fast_speed.least > slow_speed.largest
    assert slow_speed.least <= slow_speed.median <= slow_speed.largest and slow_speed.repeats == 2
    assert slow.latency().p50_ms > fast.latency().p50_ms


def test_a_training_step_updates_the_model() -> None:
    measured = subject()
    before = [p.detach().clone() for p in measured.model.parameters()]
    assert measured.training_step(5, repeats=1).median > 0
    moved = [not torch.equal(a, b) for a, b in zip(before, measured.model.parameters(), strict=True)]
    assert any(moved) and measured.model.training


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel tells no peak")
def test_peak_memory_is_of_the_block() -> None:
    # A mapping goes back to the system when it is closed; blocks of a heap may not.
    with PeakMemory(torch.device("cpu")) as large, mmap.mmap(-1, 160 * 2**20) as block:
        for start in range(0, len(block), 2**20):
            block[start : start + 2**20] = bytes(2**20)
    with PeakMemory(torch.device("cpu")) as small:
        torch.ones(2**10).sum()
    assert large.mib is not None and small.mib is not None
    assert large.mib > small.mib + 120


def test_a_gpu_that_is_not_here_is_one_clear_error(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = "fgvc benchmark typefaces vit_pico --conditions cuda-bf16-b64"
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode != 0 and "there is no device 'cuda' here" in done.stderr
    assert "Traceback" not in done.stderr
