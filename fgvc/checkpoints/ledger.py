"""Accounts of what is read from an upstream checkpoint: no tensor is overlooked, no setting is ignored."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

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

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def names(self, prefix: str = "") -> list[str]:
        """Names not accounted for yet that begin with ``prefix``."""
        return [name for name in self._left if name.startswith(prefix)]

    def look(self, name: str) -> Tensor:
        """The tensor, without accounting for it. Raises FgvcError when it is missing."""
        if name not in self._left:
            guess = nearest(name, self._left)
            raise FgvcError(
                f"the upstream checkpoint has no tensor '{name}'",
                cure=f"the nearest is '{guess}'; is it of another method or configuration?"
                if guess
                else None,
            )
        return self._left[name]

    def take(self, name: str) -> Tensor:
        """The tensor, which counts as used from now on. Raises FgvcError when it is missing."""
        tensor = self.look(name)
        del self._left[name]
        return tensor

    def drop(self, name: str, reason: str) -> None:
        """Account for a tensor that is not used, if it is there; the reason is logged."""
        if self._left.pop(name, None) is not None:
            _log.info("dropped '%s' of the upstream checkpoint: %s", name, reason)

    def close(self) -> None:
        """Raise FgvcError that lists what nobody took or dropped."""
        if self._left:
            names = sorted(self._left)
            rest = len(names) - _MOST_NAMES
            shown = ", ".join(names[:_MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")
            raise FgvcError(
                f"{len(names)} tensors of the upstream checkpoint are not accounted for: {shown}",
                cure="they belong to another method or to options that its config does not tell",
            )


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
