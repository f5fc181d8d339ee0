"""Rows of attention maps from queries and keys, against the whole map computed in the open."""

from __future__ import annotations

import pytest
import torch
from timm.layers import Attention
from torch import Tensor, nn

from fgvc.backbones.attention import AttentionRecorder
from fgvc.backbones.tokens import TokenBackbone
from fgvc.errors import FgvcError


def whole_map(attention: Attention, given: Tensor) -> Tensor:
    """softmax(q·kᵀ/√d) [B, H, S, S], head by head from the projection's rows."""
    width = attention.num_heads * attention.head_dim
    q, k = (
        given @ w.T + b
        for w, b in zip(
            attention.qkv.weight.split(width)[:2], attention.qkv.bias.split(width)[:2], strict=True
        )
    )
    maps = [
        (q[..., h : h + attention.head_dim] @ k[..., h : h + attention.head_dim].mT / attention.head_dim**0.5)
        for h in range(0, width, attention.head_dim)
    ]
    return torch.stack(maps, dim=1).softmax(dim=-1)


def test_the_cls_row_is_the_first_row_of_each_map() -> None:
    torch.manual_seed(0)
    backbone = TokenBackbone("vit_pico_patch16_224", 64).double().eval()
    images, given = torch.randn(2, 3, 64, 64, dtype=torch.float64), []
    for block in backbone.blocks:
        block.attn.register_forward_hook(lambda _m, seen, _out: given.append(seen[0]))
    recorder = AttentionRecorder(backbone.blocks)
    with torch.no_grad(), recorder.recording() as layers:
        backbone(images)
    assert len(layers) == backbone.depth
    for block, seen, layer in zip(backbone.blocks, given, layers, strict=True):
        torch.testing.assert_close(layer.cls_row(), whole_map(block.attn, seen)[:, :, 0])


def test_the_cls_column_is_the_share_of_each_query_among_all() -> None:
    """softmax over queries of the whole score matrix, first column; also where q and k are normalised."""
    for shape in ({}, {"qk_norm": True}):
        torch.manual_seed(0)
        backbone = TokenBackbone("vit_pico_patch16_224", 64, shape=shape).double().eval()
        images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
        with torch.no_grad(), AttentionRecorder(backbone.blocks).recording() as layers:
            backbone(images)
        for layer in layers:
            scores = layer.q @ layer.k.mT * layer.scale
            torch.testing.assert_close(layer.cls_column(), scores.softmax(dim=-2)[:, :, :, 0])


def test_nothing_is_recorded_after_the_recording() -> None:
    backbone = TokenBackbone("vit_pico_patch16_224", 64).eval()
    with torch.no_grad():
        with AttentionRecorder(backbone.blocks).recording() as layers:
            pass
        backbone(torch.zeros(1, 3, 64, 64))
    assert layers == []
    assert not any(block.attn.qkv._forward_hooks for block in backbone.blocks)


def test_other_attention_is_refused() -> None:
    with pytest.raises(FgvcError, match="cannot be recorded"):
        AttentionRecorder([nn.Identity()])
