"""The second count: fvcore's, from a trace of the forward pass on the CPU.

fvcore misses fused attention and some products, counts others wrongly when they broadcast, and adds
normalisation to its total. The handlers here mend the first two; the third is left out of the sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import conv_flop_count, einsum_flop_jit, get_shape
from torch import Tensor, nn

from fgvc.cost.dispatch import evaluating, plain_operators, sample_image
from fgvc.methods.base import MethodOutput

#: Takes the inputs and the outputs of one operator as values of the traced graph; returns its MACs.
Handler = Callable[[Sequence[Any], Sequence[Any]], int]

#: What fvcore has handlers for although it is no matrix product, under the names of its report.
_NO_PRODUCTS = frozenset(
    (
        "batch_norm",
        "layer_norm",
        "group_norm",
        "instance_norm",
        "upsample_nearest2d",
        "upsample_bilinear2d",
        "adaptive_avg_pool2d",
        "grid_sampler",
    )
)

_HANDLERS: dict[str, Handler] = {}


def register_handler(operator: str) -> Callable[[Handler], Handler]:
    """Decorator: count the operator ``aten::…`` of a trace with this function.

    Raises ValueError when the operator has a handler already.
    """

    def add(handler: Handler) -> Handler:
        if operator in _HANDLERS:
            raise ValueError(f"two handlers for '{operator}'")
        _HANDLERS[operator] = handler
        return handler

    return add


@dataclass(frozen=True)
class TraceCount:
    """fvcore's count of one image's forward pass.

    Attributes:
        macs: multiply-accumulates of convolutions, matrix products and attention.
        unsupported_ops: calls of operators that have no handler, by name; elementwise ones are among them.
    """

    macs: int
    unsupported_ops: Mapping[str, int]


def count_fvcore(model: nn.Module, image_size: int) -> TraceCount:
    """Trace one forward pass of one image [1, 3, S, S] on the CPU, in evaluation mode.

    Args:
        model: a method (or any module that returns a tensor), on the CPU.
    """
    with evaluating(model), plain_operators():
        image = sample_image(image_size, torch.device("cpu"))
        analysis = FlopCountAnalysis(_Tensors(model).eval(), (image,)).set_op_handle(**_HANDLERS)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        by_operator: Counter[str] = analysis.by_operator()
    return TraceCount(
        macs=int(sum(macs for name, macs in by_operator.items() if name not in _NO_PRODUCTS)),
        unsupported_ops=dict(sorted(analysis.unsupported_ops().items())),
    )


class _Tensors(nn.Module):
    """A trace ends in tensors, not in a `MethodOutput`: in all of them, so that nothing is cut away."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        output = self.model(images)
        if isinstance(output, MethodOutput):
            return tuple(_tensors_of(output))
        return output if isinstance(output, tuple) else (output,)


def _tensors_of(output: MethodOutput) -> Iterator[Tensor]:
    for value in vars(output).values():
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict):
            yield from value.values()


# --- handlers ------------------------------------------------------------------------------------------


@register_handler("aten::scaled_dot_product_attention")
def _attention(inputs: Sequence[Any], _outputs: Sequence[Any]) -> int:
    """query [… , L, E], key [… , S, E], value [… , S, V]: L·S·(E + V) for each batch entry and head."""
    query, key, value = (get_shape(v) for v in inputs[:3])
    return int(prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))


@register_handler("aten::matmul")
def _matmul(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Any shapes that torch.matmul takes, vectors and broadcast batches too (fvcore's own takes fewer)."""
    return int(prod(get_shape(outputs[0])) * get_shape(inputs[0])[-1])


@register_handler("aten::mm")
@register_handler("aten::bmm")
def _into_a_buffer(inputs: Sequence[Any], _outputs: Sequence[Any]) -> int:
    """As fvcore's own, but the result may have been written to a given tensor, the third input."""
    return int(prod(get_shape(inputs[0])) * get_shape(inputs[1])[-1])


@register_handler("aten::mv")
@register_handler("aten::dot")
@register_handler("aten::vdot")
def _times_vector(inputs: Sequence[Any], _outputs: Sequence[Any]) -> int:
    return int(prod(get_shape(inputs[0])))


@register_handler("aten::addmv")
def _addmv(inputs: Sequence[Any], _outputs: Sequence[Any]) -> int:
    return int(prod(get_shape(inputs[1])))


@register_handler("aten::baddbmm")
@register_handler("aten::addbmm")
def _added_bmm(inputs: Sequence[Any], _outputs: Sequence[Any]) -> int:
    left, right = (get_shape(v) for v in inputs[1:3])
    return int(prod(left) * right[-1])


@register_handler("aten::_convolution_mode")
def _convolution_with_named_padding(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    return int(conv_flop_count(*(get_shape(v) for v in (*inputs[:2], outputs[0]))))


@register_handler("aten::einsum")
def _einsum(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """For two operands the product of the sizes of all indices; fvcore's own search of a path for the others.

    An index that only one operand has and that the result lacks is summed away first, as torch does.
    """
    terms, _, result = inputs[0].toIValue().replace(" ", "").partition("->")
    operands = terms.split(",")
    shapes = [get_shape(v) for v in inputs[1].node().inputs()]
    if len(operands) != 2 or "." in terms or not result:
        return int(einsum_flop_jit(inputs, outputs))
    sizes = dict(zip("".join(operands), [*shapes[0], *shapes[1]], strict=True))
    kept = (set(operands[0]) & set(operands[1])) | set(result)
    return prod(sizes[index] for index in kept)
