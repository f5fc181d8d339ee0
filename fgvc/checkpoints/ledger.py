"""Accounts of what is read from an upstream checkpoint: no tensor is overlooked, no setting is ignored."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fgvc.errors import FgvcError, nearest

_log = logging.getLogger(__name__)
_MOST_NAMES = 8
#: What wrappers (DDP, a module around the model) put before all names.
_WRAPPERS = ("module.", "model.")


class Ledger:
    """The tensors of an upstream state dict, each of which must be taken or dropped with a reason."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        names = dict(state)
        for wrapper in _WRAPPERS:
            if names and all(name.startswith(wrapper) for name in names):
                names = {name.removeprefix(wrapper): tensor for name, tensor in names.items()}
        self._left = names
        self._missing: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def names(self, prefix: str = "") -> list[str]:
        """Names not accounted for yet that begin with ``prefix``."""
        return [name for name in self._left if name.startswith(prefix)]

    def look(self, name: str) -> Tensor:
        """The tensor, without accounting for it.

        For a missing one an empty stand-in, so that a builder goes on as far as it can: `check_missing`
        then lists all that it asked for in vain.
        """
        if name not in self._left:
            self._missing.append(name)
            return torch.empty(0)
        return self._left[name]

    def take(self, name: str) -> Tensor:
        """The tensor, which counts as used from now on; a missing one as in `look`."""
        tensor = self.look(name)
        self._left.pop(name, None)
        return tensor

    def drop(self, name: str, reason: str) -> None:
        """Account for a tensor that is not used, if it is there; the reason is logged."""
        if self._left.pop(name, None) is not None:
            _log.info("dropped '%s' of the upstream checkpoint: %s", name, reason)

    def check_missing(self) -> None:
        """Raise FgvcError that lists what was asked for and is not there."""
        if self._missing:
            guess = nearest(self._missing[0], self._left)
            raise FgvcError(
                f"the upstream checkpoint lacks {_few(self._missing)}",
                cure="is it of another method or configuration?"
                + (f" For the first, the nearest is '{guess}'" if guess else ""),
            )

    def close(self) -> None:
        """Raise FgvcError that lists what is missing, or what nobody took or dropped."""
        self.check_missing()
        if self._left:
            raise FgvcError(
                f"{len(self._left)} tensors of the upstream checkpoint are not accounted for: "
                f"{_few(sorted(self._left))}",
                cure="they belong to another method or to options that its config does not tell",
            )


def _few(names: list[str]) -> str:
    rest = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


class Settings:
    """An upstream configuration: its own keys, then those that its code made of them (``_resolved``)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        resolved = config.get("_resolved") or {}
        self._values = {**resolved, **{key: value for key, value in config.items() if key != "_resolved"}}

    def get(self, key: str, default: Any = None) -> Any:
        """The value; ``default`` where the key is missing or None."""
        value = self._values.get(key)
        return default if value is None else value

    def require(self, key: str, *supported: Any) -> None:
        """Raise FgvcError unless the value is one of ``supported``; a missing key or None will do as well."""
        value = self.get(key)
        if value is not None and value not in supported:
            raise FgvcError(
                f"upstream checkpoints with {key}={value!r} are not supported",
                key=key,
                cure=f"supported: {', '.join(repr(one) for one in supported)}",
            )

    def agree(self, key: str, found: int) -> None:
        """Raise FgvcError when the config says another number than the tensors' shapes do."""
        value = self.get(key)
        if value is not None and value is not True and value != found:
            raise FgvcError(f"the config says {key}={value}, the shapes of the tensors say {found}", key=key)
