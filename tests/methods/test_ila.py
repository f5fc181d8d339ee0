"""What ILA does, option by option, on small models; parity with the original code: test_golden_ila.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from goldenkit import Golden
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, gelu, linear

from fgvc.backbones.timm_models import parameter_count
from fgvc.checkpoints import from_upstream
from fgvc.config.project import Project
from fgvc.cost.dispatch import count_dispatch
from fgvc.errors import FgvcError
from fgvc.methods import ModelSpec
from fgvc.methods.build import build_variant
from fgvc.methods.checkpoints import load_checkpoint, own_names, save_checkpoint
from fgvc.methods.ila import ILA, ILAOptions
from fgvc.methods.inter_layer import InterLayerAdapter, InterLayerForm

PICO = "vit_pico_patch16_224"
SHIPPED = Project(Path(__file__).resolve().parents[2])


def of(size: int = 96, spec: dict[str, Any] | None = None, **options: Any) -> ILA:
    torch.manual_seed(0)
    shape = {"embed_dim": 32, "depth": 4, "num_heads": 2}
    given = {"shape": shape, **(spec or {})}
    return ILA(ModelSpec(PICO, 5, size, **given), ILAOptions(**{"ds_blocks": [0, 2], **options})).eval()


def pictures(size: int = 96, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def module(
    width: int = 12, grid: tuple[int, int] = (5, 5), prefix: int = 1, **form: Any
) -> InterLayerAdapter:
    """One with biases and statistics that are not zero, in evaluation mode."""
    torch.manual_seed(0)
    one = InterLayerAdapter(12, grid, prefix, InterLayerForm(**form), nn.Identity())
    for name, tensor in one.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
        elif name.endswith("bias"):
            tensor.copy_(torch.randn_like(tensor))
    return one.eval()


# --- tokens, parameters, cost ---------------------------------------------------------------------


@pytest.mark.parametrize(("size", "counts"), [(224, [197, 145, 101]), (448, [785, 677, 577])])
@pytest.mark.parametrize("adapter", ["none", "adapter", "convpass"])
def test_the_grid_shrinks_after_the_fourth_and_the_eighth_of_twelve_blocks(
    size: int, counts: list[int], adapter: str
) -> None:
    shape = {"embed_dim": 16, "depth": 12, "num_heads": 1}
    model = of(size, {"shape": shape}, ds_blocks=ILAOptions.ds_blocks, adapter=adapter)
    seen: list[int] = []
    for block in model.backbone.blocks:
        block.norm1.register_forward_pre_hook(lambda _m, given: seen.append(given[0].shape[1]))
    with torch.inference_mode():
        model(pictures(size, 1))
    assert seen == [n for n in counts for _ in range(4)]


@pytest.mark.parametrize(("shrink", "count"), [(True, 20_248), (False, 20_248 - 6_912)])
def test_a_module_has_the_published_size(shrink: bool, count: int) -> None:
    one = InterLayerAdapter(768, (14, 14), 1, InterLayerForm(shrink=shrink), nn.Identity())
    assert parameter_count(one) == count


@pytest.mark.parametrize(
    ("variant", "fixture", "added"),
    [("ila_vit_b16", "ila_a", 40_496), ("ila_pp_vit_b16", "ila_a_plus", 40_496 + 313_536)],
)
def test_variants_train_as_many_parameters_as_their_code_counts(
    variant: str, fixture: str, added: int, shared: Path
) -> None:
    with torch.device("meta"):
        model = build_variant(SHIPPED, variant, 224, 200, with_weights=False)
    facts = json.loads((shared / "golden" / f"{fixture}.json").read_text())["vit_b16_224_k200"]
    assert parameter_count(model, trainable_only=True) == facts["trainable_count"] == added + 768 + 769 * 200
    assert parameter_count(model) == facts["total_count"]
    assert sum(model.state_dict()[name].nbytes for name in own_names(model)) < 5e6
    assert not model.frozen_eval and model.batch_coupled


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"adapter": "convpass", "same_blocks": "rest"},
        {"residual": "dense", "multiplier": 2, "bottleneck": 5},
        {"residual": "avg_pool", "kernel": 1},
        {"adapter": "adapter", "ds_blocks": [], "same_blocks": [1]},
    ],
)
def test_the_formula_is_what_is_counted(options: dict[str, Any]) -> None:
    model = of(**options)
    assert model.closed_form_macs() == count_dispatch(model, 96).macs


# --- the module -----------------------------------------------------------------------------------


def by_definition(one: InterLayerAdapter, tokens: Tensor, shrink: bool) -> Tensor:
    """The module with channels first, as its specification tells it."""

    def norm(layer: nn.Module, x: Tensor) -> Tensor:
        return batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)  # type: ignore[arg-type]

    (h, w), p, d = one.grid, one.num_prefix, one.down.out_features
    u = gelu(norm(one.norm1, one.down(tokens).transpose(1, 2)))
    image = u[:, :, p:].reshape(-1, d, h, w)
    padding = 0 if shrink else one.conv.kernel_size[0] // 2
    image = conv2d(image, one.conv.weight, one.conv.bias, groups=d, padding=padding)
    patches = linear(gelu(norm(one.norm2, image)).flatten(2).transpose(1, 2), one.pointwise.weight)
    patches = patches + one.pointwise.bias
    prefix = u[:, :, :p].transpose(1, 2) @ one.prefix.weight.t() + one.prefix.bias
    both = torch.cat([prefix, patches], dim=1).transpose(1, 2)
    added = one.up(gelu(norm(one.norm3, both)).transpose(1, 2))
    if not shrink:
        return tokens + added
    width = tokens.shape[-1]
    whole = tokens[:, p:].transpose(1, 2).reshape(-1, width, h, w)
    shrunk = conv2d(whole, one.residual.weight, groups=width).flatten(2).transpose(1, 2)
    return torch.cat([tokens[:, :p], shrunk], dim=1) + added


@pytest.mark.parametrize("shrink", [True, False])
@pytest.mark.parametrize("form", [{}, {"kernel": 5, "bottleneck": 3, "multiplier": 2}])
@pytest.mark.parametrize("prefix", [1, 5])
def test_a_module_is_what_its_specification_says(shrink: bool, form: dict[str, Any], prefix: int) -> None:
    one = module(grid=(5, 7), prefix=prefix, shrink=shrink, **form)
    tokens = torch.randn(2, prefix + 35, 12)
    torch.testing.assert_close(one(tokens), by_definition(one, tokens, shrink), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("form", "factor", "within"),
    [
        ({}, 9, 0.01),
        ({"residual_init": "ones"}, 9, 1e-5),
        ({"residual_init": "mean"}, 1, 1e-5),
        ({"residual": "avg_pool"}, 1, 1e-5),
    ],
)
def test_a_start_near_ones_is_a_sum_over_the_window(
    form: dict[str, Any], factor: float, within: float
) -> None:
    """Patch tokens that are all alike come out as so many times themselves; CLS stays."""
    one = module(**form)
    nn.init.zeros_(one.up.weight)
    nn.init.zeros_(one.up.bias)
    tokens = torch.ones(1, 26, 12)
    out = one(tokens)
    assert out.shape == (1, 10, 12) and torch.equal(out[:, 0], tokens[:, 0])
    assert (out[:, 1:] - factor).abs().max() <= within * factor
    assert (out[:, 1:].std() > 0) == (form == {})


def test_statistics_are_over_cls_and_patches_of_the_batch_together() -> None:
    one = module(norm="batch").train()
    tokens = torch.randn(3, 26, 12)
    one.norm1.reset_running_stats()
    one(tokens)
    narrow = one.down(tokens).reshape(-1, 8)
    torch.testing.assert_close(one.norm1.running_mean, 0.1 * narrow.mean(dim=0))
    torch.testing.assert_close(one.norm1.running_var, 0.9 + 0.1 * narrow.var(dim=0))


# --- the method -----------------------------------------------------------------------------------


def test_modules_stand_where_the_options_say() -> None:
    model = of(ds_blocks=[1], same_blocks="rest")
    assert sorted(model.between) == ["0", "1", "2", "3"]
    assert [one.residual is not None for one in model.between.values()] == [False, True, False, False]
    assert model.grids == [(6, 6), (6, 6), (4, 4), (4, 4)]
    assert sorted(of(ds_blocks=[1], same_blocks=[3]).between) == ["1", "3"]


def test_adapters_of_a_block_see_the_grid_that_is_left() -> None:
    model = of(adapter="convpass")
    assert [one.attn.grid for one in model.adapters] == [(6, 6), (4, 4), (4, 4), (2, 2)]


def test_drop_path_takes_the_place_of_dropout() -> None:
    plain, paths = of(spec={"dropout": 0.2}), of(spec={"dropout": 0.2}, drop_path=0.3)
    assert [[type(m).__name__ for m in one.drop] for one in plain.between.values()] == [["Dropout"]] * 2
    assert [[type(m).__name__ for m in one.drop] for one in paths.between.values()] == [["DropPath"]] * 2


@pytest.mark.parametrize(("norm", "coupled"), [("batch", True), ("layer", False), ("none", False)])
def test_batch_norms_that_train_couple_the_images(norm: str, coupled: bool) -> None:
    model = of(norm=norm)
    assert model.batch_coupled == coupled
    model.set_trainable(["head.*"])
    assert not model.batch_coupled


def test_a_checkpoint_brings_the_statistics_of_the_batch_norms(tmp_path: Path) -> None:
    model, other = of(), of()
    for one in (model, other):
        one.set_trainable(["between.*", "head.*", "backbone.vit.cls_token"])
    with torch.no_grad():
        model.train()(pictures())
    model.eval()
    assert not torch.equal(model(pictures()).logits, other(pictures()).logits)
    state, path = model.state_dict(), tmp_path / "model.safetensors"
    save_checkpoint({name: state[name] for name in own_names(model)}, path, "r", "a" * 64)
    load_checkpoint(other, path, "a" * 64)
    assert torch.equal(model(pictures()).logits, other(pictures()).logits)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ds_blocks": [4]}, r"after block 4, but .* has the blocks 0 … 3"),
        ({"ds_blocks": [0, 1, 2]}, "leave no patch of a grid of 6 × 6"),
    ],
)
def test_modules_that_do_not_fit_the_backbone_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(FgvcError, match=said):
        of(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"ds_blocks": [1, 1]},
        {"ds_blocks": [-1]},
        {"ds_blocks": [1], "same_blocks": [1]},
        {"kernel": 2},
        {"drop_path": 1.0},
        {"multiplier": 0},
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        ILAOptions(**options)


@pytest.mark.parametrize("golden", ["ila_a_plus"], indirect=True)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ila_padding": True}, "ila_padding=True"),
        ({"ila_ds_conv": False}, "ila_ds_conv=False"),
        ({"ila_norm2": "ln"}, "ila_norm2='ln'"),
        ({"ila_ds_conv_type": "strided"}, "ila_ds_conv_type='strided'"),
        ({"prompt": "vpt_deep"}, "prompt='vpt_deep'"),
        ({"adapter": None}, "not accounted for"),
        ({"ila_locs": [1]}, "Missing key.*between.1.down.weight"),
        ({"adapter_dim": 4}, "do not fit"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(golden: Golden, change: dict[str, Any], said: str) -> None:
    facts = golden.facts
    with pytest.raises(FgvcError, match=said):
        from_upstream(facts["method"], golden.part("state."), {**facts["config"], **change})
