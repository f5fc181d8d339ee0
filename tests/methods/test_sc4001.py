"""What SC4001 adds to IELT, on small models; parity with the original: test_golden_sc4001.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from fgvc.backbones.timm_models import parameter_count
from fgvc.checkpoints import from_upstream
from fgvc.cost import count_dispatch
from fgvc.methods import ModelSpec
from fgvc.methods.build import create_model
from fgvc.methods.checkpoints import load_checkpoint
from fgvc.methods.sc4001 import SC4001, SC4001Options
from fgvc.methods.triplet import BatchHardTriplet
from fgvc.methods.voting import Enhancement, merged_token

DINO = "vit_small_patch14_dinov2"
TINY = {"embed_dim": 32, "depth": 4, "num_heads": 4}
FEW = {"vote_perhead": 6, "total_num": 24, "key_tokens": 6}
SIZE = 84


def tiny(**options: Any) -> SC4001:
    torch.manual_seed(0)
    spec = ModelSpec(DINO, 5, SIZE, shape=TINY)
    model = SC4001(spec, SC4001Options(**{**FEW, "head_init": "default", **options})).eval()
    model.weights_loaded()
    with torch.no_grad():  # attention far from uniform, so that no rank hangs on rounding
        for block in model.backbone.blocks:
            block.attn.qkv.weight.mul_(20)
        for name, parameter in model.named_parameters():
            if name.endswith(".gamma"):
                parameter.fill_(1.0)
    return model


def pictures(count: int = 3, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def refined_tokens(model: SC4001, images: Tensor) -> tuple[Tensor, list[Tensor], Any]:
    """What the refining block is given, tokens after each trunk block, and the output."""
    given: list[Tensor] = []
    after: list[Tensor] = []
    *trunk, refine = model.backbone.blocks
    hooks = [block.register_forward_hook(lambda _m, _in, out: after.append(out)) for block in trunk]
    hooks.append(refine.register_forward_hook(lambda _m, taken, _out: given.append(taken[0])))
    with torch.inference_mode():
        output = model(images)
    for hook in hooks:
        hook.remove()
    return given[0], after, output


# --- votes on several scales ----------------------------------------------------------------------


def test_a_vote_reaches_four_patches_far_on_three_scales() -> None:
    counts = torch.zeros(1, 121)
    counts[0, 60] = 1
    spread = Enhancement("gauss", (1, 2, 4))(counts, (11, 11))[0].view(11, 11)
    expected = torch.zeros(11, 11)
    for dilation in (1, 2, 4):
        for i, row in enumerate(((1, 2, 1), (2, 4, 2), (1, 2, 1))):
            for j, weight in enumerate(row):
                y, x = 5 + (i - 1) * dilation, 5 + (j - 1) * dilation
                expected[y, x] = max(expected[y, x], torch.tensor(float(weight)))
    assert torch.equal(spread, expected)
    assert spread[5, 1] == 2 and spread[1, 1] == 1 and spread[5, 0] == 0


def test_without_further_scales_and_triplets_it_is_ielt() -> None:
    torch.manual_seed(0)
    plain = {"extra_blocks": "vit", "head_init": "default", **FEW}
    one = create_model(
        "ielt", backbone="test_vit", num_classes=5, image_size=96, **plain, select_init="uniform"
    )
    two = create_model(
        "sc4001", backbone="test_vit", num_classes=5, image_size=96, **plain, dilations=[1], triplet_weight=0
    )
    two.load_state_dict(one.state_dict())
    images = torch.randn(2, 3, 96, 96)
    one.eval(), two.eval()
    assert torch.equal(one(images).logits, two(images).logits)
    assert set(two.loss(two(images), torch.tensor([0, 0]))) == {"cross_entropy", "complement", "total"}


# --- which tokens ---------------------------------------------------------------------------------


def test_the_shift_takes_the_token_before() -> None:
    for shift in (False, True):
        given, after, output = refined_tokens(tiny(upstream_index_shift=shift), pictures())
        first = output.selected["patches"][:, :8]
        for b in range(3):
            rows = after[0][b, first[b] + (0 if shift else 1)]
            assert torch.equal(given[b, 1:9], rows)


def test_the_rest_becomes_one_token() -> None:
    model = tiny(merge_inattentive=True)
    given, after, output = refined_tokens(model, pictures())
    assert given.shape[1] == 1 + 3 * (8 + 1)
    for layer in range(3):
        chosen = output.selected["patches"][:, 8 * layer : 8 * layer + 8]
        for b in range(3):
            total, weight = torch.zeros(32), 0.0
            for patch in set(range(36)) - set(chosen[b].tolist()):
                score = output.masks[f"votes.{layer}"][b, patch].item()
                total, weight = total + score * after[layer][b, 1 + patch], weight + score
            torch.testing.assert_close(given[b, 9 * (layer + 1)], total / (weight + 1e-6))
    counts = output.embeddings["key_layers"]
    places = output.selected["key"]
    assert counts[:, 0].tolist() == (places < 9).sum(dim=1).tolist()
    assert counts.sum(dim=1).tolist() == [6, 6, 6]


def test_equal_scores_merge_to_the_mean_in_half_precision_too() -> None:
    patches = 50 + torch.randn(2, 700, 8)
    scores, chosen = torch.full((2, 700), 192.0), torch.arange(100).expand(2, -1)
    for dtype in (torch.float32, torch.bfloat16):
        merged = merged_token(patches.to(dtype), scores, chosen)
        assert merged.isfinite().all() and merged.dtype == dtype
        mean = patches[:, 100:].mean(dim=1, keepdim=True)
        torch.testing.assert_close(
            merged.float(), mean, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=0
        )


def test_learnable_kernels_learn_where_tokens_are_merged() -> None:
    model = tiny(kernel="learnable", merge_inattentive=True).train()
    model.loss(model(pictures()), torch.tensor([0, 1, 0]))["total"].backward()
    for conv in model.enhancement.convs:
        assert conv.weight.grad is not None
    assert any(conv.weight.grad.any() for conv in model.enhancement.convs)


# --- triplets -------------------------------------------------------------------------------------


def by_hand(embeddings: Tensor, labels: list[int], margin: float) -> float:
    gaps = []
    for i, label in enumerate(labels):
        distances = [(embeddings[i] - other).norm().item() for other in embeddings]
        same = [d for j, d in enumerate(distances) if j != i and labels[j] == label]
        other = [d for j, d in enumerate(distances) if labels[j] != label]
        if same and other:
            gaps.append(max(0.0, max(same) - min(other) + margin))
    return sum(gaps) / len(gaps) if gaps else 0.0


@pytest.mark.parametrize(
    "labels", [[0, 1, 0, 2, 1, 0], [0, 0, 1, 2, 3, 4], [0, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5]]
)
def test_the_triplet_loss_is_its_formula(labels: list[int]) -> None:
    embeddings = torch.randn(6, 4, generator=torch.Generator().manual_seed(3)).requires_grad_()
    targets = torch.tensor(labels)
    for margin in (0.2, 1.0):
        loss = BatchHardTriplet(margin)(embeddings, targets)
        assert loss.item() == pytest.approx(by_hand(embeddings.detach(), labels, margin), rel=1e-5)
        soft = 0.9 * one_hot(targets, 6) + 0.1 / 6
        assert torch.equal(BatchHardTriplet(margin)(embeddings, soft), loss)
    loss.backward()
    assert embeddings.grad is not None and embeddings.grad.isfinite().all()
    assert embeddings.grad.any() == (len(set(labels)) not in (1, 6))


def test_the_triplet_loss_is_there_wherever_a_class_has_two_images() -> None:
    """Upstream's passes of one image make it 0 always."""
    model = tiny().train()
    images = pictures(4)
    output = model(images)
    terms = model.loss(output, torch.tensor([0, 1, 0, 1]))
    rows = output.embeddings["trunk_cls"].detach()
    assert terms["triplet"].item() == pytest.approx(0.1 * by_hand(rows, [0, 1, 0, 1], 1.0), rel=1e-5)
    assert terms["triplet"] > 0
    cross = 0.6 * cross_entropy(output.logits, torch.tensor([0, 1, 0, 1]))
    torch.testing.assert_close(terms["cross_entropy"], cross)
    alone = [model.loss(model(image[None]), torch.tensor([0]))["triplet"].item() for image in images]
    assert alone == [0.0] * 4


# --- state, sizes, checkpoints --------------------------------------------------------------------


@pytest.mark.parametrize("merge", [False, True])
def test_a_reloaded_model_predicts_exactly_the_same(merge: bool, tmp_path: Path) -> None:
    options = {"dynamic_warm_steps": 0, "dynamic_rate": 0.5, "merge_inattentive": merge}
    model = tiny(**options).train()
    for seed in range(4):
        model.loss(model(pictures(seed=seed)), torch.tensor([0, 1, 0]))
    model.eval()
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    again = tiny(**options)
    assert again.selection.sizes() != model.selection.sizes()
    load_checkpoint(again, path)
    with torch.inference_mode():
        assert torch.equal(again(pictures(7)).logits, model(pictures(7)).logits)


@pytest.mark.parametrize(
    ("backbone", "merge", "gmacs", "params"),
    [
        ("vit_small_patch14_dinov2", False, 29.335, 23.77),
        ("vit_base_patch14_dinov2", False, 99.091, 93.55),
        ("vit_base_patch14_dinov2", True, 99.181, 93.55),
    ],
)
def test_dinov2_at_448(backbone: str, merge: bool, gmacs: float, params: float) -> None:
    """1024 patches; eleven of each of eleven blocks, and a merged one each if asked for."""
    with torch.device("meta"):
        model = create_model(
            "sc4001", backbone=backbone, num_classes=200, image_size=448, merge_inattentive=merge
        )
    assert isinstance(model, SC4001) and model.backbone.grid == (32, 32)
    seen: list[tuple[int, ...]] = []
    for block in (model.backbone.blocks[-1], model.key_layer):
        block.register_forward_hook(lambda _m, given, _out: seen.append(tuple(given[0].shape[:2])))
    macs = count_dispatch(model, 448).macs
    assert seen == [(1, 133 if merge else 122), (1, 25)]
    assert macs == model.closed_form_macs() and round(macs / 1e9, 3) == gmacs
    assert round(parameter_count(model) / 1e6, 2) == params
    extra = dict(model.key_layer.named_parameters())
    assert "attn.qkv.bias" not in extra and "ls1.gamma" not in extra


def test_positions_of_another_grid_are_resized_as_at_run_time(shared: Path) -> None:
    tensors = safetensors.torch.load_file(shared / "golden" / "sc4001_a.safetensors")
    state = {n.removeprefix("state."): t for n, t in tensors.items() if n.startswith("state.")}
    smaller = state["pos_embed"][:, :17].clone()
    smaller[:, 1:] = 0.5
    config = {"image_size": 64, "num_heads": 2, "vote_perhead": 12, "total_num": 36}
    model = from_upstream("sc4001", state | {"pos_embed": smaller}, config)
    positions = model.backbone.vit.pos_embed
    assert positions.shape == (1, 65, 64) and torch.equal(positions[:, 0], smaller[:, 0])
    torch.testing.assert_close(positions[:, 1:], torch.full((1, 64, 64), 0.5))


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match="dilations"):
        SC4001Options(dilations=[0])
    with pytest.raises(ValueError, match="triplet_margin"):
        SC4001Options(triplet_margin=-1)
