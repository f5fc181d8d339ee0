"""PIM checkpoints on networks that timm knows; the plug-in's own names are held by the golden fixtures."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

from fgvc import create_model
from fgvc.backbones.convert import rename_in_order
from fgvc.backbones.levels import LevelBackbone
from fgvc.checkpoints import from_upstream
from fgvc.errors import FgvcError
from fgvc.methods import ModelSpec
from fgvc.methods.pim import PIM, PIMOptions

SMALL_SWIN = {
    "embed_dim": 16,
    "depths": (2, 1, 2, 1),
    "num_heads": (1, 2, 2, 4),
    "window_size": 4,
    "patch_size": 4,
}
COMBINER = {
    "pool": "param_pool0",
    "convolution": "conv1",
    "query": "conv_q1",
    "key": "conv_k1",
    "readout": "param_pool1",
    "norm": "batch_norm1",
    "adjacency": "adj1",
    "alpha": "alpha1",
}
PARTS = {"hidden": "0", "norm": "1", "out": "3"}


def upstream_names(model: PIM, backbone_name: Callable[[str], str]) -> dict[str, Tensor]:
    """A model's tensors as upstream's code names and shapes them.

    Args:
        backbone_name: upstream's name of a tensor of the backbone.
    """
    state = {}
    for name, tensor in model.state_dict().items():
        first, *rest = name.split(".")
        as_convolution = tensor.ndim == 2
        if first == "backbone":
            state[f"backbone.{backbone_name('.'.join(rest[1:]))}"] = tensor
        elif first == "pyramid":
            kind, place = ("Proj", 1) if rest[0] == "projections" else ("Up", 2)
            state[".".join([f"fpn.{kind}_layer{int(rest[1]) + place}", *rest[2:]])] = tensor
        elif first == "classifiers":
            theirs = f"fpn_classifier_layer{int(rest[0]) + 1}.{PARTS[rest[1]]}.{rest[2]}"
            state[theirs] = tensor.unsqueeze(-1) if as_convolution else tensor
        else:
            as_convolution &= rest[0] in ("convolution", "query", "key")
            tensor = tensor.unsqueeze(-1) if as_convolution else tensor
            theirs = ".".join(["combiner", COMBINER.get(rest[0], rest[0]), *rest[1:]])
            state[theirs] = tensor.squeeze(-1) if rest == ["pool", "weight"] else tensor
    return state


def moved(model: nn.Module) -> PIM:
    assert isinstance(model, PIM)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def same_prediction(model: PIM, state: dict[str, Tensor], config: dict[str, object]) -> None:
    """The loaded model predicts the same to the bit; and each of its heads depends on the picture."""
    loaded = from_upstream("pim", state, config)
    images = torch.randn(2, 3, model.spec.image_size, model.spec.image_size)
    with torch.inference_mode():
        expected, found = model(images), loaded(images)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=0)
    for name, logits in expected.aux_logits.items():
        torch.testing.assert_close(found.aux_logits[name], logits, rtol=0, atol=0)
        assert (logits[0] - logits[1]).abs().max() > 1e-4, name


def test_on_a_resnet() -> None:
    torch.manual_seed(0)
    selects = [32, 16, 8, 4]
    model = moved(
        create_model(
            "pim", backbone="resnet50", num_classes=4, image_size=96, fpn_size=16, num_selects=selects
        )
    )
    state = upstream_names(model, str)
    same_prediction(model, state, {"image_size": 96, "num_selects": selects})
    with pytest.raises(FgvcError, match="num_selects are 128 locations, the combiner reads 60"):
        from_upstream("pim", state, {"image_size": 96})
    with pytest.raises(FgvcError, match="model_name='densenet'"):
        from_upstream("pim", state, {"image_size": 96, "num_selects": selects, "model_name": "densenet"})


def merged_at_the_end(name: str) -> str:
    """timm 0.4.12's name: patches merge at the end of the stage before."""
    parts = name.split(".")
    if parts[0] == "layers" and parts[2] == "downsample":
        parts[1] = str(int(parts[1]) - 1)
    return ".".join(parts)


def test_on_a_swin_whose_patches_merge_at_the_end_of_a_stage() -> None:
    """With tables of windows, a norm and a head, which are of no use."""
    torch.manual_seed(0)
    options = PIMOptions(fpn_size=16, num_selects=(24, 20, 10, 6))
    model = moved(PIM(ModelSpec("swin_large_patch4_window12_384", 4, 128, shape=SMALL_SWIN), options))
    state = upstream_names(model, merged_at_the_end)
    merging = {name.split(".")[2] for name in state if ".downsample." in name}
    assert merging == {"0", "1", "2"}
    state["backbone.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16)
    state["backbone.layers.0.blocks.1.attn_mask"] = torch.zeros(4, 16, 16)
    state |= {"backbone.norm.weight": torch.ones(128), "backbone.head.weight": torch.ones(3, 128)}
    by_level = {f"layer{place + 1}": number for place, number in enumerate(model.counts)}
    same_prediction(model, state, {"data_size": 128, "num_selects": by_level})
    shifted = upstream_names(model, str)
    with pytest.raises(FgvcError, match=r"Unexpected key.*layers\.4\.downsample"):
        from_upstream("pim", shifted, {"data_size": 128, "num_selects": by_level})


def test_on_a_vit_whose_queries_have_no_bias() -> None:
    """As those of ImageNet-21K-P; its final norm, of no use, may be there or not."""
    torch.manual_seed(0)
    shape = {"embed_dim": 32, "depth": 5, "num_heads": 2, "patch_size": 16, "qkv_bias": False}
    spec = ModelSpec("vit_base_patch16_224", 4, 96, shape=shape)
    model = moved(PIM(spec, PIMOptions(fpn_size=16)))
    assert not any(key.endswith("qkv.bias") for key in model.state_dict())
    state = upstream_names(model, str)
    config = {"image_size": 96, "num_heads": 2}
    same_prediction(model, state, config)
    same_prediction(model, state | {"backbone.norm.weight": torch.ones(32)}, config)


@pytest.mark.slow
def test_on_torchvisions_efficientnet() -> None:
    """Its levels are those of torchvision's own forward pass."""
    torch.manual_seed(0)
    theirs = torchvision.models.efficientnet_b7(weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():  # statistics, without which next to nothing arrives at the end of a net drawn anew
        theirs.train()(torch.randn(4, 3, 96, 96))
    theirs.eval()
    ours = LevelBackbone("efficientnet_b7", 96, norm_eps=1e-3).eval()
    wanted = {name: tensor.shape for name, tensor in ours.cnn.state_dict().items()}
    trunk = {name: tensor for name, tensor in theirs.state_dict().items() if name < "features.8"}
    trunk = {name: tensor for name, tensor in trunk.items() if name.startswith("features.")}
    ours.cnn.load_state_dict(rename_in_order(trunk, wanted))
    features, expected = torch.randn(1, 3, 96, 96), []
    with torch.inference_mode():
        levels = ours(features)
        for stage in theirs.features[:8]:
            features = stage(features)
            expected.append(features)
    for level, reference in zip(levels, expected[4:], strict=True):
        assert reference.abs().max() > 1e-3
        torch.testing.assert_close(level, reference)

    model = create_model(
        "pim",
        backbone="efficientnet_b7",
        num_classes=4,
        image_size=96,
        fpn_size=16,
        num_selects=[16, 12, 4, 4],
        norm_eps=1e-3,
    )
    assert isinstance(model, PIM)
    model.eval().backbone.load_state_dict(ours.state_dict())
    names = dict(zip(wanted, trunk, strict=True))
    state = upstream_names(model, names.__getitem__)
    last = theirs.features[8].state_dict()
    state |= {f"backbone.features.8.{name}": tensor for name, tensor in last.items()}
    same_prediction(model, state, {"image_size": 96, "num_selects": [16, 12, 4, 4]})


def test_on_a_network_that_nobody_knows() -> None:
    with pytest.raises(FgvcError, match="lacks"):
        from_upstream("pim", {"backbone.stem.weight": torch.ones(1)}, {})
