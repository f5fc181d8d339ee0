"""GLSim's crop around what the CLS token attends to (RAMS-Trans), and the frozen variants with a crop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fgvc.config.project import Project
from fgvc.cost import count_dispatch
from fgvc.errors import FgvcError
from fgvc.methods import ModelSpec
from fgvc.methods.build import build_variant, create_model
from fgvc.methods.glsim import GLSim, GLSimOptions
from fgvc.methods.similarity_crop import boxes_around, crop_and_resize

SHIPPED = Project(Path(__file__).resolve().parents[2])
PICO = "vit_pico_patch16_224"


def tiny() -> GLSim:
    torch.manual_seed(0)
    spec = ModelSpec(PICO, 5, 64, shape={"embed_dim": 32, "depth": 3, "num_heads": 2})
    return GLSim(spec, GLSimOptions(score="rollout", top_k=3, head_init="default")).eval()


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


def test_the_closed_form_is_what_is_dispatched() -> None:
    model = tiny()
    assert model.closed_form_macs() == count_dispatch(model, 64).macs


@pytest.mark.parametrize(
    ("backbone", "options", "reason"),
    [
        (PICO, {"score": "attention"}, "possible: similarity, rollout"),
        (PICO, {"score": "rollout", "metric": "l2"}, "score=rollout compares nothing"),
        ("test_vit2", {"score": "rollout"}, "has none"),
    ],
)
def test_what_cannot_be_rolled_out_is_refused(backbone: str, options: dict[str, str], reason: str) -> None:
    with pytest.raises(FgvcError, match=reason):
        create_model("glsim", backbone=backbone, num_classes=2, image_size=64, **options)


@pytest.mark.parametrize("name", ["glsim_vit_b16_frozen", "rams_vit_b16_frozen"])
def test_a_frozen_variant_trains_aggregator_head_and_the_cls_tokens(name: str) -> None:
    """7,090,176 is what upstream adds to a ViT-B, its second CLS token included (specification)."""
    with torch.device("meta"):
        model = build_variant(SHIPPED, name, 224, 200, with_weights=False)
    trains = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {n.split(".")[0] for n in trains} == {"aggregator", "head", "crop_cls", "backbone"}
    assert [n for n in trains if n.startswith("backbone.")] == ["backbone.vit.cls_token"]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 7_090_176 + 768 + 200 * 769
