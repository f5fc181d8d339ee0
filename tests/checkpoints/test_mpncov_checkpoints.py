"""iSQRT-COV's checkpoints under the names of three code bases; parity is in test_golden_isqrt_cov.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fgvc import create_model
from fgvc.checkpoints import from_upstream
from fgvc.errors import FgvcError
from fgvc.methods.isqrt_cov import ISqrtCov

PLACES = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
#: How each names trunk, convolution and norm of the reduction, and classifier; whether modules have names.
IMAGENET = ("", "layer_reduce.", "layer_reduce_bn.", "fc.", True)
TUNED = ("features.", "features.8.", "features.9.", "classifier.", False)
POOLED = (
    "features.",
    "representation.conv_dr_block.0.",
    "representation.conv_dr_block.1.",
    "classifier.",
    False,
)
HAWKEYE = ("backbone.", "pool.conv_dr_block.0.", "pool.conv_dr_block.1.", "classifier.", False)
Names = tuple[str, str, str, str, bool]


@pytest.fixture(scope="module")
def ours() -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = create_model("isqrtcov", backbone="resnet34", num_classes=5, image_size=64, reduced=8)
    with torch.no_grad():
        for buffer in model.buffers():  # else statistics that are forgotten would not be missed
            if buffer.is_floating_point():
                buffer.add_(torch.rand_like(buffer))
    return model.state_dict()


def named(ours: dict[str, Tensor], names: Names) -> dict[str, Tensor]:
    trunk, convolution, norm, head, by_name = names
    theirs = {}
    for name, tensor in ours.items():
        if name.startswith("backbone.cnn."):
            module, _, rest = name.removeprefix("backbone.cnn.").partition(".")
            theirs[f"{trunk}{module if by_name else PLACES[module]}.{rest}"] = tensor
        else:
            for mine, other in (("pooling.reduction.0.", convolution), ("pooling.reduction.1.", norm)):
                name = name.replace(mine, other)
            theirs[name.replace("head.", head) if name.startswith("head.") else name] = tensor
    return theirs


@pytest.mark.parametrize(
    ("names", "stride", "mirror"),
    [(IMAGENET, 16, True), (TUNED, 16, True), (POOLED, 32, False), (HAWKEYE, 32, False)],
)
@pytest.mark.parametrize("wrapper", ["", "module."])
def test_a_checkpoint_is_read_whoever_named_it(
    ours: dict[str, Tensor], names: Names, stride: int, mirror: bool, wrapper: str
) -> None:
    state = {f"{wrapper}{name}": tensor for name, tensor in named(ours, names).items()}
    model = from_upstream("mpncov", state, {"image_size": 64})
    assert isinstance(model, ISqrtCov) and model.spec.backbone == "resnet34"
    assert (model.options.output_stride, model.options.mirror) == (stride, mirror)
    assert (model.options.iterations, model.options.reduced) == (5, 8)
    got = model.state_dict()
    assert got.keys() == ours.keys()
    assert all(torch.equal(got[name], tensor) for name, tensor in ours.items())


def test_the_config_may_say_otherwise(ours: dict[str, Tensor]) -> None:
    config = {"image_size": 64, "iterNum": 3, "output_stride": 16, "mirror": True, "arch": "mpncovresnet34"}
    model = from_upstream("mpncov", named(ours, HAWKEYE), config)
    assert isinstance(model, ISqrtCov)
    assert (model.options.iterations, model.options.output_stride, model.options.mirror) == (3, 16, True)


@pytest.mark.parametrize(
    ("missing", "more", "config", "said"),
    [
        ("pool.conv_dr_block.0.weight", {}, {}, "lacks pool.conv_dr_block.0.weight"),
        ("pool.conv_dr_block.1.running_var", {}, {}, "lacks pool.conv_dr_block.1.running_var"),
        ("classifier.bias", {}, {}, "lacks classifier.bias"),
        ("", {"extra.weight": (2, 2)}, {}, "not accounted for: extra.weight"),
        ("", {"classifier.weight": (5, 10)}, {}, "head.weight"),
        ("", {"backbone.6.6.conv1.weight": (1,)}, {}, "supported: resnet34, resnet50, resnet101"),
        ("", {}, {"dimension_reduction": 256}, "dimension_reduction=256"),
        ("", {}, {"num_classes": 200}, "num_classes=200"),
        ("", {}, {"arch": "mpncovresnet50"}, "arch='mpncovresnet50'"),
        ("", {}, {"is_sqrt": False}, "is_sqrt=False"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_it(
    ours: dict[str, Tensor],
    missing: str,
    more: dict[str, tuple[int, ...]],
    config: dict[str, object],
    said: str,
) -> None:
    state = named(ours, HAWKEYE) | {name: torch.zeros(shape) for name, shape in more.items()}
    state.pop(missing, None)
    with pytest.raises(FgvcError) as caught:
        from_upstream("mpncov", state, {"image_size": 64, **config})
    assert said in str(caught.value)
