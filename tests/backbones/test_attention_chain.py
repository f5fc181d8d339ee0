"""Rows of products of attention maps, against the whole product in double precision."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import pytest
import torch
from torch import Tensor

from fgvc.backbones import attention_chain, attention_products
from fgvc.backbones.attention_chain import (
    ATTENTIONS,
    Attention,
    KeptMaps,
    LayerAttention,
    chained_cls_row,
    rollout,
    run_and_read,
)
from fgvc.backbones.tokens import TokenBackbone

PICO = "vit_pico_patch16_224"


def backbone_of(size: int, stride: int | None = None) -> TokenBackbone:
    """Weights large enough that attention is far from uniform."""
    torch.manual_seed(0)
    backbone = TokenBackbone(PICO, size, patch_stride=stride).eval()
    with torch.no_grad():
        for block in backbone.blocks:
            block.attn.qkv.weight.mul_(8)
    return backbone


def embedded(backbone: TokenBackbone, count: int = 3) -> Tensor:
    images = torch.randn(
        count, 3, backbone.image_size, backbone.image_size, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        return backbone.embed(images.to(backbone.vit.pos_embed.dtype))


def maps_of(backbone: TokenBackbone, tokens: Tensor) -> list[Tensor]:
    """The map of every block [B, H, S, S], from its weights and what it is given."""
    maps = []
    with torch.no_grad():
        for block in backbone.blocks:
            given, attention = block.norm1(tokens), block.attn
            projected = given @ attention.qkv.weight.T + attention.qkv.bias
            q, k, _ = (
                part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
                for part in projected.chunk(3, dim=-1)
            )
            maps.append((q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1))
            tokens = block(tokens)
    return maps


# --- the product of all maps ----------------------------------------------------------------------


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize(("size", "stride", "tokens"), [(224, None, 197), (224, 12, 325)])
def test_the_chain_is_the_cls_row_of_the_whole_product(
    attention: Attention, size: int, stride: int | None, tokens: int
) -> None:
    backbone = backbone_of(size, stride).double()
    given = embedded(backbone)
    assert given.shape[1] == tokens
    whole = reduce(torch.matmul, reversed(maps_of(backbone, given)))
    with torch.no_grad():
        after, row = run_and_read([*backbone.blocks], given, chained_cls_row, attention)
        torch.testing.assert_close(after, backbone.blocks(given), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(row, whole[:, :, 0], rtol=1e-10, atol=1e-14)
    assert torch.equal(row[:, :, 1:].argmax(-1), whole[:, :, 0, 1:].argmax(-1))


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_rollout_is_the_product_of_normalised_mean_maps_with_identity(attention: Attention) -> None:
    backbone = backbone_of(112).double()
    given = embedded(backbone)
    mean = [layer.mean(dim=1) + torch.eye(given.shape[1]) for layer in maps_of(backbone, given)]
    whole = reduce(torch.matmul, reversed([layer / layer.sum(dim=-1, keepdim=True) for layer in mean]))
    with torch.no_grad():
        _, row = run_and_read([*backbone.blocks], given, rollout, attention)
    torch.testing.assert_close(row, whole[:, 0], rtol=1e-10, atol=1e-14)


# --- how the maps are held ------------------------------------------------------------------------


def held(layers: Sequence[LayerAttention]) -> Tensor:
    """Which layers are kept, a row an image."""
    kept = torch.tensor([isinstance(layer, KeptMaps) for layer in layers])
    return kept.expand(layers[0].cls_row().shape[0], -1)


@pytest.mark.parametrize("room", [0, 1, 2, 3, 99])
def test_as_many_maps_are_kept_as_there_is_room_for(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the top down, below the topmost; with any room the result is the same."""
    backbone = backbone_of(112)
    given = embedded(backbone, count=5)
    with torch.no_grad():
        tokens, expected = run_and_read([*backbone.blocks], given, chained_cls_row, "recomputed")
        one_map = backbone.heads * given.shape[1] ** 2 * 4
        monkeypatch.setitem(attention_chain._MOST_KEPT, "cpu", room * one_map)
        monkeypatch.setitem(attention_chain._ENOUGH_KEPT, "cpu", room * one_map)
        again, row = run_and_read([*backbone.blocks], given, chained_cls_row)
        _, kept = run_and_read([*backbone.blocks], given, held)
    torch.testing.assert_close(again, tokens, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(row.argmax(-1), expected.argmax(-1))
    first = backbone.depth - 1 - min(room, backbone.depth - 1)
    assert kept.tolist() == [[first <= i < backbone.depth - 1 for i in range(backbone.depth)]] * 5


def test_maps_are_made_again_in_as_little_memory_as_one_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several maps at a time, one, or a few rows of one."""
    backbone = backbone_of(112)
    given = embedded(backbone)
    rows = []
    for elements in (10**6, 50 * 50 * 3, 50 * 50, 50 * 7, 1):
        monkeypatch.setitem(attention_products._AT_ONCE, "cpu", 4 * elements)
        with torch.no_grad():
            rows.append(run_and_read([*backbone.blocks], given, chained_cls_row, "recomputed")[1])
            rows.append(run_and_read([*backbone.blocks], given, chained_cls_row, "kept")[1])
    for row in rows[1:]:
        torch.testing.assert_close(row, rows[0], rtol=1e-4, atol=1e-7)


def test_gradients_flow_through_the_blocks_as_if_nobody_read_them() -> None:
    backbone = backbone_of(64)
    gradients = []
    for reads in (True, False):
        given = embedded(backbone).requires_grad_()
        if reads:
            tokens, row = run_and_read([*backbone.blocks], given, chained_cls_row)
            assert not row.requires_grad
        else:
            tokens = backbone.blocks(given)
        gradients.append(torch.autograd.grad(tokens.square().sum(), [given, *backbone.blocks.parameters()]))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_half_precision_is_read_in_single() -> None:
    backbone = backbone_of(64)
    given = embedded(backbone)
    with torch.no_grad():
        _, exact = run_and_read([*backbone.blocks], given, chained_cls_row)
        with torch.autocast("cpu", torch.bfloat16):
            _, row = run_and_read([*backbone.blocks], given, chained_cls_row)
            _, kept = run_and_read([*backbone.blocks], given, held)
    assert row.dtype == torch.float32 and not kept.any()
    torch.testing.assert_close(row, exact, rtol=0.2, atol=0.02)


def test_without_fused_attention_the_result_is_the_same() -> None:
    backbone = backbone_of(64)
    given = embedded(backbone)
    with torch.no_grad():
        _, fused = run_and_read([*backbone.blocks], given, chained_cls_row)
        for block in backbone.blocks:
            block.attn.fused_attn = False
        _, row = run_and_read([*backbone.blocks], given, chained_cls_row)
    torch.testing.assert_close(row, fused)
