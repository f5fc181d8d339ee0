"""What an operator is: a matrix product, other computation of a known price, or data movement.

The lists are closed. An operator on none of them is reported by name, never skipped in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten

#: What a price is multiplied with: elements written, elements read, or elements written × pooling window.
Basis = Literal["output", "input", "window"]


@dataclass(frozen=True)
class OpKind:
    """Operators of one kind and their price.

    Attributes:
        name: heading in records.
        price: operations an element (an addition, multiplication, comparison or elementary function each).
        basis: the elements that count.
        ops: aten names without overload; the in-place twins (``relu_``) are meant as well.
    """

    name: str
    price: int
    basis: Basis
    ops: frozenset[str]

    def operations(self, args: Sequence[Any], output: Any) -> int:
        """Operations of one call."""
        if self.basis == "input":
            return self.price * _first_tensor(args).numel()
        elements = self.price * _first_tensor(output).numel()
        return elements * _window(args) if self.basis == "window" else elements


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _kind(name: str, price: int, basis: Basis, ops: str) -> OpKind:
    return OpKind(name, price, basis, _names(ops))


#: Prices of normalisations are fvcore's (5 an element; 2 for batch norm with fixed statistics), so that the
#: two can be compared; those of activations and softmax count the steps of their definitions.
KINDS: tuple[OpKind, ...] = (
    _kind(
        "elementwise",
        1,
        "output",
        "add sub rsub mul div neg abs sgn sign pow square maximum minimum fmod remainder floor_divide "
        "floor ceil round trunc frac reciprocal clamp clamp_min clamp_max relu relu6 hardtanh threshold "
        "leaky_relu eq ne lt le gt ge logical_and logical_or logical_not logical_xor bitwise_and bitwise_or "
        "bitwise_not bitwise_xor __and__ __or__ __xor__ isnan isinf isfinite nan_to_num where masked_fill "
        "index_add scatter_add exp exp2 expm1 log log2 log10 log1p sqrt rsqrt sin cos tan asin acos atan "
        "atan2 tanh erf xlogy",
    ),
    _kind("elementwise", 2, "output", "addcmul addcdiv"),
    _kind("elementwise", 3, "output", "lerp"),
    _kind("activation", 3, "output", "elu celu selu softplus hardsigmoid"),
    _kind("activation", 4, "output", "sigmoid log_sigmoid_forward hardswish"),
    _kind("activation", 5, "output", "silu"),
    _kind("activation", 8, "output", "gelu mish"),
    _kind("softmax", 5, "output", "softmax _softmax _safe_softmax _log_softmax"),
    _kind(
        "normalisation",
        5,
        "output",
        "native_layer_norm native_group_norm _fused_rms_norm _native_batch_norm_legit",
    ),
    _kind("normalisation", 2, "output", "_native_batch_norm_legit_no_training"),
    _kind(
        "reduction",
        1,
        "input",
        # For topk and sort one comparison an element is a lower bound.
        "sum mean prod amax amin aminmax max min argmax argmin any all cumsum cumprod cummax cummin "
        "count_nonzero nonzero median kthvalue topk sort",
    ),
    _kind("reduction", 2, "input", "norm linalg_vector_norm"),
    _kind("reduction", 3, "input", "logsumexp"),
    _kind("reduction", 4, "input", "var std var_mean std_mean"),
    _kind("pooling", 1, "window", "max_pool2d_with_indices avg_pool2d"),
    _kind("pooling", 1, "input", "_adaptive_avg_pool2d adaptive_max_pool2d"),
    # Four products and three sums an output pixel; bicubic: sixteen and fifteen.
    _kind("resampling", 7, "output", "upsample_bilinear2d _upsample_bilinear2d_aa grid_sampler_2d"),
    _kind("resampling", 31, "output", "upsample_bicubic2d _upsample_bicubic2d_aa"),
)
KIND_OF: dict[str, OpKind] = {op: kind for kind in KINDS for op in kind.ops}

#: Operators that move, copy, select or fill, and compute nothing.
DATA_MOVEMENT = _names(
    """
    view _unsafe_view _reshape_alias reshape transpose t permute expand clone contiguous detach alias
    lift_fresh lift_fresh_copy copy _to_copy squeeze unsqueeze select slice narrow as_strided diagonal unfold
    unbind split split_with_sizes chunk cat stack repeat repeat_interleave roll flip tril triu
    constant_pad_nd reflection_pad2d replication_pad2d pixel_shuffle pixel_unshuffle im2col
    upsample_nearest2d _upsample_nearest_exact2d index index_select index_put _unsafe_index gather scatter
    slice_scatter select_scatter take embedding masked_select _local_scalar_dense empty empty_like
    empty_strided new_empty new_empty_strided new_zeros new_ones new_full zeros zeros_like ones ones_like
    full full_like fill zero arange linspace eye scalar_tensor native_channel_shuffle set resize
    """
)


def name_of(operator: Any) -> str:
    """``aten::add_.Tensor`` → ``add``; those of other libraries keep their prefix (``torchvision::nms``)."""
    name: str = operator.name().partition(".")[0]
    name = name.removeprefix("aten::")
    return name.removesuffix("_") if not name.endswith("__") else name


# --- matrix products ------------------------------------------------------------------------------------
# torch's own table has convolution, mm, addmm, bmm, baddbmm and the attention kernels, but no products with
# vectors. As there, a multiply-accumulate is two FLOPs, and every formula is given `out_shape`.


def _mv_flop(matrix: Sequence[int], _vector: Sequence[int], **_: Any) -> int:
    return 2 * prod(matrix)


def _addmv_flop(_bias: Sequence[int], matrix: Sequence[int], _vector: Sequence[int], **_: Any) -> int:
    return 2 * prod(matrix)


def _dot_flop(left: Sequence[int], _right: Sequence[int], **_: Any) -> int:
    return 2 * prod(left)


def _addbmm_flop(_bias: Sequence[int], left: Sequence[int], right: Sequence[int], **_: Any) -> int:
    return 2 * prod(left) * right[-1]


#: FLOP formulas that torch's table lacks, in its form (for ``FlopCounterMode(custom_mapping=…)``).
EXTRA_PRODUCTS: dict[Any, Any] = {
    aten.mv: _mv_flop,
    aten.addmv: _addmv_flop,
    aten.dot: _dot_flop,
    aten.vdot: _dot_flop,
    aten.addbmm: _addbmm_flop,
}

#: Products that add a given tensor to their result.
_WITH_ADDEND = frozenset(("addmm", "baddbmm", "addbmm", "addmv"))


def is_product(operator: Any) -> bool:
    """Whether the operator is a convolution, a matrix product or an attention kernel."""
    packet = operator.overloadpacket
    return packet in flop_registry or packet in EXTRA_PRODUCTS


def bias_additions(operator: Any, args: Sequence[Any], output: Any) -> int:
    """Additions of a bias in one call of a product; they are no part of its multiply-accumulates."""
    name = name_of(operator)
    has_bias = name in _WITH_ADDEND or (name == "convolution" and args[2] is not None)
    return _first_tensor(output).numel() if has_bias else 0


def _first_tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    return next(item for item in value if isinstance(item, Tensor))


def _window(args: Sequence[Any]) -> int:
    """Elements under a pooling window: the operator's second argument is the kernel, one number a side."""
    sides = args[1]
    return prod(sides) if len(sides) > 1 else sides[0] ** 2
