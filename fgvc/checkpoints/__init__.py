"""Checkpoints of other code bases as models of ours. Importing this package registers every file in it.

A family of upstream checkpoints is one file with a builder for each name of an upstream method; see `glsim`.
"""

from __future__ import annotations

import importlib
import pkgutil

from fgvc.checkpoints.reading import UpstreamFile, read_upstream
from fgvc.checkpoints.registry import from_upstream, upstream_methods

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["UpstreamFile", "from_upstream", "read_upstream", "upstream_methods"]
