"""Methods on a frozen ViT as ILA's Table 1 has them: what trains, where it starts, and what it counts."""

from __future__ import annotations

from fnmatch import fnmatchcase
from math import sqrt
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from startkit import ProjectFactory, start_from
from torch import Tensor, nn

from fgvc.backbones.tokens import TokenBackbone
from fgvc.config.project import Project
from fgvc.config.published_list import PublishedRecords
from fgvc.cost import count_dispatch
from fgvc.errors import FgvcError
from fgvc.methods import Method, ModelSpec
from fgvc.methods.build import build_variant, create_model
from fgvc.methods.cal import CAL, CALOptions
from fgvc.methods.ffvt import FFVT, FFVTOptions
from fgvc.methods.isqrt_cov import ISqrtCov, ISqrtCovOptions
from fgvc.methods.transfg import TransFG, TransFGOptions

SHIPPED = Project(Path(__file__).resolve().parents[2])
PICO = "vit_pico_patch16_224"
CLASSES = 5
TINY = {"embed_dim": 32, "depth": 3, "num_heads": 2}

#: Modules in which something trains, and how many parameters do for 200 classes: counted by hand, and for
#: TransFG and GLSim by upstream. A block of ViT-B has 7,087,872, a head 769 a class, CLS 768.
TRAINS = {
    "transfg_vit_b16_frozen": ({"backbone.vit.blocks.11", "head", "backbone.vit.cls_token"}, 7_242_440),
    "ffvt_vit_b16_frozen": ({"backbone.vit.blocks.11", "head", "backbone.vit.cls_token"}, 7_242_440),
    "glsim_vit_b16_frozen": (
        {"aggregator", "head", "crop_cls", "backbone.vit.cls_token"},
        7_090_176 + 768 + 153_800,
    ),
    "rams_vit_b16_frozen": ({"head", "crop_cls", "backbone.vit.cls_token"}, 2 * 768 + 153_800),
    "cal_vit_b16_frozen": ({"attentions", "fc"}, 32 * 768 * 200 + 32 * 768 + 2 * 32),
    "mpnc_vit_b16_frozen": ({"pooling", "head"}, 64 * 768 + 2 * 64 + 2081 * 200),
    "ila_p_vit_b16": ({"between", "head", "backbone.vit.cls_token"}, 40_496 + 10 * 13_336 + 768 + 153_800),
}


def on_meta(name: str, classes: int) -> Method:
    with torch.device("meta"):
        return build_variant(SHIPPED, name, 224, classes, with_weights=False)


def trainable(model: Method) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", TRAINS)
def test_a_shipped_variant_trains_these_modules_and_so_many_parameters(name: str) -> None:
    model, (modules, count) = on_meta(name, 200), TRAINS[name]
    names = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {n for n in names if not any(n == m or n.startswith(f"{m}.") for m in modules)} == set()
    assert {m for m in modules if not any(n == m or n.startswith(f"{m}.") for n in names)} == set()
    assert trainable(model) == count
    assert not model.frozen_eval


@pytest.mark.parametrize("name", [*TRAINS, "transfg_pico_frozen", "glsim_pico_frozen"])
def test_gradients_are_in_what_trains_and_nowhere_else(name: str) -> None:
    """The variant's options and patterns on a small ViT, whose last block has number 3."""
    variant = SHIPPED.variant(name)
    own = {"ds_blocks": [1]} if variant.method == "ila" else {}
    given = {"num_token": 3} if variant.method == "ffvt" else own
    torch.manual_seed(0)
    model = create_model(
        variant.method,
        backbone=PICO,
        num_classes=CLASSES,
        image_size=64,
        **{**variant.options, **given, "head_init": "default"},
    )
    patterns = [p.replace("blocks.11.", "blocks.3.") for p in variant.train]
    model.set_trainable(patterns)
    model.frozen_eval = variant.frozen_mode == "eval"
    model.train()
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    model.loss(model(images), torch.tensor([0, 1, 2, 0]))["total"].backward()
    with_gradient = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    wanted = {n for n, _ in model.named_parameters() if any(fnmatchcase(n, p) for p in patterns)}
    assert with_gradient == wanted


# --- the table ------------------------------------------------------------------------------------


def table() -> PublishedRecords:
    found = SHIPPED.published("ila_table1")
    assert isinstance(found, PublishedRecords)
    return found


def test_every_row_of_a_frozen_backbone_has_a_variant_and_no_other_has() -> None:
    columns = table().columns
    assert {name for name, c in columns.items() if c.variant is None} == {
        "transfg_full",
        "simtrans_full",
        "csdnet_full",
    }
    assert len({c.variant for c in columns.values()}) == 15 + 1


@pytest.mark.parametrize("column", [name for name, c in table().columns.items() if c.variant])
def test_the_printed_totals_of_trainable_parameters_are_those_of_our_variants(column: str) -> None:
    """Five times the mean over ten datasets: the five of the table, and the five stages of soyageing."""
    printed = table().columns[column]
    assert printed.variant is not None
    rows = [row.dataset for row in table().rows.values() if row.dataset]
    tasks = [*rows, *(name for name in SHIPPED.names("dataset") if name.startswith("soyageing_r"))]
    assert len(rows) == 5 and len(tasks) == 10
    one, two = (trainable(on_meta(printed.variant, classes)) for classes in (100, 200))
    per_class = (two - one) // 100  # heads are linear in the number of classes
    total = 5 * mean(one + per_class * (SHIPPED.dataset(task).classes - 100) for task in tasks)
    assert f"{total / 1e6:.1f}" == f"{printed.cells['ttp'].value:.1f}"


# --- without CLS ----------------------------------------------------------------------------------


def without_cls(kind: str, size: int = 64) -> CAL | ISqrtCov:
    torch.manual_seed(0)
    spec = ModelSpec(PICO, CLASSES, size, shape=TINY)
    if kind == "cal":
        return CAL(spec, CALOptions(num_attentions=4, eval_mode="single2", cls_token=False)).eval()
    return ISqrtCov(spec, ISqrtCovOptions(reduced=8, mirror=False, cls_token=False)).eval()


@pytest.mark.parametrize("kind", ["cal", "isqrtcov"])
def test_a_sequence_without_cls_starts_from_weights_that_have_one(
    kind: str, project_factory: ProjectFactory
) -> None:
    """Patches keep their positions, at the weights' own size and at others; every other tensor is theirs."""
    whole = TokenBackbone(PICO, 64, shape=TINY).vit
    state = {n: torch.randn(t.shape) for n, t in whole.state_dict().items()}
    model = without_cls(kind)
    start_from(model, state, project_factory())
    ours = model.backbone.vit.state_dict()
    assert set(state) - set(ours) == {"cls_token"} and set(ours) <= set(state)
    assert torch.equal(ours["pos_embed"], state["pos_embed"][:, 1:])
    assert all(torch.equal(t, state[n]) for n, t in ours.items() if n != "pos_embed")
    assert model.backbone.num_prefix == 0 and model.backbone.norm.weight.equal(state["norm.weight"])


def test_a_larger_grid_gets_its_positions_from_those_of_the_patches(project_factory: ProjectFactory) -> None:
    state = {n: torch.randn(t.shape) for n, t in TokenBackbone(PICO, 64, shape=TINY).vit.state_dict().items()}
    model = without_cls("cal", 112)
    start_from(model, state, project_factory())
    corners = [0, 6, 42, 48]
    found, given = model.backbone.vit.pos_embed[0, corners], state["pos_embed"][0, [1, 4, 13, 16]]
    torch.testing.assert_close(found, given)


def test_weights_are_not_cut_for_a_sequence_that_asks_for_no_less(project_factory: ProjectFactory) -> None:
    """A ViT that never had a CLS token does not take weights with one."""
    gap = ModelSpec(
        PICO, CLASSES, 64, shape={**TINY, "class_token": False, "global_pool": "avg", "fc_norm": False}
    )
    model = CAL(gap, CALOptions(num_attentions=4, cls_token=False))
    assert not model.backbone.leaves_out_cls
    state = {n: torch.randn(t.shape) for n, t in TokenBackbone(PICO, 64, shape=TINY).vit.state_dict().items()}
    with pytest.raises(FgvcError, match="unexpected: cls_token"):
        start_from(model, state, project_factory())


@pytest.mark.parametrize("kind", ["cal", "isqrtcov"])
def test_cost_without_cls_is_that_of_the_patches(kind: str) -> None:
    model = without_cls(kind)
    assert model.closed_form_macs() == count_dispatch(model, 64).macs


def test_the_feature_map_of_cal_is_the_normed_patches_in_their_places() -> None:
    model = without_cls("cal")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        vit = model.backbone.vit
        tokens = vit.patch_embed(images) + vit.pos_embed
        for block in vit.blocks:
            tokens = block(tokens)
        expected, found = vit.norm(tokens), model.feature_maps(images)
    assert expected.shape[1] == 16 and found.shape == (2, 32, 4, 4)
    torch.testing.assert_close(found[:, :, 1, 2], expected[:, 6])


@pytest.mark.parametrize("method", ["cal", "isqrtcov"])
@pytest.mark.parametrize("option", [{"cls_token": False}, {"norm_eps": 1e-12}])
def test_a_cnn_is_not_asked_for_what_only_a_vit_has(method: str, option: dict[str, Any]) -> None:
    with pytest.raises(FgvcError, match="is a CNN") as caught:
        create_model(method, backbone="test_resnet", num_classes=2, image_size=64, **option)
    assert caught.value.key == f"options.{next(iter(option))}"


# --- the new block --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["transfg", "ffvt"])
def test_a_block_of_the_ila_code_starts_xavier_uniform_in_every_layer(
    method: str, project_factory: ProjectFactory
) -> None:
    """Query, key and value are layers of their own there: bounds √(6 / 2D), not those of one layer to 3D."""
    torch.manual_seed(0)
    spec = ModelSpec(PICO, CLASSES, 64, shape={"embed_dim": 64, "depth": 2, "num_heads": 2, "mlp_ratio": 2})
    model: Method
    if method == "transfg":
        model = TransFG(spec, TransFGOptions(patch_stride=None, last_block_init="xavier"))
    else:
        options = FFVTOptions(num_token=3, last_block_init="xavier", last_norm_init="pretrained")
        model = FFVT(spec, options)
    vit = model.backbone.vit
    start_from(model, {n: torch.full_like(t, 0.5) for n, t in vit.state_dict().items()}, project_factory())
    block = vit.blocks[-1]
    drawn: list[tuple[Tensor, float]] = [(part, sqrt(6 / 128)) for part in block.attn.qkv.weight.chunk(3)]
    drawn += [(block.attn.proj.weight, sqrt(6 / 128))]
    drawn += [(layer.weight, sqrt(6 / 192)) for layer in (block.mlp.fc1, block.mlp.fc2)]
    for weight, bound in drawn:
        assert 0.97 * bound < weight.abs().max().item() <= bound
        assert weight.std().item() == pytest.approx(bound / sqrt(3), rel=0.05)
    for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
        assert isinstance(layer, nn.Linear) and 0 < layer.bias.abs().max().item() < 1e-5
    assert (vit.norm.weight == 0.5).all() and (vit.blocks[0].attn.qkv.weight == 0.5).all()
