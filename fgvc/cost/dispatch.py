"""The headline count: every operator of a forward pass, seen as torch runs it.

On the meta device tensors have shapes and no values, so nothing is computed and no memory is needed.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from fgvc.cost.memory import LiveMemory
from fgvc.cost.operators import (
    DATA_MOVEMENT,
    EXTRA_PRODUCTS,
    KIND_OF,
    bias_additions,
    is_product,
    name_of,
)

_FUSED_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


@dataclass(frozen=True)
class DispatchCount:
    """What one image's forward pass costs.

    Attributes:
        macs: multiply-accumulates of convolutions, matrix products and attention.
        other_ops: all other operations by kind (see `fgvc.cost.operators`), biases included.
        activation_bytes: what the computing operators wrote, without what they wrote in place; fused
            attention counts by its output, as its score matrix never stands in memory.
        peak_bytes: of them and of copies, the most that lived at the same time; without parameters and
            without the image.
        uncounted_ops: calls of computing operators whose price is unknown, by name.
        device: where the operators ran: ``meta``, or ``cpu`` for a method whose forward pass reads values.
    """

    macs: int
    other_ops: Mapping[str, int]
    activation_bytes: int
    peak_bytes: int
    uncounted_ops: Mapping[str, int]
    device: str


def count_dispatch(model: nn.Module, image_size: int) -> DispatchCount:
    """Count one forward pass of one image [1, 3, S, S] on the device of ``model``, in evaluation mode.

    MACs are those of torch's FlopCounterMode (two FLOPs each), with products of matrices and vectors added
    to its table. Attention counts, fused or not, and so does every pass of the method, on crops too.
    """
    image = sample_image(image_size, next(model.parameters()).device)
    with evaluating(model), plain_operators():
        return count_call(lambda: model(image), [image, *model.parameters(), *model.buffers()])


def count_call(run: Callable[[], object], given: Iterable[Tensor]) -> DispatchCount:
    """Count what a call does, in the modes that it is called in.

    Args:
        given: the tensors that it is given, at least one, whose memory is not its own.
    """
    given = list(given)
    others = _OtherOps(given)
    # The mode entered last sees an operator first: it splits what is composite and has no price of its
    # own, and hands the parts on.
    with FlopCounterMode(display=False, custom_mapping=EXTRA_PRODUCTS) as products, others:
        run()
    return DispatchCount(
        macs=products.get_total_flops() // 2,
        other_ops=dict(sorted(others.operations.items())),
        activation_bytes=others.activation_bytes,
        peak_bytes=others.memory.peak_bytes,
        uncounted_ops=dict(sorted(others.unknown.items())),
        device=given[0].device.type,
    )


def count_products(network: nn.Module, image_size: int) -> int:
    """MACs alone of one image's pass through a network; see `count_dispatch`."""
    with evaluating(network), plain_operators():
        image = sample_image(image_size, next(network.parameters()).device)
        with FlopCounterMode(display=False, custom_mapping=EXTRA_PRODUCTS) as products:
            network(image)
    return int(products.get_total_flops()) // 2


class _OtherOps(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what is no matrix product, and the bytes that all computing operators write.

    Args:
        given: tensors that are there already.
    """

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.memory = LiveMemory(given)
        self.operations: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.activation_bytes = 0
        self._inside_attention = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is _FUSED_ATTENTION:
            return self._attention(args, kwargs)
        if name_of(func) not in KIND_OF:
            with self:
                parts = func.decompose(*args, **kwargs)
                if parts is not NotImplemented:
                    return parts
        output = func(*args, **kwargs)
        self._record(func, args, output)
        if not self._inside_attention:
            self.memory.hold(output)
        return output

    def _attention(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._inside_attention += 1
        try:
            with self:
                output = _FUSED_ATTENTION.decompose(*args, **kwargs)
        finally:
            self._inside_attention -= 1
        self._remember(output)
        if not self._inside_attention:
            self.memory.hold(output)
        return output

    def _record(self, func: Any, args: tuple[Any, ...], output: Any) -> None:
        name = name_of(func)
        if is_product(func):
            if additions := bias_additions(func, args, output):
                self.operations["bias"] += additions
        elif name in KIND_OF:
            kind = KIND_OF[name]
            self.operations[kind.name] += kind.operations(args, output)
        elif name in DATA_MOVEMENT:
            return
        else:
            self.unknown[name] += 1
        if not func._schema.is_mutable:
            self._remember(output)

    def _remember(self, output: Any) -> None:
        """Add the result's bytes, without the statistics and indices that come with some."""
        if not self._inside_attention:
            first = output[0] if isinstance(output, (list, tuple)) else output
            self.activation_bytes += first.nbytes if isinstance(first, Tensor) else 0


def sample_image(image_size: int, device: torch.device) -> Tensor:
    """The image that is counted with, [1, 3, S, S]; always the same, for methods that look at its values."""
    shape = (1, 3, image_size, image_size)
    if device.type == "meta":
        return torch.empty(shape, device=device)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)


@contextlib.contextmanager
def plain_operators() -> Iterator[None]:
    """No gradients, and no kernels that hide their products: they would be one unknown operator."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
