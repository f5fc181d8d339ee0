"""Reading the pickles that other code bases save, without running what is in them."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fgvc.errors import FgvcError

#: Keys under which training scripts keep the weights.
_WEIGHTS = ("model", "state_dict")
#: The only class besides tensors and plain containers that a pickle may name.
_ALLOWED = (argparse.Namespace,)


@dataclass(frozen=True)
class UpstreamFile:
    """What a checkpoint holds.

    Attributes:
        state_dict: tensors by upstream's names.
        config: the arguments that it was trained with, empty where it has none.
    """

    state_dict: dict[str, Tensor]
    config: dict[str, Any] = field(default_factory=dict)


def read_upstream(path: Path) -> UpstreamFile:
    """Read a ``.pth`` of an upstream training script: ``model`` and, as a namespace or a dict, ``config``.

    The file is read with ``weights_only=True``: nothing in it can run, and a pickle that names any class
    besides ``argparse.Namespace`` is refused. Its optimizer state is left out.

    Raises FgvcError when the file is missing, damaged, refused, or holds no weights.
    """
    try:
        with torch.serialization.safe_globals(list(_ALLOWED)):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FgvcError("the checkpoint does not exist", file=path) from None
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FgvcError(
            f"this checkpoint cannot be read safely: {reason}",
            file=path,
            cure="fetch it again; a pickle that holds more than tensors and arguments is refused on purpose",
        ) from None
    if not isinstance(loaded, dict):
        raise FgvcError("the checkpoint holds no dict", file=path)
    state = next((loaded[key] for key in _WEIGHTS if isinstance(loaded.get(key), Mapping)), loaded)
    if not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise FgvcError(
            f"the checkpoint holds no weights; its keys are {', '.join(map(str, loaded))}", file=path
        )
    config = loaded.get("config") if state is not loaded else None
    if isinstance(config, argparse.Namespace):
        config = vars(config)
    return UpstreamFile(dict(state), dict(config) if isinstance(config, Mapping) else {})
