"""Any timm ViT as tokens, any timm CNN as a feature map; and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from timm.models import VisionTransformer
from torch import nn

from fgvc.backbones.features import FeatureBackbone
from fgvc.backbones.timm_models import build_timm
from fgvc.backbones.tokens import TokenBackbone
from fgvc.errors import FgvcError

#: backbone, image size → CLS, registers, prefix, patch size, grid side.
VITS = {
    ("vit_pico_patch16_224", 64): (True, 0, 1, 16, 4),
    ("vit_small_patch14_dinov2", 70): (True, 0, 1, 14, 5),
    ("vit_small_patch14_reg4_dinov2", 70): (True, 4, 5, 14, 5),
    ("deit_tiny_distilled_patch16_224", 64): (True, 0, 2, 16, 4),
    ("vit_little_patch16_reg4_gap_256", 64): (False, 4, 4, 16, 4),
    ("vit_base_patch16_siglip_224", 64): (False, 0, 0, 16, 4),
    ("test_vit2", 64): (False, 1, 1, 16, 4),
}


@contextmanager
def without_memory() -> Iterator[None]:
    """Shapes only: nothing is allocated or computed."""
    with torch.device("meta"):
        yield


@pytest.mark.parametrize(("model", "facts"), VITS.items(), ids=[name for name, _ in VITS])
def test_a_sequence_is_prefix_then_patches(
    model: tuple[str, int], facts: tuple[bool, int, int, int, int]
) -> None:
    name, size = model
    has_cls, registers, prefix, patch, side = facts
    with without_memory():
        backbone = TokenBackbone(name, size)
        tokens = backbone(torch.randn(2, 3, size, size))
    assert (backbone.has_cls, backbone.num_registers, backbone.num_prefix) == (has_cls, registers, prefix)
    assert (backbone.patch_size, backbone.grid) == (patch, (side, side))
    assert tokens.shape == (2, prefix + side * side, backbone.width)
    assert backbone.patches(tokens).shape == (2, side * side, backbone.width)
    assert backbone.cls(tokens).shape == backbone.mean_patch(tokens).shape == (2, backbone.width)
    assert len(backbone.blocks) == backbone.depth and backbone.width % backbone.heads == 0


@pytest.mark.parametrize("name", ["vit_pico_patch16_224", "test_vit2"])
def test_it_computes_what_timm_computes(name: str) -> None:
    """The same tokens, and the same pooled features, with CLS and with mean pooling."""
    torch.manual_seed(0)
    backbone = TokenBackbone(name, 64).eval()
    plain = build_timm(name, img_size=64).eval()
    assert isinstance(plain, VisionTransformer)
    plain.load_state_dict(backbone.vit.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        tokens = backbone(images)
        torch.testing.assert_close(tokens, plain.forward_features(images))
        pooled = plain.forward_head(plain.forward_features(images), pre_logits=True)
        torch.testing.assert_close(backbone.cls(tokens), pooled)


def test_patch_tokens_stand_in_row_major_order() -> None:
    """Without blocks in between, patch (row, column) of the image is token row·w + column."""
    backbone = TokenBackbone("test_vit", 64).eval()
    backbone.vit.blocks = nn.Sequential()
    backbone.vit.norm = nn.Identity()
    changed = torch.zeros(1, 3, 64, 64)
    changed[:, :, 16:32, 32:48] = 1.0  # row 1, column 2 of a 4 × 4 grid
    with torch.inference_mode():
        difference = backbone(changed) - backbone(torch.zeros(1, 3, 64, 64))
    moved = backbone.patches(difference)[0].abs().sum(dim=1).nonzero().flatten().tolist()
    assert moved == [1 * 4 + 2]


def test_a_pooling_head_is_no_part_of_the_tokens() -> None:
    """SigLIP's attention pooling would be parameters that never train."""
    with without_memory():
        backbone = TokenBackbone("vit_base_patch16_siglip_224", 224)
    assert not [name for name, _ in backbone.named_parameters() if "attn_pool" in name]


@pytest.mark.parametrize(("decay", "rates"), [("uniform", [0.3] * 4), ("linear", [0.0, 0.1, 0.2, 0.3])])
def test_stochastic_depth_is_uniform_or_grows(decay: str, rates: list[float]) -> None:
    backbone = TokenBackbone(
        "vit_pico_patch16_224", 64, stochastic_depth=0.3, stochastic_depth_decay=decay
    ).train()
    found = [getattr(block.drop_path1, "drop_prob", 0.0) for block in backbone.blocks]
    assert found == pytest.approx(rates)
    assert [getattr(block.drop_path2, "drop_prob", 0.0) for block in backbone.blocks] == found


# --- feature maps ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "side"),
    [("tf_efficientnet_lite0", 64, 2), ("resnet101", 64, 2), ("mobilenetv3_small_050", 96, 3)],
)
def test_feature_maps_and_their_pooling(name: str, size: int, side: int) -> None:
    with without_memory():
        backbone = FeatureBackbone(name)
        features = backbone(torch.randn(2, 3, size, size))
        pooled = backbone.pool(features)
    assert features.shape == (2, backbone.width, side, side)
    assert pooled.shape == (2, backbone.pooled_width)


def test_weights_tags_are_part_of_the_name_but_not_of_the_architecture() -> None:
    with without_memory():
        assert FeatureBackbone("resnet18.a1_in1k").width == FeatureBackbone("resnet18").width


# --- refusals -------------------------------------------------------------------------------------


def test_a_size_between_two_patches_is_answered_with_both_neighbours() -> None:
    with pytest.raises(FgvcError) as caught:
        TokenBackbone("vit_small_patch14_dinov2", 224 + 10)
    assert "image size 234 is not a multiple of the patch size 14" in str(caught.value)
    assert "use 224 or 238" in str(caught.value)


def test_a_cnn_is_no_vit_and_a_vit_is_no_cnn() -> None:
    with pytest.raises(FgvcError, match="is not a ViT") as caught:
        TokenBackbone("resnet18", 224)
    assert "method class 'cnn'" in str(caught.value)
    with pytest.raises(FgvcError, match="is a ViT, not a CNN") as caught:
        FeatureBackbone("vit_pico_patch16_224")
    assert "method class 'vit'" in str(caught.value)


def test_a_transformer_of_another_kind_is_refused() -> None:
    with pytest.raises(FgvcError, match="is not a plain ViT"):
        TokenBackbone("swin_tiny_patch4_window7_224", 224)


@pytest.mark.parametrize("kind", [lambda n: TokenBackbone(n, 224), FeatureBackbone])
def test_a_mistyped_backbone_is_answered_with_the_nearest(kind: object) -> None:
    with pytest.raises(FgvcError, match="did you mean 'resnet101'") as caught:
        kind("resnet1O1")  # type: ignore[operator]
    assert "fgvc list backbones" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 5


@pytest.mark.parametrize(
    ("size", "stride", "side"), [(224, 12, 18), (304, 12, 25), (448, 12, 37), (64, 12, 5), (64, 16, 4)]
)
def test_overlapping_patches_make_a_finer_grid(size: int, stride: int, side: int) -> None:
    """Sides of TransFG's specification; positions cover the grid."""
    with without_memory():
        backbone = TokenBackbone("vit_pico_patch16_224", size, patch_stride=stride)
        tokens = backbone(torch.empty(1, 3, size, size))
    assert backbone.grid == (side, side)
    assert tokens.shape == (1, 1 + side**2, backbone.width)


def test_an_overlapping_patch_sees_its_own_pixels() -> None:
    """Patch (r, c) covers rows 12 r … 12 r + 15: another pixel changes no other patch's embedding."""
    backbone = TokenBackbone("vit_pico_patch16_224", 64, patch_stride=12)
    image = torch.zeros(1, 3, 64, 64)
    changed = image.clone()
    changed[..., 12, 40] = 1.0
    with torch.no_grad():
        moved = (backbone.embed(changed) - backbone.embed(image)).abs().amax(-1)[0, 1:].unflatten(0, (5, 5))
    touched = {(r, c) for r in range(5) for c in range(5) if moved[r, c] > 0}
    assert touched == {(0, 3), (1, 3)}


@pytest.mark.parametrize("stride", [0, -4, 17])
def test_an_impossible_stride_is_refused(stride: int) -> None:
    with pytest.raises(FgvcError, match="patch stride"):
        TokenBackbone("vit_pico_patch16_224", 64, patch_stride=stride)
