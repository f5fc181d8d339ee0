"""PIM's choices, its predictions and heat map, its levels on each backbone, and Swin's stage shift."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fgvc import create_model
from fgvc.backbones.levels import LevelBackbone, swin_macs
from fgvc.cost.dispatch import count_dispatch
from fgvc.errors import FgvcError
from fgvc.methods.pim import PIM
from fgvc.methods.pim_heads import class_heat, highest_k_upstream, sum_of_heads, top_k
from fgvc.methods.pim_parts import FeaturePyramid, most_confident, not_selected_penalty

CLASSES = 5
SWIN_L = "swin_large_patch4_window12_384"
SMALL_SWIN = {
    "embed_dim": 16,
    "depths": (2, 1, 2, 1),
    "num_heads": (1, 2, 2, 4),
    "window_size": 4,
    "patch_size": 4,
}


def pim(backbone: str = "vit_pico_patch16_224", size: int = 64, **options: Any) -> PIM:
    torch.manual_seed(0)
    options = {"fpn_size": 32, "num_selects": [12, 10, 8, 6]} | options
    model = create_model("pim", backbone=backbone, num_classes=CLASSES, image_size=size, **options)
    assert isinstance(model, PIM)
    return model.eval()


def pictures(size: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


# --- levels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "size", "options", "shapes"),
    [
        (SWIN_L, 384, {}, [(384, 48), (768, 24), (1536, 12), (1536, 12)]),
        ("resnet50", 448, {}, [(256, 112), (512, 56), (1024, 28), (2048, 14)]),
        ("efficientnet_b7", 448, {"norm_eps": 1e-3}, [(160, 28), (224, 28), (384, 14), (640, 14)]),
        ("vit_base_patch16_224_miil", 448, {}, [(768, 28)] * 4),
    ],
)
def test_levels_have_the_shapes_of_upstream(
    backbone: str, size: int, options: dict[str, Any], shapes: list[tuple[int, int]]
) -> None:
    with torch.device("meta"):
        model = create_model("pim", backbone=backbone, num_classes=2, image_size=size, **options)
    assert isinstance(model, PIM)
    assert [(level.width, level.grid[0]) for level in model.levels] == shapes
    prefix = 1 if backbone.startswith("vit") else 0
    assert [level.locations for level in model.levels] == [prefix + side**2 for _, side in shapes]
    if options:
        norms = [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms and all(norm.eps == options["norm_eps"] for norm in norms)


def test_published_numbers_of_chosen_locations_are_shares_of_swins_levels() -> None:
    with torch.device("meta"):
        model = create_model(
            "pim",
            backbone=SWIN_L,
            num_classes=2,
            image_size=384,
            num_selects=[0.8889, 0.8889, 0.8889, 0.2222],
        )
    assert isinstance(model, PIM)
    assert model.counts == (2048, 512, 128, 32)
    assert model.combiner.adjacency.shape == (85, 85)


def test_swins_levels_are_read_behind_the_merging_of_patches() -> None:
    """Held against the outputs of timm's own forward pass, by hooks."""
    backbone = LevelBackbone(SWIN_L, 128, shape=SMALL_SWIN).eval()
    seen: list[Tensor] = []
    places = [stage.downsample for stage in backbone.cnn.layers[1:]] + [backbone.cnn.layers[3]]
    for module in places:
        module.register_forward_hook(lambda _m, _in, out: seen.append(out))
    with torch.inference_mode():
        backbone.cnn.forward_features(pictures(128))
        expected, _ = seen[:4], seen.clear()
        levels = backbone(pictures(128))
    for level, reference in zip(levels, expected, strict=True):
        torch.testing.assert_close(level, reference.flatten(1, 2), rtol=0, atol=0)
    assert [level.shape[2] for level in levels] == [32, 64, 128, 128]


@pytest.mark.parametrize("size", [128, 96, 144])
def test_the_closed_form_of_a_swin_follows_windows_and_their_padding(size: int) -> None:
    backbone = LevelBackbone(SWIN_L, size, shape=SMALL_SWIN)
    assert swin_macs(backbone.cnn) == count_dispatch(backbone, size).macs


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("resnet18", 96),
        ("tf_efficientnet_lite0", 96),
        ("vit_pico_patch16_224", 64),
        ("swin_tiny_patch4_window7_224", 64),
    ],
)
def test_the_closed_form_of_the_whole_is_exact(backbone: str, size: int) -> None:
    with torch.device("meta"):
        model = pim(backbone, size, num_selects=[0.75, 0.5, 0.5, 0.5])
    assert model.closed_form_macs() == count_dispatch(model, size).macs


def test_a_network_without_known_levels_is_refused() -> None:
    with pytest.raises(FgvcError, match="no four levels"):
        pim("convnext_atto")
    with pytest.raises(FgvcError, match="has 16 locations, and 16 of them"):
        pim("resnet18", 128, num_selects=[32, 32, 32, 16])
    with pytest.raises(FgvcError, match="in all; the graph needs 32"):
        pim(num_selects=[1, 1, 1, 1])


# --- parts ----------------------------------------------------------------------------------------


def test_a_level_adds_the_next_one_to_itself() -> None:
    """By hand on maps: two projections, doubled in size and summed from the top down."""
    pyramid = FeaturePyramid(pim("resnet18", 96, num_selects=[0.5] * 4).levels, 8, sequences=False)
    maps = [torch.randn(2, one.width, *one.grid) for one in pyramid.levels]
    expected = pyramid.projections[3](maps[3])
    assert pyramid(maps)[3].equal(expected.flatten(2).transpose(1, 2))
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    expected = pyramid.projections[2](maps[2]) + up(expected)
    torch.testing.assert_close(pyramid(maps)[2], expected.flatten(2).transpose(1, 2))


def test_the_most_confident_locations_come_first_and_equals_in_their_order() -> None:
    logits = torch.tensor([[[0.0, 1.0], [3.0, 0.0], [1.0, 0.0], [0.0, 5.0], [5.0, 0.0]]])
    assert most_confident(logits, 4).tolist() == [[3, 4, 1, 0]]


def test_what_was_not_chosen_is_pushed_down() -> None:
    """Brute force over the locations that are left."""
    logits, chosen = torch.randn(2, 6, 3), torch.tensor([[5, 1], [0, 3]])
    left = [[0, 2, 3, 4], [1, 2, 4, 5]]
    terms = [(math.tanh(x) + 1) ** 2 for b in (0, 1) for s in left[b] for x in logits[b, s].tolist()]
    assert not_selected_penalty(logits, chosen).item() == pytest.approx(sum(terms) / len(terms))


# --- predictions ----------------------------------------------------------------------------------

#: Confidences of one image: 0.9, 0.5, 0.6, 0.8, 0.7; the sure heads say class 0, the others class 1.
HEADS = [
    torch.tensor([p]).log()
    for p in ([0.9, 0.05, 0.05], [0.3, 0.5, 0.2], [0.2, 0.6, 0.2], [0.8, 0.1, 0.1], [0.1, 0.7, 0.2])
]


def test_top_k_takes_the_most_confident_heads_and_upstream_the_least() -> None:
    torch.testing.assert_close(top_k(HEADS, 2).exp(), torch.tensor([[0.85, 0.075, 0.075]]))
    torch.testing.assert_close(highest_k_upstream(HEADS, 2).exp(), torch.tensor([[0.25, 0.55, 0.2]]))
    everything = sum_of_heads(HEADS)
    torch.testing.assert_close(everything.exp(), torch.tensor([[2.3, 1.95, 0.75]]) / 5)
    for same in (top_k(HEADS, 5), highest_k_upstream(HEADS, 5)):
        torch.testing.assert_close(same, everything)


def test_the_headline_is_the_sum_of_all_heads_unless_another_is_asked_for() -> None:
    images = pictures(64)
    with torch.inference_mode():
        output = pim()(images)
        heads = [output.aux_logits[n] for n in ("layer1", "layer2", "layer3", "layer4", "combiner")]
        mean = torch.stack([h.softmax(dim=1) for h in heads]).mean(dim=0)
        torch.testing.assert_close(output.logits.softmax(dim=1), mean)
        assert pim(predict="combiner")(images).logits.equal(heads[-1])
        torch.testing.assert_close(pim(predict="top_k", heads=3)(images).logits, top_k(heads, 3))
        least = pim(predict="highest_k_upstream", heads=1)(images).logits
        torch.testing.assert_close(least, highest_k_upstream(heads, 1))


def test_the_loss_has_the_published_weights_and_the_fourth_term_when_asked() -> None:
    images, targets = pictures(64), torch.tensor([1, 3])
    model = pim(select_weight=0.3)
    output = model(images)
    terms = model.loss(output, targets)
    ce = nn.functional.cross_entropy
    chosen = [output.aux_logits[f"select_layer{i}"] for i in range(1, 5)]
    assert [c.shape[1] for c in chosen] == [12, 10, 8, 6]
    by_hand = {
        "combiner": ce(output.aux_logits["combiner"], targets),
        "levels": 0.5 * sum(ce(output.aux_logits[f"layer{i}"], targets) for i in range(1, 5)),
        "not_selected": 5 * output.losses["not_selected"],
        "selected": 0.3 * sum(ce(c.transpose(1, 2), targets[:, None].expand(-1, c.shape[1])) for c in chosen),
    }
    for name, value in by_hand.items():
        torch.testing.assert_close(terms[name], value)
    assert set(pim().loss(pim()(images), targets)) == {"combiner", "levels", "not_selected", "total"}


def test_every_prediction_of_upstreams_evaluation_has_its_name_and_none_costs_a_pass() -> None:
    model, images = pim(), pictures(64)
    with torch.inference_mode():
        output = model(images)
        found = model.head_logits(output)
    layers = [f"layer{place}" for place in range(1, 5)]
    ensembles = [
        f"{kind}_{n}{end}" for kind, end in (("top", ""), ("highest", "_upstream")) for n in range(1, 5)
    ]
    assert list(found) == [*layers, "combiner", "sum", *ensembles]
    heads = [output.aux_logits[name] for name in (*layers, "combiner")]
    torch.testing.assert_close(found["sum"], output.logits)
    for name, alone in zip((*layers, "combiner"), heads, strict=True):
        assert found[name].equal(alone)
    # Of each image, the head with the largest and the one with the smallest of all largest probabilities.
    peaks = torch.stack([head.softmax(dim=1).amax(dim=1) for head in heads])
    for image in range(2):
        most, least = heads[peaks[:, image].argmax()], heads[peaks[:, image].argmin()]
        assert found["top_1"][image].argmax() == most[image].argmax()
        assert found["highest_1_upstream"][image].argmax() == least[image].argmax()
    torch.testing.assert_close(found["top_3"], top_k(heads, 3))
    torch.testing.assert_close(found["highest_2_upstream"], highest_k_upstream(heads, 2))


# --- heat map -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["vit_pico_patch16_224", "test_resnet"])
def test_the_heat_map_depends_on_the_class(backbone: str) -> None:
    """Over all classes it is 1 at every place, since probabilities are."""
    model = pim(backbone, num_selects=[0.75, 0.5, 0.5, 0.5])
    images = pictures(64)
    with torch.inference_mode():
        output = model(images)
        maps = [model.heat_map(images, torch.full((2,), c)) for c in range(CLASSES)]
        predicted = model.heat_map(images, output.logits.argmax(dim=1))
    torch.testing.assert_close(output.masks["heat"], predicted.flatten(1))
    assert maps[0].shape == (2, *model.levels[0].grid)
    assert output.grid == model.levels[0].grid
    torch.testing.assert_close(torch.stack(maps).sum(dim=0), torch.ones_like(maps[0]))
    assert all((maps[0] - other).abs().max() > 1e-3 for other in maps[1:])


def test_the_heat_map_shows_where_a_class_is() -> None:
    """Class 1 at one place of each level, and at the token before the grid, which has no place."""
    levels = pim().levels
    logits = [torch.zeros(1, level.locations, 2) for level in levels]
    for one in logits:
        one[..., 0] = 9.0
        one[:, 0, 1] = one[:, 1 + 6, 1] = 18.0
    heat = class_heat(logits, levels, torch.tensor([1]))[0]
    assert heat.argmax() == 6 and heat[6] > 0.99 and heat.sort().values[-2] < 0.01
