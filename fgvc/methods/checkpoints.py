"""Checkpoints: a whole model, or, beside a frozen backbone, all but what the backbone's own weights give.

One of the second kind names the weights file by its digest: on any other its numbers would be wrong without
a sign.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from fgvc.errors import FgvcError, first_few
from fgvc.methods.base import frozen_modules

#: In the metadata of a checkpoint that is not the whole model: SHA-256 of the backbone's weights file.
BACKBONE_KEY = "backbone_sha256"

#: What the parameters and buffers of a method's backbone are called.
_BACKBONE = "backbone."


def own_names(model: nn.Module) -> list[str]:
    """Names of the tensors of ``model.state_dict()`` that the backbone's weights file does not give.

    These are all outside the backbone; in it, the parameters that train, and the buffers (a batch norm's
    statistics) of all modules that are not frozen as a whole.
    """
    still = {id(t) for part in frozen_modules(model) for t in part.state_dict(keep_vars=True).values()}
    parameters = dict(model.named_parameters())

    def is_own(name: str, tensor: Tensor) -> bool:
        if not name.startswith(_BACKBONE):
            return True
        return parameters[name].requires_grad if name in parameters else id(tensor) not in still

    return [name for name, tensor in model.state_dict(keep_vars=True).items() if is_own(name, tensor)]


def saved_names(model: nn.Module, *, whole: bool) -> list[str]:
    """Names of the tensors that a checkpoint holds: all, or those of `own_names`."""
    return list(model.state_dict()) if whole else own_names(model)


def save_checkpoint(
    state: Mapping[str, Tensor], path: Path, run_sha256: str, backbone_sha256: str | None = None
) -> None:
    """Write ``state`` as safetensors.

    Args:
        state: all of a model's tensors, or, with ``backbone_sha256``, those of `own_names`.
        backbone_sha256: digest of the weights file that the rest of the model comes from.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    told = {"run_sha256": run_sha256}
    if backbone_sha256 is not None:
        # safetensors writes several entries in an order of its own, which changes the bytes; one does not.
        told = {"fgvc": f"{BACKBONE_KEY}={backbone_sha256} run_sha256={run_sha256}"}
    safetensors.torch.save_file(tensors, path, metadata=told)


def backbone_of(path: Path) -> str | None:
    """Digest of the weights file that a checkpoint belongs to; None where it is a whole model.

    Raises FgvcError when the file is missing or no safetensors.
    """
    with _opened(path) as file:
        return _digest_in(file)


def load_checkpoint(model: nn.Module, path: Path, backbone_sha256: str | None = None) -> None:
    """Load a checkpoint, strictly.

    Args:
        model: for a checkpoint beside a frozen backbone it has its weights already, and what trains is marked
            as in the run.
        backbone_sha256: digest of the file of those weights.

    Raises FgvcError when the file is no safetensors, when it belongs to other weights (naming both digests),
    when a name, shape or type differs from the model's, and when a value is not a number.
    """
    with _opened(path) as file:
        belongs_to, state = _digest_in(file), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    wanted: dict[str, Tensor] = model.state_dict()
    if belongs_to is not None:
        if belongs_to != backbone_sha256:
            raise FgvcError(
                f"the checkpoint belongs to a backbone with the digest {belongs_to}, the weights here have "
                f"{backbone_sha256 or 'none'}",
                file=path,
                cure="fetch the weights that it was trained on (run.json names them), or train again",
            )
        wanted = {name: wanted[name] for name in own_names(model)}
    misfit = _misfit(wanted, state)
    if misfit:
        raise FgvcError(
            f"the checkpoint does not fit the model: {misfit}",
            file=path,
            cure="train again; the checkpoint belongs to another recipe or was changed",
        )
    model.load_state_dict(state, strict=belongs_to is None)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A checkpoint, whose tensors are read when they are asked for."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise FgvcError("the checkpoint does not exist", file=path) from None
    except safetensors.SafetensorError as error:
        problem = f"this is no safetensors file, or a damaged one: {str(error).splitlines()[0]}"
        raise FgvcError(problem, file=path, cure="restore the file (dvc checkout), or train again") from None


def _digest_in(file: Any) -> str | None:
    told = dict(part.split("=", 1) for part in (file.metadata() or {}).get("fgvc", "").split() if "=" in part)
    return told.get(BACKBONE_KEY)


def _misfit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """What keeps the tensors ``found`` from being those that are wanted, or None."""
    lacking, foreign = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if lacking or foreign:
        told = [f"lacking: {first_few(lacking)}"] if lacking else []
        return "; ".join([*told, f"not known: {first_few(foreign)}"] if foreign else told)
    for name, tensor in found.items():
        if (tensor.shape, tensor.dtype) != (wanted[name].shape, wanted[name].dtype):
            return f"{name} is {_kind(tensor)} instead of {_kind(wanted[name])}"
        if tensor.isnan().any():
            return f"{name} holds values that are not a number"
    return None


def _kind(tensor: Tensor) -> str:
    """``float32 [192, 64]``."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
