"""fgvc-bench: reproducible, auditable benchmarks for fine-grained visual classification.

``import fgvc`` is light; what needs torch is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fgvc.methods.build import create_model as create_model

__version__ = "0.1.0"
__all__ = ["create_model", "list_methods"]


def list_methods() -> list[str]:
    """Names of the registered method classes."""
    from fgvc.methods import registered

    return list(registered())


def __getattr__(name: str) -> Any:
    if name == "create_model":
        from fgvc.methods.build import create_model

        return create_model
    if name == "checkpoints":
        # Not `from fgvc import checkpoints`, which would ask here again.
        return importlib.import_module("fgvc.checkpoints")
    raise AttributeError(f"module 'fgvc' has no attribute '{name}'")
