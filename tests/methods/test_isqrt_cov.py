"""Covariance pooling and its iterative square root, against eigenvalues and plain formulas.

Parity with the original code is in test_golden_isqrt_cov.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fgvc import create_model
from fgvc.config.project import Project
from fgvc.cost import count_dispatch
from fgvc.methods.build import build_variant
from fgvc.methods.covariance import CovariancePooling, UpperTriangle, covariance, newton_schulz_root
from fgvc.methods.isqrt_cov import ISqrtCov

SHIPPED = Project(Path(__file__).resolve().parents[2])
SIZE, CLASSES = 64, 5


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tiny(backbone: str = "test_resnet", **options: object) -> ISqrtCov:
    torch.manual_seed(0)
    more: dict[str, object] = {"reduced": 8, **options}
    model = create_model("isqrtcov", backbone=backbone, num_classes=CLASSES, image_size=SIZE, **more)  # type: ignore[arg-type]
    assert isinstance(model, ISqrtCov)
    return model.eval()


# --- covariance -----------------------------------------------------------------------------------


def test_the_covariance_is_that_of_the_cells_divided_by_their_number() -> None:
    features = drawn(3, 6, 4, 5)
    for got, one in zip(covariance(features), features, strict=True):
        torch.testing.assert_close(got, one.flatten(1).cov(correction=0))


def test_what_is_added_to_a_channel_everywhere_changes_nothing() -> None:
    features, shift = drawn(2, 6, 4, 4), drawn(2, 6, 1, 1, seed=2)
    torch.testing.assert_close(covariance(features + shift), covariance(features))


# --- square root ----------------------------------------------------------------------------------


def exact_root(matrices: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrices)
    return vectors @ torch.diag_embed(values.clamp(min=0).sqrt()) @ vectors.mT


def relative_error(matrices: Tensor, iterations: int) -> float:
    exact = exact_root(matrices)
    return ((newton_schulz_root(matrices, iterations) - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("width", [4, 16, 64])
def test_more_steps_come_nearer_to_the_root_by_eigenvalues(width: int) -> None:
    matrices = covariance(drawn(1, width, 40, 40))
    errors = [relative_error(matrices, n) for n in (1, 2, 3, 5, 8, 12)]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.1
    assert errors[-1] < 1e-6


@pytest.mark.parametrize("width", [16, 64, 256])
def test_five_steps_are_far_from_the_root_of_many_channels(width: int) -> None:
    """Where all channels vary alike, the share x of the root that is reached goes from 1/√d by x(3 - x²)/2.

    Of 256 channels five steps leave more than half: whoever iterates longer computes another model.
    """
    share = width**-0.5
    for _ in range(5):
        share *= (3 - share**2) / 2
    found = relative_error(torch.eye(width, dtype=torch.float64)[None], 5)
    assert found == pytest.approx(1 - share, abs=1e-9)
    assert (found > 0.5) == (width == 256)


@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
def test_eigenvalues_go_their_way_one_by_one(iterations: int) -> None:
    """Polynomials of a matrix act on its eigenvalues: the scalar recursion is the whole of it."""
    matrices = covariance(drawn(2, 6, 2, 2))  # of rank 3
    values, vectors = torch.linalg.eigh(matrices)
    trace = values.sum(dim=1, keepdim=True)
    y, z = values / trace, torch.ones_like(values)
    for _ in range(iterations):
        t = (3 - z * y) / 2
        y, z = y * t, z * t
    expected = vectors @ torch.diag_embed(trace.sqrt() * y) @ vectors.mT
    torch.testing.assert_close(newton_schulz_root(matrices, iterations), expected)


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_the_gradient_is_that_of_small_differences_also_without_full_rank(iterations: int) -> None:
    def whole(features: Tensor) -> Tensor:
        return UpperTriangle(4)(newton_schulz_root(covariance(features), iterations))

    for cells in (2, 4):
        assert torch.autograd.gradcheck(whole, drawn(2, 4, 1, cells).requires_grad_())


def test_features_twice_as_large_have_a_root_twice_as_large() -> None:
    features = drawn(2, 6, 4, 4)
    one, two = (newton_schulz_root(covariance(scale * features), 5) for scale in (1, 2))
    torch.testing.assert_close(two, 2 * one)


def test_features_that_are_all_the_same_have_the_root_zero_and_no_gradient() -> None:
    features = torch.ones(2, 4, 3, 3, requires_grad=True)
    root = newton_schulz_root(covariance(features), 5)
    root.sum().backward()
    assert not root.any() and features.grad is not None and not features.grad.any()


def test_half_precision_stops_at_the_covariance() -> None:
    """Sums of squares of large features are beyond float16."""
    features = (300 * drawn(2, 16, 7, 7)).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        root = newton_schulz_root(covariance(features), 5)
    assert torch.equal(root, newton_schulz_root(covariance(features), 5))
    assert newton_schulz_root(covariance(features.half()), 5).isfinite().all()


# --- vector and head ------------------------------------------------------------------------------


def test_the_triangle_is_read_row_by_row() -> None:
    matrix = torch.arange(9.0).reshape(1, 3, 3)
    assert UpperTriangle(3)(matrix).tolist() == [[0, 1, 2, 4, 5, 8]]
    assert CovariancePooling(2048, 256, 5).out_features == 32_896
    assert CovariancePooling(768, 64, 5).out_features == 2_080


def test_the_head_reads_the_root_of_the_reduced_features() -> None:
    """Each part done anew by another way: convolution as a product, covariance by torch.cov."""
    model = tiny(mirror=False, iterations=12)
    images = drawn(2, 3, SIZE, SIZE).float()
    convolution, norm, _ = model.pooling.reduction
    with torch.no_grad():
        features = model.backbone(images)
        reduced = torch.einsum("dc,bchw->bdhw", convolution.weight[:, :, 0, 0], features)
        seen = nn.functional.relu(norm(reduced)).double()
        roots = exact_root(torch.stack([one.flatten(1).cov(correction=0) for one in seen]))
        vector = torch.stack([root[torch.ones(8, 8).triu().bool()] for root in roots]).float()
        output = model(images)
    torch.testing.assert_close(output.embeddings["covariance"], vector, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(output.logits, model.head(output.embeddings["covariance"]))


def test_without_a_reduction_all_channels_count() -> None:
    model = tiny(reduced=None)
    assert not list(model.pooling.parameters())
    assert model.head.in_features == model.width * (model.width + 1) // 2


def test_a_prediction_with_the_mirror_image_is_the_mean_of_both_and_training_has_none() -> None:
    images = drawn(2, 3, SIZE, SIZE).float()
    both, one = tiny(), tiny(mirror=False)
    with torch.no_grad():
        mean = (one(images).logits + one(images.flip(-1)).logits) / 2
        torch.testing.assert_close(both(images).logits, mean)
        torch.testing.assert_close(
            both(images).embeddings["covariance"], one(images).embeddings["covariance"]
        )
        torch.testing.assert_close(both.train()(images).logits, one.train()(images).logits)


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("test_resnet", {}),
        ("test_resnet", {"output_stride": 32, "mirror": False, "iterations": 1}),
        ("tf_efficientnet_lite0", {"iterations": 2, "reduced": None}),
        ("vit_pico_patch16_224", {"iterations": 3}),
    ],
)
def test_the_closed_form_is_what_is_dispatched(backbone: str, options: dict[str, object]) -> None:
    model = tiny(backbone, **options)
    assert model.closed_form_macs() == count_dispatch(model, SIZE).macs


@pytest.mark.parametrize("options", [{"reduced": 0}, {"iterations": 0}, {"output_stride": 8}])
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(Exception, match=f"{next(iter(options))}="):
        tiny(**options)


# --- the shipped variants -------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "grid"), [("isqrtcov_resnet50", 14), ("isqrtcov_resnet101", 28)])
def test_a_shipped_variant_has_the_published_head(name: str, grid: int) -> None:
    """Parameters beside the trunk: 2048·256 + 512 + 32,896·K + K (specification §4)."""
    with torch.device("meta"):
        model = build_variant(SHIPPED, name, 448, 200, with_weights=False)
        maps = model.backbone(torch.empty(2, 3, 448, 448))
    assert isinstance(model, ISqrtCov) and model.options.iterations == 5
    assert maps.shape[2:] == (grid, grid)
    added = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("backbone."))
    assert added == 2048 * 256 + 512 + 32_896 * 200 + 200
