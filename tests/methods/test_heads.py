"""Heads on patches and on all layers by direct formulas, and what a linear probe leaves behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from goldenkit import Watch
from torch import Tensor, nn

from fgvc import create_model
from fgvc.errors import FgvcError
from fgvc.methods.bilinear import second_moment
from fgvc.methods.heads import linear_head


def small(method: str = "vit", **options: Any) -> Any:
    torch.manual_seed(0)
    size = {"backbone": "test_vit", "num_classes": 5, "image_size": 64}
    return create_model(method, **size, head_init="default", **options).eval()  # type: ignore[arg-type]


def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_the_second_moment_by_its_definition() -> None:
    tokens = torch.randn(2, 7, 3, dtype=torch.float64)
    expected = torch.zeros(2, 3, 3, dtype=torch.float64)
    for image in range(2):
        for n in range(7):
            expected[image] += torch.outer(tokens[image, n], tokens[image, n]) / 7
    rooted = (expected.sign() * expected.abs().sqrt()).flatten(1)
    torch.testing.assert_close(second_moment(tokens), rooted / rooted.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("projection", [None, 8])
def test_a_bilinear_head_reads_products_of_channels(projection: int | None) -> None:
    model = small(pool="bilinear", projection=projection)
    with torch.inference_mode():
        patches = model.backbone(images())[:, 1:]
        if projection:
            patches = model.projection(patches)
        expected = model.head(second_moment(patches))
        torch.testing.assert_close(model(images()).logits, expected)
    assert model.head.in_features == (projection or 64) ** 2


def test_a_flat_head_reads_all_patches() -> None:
    model = small(pool="flatten")
    with torch.inference_mode():
        patches = model.backbone(images())[:, 1:]
        torch.testing.assert_close(model(images()).logits, model.head(patches.reshape(2, 16 * 64)))


def test_a_projection_without_a_bilinear_head_is_refused() -> None:
    with pytest.raises(FgvcError, match="with 'bilinear' only"):
        small(pool="patches", projection=8)


def test_ifa_mixes_the_cls_tokens_of_all_blocks() -> None:
    model = small("ifa")
    watch, head = Watch(), model.head
    for i, block in enumerate(model.backbone.blocks):
        watch.outputs(str(i), block)
    with torch.inference_mode():
        logits = model(images()).logits
        mixed = head.mix.bias + sum(
            head.mix.weight[0, i] * watch.seen[str(i)][0][:, 0] for i in range(model.backbone.depth)
        )
        mixed = mixed.clamp(min=0)
        spread = (mixed.var(1, correction=0, keepdim=True) + model.backbone.norm_eps).sqrt()
        normed = (mixed - mixed.mean(1, keepdim=True)) / spread
        torch.testing.assert_close(logits, head.classifier(normed), rtol=1e-4, atol=1e-5)


def test_a_linear_probe_leaves_no_graph_of_the_backbone() -> None:
    """Nor does any of it keep what a backward pass would need."""
    model = small(dropout=0.5)
    model.set_trainable(["head.*"])
    model.train()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        pooled = model.backbone.cls(model.backbone(images()))
    assert not pooled.requires_grad and kept == []
    nn.functional.cross_entropy(model(images()).logits, torch.tensor([0, 1])).backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {
        "head.weight",
        "head.bias",
    }


def test_with_the_cls_token_gradients_pass_through_all_blocks() -> None:
    model = small()
    model.set_trainable(["head.*", "backbone.vit.cls_token"])
    model.train()(images()).logits.sum().backward()
    assert model.backbone.cls_token.grad.any()


def test_a_rare_head_starts_as_vpt_s_does() -> None:
    torch.manual_seed(0)
    head = linear_head(768, 200, "rare")
    torch.testing.assert_close(head.bias, torch.full((200,), -4.59512))
    torch.testing.assert_close(head.weight.std().item(), (2 / 200) ** 0.5, rtol=0.01, atol=0)
