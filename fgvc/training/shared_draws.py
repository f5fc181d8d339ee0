"""The random numbers of a forward pass that several processes share, each with some images of a batch.

One process draws dropout masks, stochastic depth and a method's own numbers for the whole batch. Here each
process draws them for the whole batch as well, from the same seed, and keeps those of its own images. So the
numbers that an image meets do not depend on the number of processes; a process draws more than it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fgvc.errors import FgvcError


class SharedDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every random operator inside of the block draws for the whole batch.

    A tensor of V·b rows (b: images of this process) is taken for V looks at the images, look by look, as
    `MethodOutput` has them; of the V·B rows drawn, it gets those of its own images.

    Args:
        whole: B, images of the whole batch.
        positions: places of this process's images in it, ascending or not; their number is b.

    Raises FgvcError (from the operator) for a random operator whose numbers cannot be told apart by image.
    """

    def __init__(self, whole: int, positions: Sequence[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.whole = whole
        self.positions = torch.tensor(positions)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        names = [argument.name for argument in func._schema.arguments]
        given = dict(zip(names, args, strict=False)) | kwargs
        return self._drawn(func, names, given)

    def _drawn(self, func: Any, names: list[str], given: dict[str, Any]) -> Any:
        name = func._schema.name.partition("::")[2]
        tensors = [value for value in given.values() if isinstance(value, Tensor)]
        if "dropout_p" in names:  # attention: it draws only where it drops
            if given.get("dropout_p", 0.0) == 0.0:
                return func(**given)
        elif name == "native_dropout":
            return self._dropout(func, given)
        elif "size" in names and not tensors:
            return self._own(func(**{**given, "size": self._whole_size(given["size"], name)}))
        elif name.endswith("_") and len(tensors) == 1:
            target = tensors[0]
            drawn = func(**{**given, names[0]: self._whole_like(target, name)})
            return target.copy_(self._own(drawn))
        elif name.endswith("_like") and len(tensors) == 1:
            return self._own(func(**{**given, names[0]: self._whole_like(tensors[0], name)}))
        raise _unknown(name)

    def _dropout(self, func: Callable[..., Any], given: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Dropout in one kernel (GPUs): (what is left, scaled; mask)."""
        image, rate, trains = given["input"], given["p"], given["train"]
        if not trains:
            return func(image, rate, trains)  # type: ignore[no-any-return]
        ones = self._whole_like(image, "native_dropout").fill_(1)
        mask = self._own(func(ones, rate, True)[1])
        scale = 1 / (1 - rate) if rate < 1 else 0.0
        return (image.float() * mask * scale).to(image.dtype), mask

    def _whole_size(self, size: Sequence[int], name: str) -> list[int]:
        own = len(self.positions)
        if not size or size[0] % own:
            raise _unknown(name)
        return [size[0] // own * self.whole, *size[1:]]

    def _whole_like(self, rows: Tensor, name: str) -> Tensor:
        """An empty tensor for the whole batch, laid out in memory as ``rows`` is: draws follow the memory."""
        size = self._whole_size(rows.shape, name)
        if rows.is_contiguous():
            return rows.new_empty(size)
        order = sorted(range(rows.ndim), key=rows.stride, reverse=True)
        outermost_first = rows.new_empty([size[axis] for axis in order])
        return outermost_first.permute([order.index(axis) for axis in range(rows.ndim)])

    def _own(self, drawn: Tensor) -> Tensor:
        looks = drawn.reshape(-1, self.whole, *drawn.shape[1:])
        return looks.index_select(1, self.positions.to(drawn.device)).flatten(0, 1)


def _unknown(name: str) -> FgvcError:
    return FgvcError(
        f"this method draws random numbers in a way ({name}) that several devices cannot share",
        cure="train it on one device (--devices 1)",
    )
