"""The three counts: anchors from the literature, agreement, attention, passes, what none of them knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fgvc.backbones.closed_form import LayerSum, block_macs, embedding_macs, encoder_macs, layer_sum
from fgvc.backbones.features import FeatureBackbone
from fgvc.backbones.timm_models import VisionTransformer, parameter_count
from fgvc.backbones.tokens import TokenBackbone
from fgvc.config.project import Project
from fgvc.cost import (
    closed_form,
    count_dispatch,
    count_fvcore,
    count_products,
    quick_macs,
)
from fgvc.errors import FgvcError
from fgvc.methods import Method, MethodOutput, registered
from fgvc.methods.build import create_model
from fgvc.methods.heads import linear_head
from fgvc.methods.vit import ViT

aten = torch.ops.aten
PICO = "vit_pico_patch16_224"


def _on_meta(method: str, backbone: str, size: int = 224, classes: int = 1000, **options: Any) -> Method:
    with torch.device("meta"):
        return create_model(method, backbone=backbone, num_classes=classes, image_size=size, **options)


# --- anchors ------------------------------------------------------------------------------------------

#: GMACs with 1000 classes. ViT-B/16: the design. DeiT: the tables of PVT and Swin (1.3, 4.6). ResNet:
#: 3.8 and 7.6 in He et al. 2016, table 1, and a little more with the stride on the 3×3 layers, as timm builds
#: it. The last two are what this project measured when it chose them.
ANCHORS = [
    ("vit", "vit_base_patch16_224", 224, 17.56, 0.001),
    ("vit", "vit_base_patch16_224", 448, 78.5, 0.001),
    ("vit", "deit_tiny_patch16_224", 224, 1.3, 0.05),
    ("vit", "deit_small_patch16_224", 224, 4.6, 0.01),
    ("cnn", "resnet50", 224, 4.1, 0.01),
    ("cnn", "resnet101", 224, 7.8, 0.01),
    ("cnn", "tf_efficientnet_lite0", 224, 0.385, 0.01),
    ("vit", PICO, 224, 0.214, 0.01),
]


@pytest.mark.parametrize(("method", "backbone", "size", "gmacs", "tolerance"), ANCHORS)
def test_headline_count_meets_the_anchor(
    project: Project, method: str, backbone: str, size: int, gmacs: float, tolerance: float
) -> None:
    assert quick_macs(project, method, size, 1000, backbone) / 1e9 == pytest.approx(gmacs, rel=tolerance)


# --- agreement ----------------------------------------------------------------------------------------

BACKBONES = [
    (PICO, 224),
    ("deit_tiny_distilled_patch16_224", 224),
    ("vit_small_patch14_reg4_dinov2", 112),
    ("tf_efficientnet_lite0", 224),
    ("resnet18", 224),
    ("convnext_atto", 224),
]


@pytest.mark.parametrize("method", sorted(registered()))
@pytest.mark.parametrize(("backbone", "size"), BACKBONES)
def test_the_counts_agree_for_every_method(method: str, backbone: str, size: int) -> None:
    try:
        model = create_model(method, backbone=backbone, num_classes=20, image_size=size)
    except FgvcError as error:
        pytest.skip(str(error.problem))
    if isinstance(model.backbone, FeatureBackbone) and isinstance(model.backbone.cnn, VisionTransformer):
        pytest.skip("a ViT is no feature map")
    dispatch, trace = count_dispatch(model, size), count_fvcore(model, size)
    formula = closed_form(model)
    assert trace.macs == pytest.approx(dispatch.macs, rel=0.01)
    assert not dispatch.uncounted_ops
    if formula.macs is None:
        assert formula.reason
    else:
        assert formula.macs == pytest.approx(dispatch.macs, rel=0.01)


@pytest.mark.parametrize("image_size", [112, 224, 448])
@pytest.mark.parametrize("backbone", [PICO, "vit_small_patch16_224", "vit_base_patch16_224"])
@pytest.mark.parametrize("method", ["vit", "glsim", "transfg", "ffvt", "simtrans", "ielt"])
def test_closed_form_is_exact_for_plain_vits(method: str, backbone: str, image_size: int) -> None:
    model = _on_meta(method, backbone, image_size)
    assert closed_form(model).macs == count_dispatch(model, image_size).macs


@pytest.mark.parametrize(
    "options",
    [
        {"aggregator": "none", "classifier": "avg_cls"},
        {"crop_cls": "own", "tokens": "raw", "classifier": "max_cls", "anchors": "random"},
        {"select": "tokens", "metric": "l1"},
        {"select": "tokens", "aggregator": "dwsc", "metric": "l2", "classifier": "avg_cls"},
        {"select": "tokens", "aggregator": "conv"},
    ],
)
def test_all_counts_follow_the_options_of_glsim(options: dict[str, Any]) -> None:
    model = create_model("glsim", backbone=PICO, num_classes=20, image_size=112, **options)
    dispatch = count_dispatch(model, 112)
    assert closed_form(model).macs == dispatch.macs == count_fvcore(model, 112).macs
    assert not dispatch.uncounted_ops


def test_simtrans_costs_a_plain_pass_a_few_rows_and_a_larger_head() -> None:
    """ViT-B/16, 200 classes, no overlap: three CLS rows, wᵀx, two small layers; the head reads 3 CLS."""
    for size, patches in ((224, 196), (448, 784)):
        plain = count_dispatch(_on_meta("vit", "vit_base_patch16_224", size, classes=200), size).macs
        model = _on_meta("simtrans", "vit_base_patch16_224", size, classes=200, patch_stride=16)
        rows, graph = 3 * (1 + patches) * 768, 3 * (2 * patches + 2 * 512 + 512 * 768)
        head = 3 * 768 * 1024 + 1024 * 200
        assert count_dispatch(model, size).macs == plain - 768 * 200 + rows + graph + head
        assert model.selection_macs() == rows


@pytest.mark.parametrize(
    "options",
    [
        {"patch_stride": 12, "sil_layers": [-1]},
        {"upstream_eval_dropout": True, "gcn_hidden": 8, "head_hidden": 16},
    ],
)
def test_all_counts_follow_the_options_of_simtrans(options: dict[str, Any]) -> None:
    model = create_model("simtrans", backbone=PICO, num_classes=20, image_size=112, **options)
    dispatch = count_dispatch(model, 112)
    assert closed_form(model).macs == dispatch.macs == count_fvcore(model, 112).macs


def test_glsim_costs_two_passes_an_aggregator_and_next_to_nothing_for_choosing() -> None:
    """ViT-B/16 at 224 with 200 classes; the aggregator's block sees two tokens."""
    once, twice = (_on_meta(m, "vit_base_patch16_224", classes=200) for m in ("vit", "glsim"))
    head, aggregator = 768 * 200, 4 * 2 * 768**2 + 2 * 2**2 * 768 + 2 * 8 * 768**2
    assert count_dispatch(twice, 224).macs == 2 * (count_dispatch(once, 224).macs - head) + aggregator + head
    assert twice.selection_macs() == 768 * 196
    assert (once.forward_passes(), twice.forward_passes()) == (1, 2)


@pytest.mark.parametrize(
    ("size", "stride", "transfg_g", "ffvt_g"),
    [(224, 16, 16.206, 17.081), (448, 16, 72.159, 72.974), (224, 12, 27.385, None), (448, 12, 139.502, None)],
)
def test_transfg_and_ffvt_cost_less_than_their_vit(
    size: int, stride: int, transfg_g: float, ffvt_g: float | None
) -> None:
    """ViT-B/16, 200 classes: GMACs by hand; the last block sees 13 or 133 tokens. No parameter is added."""
    tokens, rest = 1 + ((size - 16) // stride + 1) ** 2, 768 * 200
    embedding, block = 3 * 16**2 * 768 * (tokens - 1), 12 * tokens * 768**2 + 2 * tokens**2 * 768
    few = {m: 12 * m * 768**2 + 2 * m**2 * 768 for m in (13, 133)}
    transfg = _on_meta("transfg", "vit_base_patch16_224", size, classes=200, patch_stride=stride)
    chosen = tokens * 768 + 10 * 12 * tokens**2
    macs = count_dispatch(transfg, size).macs
    assert macs == embedding + 11 * block + few[13] + chosen + rest
    assert (transfg.selection_macs(), round(macs / 1e9, 3)) == (chosen, transfg_g)
    if ffvt_g is not None:
        ffvt = _on_meta("ffvt", "vit_base_patch16_224", size, classes=200)
        macs = count_dispatch(ffvt, size).macs
        assert macs == embedding + 11 * block + few[133] + 11 * 2 * tokens * 768 + rest
        assert (ffvt.selection_macs(), round(macs / 1e9, 3)) == (11 * 2 * tokens * 768, ffvt_g)
        vit = _on_meta("vit", "vit_base_patch16_224", size, classes=200)
        assert parameter_count(vit) == parameter_count(ffvt) == parameter_count(transfg)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("transfg", {"attention": "recomputed", "patch_stride": None}),
        ("ffvt", {"include_cls": False, "num_token": 5}),
        ("ffvt", {"feature_fusion": False}),
        ("ielt", {"total_num": 60, "last_block_init": "pretrained"}),
        ("sc4001", {"total_num": 60, "merge_inattentive": True}),
        ("sc4001", {"dilations": [1, 3], "kernel": "learnable", "upstream_index_shift": True}),
    ],
)
def test_all_counts_follow_the_options_of_token_choosers(method: str, options: dict[str, Any]) -> None:
    model = create_model(method, backbone=PICO, num_classes=20, image_size=112, **options)
    dispatch = count_dispatch(model, 112)
    assert closed_form(model).macs == dispatch.macs == count_fvcore(model, 112).macs
    assert not dispatch.uncounted_ops


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("vit_small_patch14_reg4_dinov2", 518),
        ("vit_giant_patch14_reg4_dinov2", 224),  # gated MLP
        ("deit_small_distilled_patch16_224", 224),  # two prefix tokens
        ("vit_base_patch32_224", 256),
    ],
)
def test_closed_form_follows_prefix_patches_and_mlp(backbone: str, size: int) -> None:
    model = _on_meta("vit", backbone, size)
    assert closed_form(model).macs == count_dispatch(model, size).macs


@pytest.mark.parametrize(
    "backbone",
    ["resnet50", "tf_efficientnet_b0", "convnextv2_atto", "densenet121", "seresnet50", "regnety_002"],
)
@pytest.mark.parametrize("method", ["cnn", "cal"])
def test_closed_form_is_exact_for_cnns(method: str, backbone: str) -> None:
    model = _on_meta(method, backbone, 96, classes=20)
    assert closed_form(model).macs == count_dispatch(model, 96).macs


def test_a_cnn_is_counted_where_it_stands_and_left_alone() -> None:
    """Two convolutions with groups and a stride, and a linear layer: by hand; no weight moves."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=4), nn.Flatten()
    )
    network.append(nn.Linear(8 * 6 * 6, 5))
    mean = network[1].running_mean.clone()
    found = layer_sum(network, 16)
    assert found == LayerSum(8 * 8 * 8 * 3 * 9 + 8 * 6 * 6 * 2 * 9 + 8 * 6 * 6 * 5, 1)
    assert layer_sum(network[:3], 16) == LayerSum(8 * 8 * 8 * 3 * 9 + 8 * 6 * 6 * 2 * 9, 36)
    assert torch.equal(mean, network[1].running_mean) and network.training


def test_closed_form_is_the_formula_of_the_paper() -> None:
    backbone = TokenBackbone(PICO, 224)
    s, d = 197, 128
    assert embedding_macs(backbone) == 196 * 3 * 16 * 16 * d
    assert block_macs(backbone) == 4 * s * d * d + 2 * s * s * d + 8 * s * d * d
    assert block_macs(backbone, tokens=50) == 4 * 50 * d * d + 2 * 50 * 50 * d + 8 * 50 * d * d
    assert encoder_macs(backbone) == embedding_macs(backbone) + 4 * block_macs(backbone)


@pytest.mark.parametrize(
    ("method", "backbone"),
    [("cnn", "coatnet_0_rw_224"), ("vit", "vit_tiny_r_s16_p8_224")],  # attention in a CNN, a CNN in a ViT
)
def test_closed_form_says_why_it_is_missing(method: str, backbone: str) -> None:
    formula = closed_form(_on_meta(method, backbone))
    assert formula.macs is None
    assert formula.reason


def test_meta_and_cpu_give_the_same_count() -> None:
    for method, backbone in (("vit", PICO), ("cnn", "tf_efficientnet_lite0")):
        model = create_model(method, backbone=backbone, num_classes=10)
        here, there = count_dispatch(model, 224), count_dispatch(_on_meta(method, backbone, classes=10), 224)
        assert (here.device, there.device) == ("cpu", "meta")
        assert here.macs == there.macs
        assert here.other_ops == there.other_ops
        assert here.activation_bytes == there.activation_bytes


# --- attention ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["cnn", "cal"])
def test_products_alone_are_the_headline_count(method: str) -> None:
    model = _on_meta(method, "resnet18", classes=10)
    assert count_products(model, 224) == count_dispatch(model, 224).macs


def _set_fused(model: Method, fused: bool) -> Method:
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused
    return model


def test_fused_and_unfused_attention_count_the_same() -> None:
    fused, unfused = (
        _set_fused(create_model("vit", backbone=PICO, num_classes=10), flag) for flag in (True, False)
    )
    for count in (count_dispatch, count_fvcore):
        assert count(fused, 224).macs == count(unfused, 224).macs
    # Only the unfused one holds the scores and the weights, [heads, S, S] each, in every block.
    more = count_dispatch(unfused, 224).activation_bytes - count_dispatch(fused, 224).activation_bytes
    assert more > 4 * 2 * (2 * 197 * 197) * 4


class _FastPaths(nn.Module):
    """torch's own encoder layer, whose fast path is a single operator."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images[0, :, :8, :16])


def test_fast_paths_are_opened() -> None:
    model = _FastPaths()
    batch, s, d, hidden = 3, 8, 16, 32
    expected = batch * (4 * s * d * d + 2 * s * s * d + 2 * s * d * hidden)
    assert count_dispatch(model, 32).macs == expected
    assert count_fvcore(model, 32).macs == expected
    assert not count_dispatch(model, 32).uncounted_ops
    assert torch.backends.mha.get_fastpath_enabled()


# --- passes -------------------------------------------------------------------------------------------


class Twice(ViT):
    """Looks at the image and at its smaller self."""

    name = "twice"

    def forward(self, images: Tensor) -> MethodOutput:
        again = nn.functional.interpolate(images[:, :, 16:-16, 16:-16], images.shape[-2:], mode="bilinear")
        tokens = self.backbone(images) + self.backbone(again)
        return MethodOutput(logits=self.head(self.backbone.cls(tokens)), crops=again[:, None])

    def forward_passes(self) -> int:
        return 2


def test_every_pass_counts(registered_here: Callable[..., Any]) -> None:
    registered_here(Twice)
    once, twice = _on_meta("vit", PICO), _on_meta("twice", PICO)
    head = 128 * 1000
    double = 2 * (count_dispatch(once, 224).macs - head) + head
    assert count_dispatch(twice, 224).macs == double
    assert count_fvcore(create_model("twice", backbone=PICO, num_classes=1000), 224).macs == double
    assert count_dispatch(twice, 224).other_ops["resampling"] == 7 * 3 * 224 * 224


def test_the_mode_of_the_model_is_left_alone() -> None:
    model = create_model("cnn", backbone="resnet18", num_classes=5).train()
    model.backbone.cnn.bn1.eval()
    mean_before = model.backbone.cnn.bn1.running_mean.clone()
    count_dispatch(model, 64)
    count_fvcore(model, 64)
    assert model.training
    assert model.backbone.cnn.layer1.training
    assert not model.backbone.cnn.bn1.training
    assert torch.equal(mean_before, model.backbone.cnn.bn1.running_mean)


# --- methods that read values ---------------------------------------------------------------------------


class Reads(ViT):
    """Asks for the value of a tensor, which a meta tensor does not have."""

    name = "reads"

    def forward(self, images: Tensor) -> MethodOutput:
        tokens = self.backbone(images)
        best = int(self.backbone.patches(tokens).norm(dim=-1).argmax())
        return MethodOutput(logits=self.head(self.backbone.patches(tokens)[:, best]))


def test_a_method_that_reads_values_is_counted_all_the_same(
    project: Project, registered_here: Callable[..., Any]
) -> None:
    registered_here(Reads)
    assert quick_macs(project, "reads", 224, 10, PICO) == quick_macs(project, "vit", 224, 10, PICO)


def test_a_head_alone_is_what_it_is() -> None:
    head = nn.Sequential(nn.Flatten(), linear_head(3 * 16 * 16, 7))
    assert count_dispatch(head, 16).macs == count_fvcore(head, 16).macs == 3 * 16 * 16 * 7
