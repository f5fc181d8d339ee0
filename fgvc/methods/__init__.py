"""The methods: one file a class. Importing this package registers every file in it."""

from __future__ import annotations

import importlib
import pkgutil

from fgvc.methods.base import Method, MethodOutput, ModelSpec, method_class, register, registered

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Method", "MethodOutput", "ModelSpec", "method_class", "register", "registered"]
