"""Turning foreign weights into timm's names and shapes.

Read are the original JAX ViT ``.npz`` and PyTorch files (safetensors, or a pickle loaded with
``weights_only=True``) under timm's names, under those of DINOv2's or Swin's authors, or in timm's order.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable
from math import isqrt
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from scipy import ndimage
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from fgvc.errors import FgvcError, nearest

StateDict = dict[str, Tensor]

#: Keys under which training scripts hide the weights.
_WRAPPERS = ("state_dict", "model", "model_state", "teacher", "module")

#: What the readers raise for files that are damaged or hold something else.
_UNREADABLE = (
    pickle.UnpicklingError,
    safetensors.SafetensorError,
    zipfile.BadZipFile,
    ValueError,
    RuntimeError,
    EOFError,
    OSError,
)


def read_state(path: Path) -> StateDict:
    """Tensors of a ``.safetensors``, ``.npz`` or PyTorch file, by name.

    A pickle is only read with ``weights_only=True``: it cannot run code. Raises FgvcError for anything else.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FgvcError(
            f"these weights cannot be read safely: {reason}",
            file=path,
            cure="fetch the file again; pickles that hold more than tensors are refused on purpose",
        ) from None
    for key in _WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise FgvcError("the file holds no plain state dict", file=path)
    return {name.removeprefix("module."): tensor for name, tensor in loaded.items()}


def vit_npz_to_timm(arrays: StateDict) -> StateDict:
    """Original JAX ViT arrays under timm's names; head and pre-logits are left out.

    Kernels: dense [in, out] and attention [D, heads, D/heads] (out-projection [heads, D/heads, D]) become
    torch's [out, in]; convolutions HWIO become OIHW.
    Source: google-research/vision_transformer, checkpoint layout of models_vit.py.
    """
    width = arrays["cls"].shape[-1]
    state: StateDict = {
        "cls_token": arrays["cls"],
        "pos_embed": arrays["Transformer/posembed_input/pos_embedding"],
        "patch_embed.proj.weight": arrays["embedding/kernel"].permute(3, 2, 0, 1),
        "patch_embed.proj.bias": arrays["embedding/bias"],
        "norm.weight": arrays["Transformer/encoder_norm/scale"],
        "norm.bias": arrays["Transformer/encoder_norm/bias"],
    }
    depth = len({name.split("/")[1] for name in arrays if name.startswith("Transformer/encoderblock_")})
    for i in range(depth):
        theirs, ours = f"Transformer/encoderblock_{i}/", f"blocks.{i}."
        attention = theirs + "MultiHeadDotProductAttention_1/"
        parts = [f"{attention}{part}/" for part in ("query", "key", "value")]
        state[ours + "attn.qkv.weight"] = torch.cat(
            [arrays[p + "kernel"].reshape(width, width).T for p in parts]
        )
        state[ours + "attn.qkv.bias"] = torch.cat([arrays[p + "bias"].reshape(width) for p in parts])
        state[ours + "attn.proj.weight"] = arrays[attention + "out/kernel"].reshape(width, width).T
        state[ours + "attn.proj.bias"] = arrays[attention + "out/bias"]
        for theirs_norm, ours_norm in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            state[f"{ours}{ours_norm}.weight"] = arrays[f"{theirs}{theirs_norm}/scale"]
            state[f"{ours}{ours_norm}.bias"] = arrays[f"{theirs}{theirs_norm}/bias"]
        for theirs_fc, ours_fc in (("Dense_0", "fc1"), ("Dense_1", "fc2")):
            state[f"{ours}mlp.{ours_fc}.weight"] = arrays[f"{theirs}MlpBlock_3/{theirs_fc}/kernel"].T
            state[f"{ours}mlp.{ours_fc}.bias"] = arrays[f"{theirs}MlpBlock_3/{theirs_fc}/bias"]
    return {name: tensor.contiguous() for name, tensor in state.items()}


def dinov2_to_timm(state: StateDict) -> StateDict:
    """Tensors of a DINOv2 ViT under timm's names; the mask token, which only pre-training uses, is left out.

    The names are the same but for the registers. In models with registers timm keeps the position embedding
    to the patches: the CLS token's own position is added to the CLS token for good.
    Source: the released checkpoints' tensor names (facebookresearch/dinov2, Oquab et al., 2023; registers:
    Darcet et al., Vision Transformers Need Registers, 2023).
    """
    renamed = {name: tensor for name, tensor in state.items() if name != "mask_token"}
    if "register_tokens" in renamed and {"cls_token", "pos_embed"} <= set(renamed):
        positions = renamed["pos_embed"]
        renamed["reg_token"] = renamed.pop("register_tokens")
        renamed["cls_token"] = renamed["cls_token"] + positions[:, :1]
        renamed["pos_embed"] = positions[:, 1:]
    return renamed


def swin_to_timm(state: StateDict) -> StateDict:
    """Tensors of a Swin Transformer under timm's names; tables that follow from the geometry are left out.

    Its authors (and timm before 0.8) down-sample at the end of a stage, timm at the beginning of the next.
    Source: the released checkpoints' tensor names (microsoft/Swin-Transformer, Liu et al., ICCV 2021).
    """
    tables = (".relative_position_index", ".attn_mask")
    kept = {name: tensor for name, tensor in state.items() if not name.endswith(tables)}
    return {_one_stage_later(name): tensor for name, tensor in kept.items()}


def _one_stage_later(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "layers" and parts[2:3] == ["downsample"]:
        parts[1] = str(int(parts[1]) + 1)
    return ".".join(parts)


def rename_in_order(state: StateDict, wanted: dict[str, torch.Size]) -> StateDict:
    """Give the tensors of ``state``, in their order, the names of ``wanted``, in theirs.

    For files that hold the very tensors of a timm model, in the same order, under other names. ``wanted`` may
    be shorter by the classifier at the end. Raises FgvcError at the first pair whose shapes differ.
    """
    given = list(state.items())
    for position, (name, shape) in enumerate(wanted.items()):
        if position >= len(given) or given[position][1].shape != shape:
            found = (
                "nothing"
                if position >= len(given)
                else f"{given[position][0]} {list(given[position][1].shape)}"
            )
            raise FgvcError(f"tensor {position}: expected {name} {list(shape)}, the file has {found}")
    return {name: tensor for name, (_, tensor) in zip(wanted, given, strict=False)}


def check_names(state: StateDict, wanted: dict[str, torch.Size], allowed_extra: Iterable[str]) -> StateDict:
    """The tensors of ``wanted``, all of them, with the right shapes; what else there is must be allowed.

    Args:
        allowed_extra: name prefixes that may be dropped (the old classifier).

    Raises FgvcError listing missing, unexpected and misshapen tensors.
    """
    prefixes = tuple(allowed_extra)
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted and not name.startswith(prefixes)]
    shapes = [
        f"{name} is {list(state[name].shape)}, not {list(shape)}"
        for name, shape in wanted.items()
        if name in state and not _fits(name, state[name].shape, shape)
    ]
    if missing or extra or shapes:
        problems = [f"missing: {_few(missing)}"] if missing else []
        problems += [f"unexpected: {_few(extra)}"] if extra else []
        problems += [f"wrong shape: {_few(shapes)}"] if shapes else []
        hint = nearest(missing[0], extra) if missing and extra else None
        raise FgvcError(
            "the weights do not fit the architecture; " + "; ".join(problems),
            cure=f"is '{hint}' meant for '{missing[0]}'?" if hint else None,
        )
    return {name: state[name] for name in wanted}


def _fits(name: str, shape: torch.Size, wanted: torch.Size) -> bool:
    """Whether a tensor can be taken; a position embedding of another grid can, it is resized later."""
    resizable = name == "pos_embed" and len(shape) == len(wanted) and shape[::2] == wanted[::2]
    return shape == wanted or resizable


def _few(names: list[str], most: int = 4) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def without_cls(state: StateDict) -> StateDict:
    """The tensors of a ViT under timm's names, for the same ViT without its CLS token.

    The position embedding loses the row of that token, where it has one: patches alone are a square.
    """
    rest = {name: tensor for name, tensor in state.items() if name != "cls_token"}
    positions = rest.get("pos_embed")
    if positions is not None and isqrt(positions.shape[1]) ** 2 != positions.shape[1]:
        rest["pos_embed"] = positions[:, 1:]
    return rest


def resize_positions(pos_embed: Tensor, grid: int, num_prefix: int, how: str) -> Tensor:
    """Fit a position embedding [1, num_prefix + g², D] to a ``grid`` × ``grid`` patch grid.

    Args:
        how: ``timm`` (bicubic, antialiased) or ``zoom_linear`` (scipy.ndimage.zoom of order 1, corners
            aligned, as the original ViT code and the GLSim code base do).

    The prefix rows (CLS, registers) are kept as they are.
    """
    old = round((pos_embed.shape[1] - num_prefix) ** 0.5)
    if old == grid:
        return pos_embed
    if how == "timm":
        resized: Tensor = resample_abs_pos_embed(pos_embed, [grid, grid], num_prefix_tokens=num_prefix)
        return resized
    prefix, patches = pos_embed[:, :num_prefix], pos_embed[0, num_prefix:]
    square = patches.reshape(old, old, -1).numpy()
    zoomed = ndimage.zoom(square, (grid / old, grid / old, 1), order=1)
    return torch.cat([prefix, torch.from_numpy(zoomed).reshape(1, grid * grid, -1)], dim=1)
