"""Weights under their authors' names: DINOv2, Swin, torchvision's EfficientNet; timm's own readers agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fgvc.backbones.convert import check_names, dinov2_to_timm, rename_in_order, swin_to_timm
from fgvc.backbones.features import FeatureBackbone
from fgvc.backbones.fetch_weights import fetch_weights
from fgvc.backbones.timm_models import build_timm
from fgvc.backbones.tokens import TokenBackbone
from fgvc.backbones.weights import CLASSIFIERS, expected_tensors, load_into
from fgvc.config.project import Project
from fgvc.errors import FgvcError

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def timm_models() -> Any:
    """timm's model files; not imported above, as ours must see to torchvision's operators first."""
    from timm.models import swin_transformer, vision_transformer

    return SimpleNamespace(swin=swin_transformer, vit=vision_transformer)


@pytest.fixture(scope="module")
def torchvision_models() -> Any:
    from torchvision import models

    return models


def random_like(shapes: dict[str, torch.Size]) -> State:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def shapes_of(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def equal(found: State, expected: State) -> bool:
    return set(found) == set(expected) and all(torch.equal(found[n], expected[n]) for n in expected)


# --- DINOv2 ---------------------------------------------------------------------------------------


def metas_names(width: int, depth: int, grid: int, registers: int = 0) -> dict[str, torch.Size]:
    """Tensors of a DINOv2 ViT as Meta released it (MLP, no SwiGLU), written down from their file."""
    size = torch.Size
    names = {
        "cls_token": size([1, 1, width]),
        "pos_embed": size([1, 1 + grid * grid, width]),
        "mask_token": size([1, width]),
        "patch_embed.proj.weight": size([width, 3, 14, 14]),
        "patch_embed.proj.bias": size([width]),
        "norm.weight": size([width]),
        "norm.bias": size([width]),
    }
    if registers:
        names["register_tokens"] = size([1, registers, width])
    block = {
        "norm1.weight": [width],
        "norm1.bias": [width],
        "attn.qkv.weight": [3 * width, width],
        "attn.qkv.bias": [3 * width],
        "attn.proj.weight": [width, width],
        "attn.proj.bias": [width],
        "ls1.gamma": [width],
        "norm2.weight": [width],
        "norm2.bias": [width],
        "mlp.fc1.weight": [4 * width, width],
        "mlp.fc1.bias": [4 * width],
        "mlp.fc2.weight": [width, 4 * width],
        "mlp.fc2.bias": [width],
        "ls2.gamma": [width],
    }
    return names | {f"blocks.{i}.{name}": size(shape) for i in range(depth) for name, shape in block.items()}


@pytest.mark.parametrize(("name", "registers"), [("dinov2", 0), ("reg4_dinov2", 4)])
def test_dinov2_tensors_fit_timm_s_model_as_timm_itself_reads_them(
    timm_models: Any, name: str, registers: int
) -> None:
    model = build_timm(f"vit_small_patch14_{name}", depth=2)
    theirs = random_like(metas_names(384, 2, 37, registers))
    found = check_names(dinov2_to_timm(theirs), shapes_of(model), CLASSIFIERS)
    assert equal(found, timm_models.vit.checkpoint_filter_fn(dict(theirs), model))


def test_registers_and_the_cls_token_see_the_same_positions() -> None:
    """What the model computes from its prefix is the sum, wherever the sum is kept."""
    theirs = random_like(metas_names(384, 1, 37, registers=4))
    ours = dinov2_to_timm(theirs)
    assert torch.equal(ours["cls_token"], theirs["cls_token"] + theirs["pos_embed"][:, :1])
    assert torch.equal(ours["pos_embed"], theirs["pos_embed"][:, 1:])
    assert torch.equal(ours["reg_token"], theirs["register_tokens"])


@pytest.mark.parametrize("shape", [(1, 1370, 768), (1370, 384), (2, 1370, 384)])
def test_positions_of_another_model_are_refused(shape: tuple[int, ...]) -> None:
    theirs = random_like(metas_names(384, 12, 37)) | {"pos_embed": torch.zeros(shape)}
    with pytest.raises(FgvcError, match="wrong shape: pos_embed is"):
        check_names(dinov2_to_timm(theirs), expected_tensors("vit_small_patch14_dinov2"), CLASSIFIERS)


def test_a_missing_layer_scale_is_noticed() -> None:
    theirs = random_like(metas_names(384, 12, 37))
    del theirs["blocks.7.ls2.gamma"]
    with pytest.raises(FgvcError, match=r"missing: blocks\.7\.ls2\.gamma"):
        check_names(dinov2_to_timm(theirs), expected_tensors("vit_small_patch14_dinov2"), CLASSIFIERS)


# --- Swin -----------------------------------------------------------------------------------------

SMALL: dict[str, Any] = {"embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}


def swins_names(model: torch.nn.Module) -> State:
    """timm's tensors as Swin's authors keep them: a stage ends with its down-sampling; tables besides."""
    theirs: State = {}
    for name, tensor in random_like(shapes_of(model)).items():
        parts = name.split(".")
        if "downsample" in parts:
            parts[1] = str(int(parts[1]) - 1)
        theirs[".".join(parts)] = tensor
    for stage in range(4):
        for block in range(2):
            inner = f"layers.{stage}.blocks.{block}."
            theirs[inner + "attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
            if block == 1 and stage < 3:
                theirs[inner + "attn_mask"] = torch.zeros(1, 49, 49)
    return theirs | {"head.weight": torch.zeros(9, 128), "head.bias": torch.zeros(9)}


def test_swin_s_stages_are_shifted_as_timm_itself_does(timm_models: Any) -> None:
    model = build_timm("swin_tiny_patch4_window7_224", **SMALL)
    theirs = swins_names(model)
    assert "layers.0.downsample.reduction.weight" in theirs
    found = check_names(swin_to_timm(theirs), shapes_of(model), CLASSIFIERS)
    expected = timm_models.swin.checkpoint_filter_fn(dict(theirs), model)
    assert equal(found, {n: t for n, t in expected.items() if not n.startswith("head.")})


def test_an_unshifted_swin_does_not_fit() -> None:
    model = build_timm("swin_tiny_patch4_window7_224", **SMALL)
    theirs = {n: t for n, t in swins_names(model).items() if "relative_position_index" not in n}
    with pytest.raises(FgvcError, match=r"missing: layers\.3\.downsample"):
        check_names(theirs, shapes_of(model), CLASSIFIERS)


# --- torchvision's EfficientNet ------------------------------------------------------------------


def test_torchvision_s_efficientnet_b7_has_timm_s_tensors_in_timm_s_order(torchvision_models: Any) -> None:
    with torch.device("meta"):
        theirs = torchvision_models.efficientnet_b7().state_dict()
    assert rename_in_order(theirs, expected_tensors("efficientnet_b7"))


def test_an_efficientnet_renamed_in_order_computes_the_same(torchvision_models: Any) -> None:
    """Shapes alone could hide two tensors that changed places; B0, as B7 is large."""
    torch.manual_seed(0)
    theirs = torchvision_models.efficientnet_b0(num_classes=1).eval()
    ours = build_timm("efficientnet_b0").eval()
    ours.load_state_dict(rename_in_order(theirs.state_dict(), shapes_of(ours)))
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        found, expected = ours.forward_features(images), theirs.features(images)  # type: ignore[operator]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


# --- from the file to the backbone ------------------------------------------------------------------


@pytest.fixture
def make(project_factory: Callable[..., Project], tmp_path: Path) -> Callable[..., Project]:
    def one(architecture: str, format_: str, state: State) -> Project:
        file = tmp_path / "mirror/weights/w.pth"
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"model": state} if format_ == "swin" else state, file)
        facts = {
            "title": "T",
            "architecture": architecture,
            "source": {"kind": "url", "url": "http://127.0.0.1:9/w.pth", "file": "w.pth"},
            "format": format_,
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "pretraining": ["nothing"],
            "licence": "none",
            "citation": "none",
            "unverified": ["no digest"],
        }
        project = project_factory(files={"params/weights/w.yaml": facts})
        fetch_weights(project, "w", tmp_path / "mirror")
        return project

    return one


def test_a_dinov2_file_reaches_a_token_backbone_of_another_size(make: Callable[..., Project]) -> None:
    theirs = random_like(metas_names(384, 12, 37))
    project = make("vit_small_patch14_dinov2", "dinov2", theirs)
    backbone = TokenBackbone("vit_small_patch14_dinov2.lvd142m", 56)
    load_into(backbone, project, "w")
    assert torch.equal(backbone.vit.blocks[11].ls2.gamma, theirs["blocks.11.ls2.gamma"])
    assert backbone.vit.pos_embed.shape == (1, 1 + 16, 384)
    assert torch.equal(backbone.vit.pos_embed[:, :1], theirs["pos_embed"][:, :1])


def test_a_swin_file_reaches_a_feature_backbone(make: Callable[..., Project]) -> None:
    name = "swin_tiny_patch4_window7_224"
    theirs = {n: t for n, t in swins_names(build_timm(name)).items() if not n.startswith("head.")}
    project = make(name, "swin", theirs)
    backbone = FeatureBackbone(name)
    load_into(backbone, project, "w")
    assert torch.equal(
        backbone.cnn.state_dict()["layers.1.downsample.reduction.weight"],
        theirs["layers.0.downsample.reduction.weight"],
    )


SHIPPED = Project(Path(__file__).resolve().parents[2])


@pytest.mark.parametrize("name", SHIPPED.names("weights"))
def test_every_shipped_architecture_is_one_that_timm_builds(name: str) -> None:
    assert expected_tensors(SHIPPED.weights(name).architecture)
