"""How much memory the results of operators take at the worst moment, by when they come and go.

Counted from shapes, so that it needs none of that memory: on the meta device a storage has a size and no
bytes. What an allocator rounds up, the workspaces of kernels, and parameters are not in it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


class LiveMemory:
    """Bytes of the storages that were made since, and the most that lived at once.

    Args:
        given: tensors that were there before, such as parameters: neither they nor views of them count.
    """

    def __init__(self, given: Iterable[Tensor]) -> None:
        self._seen = {tensor.untyped_storage()._cdata for tensor in given}
        self.live_bytes = 0
        self.peak_bytes = 0

    def hold(self, result: Any) -> None:
        """Count the storages of an operator's result, each once, until nobody has them any more."""
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage())

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        weakref.finalize(storage, self._free, key, size).atexit = False
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)  # the next storage may stand at the same address
        self.live_bytes -= size
