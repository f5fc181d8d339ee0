"""The part of a model that trains: what a checkpoint of a frozen backbone holds, and how it is put back.

Such a checkpoint names the weights that the rest of the model has, by their digest: on any others its
numbers would be wrong without a sign.
"""

from __future__ import annotations

from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor, nn

from fgvc.errors import FgvcError
from fgvc.methods.base import frozen_modules

#: Key of the file's metadata: SHA-256 of the backbone's weights file.
BACKBONE_KEY = "backbone_sha256"


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of ``model.state_dict()`` that training may change.

    These are the parameters that train, and the buffers (a batch norm's statistics) of all modules that are
    not frozen as a whole.
    """
    still = {id(t) for part in frozen_modules(model) for t in part.state_dict(keep_vars=True).values()}
    parameters = dict(model.named_parameters())
    return {
        name: tensor.detach()
        for name, tensor in model.state_dict(keep_vars=True).items()
        if (parameters[name].requires_grad if name in parameters else id(tensor) not in still)
    }


def save_trained(model: nn.Module, path: Path, backbone_sha256: str, run_sha256: str) -> None:
    """Write `trained_state` as safetensors, with the digest of the weights it belongs to."""
    tensors = {name: t.cpu().contiguous() for name, t in trained_state(model).items()}
    # safetensors writes several entries in an order of its own, which changes the bytes; one entry does not.
    metadata = {"fgvc": f"{BACKBONE_KEY}={backbone_sha256} run_sha256={run_sha256}"}
    safetensors.torch.save_file(tensors, path, metadata=metadata)


def load_trained(model: nn.Module, path: Path, backbone_sha256: str) -> None:
    """Put a checkpoint of the trained part into a model that has its backbone's weights already.

    Args:
        model: built with the weights whose file has the digest ``backbone_sha256``, and with what trains
            marked as in the run.

    Raises FgvcError when the checkpoint belongs to other weights (naming both digests), lacks a tensor, has
    one too many or one of another shape, and when the file is damaged or missing.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            told = dict(part.split("=", 1) for part in (file.metadata() or {}).get("fgvc", "").split())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no mapping
    except FileNotFoundError:
        raise FgvcError("the checkpoint does not exist", file=path) from None
    except safetensors.SafetensorError as error:
        raise FgvcError(f"the checkpoint is damaged: {error}", file=path, cure="train again") from None
    if told.get(BACKBONE_KEY) != backbone_sha256:
        raise FgvcError(
            f"the checkpoint belongs to a backbone with the digest {told.get(BACKBONE_KEY, 'unknown')}, the "
            f"weights here have {backbone_sha256}",
            file=path,
            cure="fetch the weights that it was trained on (run.json names them), or train again",
        )
    expected = trained_state(model)
    _check_names(expected, tensors, path)
    model.load_state_dict(tensors, strict=False)


def _check_names(expected: dict[str, Tensor], found: dict[str, Tensor], path: Path) -> None:
    wrong = [f"{name} is missing" for name in expected if name not in found]
    wrong += [f"{name} is unknown" for name in found if name not in expected]
    wrong += [
        f"{name} is {list(found[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise FgvcError(
            f"the checkpoint does not fit what trains here: {'; '.join(wrong[:3])}{more}",
            file=path,
            cure="train again; the checkpoint belongs to another recipe or is damaged",
        )
