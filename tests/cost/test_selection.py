"""What choosing regions costs here: against the methods' own statements, and against counting by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fgvc.cost import count_dispatch
from fgvc.cost.published_formulas import PUBLISHED, Geometry
from fgvc.cost.selection import CHOICES, geometry_of, measured_choices
from fgvc.methods import Method
from fgvc.methods.build import create_model

PICO, BASE = "vit_pico_patch16_224", "vit_base_patch16_224"


def _on_meta(method: str, backbone: str, size: int, **options: Any) -> Method:
    with torch.device("meta"):
        return create_model(method, backbone=backbone, num_classes=200, image_size=size, **options)


@pytest.mark.parametrize(("backbone", "size"), [(PICO, 224), (BASE, 224), (BASE, 448)])
def test_products_are_those_that_the_methods_state(backbone: str, size: int) -> None:
    kept, again = (measured_choices(backbone, size, maps) for maps in ("kept", "recomputed"))
    for maps, found in (("kept", kept), ("recomputed", again)):
        transfg = _on_meta("transfg", backbone, size, patch_stride=None, attention=maps)
        assert found["psm"].macs == transfg.selection_macs()
    ffvt = _on_meta("ffvt", backbone, size)
    assert kept["maws"].macs == again["maws"].macs == ffvt.selection_macs()
    assert kept["maws"] == again["maws"] and kept["gls"] == again["gls"]


def test_the_cosine_is_counted_operation_by_operation() -> None:
    """Two lengths (square, sum), two divisions by them, product, sum: eight a number; no matrix product."""
    found = measured_choices(BASE, 224)["gls"]
    assert found.macs == 0 and found.other_ops == found.flops
    assert found.flops == pytest.approx(8 * 768 * 196, rel=0.001)


def test_a_product_of_vectors_is_counted_twice_and_the_rest_once() -> None:
    found = measured_choices(PICO, 112)["maws"]
    assert found.flops == 2 * found.macs + found.other_ops
    s, h, layers = 50, 2, 3
    assert found.macs == layers * 2 * s * 128
    # Two softmaxes of 5 and two scalings a number, two means over heads, a product and a ranking.
    by_hand = layers * (2 * h * s * (1 + 5) + 2 * (h * s + s) + s + s)
    assert found.other_ops == pytest.approx(by_hand, rel=0.1)


def test_kept_maps_are_the_memory_of_a_chain() -> None:
    """All maps but the top one, in float32, on top of the pass: what else the choice needs is small."""
    for size in (224, 448):
        g, found = Geometry(size), measured_choices(BASE, size)
        maps = {"psm": 10, "attention_rollout": 11}
        for name, count in maps.items():
            held = count * g.heads * g.map_bytes
            assert held < found[name].extra_peak_bytes < 1.2 * held
            assert found[name].extra_peak_bytes < 1.05 * PUBLISHED[name].bytes_held(g)
        assert abs(found["gls"].extra_peak_bytes) < 2**16
        assert abs(found["maws"].extra_peak_bytes) < 2**16


def test_recomputing_trades_memory_for_operations() -> None:
    kept, again = (measured_choices(BASE, 448, maps) for maps in ("kept", "recomputed"))
    for name in ("psm", "attention_rollout"):
        assert again[name].flops > 20 * kept[name].flops
        assert again[name].extra_peak_bytes < kept[name].extra_peak_bytes / 2


def test_every_choice_stands_in_the_published_table() -> None:
    assert set(CHOICES) < set(PUBLISHED)


def test_the_geometry_of_a_backbone_is_the_papers() -> None:
    assert geometry_of(BASE, 448, 200) == Geometry(448)
    vit = _on_meta("vit", BASE, 224)
    assert Geometry(224).backbone_macs == count_dispatch(vit, 224).macs


def test_the_overlapping_backbone_is_counted_as_it_is_built() -> None:
    """The formula's backbone with TransFG's tokens is what a ViT with that stride costs."""
    transfg = _on_meta("transfg", BASE, 224, patch_stride=12)
    few = 12 * 13 * 768**2 + 2 * 13**2 * 768
    s = 325
    whole = 12 * s * 768**2 + 2 * s**2 * 768
    chosen = transfg.selection_macs()
    assert Geometry(224).overlapping.backbone_macs == count_dispatch(transfg, 224).macs - chosen - few + whole
