"""What FFVT does, option by option, on small models; parity with the original: test_golden_ffvt.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from goldenkit import Golden
from startkit import ProjectFactory, npz_and_expected, start_from
from timm.layers import Attention
from torch import Tensor, nn

from fgvc.errors import FgvcError
from fgvc.methods import ModelSpec
from fgvc.methods.build import create_model
from fgvc.methods.ffvt import FFVT, FFVTOptions

TINY = {"embed_dim": 32, "depth": 4, "num_heads": 2}
PICO = "vit_pico_patch16_224"


def tiny(image_size: int = 64, shape: dict[str, Any] | None = None, **options: Any) -> FFVT:
    """A model whose head is not zero, so that logits tell things apart."""
    torch.manual_seed(0)
    spec = ModelSpec(PICO, 5, image_size, shape={**TINY, **(shape or {})})
    model = FFVT(spec, FFVTOptions(**{"num_token": 3, "head_init": "default", **options})).eval()
    with torch.no_grad():  # attention far from uniform, so that no rank hangs on rounding
        for block in model.backbone.blocks:
            block.attn.qkv.weight.mul_(20)
    return model


def pictures(count: int = 3, size: int = 64, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def scores_by_whole_maps(model: FFVT, images: Tensor) -> list[Tensor]:
    """mean_h A[:, 0]·mean_h softmax_queries(R)[:, 0] of each layer but the last, from the maps themselves."""
    found: list[Tensor] = []

    def hook(attention: Attention, given: tuple[Tensor], _out: Tensor) -> None:
        q, k, _ = attention.qkv(given[0]).unflatten(-1, (3, attention.num_heads, -1)).unbind(2)
        raw = torch.einsum("bihd,bjhd->bhij", attention.q_norm(q), attention.k_norm(k)) * attention.scale
        found.append(raw.softmax(-1).mean(1)[:, 0] * raw.softmax(-2).mean(1)[:, :, 0])

    handles = [block.attn.register_forward_hook(hook) for block in model.backbone.blocks[:-1]]
    with torch.no_grad():
        model.backbone.blocks(model.backbone.embed(images))
    for handle in handles:
        handle.remove()
    return found


# --- the choice -----------------------------------------------------------------------------------


@pytest.mark.parametrize("include_cls", [True, False])
@pytest.mark.parametrize("registers", [0, 4])
def test_the_best_tokens_of_each_layer_are_chosen(include_cls: bool, registers: int) -> None:
    """Of CLS and patches, or of patches alone; indices count the prefix; registers never."""
    model = tiny(shape={"reg_tokens": registers}, include_cls=include_cls).double()
    images, prefix = pictures(4).double(), 1 + registers
    with torch.no_grad():
        output = model(images)
    candidates = [0] * include_cls + list(range(prefix, prefix + 16))
    for layer, scores in enumerate(scores_by_whole_maps(model, images)):
        torch.testing.assert_close(output.masks[f"maws.{layer}"], scores[:, prefix:])
        for b in range(4):
            best = sorted(candidates, key=lambda i: -scores[b, i].item())[:3]
            assert output.selected["tokens"][b, layer].tolist() == best
    patches = output.selected["tokens"].flatten(1) - prefix
    counts = torch.stack([torch.bincount(row[row >= 0], minlength=16) for row in patches])
    assert torch.equal(output.masks["selected"].long(), counts)


@pytest.mark.parametrize("size", [224, 304, 448])
@pytest.mark.parametrize("num_token", [12, 24])
def test_the_last_block_sees_cls_and_so_many_tokens_a_layer(size: int, num_token: int) -> None:
    model, seen = tiny(size, {"embed_dim": 16, "depth": 3}, num_token=num_token), []
    model.backbone.blocks[-1].register_forward_hook(lambda _m, given, _out: seen.append(given[0].shape))
    with torch.inference_mode():
        output = model(pictures(1, size))
    assert seen == [(1, 1 + 2 * num_token, 16)]
    assert output.selected["tokens"].shape == (1, 2, num_token)


def test_the_fused_tokens_are_those_that_leave_each_layer() -> None:
    model, after, given = tiny(), [], []
    for block in model.backbone.blocks[:-1]:
        block.register_forward_hook(lambda _m, _in, out: after.append(out))
    model.backbone.blocks[-1].register_forward_hook(lambda _m, seen, _out: given.append(seen[0]))
    with torch.inference_mode():
        chosen = model(pictures(2)).selected["tokens"]
    for b in range(2):
        rows = [after[-1][b, :1], *(layer[b, i] for layer, i in zip(after, chosen[b], strict=True))]
        assert torch.equal(given[0][b], torch.cat(rows))


def test_a_prediction_does_not_depend_on_the_images_beside_it() -> None:
    model, images = tiny(), pictures(7)
    with torch.inference_mode():
        together, alone = model(images), [model(image[None]) for image in images]
    assert torch.equal(together.selected["tokens"], torch.cat([one.selected["tokens"] for one in alone]))
    torch.testing.assert_close(together.logits, torch.cat([one.logits for one in alone]))


def test_gradients_reach_a_token_through_the_choice_of_its_layer_alone() -> None:
    """With the path through the later layers cut, the fused tokens still carry a gradient back."""
    model = tiny(include_cls=False).train()
    last = model.backbone.blocks[-2]
    last.register_forward_hook(lambda _m, _in, out: out.detach())
    nn.functional.cross_entropy(model(pictures()).logits, torch.arange(3)).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.backbone.blocks[0].parameters())
    assert all(p.grad is None for p in last.parameters())


def test_a_head_of_zeros_starts_from_the_uniform_prediction() -> None:
    with torch.inference_mode():
        assert not tiny(head_init="zeros")(pictures()).logits.any()


def test_without_fusion_it_is_the_plain_vit() -> None:
    """Nothing is drawn anew, either."""
    model = create_model("ffvt", backbone=PICO, num_classes=5, image_size=64, feature_fusion=False)
    vit = create_model("vit", backbone=PICO, num_classes=5, image_size=64)
    vit.load_state_dict(model.state_dict())
    for one in (model, vit):
        nn.init.ones_(one.head.weight[:2].detach())
    with torch.inference_mode():
        output = model.eval()(pictures())
        assert torch.equal(output.logits, vit.eval()(pictures()).logits)
    assert output.selected == {} and output.masks == {}


# --- where it starts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "drawn"),
    [
        ({"last_block_init": "random"}, ("blocks.3.", "norm.")),
        ({"last_block_init": "pretrained"}, ()),
        ({"feature_fusion": False}, ()),
        ({"last_block_init": "xavier"}, ("blocks.3.", "norm.")),
        ({"last_block_init": "xavier", "last_norm_init": "pretrained"}, ("blocks.3.",)),
        ({"last_block_init": "pretrained", "last_norm_init": "random"}, ("norm.",)),
    ],
)
def test_what_is_pretrained_and_what_is_drawn(
    options: dict[str, Any], drawn: tuple[str, ...], project_factory: ProjectFactory
) -> None:
    model = tiny(**options)
    state = {n: torch.full_like(t, 0.5) for n, t in model.backbone.vit.state_dict().items()}
    start_from(model, state, project_factory())
    for name, tensor in model.backbone.vit.state_dict().items():
        assert bool((tensor == 0.5).all()) != name.startswith(drawn or "nothing"), name
    if "norm." in drawn:
        assert (model.backbone.norm.weight == 1).all() and not model.backbone.norm.bias.any()


@pytest.mark.parametrize("golden", ["npz_ffvt_a"], indirect=True)
def test_it_starts_from_the_original_arrays_as_upstream_does(
    golden: Golden, project_factory: ProjectFactory
) -> None:
    """The fixture's grid has the 49 positions of an image of 112 pixels; norm and last block are no part."""
    state, expected = npz_and_expected(golden.tensors)
    shape = {"embed_dim": 16, "depth": 3, "num_heads": 2, "mlp_ratio": 1.5}
    side = round((expected["pos_embed"].shape[1] - 1) ** 0.5)
    classes = len(expected["head.weight"])
    model = FFVT(ModelSpec(PICO, classes, 16 * side, shape=shape), FFVTOptions(num_token=3))
    start_from(model, state, project_factory())
    for kind in ("weight", "bias"):
        assert torch.equal(model.head.get_parameter(kind), expected.pop(f"head.{kind}"))
    ours = model.backbone.vit.state_dict()
    assert set(expected) <= set(ours)
    rest = {name for name in set(ours) - set(expected) if not name.startswith("blocks.2.")}
    assert rest == {"norm.weight", "norm.bias"}
    for name, tensor in expected.items():
        difference = (ours[name] - tensor).abs().max().item()
        assert difference <= (1e-6 if name == "pos_embed" else 0.0), name


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_token": 0}, "num_token=0"),
        ({"num_token": 18}, "64 pixels a side are 17 candidates"),
        ({"num_token": 17, "include_cls": False}, "64 pixels a side are 16 candidates"),
        ({"last_block_init": "zeros"}, "possible: pretrained, random, xavier"),
        ({"last_norm_init": "xavier"}, "possible: pretrained, random"),
        ({"head_init": "ones"}, "possible: zeros, default"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(FgvcError) as caught:
        create_model("ffvt", backbone=PICO, num_classes=2, image_size=64, **options)
    assert reason in str(caught.value)


def test_backbones_that_cannot_choose_are_refused() -> None:
    with pytest.raises(FgvcError, match="'test_vit2' has none"):
        create_model("ffvt", backbone="test_vit2", num_classes=2, image_size=64)
    with pytest.raises(FgvcError, match="but one block"):
        tiny(shape={"depth": 1})
    assert create_model(
        "ffvt", backbone="test_vit2", num_classes=2, image_size=64, feature_fusion=False
    ).forward_passes()
