"""Foreign tensors under timm's names: the original ViT's arrays, other orders and names, other grids."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from fgvc.backbones.convert import (
    check_names,
    read_state,
    rename_in_order,
    resize_positions,
    vit_npz_to_timm,
)
from fgvc.errors import FgvcError

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def golden(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    about = json.loads((GOLDEN / f"{name}.json").read_text())
    return about, safetensors.torch.load_file(GOLDEN / f"{name}.safetensors")


# --- the original ViT -----------------------------------------------------------------------------


def in_glsim_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's tensors under the names of the GLSim code, which keeps query, key and value apart."""
    plain = {
        "cls_token": "class_token",
        "pos_embed": "positional_embedding.pos_embedding",
        "patch_embed.proj.": "patch_embedding.",
        "norm.": "encoder_norm.",
        "blocks.": "encoder.blocks.",
    }
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if ".attn.qkv." in name:
            block, kind = name.split(".attn.qkv.")
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                found[f"encoder.{block}.attn.proj_{part}.{kind}"] = piece
            continue
        ours, theirs = next((o, t) for o, t in plain.items() if name.startswith(o))
        inner = name.replace(".attn.proj.", ".proj.").replace(".mlp.", ".pwff.")
        found[inner.replace(ours, theirs, 1)] = tensor
    return found


def test_original_vit_arrays_become_what_the_upstream_code_makes_of_them() -> None:
    _, tensors = golden("npz_glsim_a")
    arrays = {n.removeprefix("npz."): t for n, t in tensors.items() if n.startswith("npz.")}
    expected = {n.removeprefix("out.state."): t for n, t in tensors.items() if n.startswith("out.")}
    found = in_glsim_names(vit_npz_to_timm(arrays))
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("grid", [3, 4, 6, 9])
def test_positions_are_zoomed_as_upstream_does(grid: int) -> None:
    _, tensors = golden("posembed_resize_a")
    found = resize_positions(tensors["pos_embed"], grid, 1, "zoom_linear")
    torch.testing.assert_close(found, tensors[f"out.resized.{grid}"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", ["timm", "zoom_linear"])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_positions_of_the_same_grid_stay_and_prefixes_are_never_touched(how: str, prefix: int) -> None:
    positions = torch.randn(1, prefix + 16, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resize_positions(positions, 4, prefix, how), positions)
    larger = resize_positions(positions, 7, prefix, how)
    assert larger.shape == (1, prefix + 49, 8)
    assert torch.equal(larger[:, :prefix], positions[:, :prefix])


@pytest.mark.parametrize("how", ["timm", "zoom_linear"])
def test_a_slope_stays_a_slope(how: str) -> None:
    """A position that only grows from left to right still does, and does not vary from top to bottom."""
    slope = torch.arange(4.0).repeat(4, 1).reshape(1, 16, 1)
    square = resize_positions(slope, 8, 0, how).reshape(8, 8)
    torch.testing.assert_close(square, square[:1].expand(8, 8), rtol=0, atol=1e-4)
    assert (square.diff(dim=1) > -1e-4).all() and square[0, 0] < 0.5 < 2.5 < square[0, -1]


# --- other names ----------------------------------------------------------------------------------

WANTED = {"a.weight": torch.Size([2, 3]), "a.bias": torch.Size([2]), "b.weight": torch.Size([4, 2])}


def tensors_of(shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    return {f"x{i}": torch.full(shape, float(i)) for i, shape in enumerate(shapes.values())}


def test_an_ordered_rename_gives_the_names_and_leaves_the_classifier() -> None:
    given = {**tensors_of(WANTED), "fc.weight": torch.zeros(9, 9)}
    renamed = rename_in_order(given, WANTED)
    assert list(renamed) == list(WANTED)
    assert [t.flatten()[0].item() for t in renamed.values()] == [0.0, 1.0, 2.0]


def test_two_tensors_that_changed_places_are_noticed_at_the_first() -> None:
    x0, x1, x2 = tensors_of(WANTED).items()
    with pytest.raises(FgvcError) as caught:
        rename_in_order(dict([x0, x2, x1]), WANTED)
    assert str(caught.value).startswith("error: tensor 1: expected a.bias [2], the file has x2 [4, 2]")


def test_too_few_tensors_are_noticed() -> None:
    given = dict(list(tensors_of(WANTED).items())[:2])
    with pytest.raises(FgvcError, match=r"tensor 2: expected b.weight \[4, 2\], the file has nothing"):
        rename_in_order(given, WANTED)


def test_names_are_checked_in_full_and_every_complaint_is_listed() -> None:
    state = {"a.weight": torch.zeros(3, 2), "a.bias": torch.zeros(2), "c.weight": torch.zeros(4, 2)}
    with pytest.raises(FgvcError) as caught:
        check_names(state, WANTED, ("head.",))
    text = str(caught.value)
    assert "missing: b.weight" in text
    assert "unexpected: c.weight" in text
    assert "wrong shape: a.weight is [3, 2], not [2, 3]" in text
    assert "is 'c.weight' meant for 'b.weight'?" in text


def test_only_allowed_tensors_are_dropped() -> None:
    state = {**{n: torch.zeros(s) for n, s in WANTED.items()}, "head.weight": torch.zeros(1)}
    assert list(check_names(state, WANTED, ("head.",))) == list(WANTED)
    with pytest.raises(FgvcError, match=r"unexpected: head\.weight"):
        check_names(state, WANTED, ("fc.",))


def test_many_complaints_are_counted_not_printed() -> None:
    with pytest.raises(FgvcError) as caught:
        check_names({}, {f"t{i}": torch.Size([1]) for i in range(300)}, ())
    assert "and 296 more" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 5


# --- files ----------------------------------------------------------------------------------------


def test_the_three_kinds_of_files_give_the_same_tensors(tmp_path: Path) -> None:
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    np.savez(tmp_path / "w.npz", **{k: v.numpy() for k, v in state.items()})
    torch.save(state, tmp_path / "w.pth")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "t.pth")
    for name in ("w.safetensors", "w.npz", "w.pth", "t.pth"):
        found = read_state(tmp_path / name)
        assert set(found) == set(state), name
        assert all(torch.equal(found[k], state[k]) for k in state), name


class Bomb:
    """Unpickling it runs a command."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)


@pytest.mark.parametrize("wrapped", [False, True], ids=["torch file", "bare pickle"])
def test_a_pickle_that_holds_code_is_refused_and_does_not_run(tmp_path: Path, wrapped: bool) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / "w.pth"
    payload = {"a": torch.ones(2), "b": Bomb(canary)}
    if wrapped:
        path.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, path)
    with pytest.raises(FgvcError, match="cannot be read safely") as caught:
        read_state(path)
    assert "refused on purpose" in str(caught.value) and str(path) in str(caught.value)
    assert not canary.exists()
    torch.load(path, weights_only=False) if not wrapped else pickle.loads(path.read_bytes())
    assert canary.exists()  # the bomb was a real one


def test_object_arrays_in_an_npz_are_refused_and_do_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    np.savez(tmp_path / "w.npz", a=np.array([Bomb(canary)], dtype=object), allow_pickle=True)
    with pytest.raises(FgvcError, match="cannot be read safely"):
        read_state(tmp_path / "w.npz")
    assert not canary.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
@pytest.mark.parametrize("damage", ["empty", "half", "text"])
def test_damaged_files_are_errors_that_name_the_file(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"w{suffix}"
    state = {"a": torch.randn(64, 64)}
    if suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    elif suffix == ".npz":
        np.savez(path, a=state["a"].numpy())
    else:
        torch.save(state, path)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "text": b"404: not found\n"}[damage])
    with pytest.raises(FgvcError) as caught:
        read_state(path)
    assert caught.value.file == str(path)


def test_a_bit_that_flipped_inside_an_npz_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, a=np.arange(4096.0))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert zipfile.is_zipfile(path)
    with pytest.raises(FgvcError, match="cannot be read"):
        read_state(path)


def test_a_file_without_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save({"optimizer": [1, 2, 3]}, tmp_path / "w.pth")
    with pytest.raises(FgvcError, match="no plain state dict"):
        read_state(tmp_path / "w.pth")
