"""What single operators cost: products, everything else, memory; and what is left without a price."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from itertools import accumulate

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from fgvc.backbones.timm_models import build_timm
from fgvc.cost import (
    count_dispatch,
    count_fvcore,
    register_handler,
)
from fgvc.cost.operators import DATA_MOVEMENT, KINDS, is_product, name_of
from fgvc.methods.build import create_model

aten = torch.ops.aten
PICO = "vit_pico_patch16_224"


# --- products of all kinds ------------------------------------------------------------------------------


class _Probe(nn.Module):
    """Runs a function of one matrix [8, 8] and a parameter [8, 8]."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(8))
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images[0, 0, :8, :8], self.weight)


PRODUCTS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "matrix": (lambda x, w: x @ w, 512),
    "vector": (lambda x, w: x @ w[0], 64),
    "vector first": (lambda x, w: x[0] @ w, 64),
    "dot": (lambda x, w: x[0] @ w[0], 8),
    "vdot": (lambda x, w: torch.vdot(x[0], w[0]), 8),
    "addmm": (lambda x, w: torch.addmm(x, x, w), 512),
    "addmv": (lambda x, w: torch.addmv(x[0], x, w[0]), 64),
    "baddbmm": (lambda x, w: torch.baddbmm(x[None], x[None], w[None]), 512),
    "addbmm": (lambda x, w: torch.addbmm(x, x[None], w[None]), 512),
    "broadcast": (lambda x, w: x @ w.expand(3, 8, 8), 3 * 512),
    "einsum": (lambda x, w: torch.einsum("ij,kj->ik", x, w), 512),
    "einsum, three": (lambda x, w: torch.einsum("ij,jk,kl->il", x, w, w), 1024),
    "convolution": (lambda x, w: nn.functional.conv2d(x[None, None], w[None, None, :3, :3]), 36 * 9),
    "same padding": (
        lambda x, w: nn.functional.conv2d(x[None, None], w[None, None, :3, :3], padding="same"),
        576,
    ),
    "transposed": (lambda x, w: nn.functional.conv_transpose2d(x[None, None], w[None, None, :2, :2]), 64 * 4),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_every_product_counts_in_both(name: str) -> None:
    function, macs = PRODUCTS[name]
    assert count_dispatch(_Probe(function), 16).macs == macs
    assert count_fvcore(_Probe(function), 16).macs == macs


# --- other operations ---------------------------------------------------------------------------------

OTHERS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], dict[str, int]]] = {
    "elementwise": (lambda x, w: (x + w).relu_(), {"elementwise": 128}),
    "softmax": (lambda x, w: (x + w).softmax(-1), {"elementwise": 64, "softmax": 320}),
    "layer norm": (lambda x, w: nn.functional.layer_norm(x, (8,), w[0], w[1]), {"normalisation": 320}),
    "gelu": (lambda x, _: nn.functional.gelu(x), {"activation": 512}),
    "reduction": (lambda x, _: x.sum(dim=1), {"reduction": 64}),
    "argmax": (lambda x, _: x.argmax(), {"reduction": 64}),
    "top-k": (lambda x, _: x.topk(2).values, {"reduction": 64}),
    "max pooling": (lambda x, _: nn.functional.max_pool2d(x[None], 2), {"pooling": 64}),
    "average pooling": (lambda x, _: nn.functional.avg_pool2d(x[None], 4, 2), {"pooling": 9 * 16}),
    "bias": (lambda x, w: nn.functional.linear(x, w, w[0]), {"bias": 64}),
    "bias of a convolution": (
        lambda x, w: nn.functional.conv2d(x[None, None], w[None, None, :3, :3], w[0, :1]),
        {"bias": 36},
    ),
    "movement": (lambda x, w: torch.cat([x, w.T]).reshape(4, 32).flip(0)[:, 3:].clone(), {}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_operations_have_a_price(name: str) -> None:
    function, expected = OTHERS[name]
    count = count_dispatch(_Probe(function), 16)
    assert count.other_ops == expected
    assert not count.uncounted_ops


def test_an_unknown_operator_is_listed() -> None:
    count = count_dispatch(_Probe(lambda x, w: torch.special.bessel_j0(x) @ w), 16)
    assert count.uncounted_ops == {"special_bessel_j0": 1}
    trace = count_fvcore(_Probe(lambda x, w: torch.special.bessel_j0(x) @ w), 16)
    assert trace.unsupported_ops == {"aten::special_bessel_j0": 1}


def test_normalisation_is_priced_as_fvcore_prices_it_and_kept_out_of_its_total() -> None:
    from fvcore.nn import FlopCountAnalysis

    cnn = build_timm("tf_efficientnet_lite0").eval()
    reference = FlopCountAnalysis(cnn, (torch.zeros(1, 3, 64, 64),)).unsupported_ops_warnings(False)
    by_operator = reference.by_operator()
    assert count_dispatch(cnn, 64).other_ops["normalisation"] == by_operator["batch_norm"] > 0
    assert count_fvcore(cnn, 64).macs == by_operator["conv"] < reference.total()


def test_in_place_work_needs_no_memory() -> None:
    apart = count_dispatch(_Probe(lambda x, w: torch.relu(x + w)), 16)
    in_place = count_dispatch(_Probe(lambda x, w: torch.relu_(x + w)), 16)
    assert (apart.activation_bytes, in_place.activation_bytes) == (512, 256)
    assert apart.other_ops == in_place.other_ops


def test_the_peak_is_what_lives_at_the_same_time() -> None:
    """[8, 8] in float32 is 256 bytes: x + w, its relu and their sum; then only the sum and its square."""

    def chain(x: Tensor, w: Tensor) -> Tensor:
        first = x + w
        total = first + torch.relu(first)
        del first
        return total * total

    count = count_dispatch(_Probe(chain), 16)
    assert (count.activation_bytes, count.peak_bytes) == (4 * 256, 3 * 256)


def test_views_take_no_memory_and_copies_do() -> None:
    assert count_dispatch(_Probe(lambda x, w: (x + w).view(4, 16)[1:].T), 16).peak_bytes == 256
    assert count_dispatch(_Probe(lambda x, w: (x + w).T.reshape(64)), 16).peak_bytes == 512
    assert count_dispatch(_Probe(lambda x, _: x.T[1:]), 16).peak_bytes == 0


@pytest.mark.parametrize("method", ["vit", "glsim", "ffvt"])
def test_the_peak_is_the_profilers(method: str) -> None:
    """What torch's allocator says of the same pass, run for real; fused attention holds no map in either."""
    model = create_model(method, backbone=PICO, num_classes=20, image_size=224).eval()
    image = torch.zeros(1, 3, 224, 224)
    with torch.inference_mode():
        model(image)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            model(image)
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    assert count_dispatch(model, 224).peak_bytes == pytest.approx(max(accumulate(changes)), rel=0.01)


def test_the_lists_are_disjoint_and_name_real_operators() -> None:
    priced = [op for kind in KINDS for op in kind.ops]
    assert len(priced) == len(set(priced))
    assert not DATA_MOVEMENT & set(priced)
    for name in [*priced, *DATA_MOVEMENT]:
        packet = getattr(aten, name, None) or getattr(aten, f"{name}_", None)
        assert packet is not None, name
        operator = getattr(packet, packet.overloads()[0])
        assert name_of(operator) == name
        assert not is_product(operator)


def test_fvcore_is_quiet(caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder) -> None:
    warnings.simplefilter("always")
    with caplog.at_level(logging.WARNING):
        count_fvcore(create_model("cnn", backbone="tf_efficientnet_lite0", num_classes=5), 64)
    assert not caplog.records
    assert not [w for w in recwarn if "trace" in str(w.message).lower()]


def test_an_operator_has_one_handler() -> None:
    with pytest.raises(ValueError, match="two handlers"):
        register_handler("aten::matmul")(lambda *_: 0)
