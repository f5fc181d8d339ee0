"""Checkpoints and saved states that were tampered with, together with the record that vouches for them."""

from __future__ import annotations

import json
import pickle
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from faultkit import CELL, RUN, fgvc
from torch import Tensor
from workflowkit import BIN, environment, identities, result_files, states

from fgvc.provenance.digests import file_sha256

pytestmark = pytest.mark.workflow

State = dict[str, Tensor]


class Trap:
    """What runs when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)


def vouch(record: Path, **digests: str) -> None:
    """Let a record vouch for what was tampered with, as one would who can do the one and the other."""
    content = json.loads(record.read_text()) | digests
    record.unlink()
    record.write_text(json.dumps(content))


def evaluate(root: Path) -> str:
    """What the verb says of a checkpoint that it refuses: short, and with nothing written."""
    made = identities(result_files(root, "**/*"))
    refused = fgvc(root, "evaluate", *CELL)
    assert refused.status == 2 and len(refused.err.splitlines()) <= 5, refused.err
    assert f"{RUN}/model.safetensors" in refused.err and "train" in refused.err
    assert identities(made) == made
    return refused.err


def test_f11_a_flipped_bit_is_found(small: Path) -> None:
    """A checkpoint of which one bit changed is not evaluated: it is not the file that its run card vouches
    for; the training verb takes the kept copy in its place."""
    file = small / RUN / "model.safetensors"
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    file.unlink()
    file.write_bytes(flipped)
    assert "not the one that run.json vouches for" in evaluate(small)
    assert "its files are back" in fgvc(small, "train", *CELL).check().err
    assert file.read_bytes() == whole


def _without(state: State) -> None:
    del state["head.bias"]


def _with_more(state: State) -> None:
    state["head.scale"] = torch.ones(1)


def _wider(state: State) -> None:
    state["head.bias"] = torch.zeros(5)


def _of_integers(state: State) -> None:
    state["head.bias"] = torch.zeros(4, dtype=torch.int8)


def _not_a_number(state: State) -> None:
    state["head.bias"] = torch.tensor([0.0, float("nan"), 0.0, 0.0])


@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        (_without, "lacking: head.bias"),
        (_with_more, "not known: head.scale"),
        (_wider, "head.bias is float32 [5] instead of float32 [4]"),
        (_of_integers, "head.bias is int8 [4] instead of float32 [4]"),
        (_not_a_number, "head.bias holds values that are not a number"),
    ],
)
def test_f11_a_checkpoint_that_does_not_fit_is_told_by_its_tensor(
    small: Path, tamper: Callable[[State], None], says: str
) -> None:
    """A checkpoint with a tensor missing, too many, of another shape or type, or not a number is refused by
    that tensor's name, also where its run card was changed to match."""
    file = small / RUN / "model.safetensors"
    state = safetensors.torch.load_file(file)
    tamper(state)
    file.unlink()
    safetensors.torch.save_file(state, file)
    vouch(small / RUN / "run.json", model_sha256=file_sha256(file))
    assert says in evaluate(small)


@pytest.mark.parametrize("content", ["pickle", "torch", "header", "half", "empty"])
def test_f11_no_checkpoint_can_run_code(small: Path, tmp_path: Path, content: str) -> None:
    """A file that is no safetensors, such as a pickle that runs code when it is read, is refused, and nothing
    in it runs, also where its run card was changed to match."""
    file, canary = small / RUN / "model.safetensors", tmp_path / "canary"
    whole = file.read_bytes()
    file.unlink()
    if content == "torch":
        torch.save({"head.bias": Trap(canary)}, file)
    else:
        forged = {"pickle": pickle.dumps(Trap(canary)), "half": whole[: len(whole) // 2], "empty": b""}
        file.write_bytes({**forged, "header": (1 << 62).to_bytes(8, "little") + whole[8:]}[content])
    vouch(small / RUN / "run.json", model_sha256=file_sha256(file))
    assert "no safetensors file, or a damaged one" in evaluate(small)
    assert not canary.exists()


def test_f11_no_saved_state_can_run_code(small: Path, tmp_path: Path) -> None:
    """A saved state with code in it is refused and does not run, also where its record was changed to match;
    without it the run goes on from the state before."""
    settings, variant = small / "params/config.yaml", small / "params/methods/vit_tiny.yaml"
    variant.write_text(variant.read_text().replace("epochs: 2", "epochs: 9000"))
    assert "checkpoint_interval_s: 0" in settings.read_text()
    command = ["train", *CELL, "--lr", "0.001"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen([BIN / "fgvc", *command], cwd=small, env=environment(), stderr=quiet) as first:
        while len(states(small, "runs")) < 2:
            assert first.poll() is None
            time.sleep(0.05)
        first.kill()
    record = max(states(small, "runs"))
    state, canary = record.with_suffix(".pt"), tmp_path / "canary"
    torch.save({"model": Trap(canary)}, state)
    vouch(record, sha256=file_sha256(state))
    refused = fgvc(small, *command)
    assert refused.status == 2 and "nothing in it ran" in refused.err and state.name in refused.err
    assert not canary.exists()
