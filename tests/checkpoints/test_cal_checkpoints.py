"""CAL's checkpoints: names, geometry, and tensors that are missing or too many.

What a model computes is compared with upstream's outputs in tests/methods/test_golden_cal.py.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fgvc import create_model
from fgvc.checkpoints import from_upstream
from fgvc.errors import FgvcError
from fgvc.methods.cal import CAL

PLACES = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}


@pytest.fixture(scope="module")
def ours() -> CAL:
    torch.manual_seed(0)
    model = create_model("cal", backbone="resnet34", num_classes=5, image_size=64, num_attentions=2)
    assert isinstance(model, CAL)
    return model.eval()


@pytest.fixture
def state(ours: CAL) -> dict[str, Tensor]:
    """A checkpoint under upstream's names: torchvision's modules by their places in a sequence."""
    theirs = {}
    for name, tensor in ours.state_dict().items():
        if name.startswith("backbone.cnn."):
            module, _, rest = name.removeprefix("backbone.cnn.").partition(".")
            theirs[f"features.{PLACES[module]}.{rest}"] = tensor
        elif not name.startswith("centers."):
            theirs[name] = tensor
    return theirs


@pytest.mark.parametrize("prefix", ["", "module.", "net.", "model.net."])
def test_a_checkpoint_is_read_whoever_wrapped_it(ours: CAL, state: dict[str, Tensor], prefix: str) -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    model = from_upstream("cal", {f"{prefix}{name}": tensor for name, tensor in state.items()}, {})
    assert isinstance(model, CAL)
    assert model.spec.backbone == "resnet34" and model.options.eval_mode == "multi8"
    assert model.centers is not None and not model.centers.center.any()
    with torch.inference_mode():
        assert torch.equal(model(images).logits, ours(images).logits)


def test_the_centres_are_read_where_there_are_any(state: dict[str, Tensor]) -> None:
    centers = torch.randn(5, 2 * 512)
    model = from_upstream("cal", {**state, "feature_center": centers}, {"beta": 0.1, "eval_mode": "none1"})
    assert isinstance(model, CAL) and model.centers is not None
    assert torch.equal(model.centers.center, centers) and model.centers.rate == 0.1
    assert model.forward_passes() == 1


@pytest.mark.parametrize(
    ("missing", "more", "config", "said"),
    [
        ("attentions.conv.weight", {}, {}, "no tensor 'attentions.conv.weight'"),
        ("attentions.bn.running_var", {}, {}, "attentions.bn.running_var"),
        ("features.5.1.bn2.bias", {}, {}, "layer2.1.bn2.bias"),
        ("", {"features.8.weight": (2, 2)}, {}, "8.weight"),
        ("", {"head.weight": (2, 2), "head.bias": (2,)}, {}, "not accounted for: head.bias, head.weight"),
        ("", {"fc.weight": (5, 1000)}, {}, "the classifier reads 1000 features"),
        ("", {"features.6.6.conv1.weight": (1,)}, {}, "supported: resnet34, resnet50, resnet101"),
        ("", {}, {"M": 32}, "M=32"),
        ("", {}, {"num_classes": 200}, "num_classes=200"),
        ("", {}, {"net": "resnet50"}, "net='resnet50'"),
        ("", {}, {"net": "resnet_tiny8"}, "no tensor 'features.2.0.conv.weight'"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_it(
    state: dict[str, Tensor],
    missing: str,
    more: dict[str, tuple[int, ...]],
    config: dict[str, object],
    said: str,
) -> None:
    given = {name: tensor for name, tensor in state.items() if name != missing}
    given |= {name: torch.zeros(shape) for name, shape in more.items()}
    with pytest.raises(FgvcError) as caught:
        from_upstream("cal", given, config)
    assert said in str(caught.value)


def test_the_names_of_the_later_code_base_are_not_guessed(state: dict[str, Tensor]) -> None:
    """How the encoders of FGIR-Backbones name their tensors is not known."""
    later = {
        f"model.{'encoder' if name.startswith('features') else 'dfsm'}.{name}": tensor
        for name, tensor in state.items()
    }
    with pytest.raises(FgvcError, match=r"no tensor 'attentions\.conv\.weight'"):
        from_upstream("cal", later, {})
