"""What TransFG does, option by option, on small models; parity with the original: test_golden_transfg.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from goldenkit import Golden
from startkit import ProjectFactory, npz_and_expected, start_from
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, one_hot

from fgvc.errors import FgvcError
from fgvc.methods import ModelSpec
from fgvc.methods.build import create_model
from fgvc.methods.transfg import TransFG, TransFGOptions, contrastive_loss

TINY = {"embed_dim": 32, "depth": 4, "num_heads": 4}
PICO = "vit_pico_patch16_224"


def tiny(image_size: int = 64, shape: dict[str, Any] | None = None, **options: Any) -> TransFG:
    torch.manual_seed(0)
    spec = ModelSpec(PICO, 5, image_size, shape={**TINY, **(shape or {})})
    model = TransFG(spec, TransFGOptions(**options)).eval()
    with torch.no_grad():  # attention far from uniform, so that no rank hangs on rounding
        for block in model.backbone.blocks:
            block.attn.qkv.weight.mul_(20)
    return model


def pictures(count: int = 3, size: int = 64, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


# --- the choice -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "stride", "side"),
    [(224, None, 14), (224, 16, 14), (224, 12, 18), (304, 12, 25), (448, 16, 28), (448, 12, 37)],
)
def test_the_last_block_sees_cls_and_a_patch_a_head(size: int, stride: int | None, side: int) -> None:
    model, seen = tiny(size, {"embed_dim": 16, "depth": 2}, patch_stride=stride), []
    model.backbone.blocks[-1].register_forward_hook(lambda _m, given, _out: seen.append(given[0].shape))
    with torch.inference_mode():
        output = model(pictures(1, size))
    assert output.grid == (side, side)
    assert seen == [(1, 1 + 4, 16)]
    assert output.selected["patches"].shape == (1, 4) and output.masks["selected"].sum() == 4
    assert output.masks["psm"].shape == (1, side * side)


def test_the_patch_of_a_head_is_the_same_however_the_maps_are_come_by() -> None:
    images = pictures(4, 112)
    outputs = {}
    for attention in ("auto", "kept", "recomputed"):
        with torch.inference_mode():
            outputs[attention] = tiny(112, attention=attention)(images)
    outputs["training"] = tiny(112).train()(images)
    for output in outputs.values():
        assert torch.equal(output.selected["patches"], outputs["auto"].selected["patches"])
        torch.testing.assert_close(output.logits, outputs["auto"].logits, rtol=1e-3, atol=1e-4)


def test_the_parts_are_the_tokens_of_the_chosen_patches() -> None:
    model, seen = tiny(), []
    model.backbone.blocks[-2].register_forward_hook(lambda _m, _in, out: seen.append(out))
    model.backbone.blocks[-1].register_forward_hook(lambda _m, given, _out: seen.append(given[0]))
    with torch.inference_mode():
        output = model(pictures(2))
    before, given = seen
    for b in range(2):
        rows = [0, *(1 + i for i in output.selected["patches"][b].tolist())]
        assert torch.equal(given[b], before[b, rows])
        counts = torch.bincount(output.selected["patches"][b], minlength=25)
        assert torch.equal(output.masks["selected"][b].long(), counts)


def test_registers_are_neither_candidates_nor_parts() -> None:
    model = tiny(shape={"reg_tokens": 4})
    with torch.inference_mode():
        output = model(pictures())
    assert model.backbone.num_prefix == 5 and output.masks["psm"].shape == (3, 25)
    assert (output.selected["patches"] < 25).all()


def test_a_prediction_does_not_depend_on_the_images_beside_it() -> None:
    model, images = tiny(), pictures(7)
    with torch.inference_mode():
        together, alone = model(images), [model(image[None]) for image in images]
    assert torch.equal(together.selected["patches"], torch.cat([one.selected["patches"] for one in alone]))
    torch.testing.assert_close(together.logits, torch.cat([one.logits for one in alone]))


# --- loss -----------------------------------------------------------------------------------------


def test_the_contrastive_loss_is_its_formula() -> None:
    embeddings, labels = pictures(6, 2).flatten(1), torch.tensor([0, 1, 0, 2, 1, 0])
    total = 0.0
    for i in range(6):
        for j in range(6):
            c = cosine_similarity(embeddings[i], embeddings[j], dim=0).item()
            total += 1 - c if labels[i] == labels[j] else max(c - 0.1, 0)
    assert contrastive_loss(embeddings, labels, 0.1).item() == pytest.approx(total / 36, rel=1e-5)


def test_soft_targets_weigh_same_and_other() -> None:
    """One-hot targets are class ids; in between, each pair counts as the same class with a probability."""
    embeddings, labels = pictures(4, 2).flatten(1), torch.tensor([0, 1, 0, 2])
    hard = contrastive_loss(embeddings, labels, 0.4)
    torch.testing.assert_close(contrastive_loss(embeddings, one_hot(labels).float(), 0.4), hard)
    mixed = torch.tensor([[0.7, 0.3], [0.2, 0.8]])
    c = cosine_similarity(embeddings[0], embeddings[1], dim=0).item()
    same = 0.7 * 0.2 + 0.3 * 0.8
    expected = 2 * (same * (1 - c) + (1 - same) * max(c - 0.4, 0)) / 4
    assert contrastive_loss(embeddings[:2], mixed, 0.4).item() == pytest.approx(expected, rel=1e-5)


def test_the_weight_of_the_contrastive_loss_is_a_weight() -> None:
    images, labels = pictures(4), torch.tensor([0, 0, 1, 2])
    terms = {w: tiny(contrast_weight=w).loss(tiny()(images), labels) for w in (1.0, 0.1, 0.0)}
    assert terms[0.1]["contrastive"].item() == pytest.approx(0.1 * terms[1.0]["contrastive"].item())
    assert set(terms[0.0]) == {"cross_entropy", "total"}
    assert (tiny().batch_coupled, tiny(contrast_weight=0.0).batch_coupled) == (True, False)


# --- where it starts ------------------------------------------------------------------------------


def test_what_is_pretrained_and_what_is_drawn(project_factory: ProjectFactory) -> None:
    state = {n: torch.full_like(t, 0.5) for n, t in tiny(patch_stride=16).backbone.vit.state_dict().items()}
    for init in ("random", "pretrained"):
        model = tiny(patch_stride=16, last_block_init=init)
        start_from(model, state, project_factory(name=init))
        loaded = {n: bool((t == 0.5).all()) for n, t in model.backbone.vit.state_dict().items()}
        drawn = {name for name, is_loaded in loaded.items() if not is_loaded}
        last = {f"blocks.3.{name}" for name, _ in model.backbone.blocks[-1].named_parameters()}
        assert drawn == (last if init == "random" else set())
    mlp = tiny(patch_stride=16).backbone.blocks[-1].mlp
    assert mlp.fc1.bias.abs().max() < 1e-4


@pytest.mark.parametrize("golden", ["npz_transfg_a"], indirect=True)
def test_it_starts_from_the_original_arrays_as_upstream_does(
    golden: Golden, project_factory: ProjectFactory
) -> None:
    """Block, norm and positions (zoomed to the overlapping grid) where upstream puts them, to the bit."""
    state, expected = npz_and_expected(golden.tensors)
    shape = {"embed_dim": 16, "depth": 3, "num_heads": 2, "mlp_ratio": 1.5}
    model = TransFG(ModelSpec(PICO, 5, golden.facts["config"]["image_size"], shape=shape), TransFGOptions())
    start_from(model, state, project_factory())
    ours = model.backbone.vit.state_dict()
    assert set(ours) - set(expected) == {name for name in ours if name.startswith("blocks.2.")}
    for name, tensor in expected.items():
        difference = (ours[name] - tensor).abs().max().item()
        assert difference <= (1e-6 if name == "pos_embed" else 0.0), name


def test_it_has_no_parameters_of_its_own() -> None:
    counts = {
        method: sum(p.numel() for p in create_model(method, backbone=PICO, num_classes=7, **o).parameters())
        for method, o in (("vit", {}), ("transfg", {"patch_stride": 16}), ("ffvt", {}))
    }
    assert len(set(counts.values())) == 1


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"patch_stride": 0}, "patch_stride=0"),
        ({"patch_stride": 17}, "patch stride of 17 is impossible"),
        ({"contrast_weight": -1.0}, "contrast_weight=-1.0"),
        ({"contrast_margin": 2.0}, "no cosine"),
        ({"last_block_init": "zeros"}, "possible: pretrained, random"),
        ({"attention": "fused"}, "possible: auto, kept, recomputed"),
        ({"head_init": "ones"}, "possible: zeros, default"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(FgvcError) as caught:
        create_model("transfg", backbone=PICO, num_classes=2, **options)
    assert reason in str(caught.value)


def test_backbones_that_cannot_choose_are_refused() -> None:
    with pytest.raises(FgvcError, match="'test_vit2' has none") as caught:
        create_model("transfg", backbone="test_vit2", num_classes=2, image_size=64)
    assert "with a CLS token" in (caught.value.cure or "")
    with pytest.raises(FgvcError, match="but one block"):
        tiny(shape={"depth": 1})
    with pytest.raises(FgvcError, match="not a ViT"):
        create_model("transfg", backbone="resnet18", num_classes=2)


def test_the_gradient_reaches_the_first_block_through_cls_and_parts() -> None:
    model = tiny().train()
    nn.functional.cross_entropy(model(pictures()).logits, torch.arange(3)).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.backbone.blocks[0].parameters())
