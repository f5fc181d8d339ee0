"""What adapters, ConvPass and LoRA do, option by option; parity: test_golden_adapters.py."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from goldenkit import Golden
from torch import Tensor, nn
from torch.nn.functional import conv2d, gelu

from fgvc.backbones.timm_models import parameter_count
from fgvc.checkpoints import from_upstream
from fgvc.config.project import Project
from fgvc.cost.dispatch import count_dispatch
from fgvc.errors import FgvcError
from fgvc.methods import Method, ModelSpec
from fgvc.methods.adapters import Adapter, AdapterOptions, Adapters, ConvPass
from fgvc.methods.build import build_variant, create_model
from fgvc.methods.checkpoints import load_checkpoint, own_names, save_checkpoint
from fgvc.methods.lora import LoRA, LoRAOptions
from fgvc.methods.vit import ViT, ViTOptions

PICO = "vit_pico_patch16_224"
SHIPPED = Project(Path(__file__).resolve().parents[2])


def of(cls: type[Method], spec: dict[str, Any] | None = None, **options: Any) -> Method:
    torch.manual_seed(0)
    return cls(ModelSpec(PICO, 5, 64, **(spec or {})), cls.Options(**options)).eval()


def pictures(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def plain(model: Method) -> ViT:
    """A ViT with the same backbone and head."""
    vit = ViT(model.spec, ViTOptions()).eval()
    shared = {n: t for n, t in model.state_dict().items() if n.startswith(("backbone.", "head."))}
    vit.load_state_dict(shared)
    return vit


# --- what is added, and what it costs -------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (Adapters, {"up_init": "zeros"}),
        (Adapters, {"kind": "convpass", "up_init": "zeros", "conv_init": "identity"}),
        (LoRA, {"head_init": "default"}),
    ],
)
def test_a_start_of_zeros_changes_nothing(cls: type[Method], options: dict[str, Any]) -> None:
    model = of(cls, **options)
    torch.testing.assert_close(model(pictures()).logits, plain(model)(pictures()).logits)


def test_a_start_of_zeros_gives_the_first_gradient_to_the_up_projection_alone() -> None:
    model = of(Adapters, kind="convpass", up_init="zeros", conv_init="identity")
    model(pictures()).logits.square().sum().backward()
    for name, parameter in model.adapters.named_parameters():
        assert bool(parameter.grad.any()) == (".up." in name), name


@pytest.mark.parametrize(
    ("options", "count"), [({}, 13_064), ({"kind": "convpass"}, 13_648)], ids=["adapter", "convpass"]
)
def test_one_adapter_has_the_published_size(options: dict[str, Any], count: int) -> None:
    form = AdapterOptions(**options)
    one = (
        Adapter(768, form, nn.Identity())
        if not options
        else ConvPass(768, form, nn.Identity(), (14, 14), num_prefix=1)
    )
    assert parameter_count(one) == count


@pytest.mark.parametrize(
    ("variant", "fixture", "added"),
    [
        ("adapter_vit_b16", "petl_adapter_a", 313_536),
        ("convpass_vit_b16", "petl_convpass_a", 327_552),
        ("lora_vit_b16", None, 12 * 2 * 2 * 8 * 768),
    ],
)
def test_variants_train_as_many_parameters_as_their_code_counts(
    variant: str, fixture: str | None, added: int, shared: Path
) -> None:
    with torch.device("meta"):
        model = build_variant(SHIPPED, variant, 224, 200, with_weights=False)
    assert parameter_count(model, trainable_only=True) == added + 768 + 769 * 200
    if fixture is not None:
        facts = json.loads((shared / "golden" / f"{fixture}.json").read_text())
        assert facts["vit_b16_224_k200"]["trainable_count"] == added + 768 + 769 * 200
        assert facts["vit_b16_224_k200"]["total_count"] == parameter_count(model)


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (Adapters, {}),
        (Adapters, {"kind": "convpass", "where": ["attn"], "bottleneck": 5, "kernel": 5}),
        (Adapters, {"kind": "convpass", "path": "pfeiffer"}),
        (LoRA, {"targets": ["q", "k", "v"], "rank": 3}),
    ],
)
def test_the_formula_is_what_is_counted(cls: type[Method], options: dict[str, Any]) -> None:
    model = of(cls, **options)
    assert model.closed_form_macs() == count_dispatch(model, 64).macs


# --- adapters -------------------------------------------------------------------------------------


def test_a_prefix_token_sees_the_kernel_s_centre_and_a_patch_its_neighbours() -> None:
    """Five prefix tokens, a grid that is not square, a bottleneck other than 8: image by image."""
    torch.manual_seed(0)
    form = AdapterOptions(kind="convpass", bottleneck=3, kernel=5, scale=0.5)
    bypass = ConvPass(12, form, nn.Identity(), (4, 6), num_prefix=5)
    nn.init.normal_(bypass.conv.bias)
    tokens = torch.randn(2, 5 + 24, 12)
    u = gelu(bypass.down(tokens))
    mixed = []
    for b in range(2):
        single = [
            conv2d(u[b, i].view(3, 1, 1), bypass.conv.weight, bypass.conv.bias, padding=2).view(3)
            for i in range(5)
        ]
        image = torch.stack([u[b, 5 + i] for i in range(24)], dim=1).view(3, 4, 6)
        seen = conv2d(image, bypass.conv.weight, bypass.conv.bias, padding=2).view(3, 24)
        mixed.append(torch.cat([torch.stack(single), seen.t()]))
    expected = 0.5 * bypass.up(gelu(torch.stack(mixed)))
    torch.testing.assert_close(bypass(tokens), expected)


def test_pfeiffer_s_adapter_reads_the_block_s_output() -> None:
    model = of(Adapters, path="pfeiffer", where=["attn"])
    block, adapters = model.backbone.blocks[0], model.adapters[0]
    x = torch.randn(2, 17, model.backbone.width)
    out = block(x)
    torch.testing.assert_close(adapters(block, x), out + adapters.after.up(gelu(adapters.after.down(out))))
    assert adapters.attn is None and adapters.mlp is None


def test_where_says_which_branches_have_one() -> None:
    for where in (["attn"], ["mlp"], ["attn", "mlp"]):
        model = of(Adapters, where=where)
        found = {name.split(".")[2] for name, _ in model.named_parameters() if name.startswith("adapters.")}
        assert found == set(where)


def test_adapters_drop_like_the_branches_beside_them() -> None:
    """At the block's rate of stochastic depth, which may grow, with a draw of their own; and dropout."""
    rates = {"stochastic_depth": 0.3, "stochastic_depth_decay": "linear", "dropout": 0.1}
    model = of(Adapters, rates)
    drops = [list(a.attn.drop) for a in model.adapters]
    assert [pytest.approx(0.3 * i / 3) for i in range(4)] == [
        next((m.drop_prob for m in d if hasattr(m, "drop_prob")), 0.0) for d in drops
    ]
    assert all(d[0].p == 0.1 for d in drops)
    bypass = of(Adapters, {"stochastic_depth": 0.5}).train().adapters[0].attn
    kept = bypass(torch.ones(64, 3, 128)).abs().sum(dim=(1, 2)) > 0
    assert 10 < kept.sum() < 54


def test_frozen_blocks_do_not_drop_while_their_adapters_do() -> None:
    model = of(Adapters, {"dropout": 0.5})
    model.set_trainable(["adapters.*", "head.*"])
    model.train()
    assert model.adapters[0].attn.drop[0].training and not model.backbone.blocks[0].mlp.drop1.training


def test_inner_dropout_acts_in_training_only() -> None:
    bypass = of(Adapters, inner_dropout=0.5).adapters[0].attn
    x = torch.randn(2, 4, 128)
    assert torch.equal(bypass(x), bypass(x))
    assert not torch.equal(bypass.train()(x), bypass(x))


def test_a_checkpoint_holds_adapters_and_head_alone(tmp_path: Path) -> None:
    model, other = of(Adapters, kind="convpass"), of(Adapters, kind="convpass")
    for one in (model, other):
        one.set_trainable(["adapters.*", "head.*"])
    assert {name.split(".")[0] for name in own_names(model)} == {"adapters", "head"}
    with torch.no_grad():
        for parameter in model.adapters.parameters():
            parameter.add_(0.1)
    assert not torch.equal(model(pictures()).logits, other(pictures()).logits)
    state, path = model.state_dict(), tmp_path / "model.safetensors"
    save_checkpoint({name: state[name] for name in own_names(model)}, path, "r", "a" * 64)
    load_checkpoint(other, path, "a" * 64)
    assert torch.equal(model(pictures()).logits, other(pictures()).logits)


@pytest.mark.parametrize(
    "options",
    [
        {"bottleneck": 0},
        {"kernel": 2},
        {"where": []},
        {"where": ["head"]},
        {"inner_dropout": 1},
        {"path": "x"},
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(FgvcError, match="not possible"):
        create_model("adapter", backbone=PICO, num_classes=5, image_size=64, **options)


@pytest.mark.parametrize("cls", [Adapters, LoRA])
def test_a_backbone_with_other_blocks_is_refused(cls: type[Method]) -> None:
    spec = ModelSpec("vit_base_patch16_rpn_224", 5, 64, shape={"embed_dim": 32, "depth": 1, "num_heads": 2})
    with pytest.raises(FgvcError, match="take no modules beside their branches"):
        cls(spec, cls.Options())


# --- LoRA -----------------------------------------------------------------------------------------


def moved(**options: Any) -> LoRA:
    """With updates that are not zero."""
    model = of(LoRA, head_init="default", **options)
    assert isinstance(model, LoRA)
    for update in model.lora:
        nn.init.normal_(update.up, std=0.2)
    return model


def test_queries_and_values_are_updated_and_keys_are_not() -> None:
    model = moved(rank=3, alpha=6.0)
    update, joint = model.lora[0], model.backbone.blocks[0].attn.qkv
    x = torch.randn(2, 5, 128)
    q, k, v = nn.functional.linear(x, joint.weight, joint.bias).chunk(3, dim=-1)
    q = q + 6 / 3 * (x @ update.down[:3].t() @ update.up[0].t())
    v = v + 6 / 3 * (x @ update.down[3:].t() @ update.up[1].t())
    torch.testing.assert_close(joint(x), torch.cat([q, k, v], dim=-1))


@pytest.mark.parametrize("targets", [["q", "v"], ["v", "k"], ["q", "k", "v"]])
def test_the_merged_model_is_a_plain_vit_that_computes_the_same(targets: list[str]) -> None:
    model = moved(targets=targets)
    before = model(pictures()).logits
    merged = model.merged()
    assert set(merged.state_dict()) == set(plain(model).state_dict())
    torch.testing.assert_close(merged(pictures()).logits, before)
    torch.testing.assert_close(model(pictures()).logits, before, rtol=0, atol=0)
    assert not torch.allclose(plain(model)(pictures()).logits, before, atol=1e-3)


def test_a_copy_of_the_model_has_updates_of_its_own() -> None:
    """The hooks on the projections belong to the copy, too."""
    model = moved()
    before, twin = model(pictures()).logits, copy.deepcopy(model)
    for update in twin.lora:
        nn.init.zeros_(update.up)
    assert torch.equal(model(pictures()).logits, before)
    torch.testing.assert_close(twin(pictures()).logits, plain(model)(pictures()).logits)


@pytest.mark.parametrize(
    "options", [{"rank": 0}, {"targets": []}, {"targets": ["q", "q"]}, {"targets": ["o"]}]
)
def test_updates_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        LoRAOptions(**options)


# --- checkpoints ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("golden", "change", "said"),
    [
        ("petl_adapter_a", {"adapter_path": "pfeiffer"}, "adapter_path='pfeiffer'"),
        ("petl_adapter_a", {"adapter_path": "ours"}, "not accounted for"),
        ("petl_adapter_a", {"selector": "psm"}, "selector='psm'"),
        ("petl_adapter_a", {"classifier": "pool"}, "classifier='pool'"),
        ("petl_adapter_a", {"adapter": "convpass"}, "lacks"),
        ("convpass_a", {"s": None}, "scale"),
        ("convpass_a", {"method": "convpass_attn"}, "do not fit"),
    ],
    indirect=["golden"],
)
def test_a_checkpoint_of_something_else_is_refused(golden: Golden, change: dict[str, Any], said: str) -> None:
    facts = golden.facts
    with pytest.raises(FgvcError, match=said):
        from_upstream(facts["method"], golden.part("state."), {**facts["config"], **change})
