"""Foreign checkpoints: every tensor accounted for, settings that count, pickles that cannot run.

What the models compute is compared with upstream's outputs in tests/methods/test_golden_glsim.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fgvc
from fgvc.backbones.timm_models import build_timm, encoder_block
from fgvc.checkpoints import from_upstream, read_upstream, upstream_methods
from fgvc.checkpoints.registry import upstream
from fgvc.errors import FgvcError
from fgvc.methods.glsim import GLSim
from fgvc.methods.vit import ViT

D, HIDDEN, K = 64, 128, 5
SHAPE = {
    "hidden_size": D,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "image_size": 64,
    "dynamic_top": 4,
}


def upstream_block(prefix: str, hidden: int) -> dict[str, Tensor]:
    layers = {f"attn.proj_{part}": (D, D) for part in "qkv"}
    layers |= {"proj": (D, D), "pwff.fc1": (hidden, D), "pwff.fc2": (D, hidden)}
    state = {}
    for name, shape in layers.items():
        state |= {
            f"{prefix}{name}.weight": 0.1 * torch.randn(shape),
            f"{prefix}{name}.bias": torch.randn(shape[0]),
        }
    for name in ("norm1", "norm2"):
        state |= {f"{prefix}{name}.weight": torch.ones(D), f"{prefix}{name}.bias": torch.zeros(D)}
    return state


def upstream_state(*, crops: bool = True) -> dict[str, Tensor]:
    """A checkpoint under the names of arkel23/GLSim: 64 pixels, patches of 16, two blocks."""
    torch.manual_seed(0)
    state = {
        "class_token": torch.randn(1, 1, D),
        "positional_embedding.pos_embedding": torch.randn(1, 17, D),
        "patch_embedding.weight": 0.1 * torch.randn(D, 3, 16, 16),
        "patch_embedding.bias": torch.randn(D),
        "encoder_norm.weight": torch.ones(D),
        "encoder_norm.bias": torch.zeros(D),
        "head.weight": torch.randn(K, D),
        "head.bias": torch.randn(K),
    }
    for i in range(2):
        state |= upstream_block(f"encoder.blocks.{i}.", HIDDEN)
    if crops:
        state |= upstream_block("aggregator.blocks.0.", 4 * D)
        state |= {"aggregator_norm.weight": torch.ones(D), "aggregator_norm.bias": torch.zeros(D)}
        state["anchor_class_token"] = torch.randn(1, 1, D)
    return state


def glsim_of(*args: Any) -> GLSim:
    model = from_upstream(*args)
    assert isinstance(model, GLSim)
    return model


IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


# --- every tensor ---------------------------------------------------------------------------------


def test_a_tensor_too_many_is_listed() -> None:
    state = {**upstream_state(), "adapter.weight": torch.zeros(1), "adapter.bias": torch.zeros(1)}
    with pytest.raises(FgvcError, match=r"2 tensors .* not accounted for: adapter.bias, adapter.weight"):
        from_upstream("glsim", state, SHAPE)


@pytest.mark.parametrize("name", ["encoder_norm.bias", "head.weight", "aggregator.blocks.0.pwff.fc2.bias"])
def test_a_missing_tensor_is_named(name: str) -> None:
    state = upstream_state()
    del state[name]
    with pytest.raises(FgvcError, match=f"lacks {name}"):
        from_upstream("glsim", state, SHAPE)


def test_a_misshapen_tensor_is_named() -> None:
    state = {**upstream_state(), "aggregator_norm.bias": torch.zeros(D + 1)}
    with pytest.raises(FgvcError, match=r"aggregator.norm.bias.*\[65\]"):
        from_upstream("glsim", state, SHAPE)


def test_the_prefixes_of_wrappers_do_not_matter() -> None:
    state = upstream_state()
    wrapped = {f"module.model.{name}": tensor for name, tensor in state.items()}
    plain, other = glsim_of("glsim", state, SHAPE), glsim_of("glsim", wrapped, SHAPE)
    assert torch.equal(plain(IMAGES).logits, other(IMAGES).logits)


def test_the_state_is_not_changed_and_comes_back_in_evaluation_mode() -> None:
    state = upstream_state()
    names = list(state)
    model = fgvc.checkpoints.from_upstream("glsim", state, SHAPE)
    assert list(state) == names and not model.training


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 128}, "the config says hidden_size=128, the shapes of the tensors say 64"),
        ({"image_size": 96}, "image_size=96"),
        ({"num_hidden_layers": 3}, "num_hidden_layers=3"),
        ({"num_classes": 6}, "num_classes=6"),
        ({"reducer": "concat"}, "reducer='concat' are not supported"),
        ({"_resolved": {"num_anchors": 2}}, "num_anchors=2 are not supported"),
        ({"aggregator_norm": False}, "aggregator_norm=False are not supported"),
        ({"encoder_norm": False}, "encoder_norm=False are not supported"),
    ],
)
def test_settings_that_contradict_or_are_not_supported(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(FgvcError, match=message):
        from_upstream("glsim", upstream_state(), {**SHAPE, **settings})


def test_what_a_config_does_not_say_is_the_default_of_the_code() -> None:
    """Of a real file's config only arguments are known; shapes tell the geometry, D/64 the heads."""
    model = glsim_of("glsim", upstream_state(), {"dynamic_top": 4, "model_name": "vit_b16", "lr": 0.01})
    assert (model.options.metric, model.options.crop_end, model.options.crop_cls) == (
        "cos",
        "upstream",
        "shared",
    )
    assert model.options.norm_eps == 1e-12 and model.options.top_k == 4
    assert model.backbone.heads == 1 and model.spec.dropout == 0.1 and model.spec.stochastic_depth == 0
    dropped = glsim_of("glsim", upstream_state(), {**SHAPE, "sd": 0.1})
    assert (dropped.spec.stochastic_depth, dropped.spec.dropout) == (0.1, 0.0)


def test_an_own_key_goes_before_a_resolved_one() -> None:
    model = glsim_of(
        "glsim", upstream_state(), {**SHAPE, "_resolved": {"dynamic_top": 8, "sim_metric": "l2"}}
    )
    assert (model.options.top_k, model.options.metric) == (4, "l2")


def test_without_crops_it_is_a_vit() -> None:
    state = upstream_state(crops=False)
    model = from_upstream("glsim", state, {**SHAPE, "dynamic_anchor": False, "aggregator": False})
    assert isinstance(model, ViT) and model.backbone.norm_eps == 1e-12
    assert torch.equal(model.head.weight, state["head.weight"])


def test_a_method_that_nobody_knows() -> None:
    with pytest.raises(FgvcError, match="no upstream method is called 'glsimm'; did you mean 'glsim'"):
        from_upstream("glsimm", {}, {})
    assert {"glsim", "timm_glsim", "ilarepo_glsim"} <= set(upstream_methods())
    with pytest.raises(ValueError, match="two builders"):
        upstream("glsim")(lambda _ledger, _settings: nn.Identity())


# --- the crop's CLS token (quirk Q2) --------------------------------------------------------------


def test_which_cls_token_the_crop_gets() -> None:
    """99cc474 never reads `anchor_class_token`; the later code does, unless it was never trained."""
    state = upstream_state()
    untrained = {**state, "anchor_class_token": state["class_token"].clone()}
    without = {name: tensor for name, tensor in state.items() if name != "anchor_class_token"}
    cases = [
        ("glsim", state, {}, "shared"),
        ("glsim", state, {"crop_cls": "own"}, "own"),
        ("ilarepo_glsim", state, {}, "own"),
        ("ilarepo_glsim", untrained, {}, "shared"),
        ("ilarepo_glsim", without, {}, "shared"),
    ]
    for method, tensors, settings, expected in cases:
        config = {**SHAPE, "selector_num_tokens": 4, **settings}
        model = glsim_of(method, tensors, config)
        assert model.options.crop_cls == expected and model.options.top_k == 4
        if expected == "own":
            assert torch.equal(model.crop_cls, state["anchor_class_token"])


@pytest.mark.parametrize("settings", [{"selector": "rollout"}, {"crop_mode": "mask"}])
def test_other_selectors_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(FgvcError, match="are not supported"):
        from_upstream("ilarepo_glsim", upstream_state(), {**SHAPE, **settings})


# --- the variant on timm models -------------------------------------------------------------------


def timm_state(**shape: Any) -> dict[str, Tensor]:
    """A ViT of two blocks on 64 pixels under timm's names, without last norm, and a head."""
    torch.manual_seed(0)
    vit = build_timm(
        "vit_base_patch16_224", img_size=64, embed_dim=D, depth=2, num_heads=2, mlp_ratio=2, **shape
    )
    state = {
        name: torch.randn_like(t) for name, t in vit.state_dict().items() if not name.startswith("norm.")
    }
    return {**state, "head.weight": torch.randn(K, D), "head.bias": torch.randn(K)}


CONFIG = {"hidden_size": D, "num_heads": 2, "num_layers": 2, "image_size": 64, "dynamic_top": 4}


@pytest.mark.parametrize("no_embed_class", [False, True])
def test_registers_and_layer_scale_of_a_timm_model(no_embed_class: bool) -> None:
    """The aggregator's layer scale is folded into the layers before it."""
    shape = {"reg_tokens": 2, "no_embed_class": no_embed_class, "init_values": 0.5}
    state = {**timm_state(**shape), "cls_token_crops": torch.randn(1, 1, D)}
    scaled = encoder_block(D, 2, 2.0, norm_eps=1e-6)
    gammas = {"ls1.gamma": torch.randn(D), "ls2.gamma": torch.randn(D)}
    state |= {f"aggregator.0.{n}": t for n, t in {**scaled.state_dict(), **gammas}.items()}
    state |= {"aggregator.1.weight": torch.ones(D), "aggregator.1.bias": torch.zeros(D)}
    model = glsim_of("timm_glsim", state, {**CONFIG, **shape})
    assert (model.options.tokens, model.options.crop_cls) == ("raw", "own")
    assert model.backbone.num_registers == 2 and model(IMAGES).masks["gls"].shape == (2, 16)
    rows = torch.randn(3, 2, D)
    middle = rows + gammas["ls1.gamma"] * scaled.attn(scaled.norm1(rows))
    expected = middle + gammas["ls2.gamma"] * scaled.mlp(scaled.norm2(middle))
    torch.testing.assert_close(model.aggregator.block(rows), expected, rtol=1e-4, atol=1e-5)


def test_a_sequence_around_a_convolution_is_read_in_its_order() -> None:
    layers = [
        nn.LayerNorm(D),
        nn.Conv1d(D, D, 5, groups=D),
        nn.LayerNorm(D),
        nn.Conv1d(D, D, 1),
        nn.LayerNorm(D),
    ]
    state = {**timm_state(), "cls_token_crops": torch.zeros(1, 1, D)}
    for place, layer in zip((0, 2, 4, 7, 10), layers, strict=True):
        state |= {f"aggregator.{place}.{n}": torch.randn_like(t) for n, t in layer.state_dict().items()}
    config = {**CONFIG, "select_top_k": True, "aggregator_type": "dwsc"}
    model = glsim_of("timm_glsim", state, config)
    assert model.forward_passes() == 1 and model.options.select == "tokens"
    assert torch.equal(model.aggregator.pointwise[2].weight, state["aggregator.7.weight"][:, :, 0])
    assert torch.equal(model.aggregator.norm.bias, state["aggregator.10.bias"])
    named = {name.replace("aggregator.2.", "aggregator.conv."): tensor for name, tensor in state.items()}
    with pytest.raises(FgvcError, match="the order of the aggregator's layers is unknown"):
        from_upstream("timm_glsim", named, config)
    with pytest.raises(FgvcError, match="12 tensors instead of 10"):
        extra = {"aggregator.11.weight": torch.ones(D), "aggregator.11.bias": torch.ones(D)}
        from_upstream("timm_glsim", {**state, **extra}, config)


# --- files ----------------------------------------------------------------------------------------


def test_a_training_scripts_file_is_read_with_its_arguments(tmp_path: Path) -> None:
    state = {f"model.{name}": tensor for name, tensor in upstream_state().items()}
    arguments = argparse.Namespace(dynamic_top=4, image_size=64, dataset_name="dogs", lr=0.01, cfg=None)
    path = tmp_path / "cub.pth"
    whole = {"config": arguments, "epoch": 50, "model": state, "accuracy": 91.0, "optimizer": {"state": {}}}
    torch.save(whole, path)
    file = read_upstream(path)
    assert file.config == vars(arguments) and set(file.state_dict) == set(state)
    assert glsim_of("glsim", file.state_dict, file.config).options.top_k == 4
    torch.save(upstream_state(), path)  # weights alone
    assert read_upstream(path).config == {}


class Trap:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)


def test_f11_no_foreign_checkpoint_can_run_code(tmp_path: Path) -> None:
    """A checkpoint of another code base with code in its pickle is refused, and nothing in it runs."""
    path, canary = tmp_path / "bad.pth", tmp_path / "canary"
    torch.save({"config": argparse.Namespace(hidden=Trap(canary)), "model": upstream_state()}, path)
    with pytest.raises(FgvcError, match="cannot be read safely"):
        read_upstream(path)
    assert not canary.exists()


def test_files_that_hold_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    with pytest.raises(FgvcError, match="does not exist"):
        read_upstream(path)
    for content, message in (([1, 2], "no dict"), ({"epoch": 3}, "its keys are epoch")):
        torch.save(content, path)
        with pytest.raises(FgvcError, match=message):
            read_upstream(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(FgvcError, match="cannot be read safely"):
        read_upstream(path)


def test_every_missing_tensor_is_listed() -> None:
    state = upstream_state()
    gone = ["encoder.blocks.1.attn.proj_q.weight", "encoder.blocks.0.norm2.bias", "head.weight"]
    for name in gone:
        del state[name]
    with pytest.raises(FgvcError, match="lacks") as caught:
        from_upstream("glsim", state, SHAPE)
    assert all(name in str(caught.value) for name in gone)
