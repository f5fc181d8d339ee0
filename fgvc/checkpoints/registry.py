"""Which builder makes a model of which upstream method's checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from fgvc.checkpoints.ledger import Ledger, Settings
from fgvc.errors import UnknownNameError

Builder = Callable[[Ledger, Settings], nn.Module]

_BUILDERS: dict[str, Builder] = {}


def upstream(method: str) -> Callable[[Builder], Builder]:
    """Decorator: this function builds the model of checkpoints of an upstream method.

    Raises ValueError when the method has a builder already.
    """

    def add(builder: Builder) -> Builder:
        if method in _BUILDERS:
            raise ValueError(f"two builders for the upstream method '{method}'")
        _BUILDERS[method] = builder
        return builder

    return add


def upstream_methods() -> list[str]:
    """Names that `from_upstream` knows."""
    return sorted(_BUILDERS)


def from_upstream(method: str, state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> nn.Module:
    """A model of ours that computes what an upstream checkpoint computes.

    Args:
        method: upstream's method, as `upstream_methods` names them: ``glsim`` (arkel23/GLSim, with or without
            crops), ``timm_glsim`` (its variant on timm models), ``ilarepo_glsim``, ``cal`` …
        state_dict: tensors by upstream's names; shapes are read from them. Wrappers' prefixes are removed.
        config: upstream's settings under its own names; where a key is missing, its code's default counts.
            `read_upstream` returns both for a file.

    Returns the model in evaluation mode, on the CPU.

    Raises FgvcError for an unknown method, settings that nothing here computes, and tensors that are missing,
    misshapen, or not accounted for (all of them are listed).

    Example:
        >>> file = read_upstream(Path("cub_vit_b16_16_2.pth"))
        >>> model = from_upstream("glsim", file.state_dict, file.config)
    """
    if method not in _BUILDERS:
        raise UnknownNameError("upstream method", method, _BUILDERS)
    ledger = Ledger(state_dict)
    model = _BUILDERS[method](ledger, Settings(config))
    ledger.close()
    return model.eval()
