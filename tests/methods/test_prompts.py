"""VPT and VQT: where prompts stand, what queries read, and what stays as it was without them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from goldenkit import Watch
from torch import Tensor, nn

from fgvc import create_model
from fgvc.backbones.query_path import check_query_blocks, run_with_queries
from fgvc.cost import count_dispatch
from fgvc.errors import FgvcError
from fgvc.methods.prompts import Prompts
from fgvc.methods.vpt import VPT
from fgvc.methods.vqt import VQT

#: Plain with CLS; registers, layer scale and a norm behind the mean instead of CLS.
BACKBONES = ("test_vit", "test_vit2")


def small(method: str, backbone: str = "test_vit", **options: Any) -> Any:
    torch.manual_seed(0)
    model = create_model(method, backbone=backbone, num_classes=5, image_size=64, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


# --- prompts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("deep", [False, True])
def test_prompts_stand_behind_the_prefix_and_deep_ones_are_fresh_at_every_block(
    backbone: str, deep: bool
) -> None:
    model = small("vpt", backbone, deep=deep, num_prompts=3)
    watch, prefix = Watch(), model.backbone.num_prefix
    for i, block in enumerate(model.backbone.blocks):
        watch.inputs(f"into.{i}", block)
        watch.outputs(f"out.{i}", block)
    with torch.inference_mode():
        model(images())
        embedded = model.backbone.embed(images())
    seen = {name: calls[0] for name, calls in watch.seen.items()}
    places = slice(prefix, prefix + 3)
    assert torch.equal(seen["into.0"][:, :prefix], embedded[:, :prefix])
    assert torch.equal(seen["into.0"][:, prefix + 3 :], embedded[:, prefix:])
    for i in range(model.backbone.depth):
        given, before = seen[f"into.{i}"][:, places], seen.get(f"out.{i - 1}")
        own = model.prompts.tokens[i if deep else 0].expand(3, -1, -1)
        if i == 0 or deep:
            assert torch.equal(given, own)
        else:
            assert before is not None and torch.equal(given, before[:, places])
        if before is not None:
            assert torch.equal(seen[f"into.{i}"][:, :prefix], before[:, :prefix])
            assert torch.equal(seen[f"into.{i}"][:, prefix + 3 :], before[:, prefix + 3 :])


def test_a_mean_over_patches_leaves_prompts_out() -> None:
    model = small("vpt", "test_vit2", num_prompts=3)
    watch = Watch()
    watch.outputs("last", model.backbone.blocks[-1])
    with torch.inference_mode():
        logits = model(images()).logits
        patches = watch.seen["last"][0][:, model.backbone.num_prefix + 3 :]
        expected = model.head(model.backbone.vit.fc_norm(patches.mean(dim=1)))
    torch.testing.assert_close(logits, expected)


def test_prompts_start_in_the_range_of_a_patch_embedding() -> None:
    """√(6 / (3·16² + 768)) = 1/16 for ViT-B/16 without a projection, wider for narrow prompts."""
    backbone = small("vpt").backbone
    backbone.width = 768
    torch.manual_seed(0)
    drawn = Prompts(backbone, layers=12, count=100, dropout=0.0).tokens
    assert 0.0624 < drawn.abs().max() <= 0.0625 and abs(drawn.mean()) < 1e-3
    narrow = Prompts(backbone, layers=12, count=100, dropout=0.0, projection=8)
    bound = (6 / (768 + 8)) ** 0.5
    assert 0.99 * bound < narrow.tokens.abs().max() <= bound
    assert narrow(0, 2).shape == (2, 100, 768)


def test_prompts_are_dropped_image_by_image_in_training_only() -> None:
    prompts = Prompts(small("vpt").backbone, layers=1, count=4, dropout=0.5)
    both = prompts.train()(0, 2)
    assert not torch.equal(both[0], both[1]) and (both == 0).any()
    assert torch.equal(prompts.eval()(0, 2)[1], prompts.tokens[0])


# --- queries --------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("training", [False, True])
def test_queries_leave_the_tokens_as_they_are_to_the_bit(backbone: str, training: bool) -> None:
    model: VQT = small("vqt", backbone, num_queries=4)
    model.set_trainable(["queries.*", "head.*"])
    model.train(training)
    tokens, _ = model.encode(images())
    assert torch.equal(tokens, model.backbone(images()))
    with torch.no_grad():
        model.queries.tokens.normal_()
    assert torch.equal(model.encode(images())[0], tokens)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_queries_read_what_a_masked_block_would_show_them(backbone: str) -> None:
    """The block on [queries, tokens] at once, with an attention mask under which nothing sees a query."""
    model: VQT = small("vqt", backbone)
    tokens, width = model.backbone.embed(images()), model.backbone.width
    queries = torch.randn(3, 4, width)
    visible = torch.ones(tokens.shape[1] + 4, dtype=torch.bool)
    visible[:4] = False
    for block in model.backbone.blocks:
        after, read = run_with_queries(block, tokens, queries)
        both = block(torch.cat([queries, tokens], dim=1), attn_mask=visible.expand(len(visible), -1))
        torch.testing.assert_close(torch.cat([read, after], dim=1), both)
        tokens = after.detach()


def test_a_frozen_backbone_leaves_no_graph_but_on_the_queries_path() -> None:
    model: VQT = small("vqt")
    model.set_trainable(["queries.*", "head.*"])
    model.train()
    tokens, read = model.encode(images())
    assert not tokens.requires_grad and all(one.requires_grad for one in read)
    model(images()).logits.sum().backward()
    assert model.queries.tokens.grad is not None and model.queries.tokens.grad.abs().amin(dim=(1, 2)).all()
    assert all(parameter.grad is None for parameter in model.backbone.parameters())


def test_features_are_chunks_of_length_one_in_the_order_that_the_option_names() -> None:
    first = small("vqt", num_queries=2)
    last = small("vqt", num_queries=2, feature_order="cls_last")
    cls, read = torch.randn(3, 64), [torch.randn(3, 2, 64) for _ in range(6)]
    features = first.features(cls, read)
    torch.testing.assert_close(features[:, :64], cls / cls.norm(dim=1, keepdim=True))
    third = read[2].reshape(3, 128)
    torch.testing.assert_close(features[:, 320:448], third / third.norm(dim=1, keepdim=True))
    assert torch.equal(last.features(cls, read), features.roll(-64, dims=1))
    raw = small("vqt", num_queries=2, normalize=False)
    assert torch.equal(raw.features(cls, read)[:, :64], cls)


def test_features_outgrow_half_precision_without_harm() -> None:
    model = small("vqt", num_queries=2)
    cls, read = torch.full((3, 64), 300.0).half(), [torch.full((3, 2, 64), 300.0).half() for _ in range(6)]
    features = model.features(cls, read)
    torch.testing.assert_close(features[:, :64], torch.full((3, 64), 1 / 8))


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options", "learnt", "head"),
    [
        ("vpt", {"deep": False, "num_prompts": 100}, 100 * 768, 769 * 200),
        ("vpt", {"deep": True, "num_prompts": 10}, 92_160, 769 * 200),
        ("vpt", {"deep": True, "num_prompts": 100}, 921_600, 769 * 200),
        ("vqt", {"num_queries": 1}, 9_216, 1_997_000),
    ],
)
def test_parameters_on_vit_b16_are_those_of_the_papers(
    method: str, options: dict[str, Any], learnt: int, head: int
) -> None:
    with torch.device("meta"):
        model = create_model(
            method, backbone="vit_base_patch16_224", num_classes=200, image_size=224, **options
        )
    own = model.prompts if isinstance(model, VPT) else model.queries
    assert own.tokens.numel() == sum(p.numel() for p in own.parameters()) == learnt
    assert sum(p.numel() for p in model.head.parameters()) == head


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("vpt", {"deep": False}),
        ("vpt", {"projection": 4}),
        ("vqt", {"num_queries": 3}),
        ("ifa", {}),
        ("vit", {"pool": "flatten"}),
        ("vit", {"pool": "bilinear", "projection": 8}),
    ],
)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_closed_form_is_what_torch_counts(method: str, options: dict[str, Any], backbone: str) -> None:
    model = small(method, backbone, **options)
    assert model.closed_form_macs() == count_dispatch(model, 64).macs


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("vpt", {"num_prompts": 0}),
        ("vpt", {"projection": 0}),
        ("vpt", {"prompt_dropout": 1.0}),
        ("vpt", {"deep": "yes"}),
        ("vqt", {"num_queries": 0}),
        ("vqt", {"normalize": "no"}),
        ("vqt", {"feature_order": "cls"}),
    ],
)
def test_impossible_options_are_refused(method: str, options: dict[str, Any]) -> None:
    with pytest.raises(FgvcError, match=f"the options of '{method}' are not possible"):
        small(method, **options)


def test_queries_ask_for_plain_attention() -> None:
    block = small("vqt").backbone.blocks[0]
    block.attn = nn.Identity()
    with pytest.raises(FgvcError, match=r"attention of this backbone \(Identity\) takes no other queries"):
        check_query_blocks(nn.Sequential(block))
    with pytest.raises(FgvcError, match="take no modules beside"):
        check_query_blocks(nn.Sequential(nn.Identity()))
