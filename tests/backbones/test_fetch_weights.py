"""The weights step: a package, a mirror or the network → safetensors under timm's names, with a record."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from fgvc.backbones.fetch_weights import fetch_weights
from fgvc.backbones.timm_models import build_timm
from fgvc.backbones.tokens import TokenBackbone
from fgvc.backbones.weights import load_into
from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.methods.build import create_model

ProjectFactory = Callable[..., Project]

ARCHITECTURE = "test_vit"
#: Nothing listens there; a connection is refused at once.
CLOSED = "http://127.0.0.1:9"


def vit_state(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return dict(build_timm(ARCHITECTURE).state_dict())


def original_arrays(state: dict[str, Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    """timm's tensors as the original ViT code stores them (the reverse of the conversion)."""
    width, heads = state["cls_token"].shape[-1], 2
    arrays: dict[str, Tensor] = {
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "embedding/kernel": state["patch_embed.proj.weight"].permute(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": torch.zeros(width, 9),
        "head/bias": torch.zeros(9),
    }
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    for i in range(depth):
        ours, theirs = f"blocks.{i}.", f"Transformer/encoderblock_{i}/"
        attention = theirs + "MultiHeadDotProductAttention_1/"
        parts = zip(
            ("query", "key", "value"),
            state[ours + "attn.qkv.weight"].chunk(3),
            state[ours + "attn.qkv.bias"].chunk(3),
            strict=True,
        )
        for part, weight, bias in parts:
            arrays[f"{attention}{part}/kernel"] = weight.T.reshape(width, heads, -1)
            arrays[f"{attention}{part}/bias"] = bias.reshape(heads, -1)
        arrays[attention + "out/kernel"] = state[ours + "attn.proj.weight"].T.reshape(heads, -1, width)
        arrays[attention + "out/bias"] = state[ours + "attn.proj.bias"]
        for norm, inner in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            arrays[f"{theirs}{inner}/scale"] = state[f"{ours}{norm}.weight"]
            arrays[f"{theirs}{inner}/bias"] = state[f"{ours}{norm}.bias"]
        for fc, inner in (("fc1", "Dense_0"), ("fc2", "Dense_1")):
            arrays[f"{theirs}MlpBlock_3/{inner}/kernel"] = state[f"{ours}mlp.{fc}.weight"].T
            arrays[f"{theirs}MlpBlock_3/{inner}/bias"] = state[f"{ours}mlp.{fc}.bias"]
    return {name: tensor.numpy() for name, tensor in arrays.items()}


def write_file(path: Path, state: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **original_arrays(state))  # type: ignore[arg-type]
    elif path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"state_dict": {**state, "head.weight": torch.zeros(9, 64)}}, path)


@pytest.fixture
def make(project_factory: ProjectFactory, tmp_path: Path) -> Callable[..., tuple[Project, Path]]:
    """``make(suffix, **changes)``: a project with the weights ``w`` and their file in a mirror."""

    def one(suffix: str = ".npz", *, in_mirror: bool = True, **changes: Any) -> tuple[Project, Path]:
        file = tmp_path / "mirror" / "weights" / f"w{suffix}"
        write_file(file, vit_state())
        source = {
            "kind": "url",
            "url": f"{CLOSED}/w{suffix}",
            "file": file.name,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            **changes.pop("source", {}),
        }
        description = {
            "title": "Tiny",
            "architecture": ARCHITECTURE,
            "source": {key: value for key, value in source.items() if value is not None},
            "format": "vit_npz" if suffix == ".npz" else "timm",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "pretraining": ["nothing"],
            "licence": "none",
            "citation": "none",
            **changes,
        }
        project = project_factory(
            files={"params/weights/w.yaml": description},
            settings={"network_timeout_s": 2, "network_retry_wait_s": 0.01},
        )
        if not in_mirror:
            file.unlink()
        return project, tmp_path / "mirror"

    return one


Make = Callable[..., tuple[Project, Path]]


def expect_file(project: Project, file: Path) -> None:
    """Let the registry name this very file, whatever is in it."""
    path = project.file("weights", "w")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    path.write_text(re.sub(r"sha256: \w+", f"sha256: {digest}", path.read_text()))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
def test_every_kind_of_file_in_a_mirror_becomes_the_same_safetensors(make: Make, suffix: str) -> None:
    project, mirror = make(suffix)
    record, was_there = fetch_weights(project, "w", mirror)
    assert not was_there
    stored = safetensors.torch.load_file(project.paths.weights("w"))
    assert set(stored) == set(vit_state())
    assert all(torch.equal(stored[name], tensor) for name, tensor in vit_state().items())
    assert record["source"] == f"mirror weights/w{suffix}"
    assert record["tensors"] == len(stored)
    assert record == json.loads(project.paths.weights_record("w").read_text())
    assert str(mirror) not in project.paths.weights_record("w").read_text()


def test_fetching_twice_does_it_once_and_the_bytes_are_the_same(make: Make) -> None:
    project, mirror = make()
    first, _ = fetch_weights(project, "w", mirror)
    data = project.paths.weights("w").read_bytes()
    assert fetch_weights(project, "w", mirror) == (first, True)
    assert fetch_weights(project, "w", mirror, force=True) == (first, False)
    assert project.paths.weights("w").read_bytes() == data


def test_a_damaged_result_is_made_again(make: Make) -> None:
    project, mirror = make()
    first, _ = fetch_weights(project, "w", mirror)
    project.paths.weights("w").write_bytes(b"torn")
    assert fetch_weights(project, "w", mirror) == (first, False)


def test_the_mirror_of_the_environment_counts_too(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    project, mirror = make()
    monkeypatch.setenv("FGVC_MIRROR", str(mirror))
    assert fetch_weights(project, "w")[0]["source"].startswith("mirror")


# --- digests --------------------------------------------------------------------------------------


def test_first_digits_of_a_digest_are_enough(make: Make) -> None:
    project, mirror = make()
    data = (mirror / "weights/w.npz").read_bytes()
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    for name, facts in {
        "a": {"sha256": hashlib.sha256(data).hexdigest()[:8]},
        "b": {"sha256": None, "md5": md5[:6]},
        "c": {"sha256": None, "md5": md5, "bytes": len(data)},
    }.items():
        project, mirror = make(source=facts)
        assert fetch_weights(project, "w", mirror)[0]["tensors"] > 0, name
        project.paths.weights_record("w").unlink()


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"sha256": "0" * 64}, "has another SHA-256 ({sha256} instead of 000000000000…)"),
        ({"sha256": None, "md5": "0" * 6}, "has another MD5 ({md5} instead of 000000…)"),
        ({"bytes": 12}, "has {size} bytes instead of 12"),
    ],
)
def test_another_file_than_the_registry_names_is_refused(
    make: Make, facts: dict[str, Any], said: str
) -> None:
    project, mirror = make(source=facts)
    data = (mirror / "weights/w.npz").read_bytes()
    with pytest.raises(FgvcError, match=r"w\.npz could not be had: the mirror's file has") as caught:
        fetch_weights(project, "w", mirror)
    digests = {
        "sha256": hashlib.sha256(data).hexdigest()[:12] + "…",
        "md5": hashlib.md5(data, usedforsecurity=False).hexdigest()[:12] + "…",
    }
    assert said.format(size=len(data), **digests) in str(caught.value)
    assert not project.paths.weights("w").exists() and not project.paths.weights_record("w").exists()


def test_a_pickle_with_code_in_the_mirror_does_not_run(make: Make, tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (canary,)

    project, mirror = make(".pth")
    file = mirror / "weights/w.pth"
    torch.save({"state_dict": vit_state(), "extra": Bomb()}, file)
    expect_file(project, file)
    with pytest.raises(FgvcError, match="cannot be read safely"):
        fetch_weights(Project(project.root), "w", mirror)
    assert not canary.exists() and not project.paths.weights("w").exists()


# --- architecture ---------------------------------------------------------------------------------


def test_weights_of_another_architecture_are_refused_with_a_list(make: Make) -> None:
    project, mirror = make(".safetensors", architecture="vit_pico_patch16_224")
    with pytest.raises(FgvcError, match="do not fit the architecture") as caught:
        fetch_weights(project, "w", mirror)
    assert "wrong shape: cls_token is [1, 1, 64], not [1, 1, 128]" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 5


def test_an_npz_of_something_else_is_an_error_that_names_what_it_lacks(make: Make) -> None:
    project, mirror = make()
    file = mirror / "weights/w.npz"
    np.savez(file, cls=np.zeros((1, 1, 64)))
    expect_file(project, file)
    with pytest.raises(FgvcError, match="no original ViT: it has no array 'Transformer/"):
        fetch_weights(Project(project.root), "w", mirror)


# --- without a network ----------------------------------------------------------------------------


def test_offline_the_error_says_what_to_do(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    project, mirror = make(in_mirror=False)
    for folder in (mirror, None):
        with pytest.raises(FgvcError) as caught:
            fetch_weights(project, "w", folder)
        text = str(caught.value)
        assert f"{CLOSED}/w.npz" in text
        assert "--mirror" in text and "FGVC_MIRROR" in text and "w.npz" in text
        assert len(text.splitlines()) <= 5
    assert not project.paths.weights("w").exists()


def test_a_mirror_that_is_no_folder_is_said(make: Make, tmp_path: Path) -> None:
    project, _ = make()
    with pytest.raises(FgvcError, match="--mirror names is not a folder"):
        fetch_weights(project, "w", tmp_path / "nowhere")


def test_a_file_that_was_downloaded_by_hand_serves(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the offline error says to put it."""
    monkeypatch.setenv("no_proxy", "*")
    project, mirror = make(in_mirror=False)
    with pytest.raises(FgvcError) as caught:
        fetch_weights(project, "w", mirror)
    place = next(word for word in str(caught.value).split() if word.endswith("weights/w.npz"))
    write_file(mirror / "weights" / "w.npz", vit_state())
    assert (mirror / "weights/w.npz") == (mirror.parent / place if not place.startswith("/") else Path(place))
    assert fetch_weights(project, "w", mirror)[0]["tensors"] > 0


# --- loading --------------------------------------------------------------------------------------


def test_weights_reach_the_model_and_positions_follow_the_grid(make: Make) -> None:
    project, mirror = make()
    fetch_weights(project, "w", mirror)
    native = create_model(
        "vit", backbone=ARCHITECTURE, num_classes=3, image_size=160, weights="w", project=project
    )
    assert all(torch.equal(native.backbone.vit.state_dict()[n], t) for n, t in vit_state().items())
    for how in ("timm", "zoom_linear"):
        small = TokenBackbone(ARCHITECTURE, 64)
        load_into(small, project, "w", how)
        assert small.vit.pos_embed.shape == (1, 17, 64)
        assert torch.equal(small.vit.pos_embed[:, :1], vit_state()["pos_embed"][:, :1])
        assert torch.equal(small.vit.blocks[0].mlp.fc1.weight, vit_state()["blocks.0.mlp.fc1.weight"])


def test_registers_stay_in_front_when_positions_are_resized(make: Make) -> None:
    project, mirror = make(".safetensors", architecture="test_vit2")
    torch.manual_seed(0)
    state = dict(build_timm("test_vit2").state_dict())
    safetensors.torch.save_file(state, mirror / "weights/w.safetensors")
    expect_file(project, mirror / "weights/w.safetensors")
    fetch_weights(Project(project.root), "w", mirror)
    backbone = TokenBackbone("test_vit2", 64)
    load_into(backbone, project, "w")
    assert backbone.vit.pos_embed.shape == (1, 1 + 16, 64)
    assert torch.equal(backbone.vit.pos_embed[:, :1], state["pos_embed"][:, :1])


def test_weights_that_changed_since_they_were_fetched_are_refused(make: Make) -> None:
    project, mirror = make()
    fetch_weights(project, "w", mirror)
    path = project.paths.weights("w")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(FgvcError, match="were changed since they were fetched") as caught:
        load_into(TokenBackbone(ARCHITECTURE, 64), project, "w")
    assert "fgvc weights fetch w --force" in str(caught.value)
    fetch_weights(project, "w", mirror, force=True)
    load_into(TokenBackbone(ARCHITECTURE, 64), project, "w")


def test_weights_that_were_never_fetched_name_the_command(make: Make) -> None:
    project, _ = make()
    with pytest.raises(FgvcError, match="does not exist yet") as caught:
        load_into(TokenBackbone(ARCHITECTURE, 64), project, "w")
    assert "fgvc weights fetch w" in str(caught.value)


def test_weights_for_another_backbone_are_refused(make: Make) -> None:
    project, mirror = make()
    fetch_weights(project, "w", mirror)
    with pytest.raises(FgvcError, match="the weights 'w' fit test_vit, not vit_pico"):
        create_model("vit", backbone="vit_pico_patch16_224", num_classes=3, weights="w", project=project)


def test_no_pickle_is_ever_opened_when_a_model_is_built(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training reads the safetensors and nothing else."""
    project, mirror = make(".pth")
    fetch_weights(project, "w", mirror)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was opened")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    create_model("vit", backbone=ARCHITECTURE, num_classes=3, image_size=64, weights="w", project=project)
