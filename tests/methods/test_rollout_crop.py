"""GLSim's crop around what the CLS token attends to (RAMS-Trans), and how many patches it is around."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fgvc.cost import count_dispatch
from fgvc.errors import FgvcError
from fgvc.methods import ModelSpec
from fgvc.methods.build import create_model
from fgvc.methods.glsim import GLSim, GLSimOptions
from fgvc.methods.similarity_crop import boxes_around, crop_and_resize

PICO = "vit_pico_patch16_224"


def tiny(image_size: int = 64, **options: Any) -> GLSim:
    torch.manual_seed(0)
    spec = ModelSpec(PICO, 5, image_size, shape={"embed_dim": 32, "depth": 3, "num_heads": 2})
    given = {"score": "rollout", "top_k": 3, "head_init": "default", **options}
    return GLSim(spec, GLSimOptions(**given)).eval()


def pictures(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def rolled_out(model: GLSim, images: Tensor) -> Tensor:
    """Maps made whole, their mean over heads plus identity with rows of 1, and their whole product."""
    tokens, product = model.backbone.embed(images), torch.eye(17)
    for block in model.backbone.blocks:
        q, k, _ = block.attn.qkv(block.norm1(tokens)).reshape(len(images), 17, 3, 2, 16).unbind(2)
        maps = (torch.einsum("bihd,bjhd->bhij", q, k) / 4).softmax(dim=-1)
        mixed = maps.mean(dim=1) + torch.eye(17)
        product = mixed / mixed.sum(dim=-1, keepdim=True) @ product
        tokens = block(tokens)
    return product[:, 0, 1:]


@pytest.mark.parametrize("training", [False, True])
def test_the_crop_is_around_what_cls_comes_from(training: bool) -> None:
    model, images = tiny().train(training), pictures()
    with torch.set_grad_enabled(training):
        output = model(images)
        expected = rolled_out(model, images)
        again = model.backbone(output.crops[:, 0])
        rows = torch.stack([model.backbone(images)[:, 0], again[:, 0]], dim=1)
        logits = model.head(model.aggregator(rows)[:, 0])
    assert list(output.masks) == ["rollout"] and not output.masks["rollout"].requires_grad
    torch.testing.assert_close(output.masks["rollout"], expected, atol=1e-6, rtol=1e-4)
    boxes = boxes_around(expected.topk(3).indices, (4, 4), 16, "upstream")
    assert torch.equal(output.boxes[:, 0], boxes)
    assert torch.equal(output.crops[:, 0], crop_and_resize(images, boxes))
    torch.testing.assert_close(output.logits, logits, atol=1e-5, rtol=1e-4)


def test_without_aggregator_the_logits_of_both_passes_are_averaged() -> None:
    model, images = tiny(aggregator="none", classifier="avg_cls", crop_cls="own"), pictures()
    with torch.no_grad():
        model.crop_cls.add_(1)
        output = model(images)
        whole = model.head(model.backbone(images)[:, 0])
        crop = model.head(model.backbone(output.crops[:, 0], cls_token=model.crop_cls)[:, 0])
    torch.testing.assert_close(output.logits, (whole + crop) / 2)
    assert not torch.allclose(whole, crop)


@pytest.mark.parametrize("options", [{}, {"aggregator": "none", "classifier": "avg_cls"}])
def test_the_closed_form_is_what_is_dispatched(options: dict[str, str]) -> None:
    model = tiny(**options)
    assert model.closed_form_macs() == count_dispatch(model, 64).macs


@pytest.mark.parametrize(("side", "chosen"), [(48, 2), (64, 4), (80, 4)])
@pytest.mark.parametrize("score", ["rollout", "similarity"])
def test_twice_as_many_patches_are_boxed_from_a_size_on(side: int, chosen: int, score: str) -> None:
    model = tiny(side, score=score, top_k=2, top_k_doubles_at=64)
    images = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        output = model(images)
    (scores,) = output.masks.values()
    boxes = boxes_around(scores.topk(chosen).indices, model.backbone.grid, 16, "upstream")
    assert torch.equal(output.boxes[:, 0], boxes)


@pytest.mark.parametrize(
    ("backbone", "options", "reason"),
    [
        (PICO, {"score": "attention"}, "possible: similarity, rollout"),
        (PICO, {"score": "rollout", "metric": "l2"}, "score=rollout compares nothing"),
        ("test_vit2", {"score": "rollout"}, "has none"),
        (PICO, {"top_k": 10, "top_k_doubles_at": 64}, "top_k=20, but 64 pixels a side are 16 patches"),
        (PICO, {"top_k_doubles_at": 0}, "top_k_doubles_at=0"),
    ],
)
def test_what_cannot_be_rolled_out_is_refused(backbone: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(FgvcError, match=reason):
        create_model("glsim", backbone=backbone, num_classes=2, image_size=64, **options)
