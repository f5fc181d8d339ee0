"""CKA against the recorded outputs of the original code, and against what must hold of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from fgvc.errors import FgvcError
from fgvc.explain.cka import (
    MinibatchCka,
    gram,
    linear_cka,
    mean_distance,
    mean_norm,
    pooled_rows,
    unbiased_hsic,
)


def fixture(shared: Path, name: str) -> dict[str, Tensor]:
    facts = json.loads((shared / "golden" / f"{name}.json").read_text())
    tensors = safetensors.torch.load_file(shared / "golden" / f"{name}.safetensors")
    assert {f"out.{n}" for n in facts["outputs"]} <= set(tensors)
    return tensors


def close(got: Tensor, reference: Tensor, rtol: float = 1e-4) -> None:
    print(f"largest relative difference {((got - reference) / reference).abs().max().item():.1e}")
    torch.testing.assert_close(got.float(), reference, rtol=rtol, atol=0)


def test_golden_feature_metrics(shared: Path) -> None:
    tensors = fixture(shared, "cka_a")
    layers = [tensors[f"feat{i}"] for i in range(3)]
    flat, pooled = MinibatchCka(), MinibatchCka()
    for batch in range(2):
        flat.add([gram(layer[batch]) for layer in layers])
        pooled.add([gram(pooled_rows(layer[batch], 2)) for layer in layers])
    close(flat.value(), tensors["out.cka"])
    close(pooled.value(), tensors["out.cka_pooled"])
    first = [gram(layer[0]) for layer in layers]
    close(unbiased_hsic(first[0], first[1]), tensors["out.hsic_01_batch0"])
    rows = [[pooled_rows(layer[batch], 2) for batch in range(2)] for layer in layers]
    for name, metric in (
        ("l2_norm", mean_norm),
        ("dist", mean_distance),
        ("dist_norm", lambda r: mean_distance(r, normalised=True)),
    ):
        got = torch.stack([torch.stack([metric(r) for r in of_layer]).mean() for of_layer in rows])
        close(got, tensors[f"out.{name}"], rtol=2e-2 if name.startswith("dist") else 1e-4)


def test_golden_linear_cka(shared: Path) -> None:
    tensors = fixture(shared, "sc4001_linear_cka_a")
    close(linear_cka(tensors["x"], tensors["y"]), tensors["out.cka_xy"])
    close(linear_cka(tensors["x"], tensors["x"]), tensors["out.cka_xx"])


def features(seed: int, rows: int = 12, width: int = 30) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def test_a_layer_is_wholly_like_itself_rotated_and_scaled() -> None:
    x = features(0)
    turned = 3.0 * x @ torch.linalg.qr(features(1, 30))[0]
    cka = MinibatchCka()
    cka.add([gram(x), gram(turned)])
    torch.testing.assert_close(cka.value(), torch.ones(2, 2, dtype=torch.float64), rtol=1e-5, atol=1e-5)


def test_unrelated_layers_are_unlike_on_average() -> None:
    """The unbiased estimate of two independent layers lies around 0, though few images have wide features."""
    cka = MinibatchCka()
    for seed in range(200):
        cka.add([gram(features(2 * seed)), gram(features(2 * seed + 1))])
    assert abs(cka.value()[0, 1].item()) < 0.05


def test_maps_of_different_lengths_can_be_compared() -> None:
    """Attention maps [B, H, S, S] before and after a down-sampling of tokens."""
    few, many = torch.rand(6, 2, 5, 5), torch.rand(6, 2, 10, 10)
    cka = MinibatchCka()
    cka.add([gram(few), gram(many)])
    assert cka.value().shape == (2, 2) and torch.isfinite(cka.value()).all()


def test_half_precision_does_not_overflow() -> None:
    large = (200 * features(0, width=1000)).half()
    cka = MinibatchCka()
    cka.add([gram(large), gram(large.float())])
    assert cka.value()[0, 1].item() == pytest.approx(1.0, abs=1e-4)


def test_a_layer_that_is_the_same_for_all_images_is_named() -> None:
    cka = MinibatchCka()
    cka.add([gram(features(0)), gram(torch.zeros(12, 5))])
    with pytest.raises(FgvcError, match="the same for all images is layer 2"):
        cka.value()


def test_a_small_last_batch_is_left_out() -> None:
    cka = MinibatchCka()
    cka.add([gram(features(0))])
    cka.add([gram(features(1, rows=3))])
    assert cka.batches == 1
    with pytest.raises(FgvcError, match="at least 4 images"):
        MinibatchCka().value()
