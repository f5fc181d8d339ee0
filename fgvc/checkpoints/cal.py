"""CAL checkpoints of raoyongming/CAL at 0ba9d50, and of the copy in arkel23/GLSim (``model.net.features…``).

Those of FGIR-Backbones (``model.encoder…``, ``model.dfsm…``) are not read: how their encoders name their
tensors is not known to us.
"""

from __future__ import annotations

from torch import Tensor, nn

from fgvc.checkpoints.ledger import Ledger, Settings
from fgvc.checkpoints.loading import load
from fgvc.checkpoints.registry import upstream
from fgvc.checkpoints.torchvision_resnet import resnet_name, which_resnet
from fgvc.errors import FgvcError
from fgvc.methods import ModelSpec
from fgvc.methods.cal import CAL, CALOptions

#: Small networks in place of a ResNet, which upstream's computations are recorded with → their three strides.
_RECORDED = {"resnet_tiny8": (4, 2, 1), "resnet_tiny16": (4, 2, 2)}


@upstream("cal")
def cal(ledger: Ledger, settings: Settings) -> nn.Module:
    """`CAL` with upstream's test (``multi8``) unless the config has ``eval_mode``.

    The centres, which only some of its files hold (as ``feature_center``), are 0 where there are none: they
    matter to further training alone.
    """
    prefix = "net." if ledger.names("net.") else ""
    state = {name: ledger.take(f"{prefix}{name}") for name in ("attentions.conv.weight", "fc.weight")}
    for name in ledger.names(f"{prefix}attentions.bn."):
        state[name.removeprefix(prefix)] = ledger.take(name)
    num_classes, pooled_width = state["fc.weight"].shape
    maps, width = state["attentions.conv.weight"].shape[:2]
    if pooled_width != maps * width:
        raise FgvcError(
            f"the classifier reads {pooled_width} features, but {maps} maps of {width} channels "
            f"make {maps * width}"
        )
    for key, found in (("M", maps), ("C", width), ("num_classes", num_classes)):
        settings.agree(key, found)
    options = CALOptions(
        eval_mode=settings.get("eval_mode", CALOptions.eval_mode),
        num_attentions=maps,
        attention_norm_eps=settings.get("attention_bn_eps", CALOptions.attention_norm_eps),
        center_rate=settings.get("beta", CALOptions.center_rate),
    )
    image_size = settings.get("image_size", 448)
    name, backbone, trunk = _trunk(ledger, f"{prefix}features.", settings)
    model = CAL(ModelSpec(name, num_classes, image_size), options, backbone)
    assert model.centers is not None
    center = "feature_center"
    state["centers.center"] = ledger.take(center) if center in ledger else model.centers.center
    return load(model, state | trunk)


def _trunk(
    ledger: Ledger, prefix: str, settings: Settings
) -> tuple[str, RecordedNetwork | None, dict[str, Tensor]]:
    """The network's name, the network itself where timm lacks it, and its tensors by our names."""
    name, backbone, rename = settings.get("net"), None, _recorded_name
    if name in _RECORDED:
        kernels = [ledger.look(f"{prefix}{layer}.weight") for layer in ("0", "2.0.conv", "2.1.conv")]
        backbone = RecordedNetwork(kernels, _RECORDED[name])
    else:
        name = which_resnet(resnet_name(key.removeprefix(prefix)) for key in ledger.names(prefix))
        settings.require("net", name)
        rename = _timm_name
    names = ledger.names(prefix)
    return name, backbone, {rename(key.removeprefix(prefix)): ledger.take(key) for key in names}


def _timm_name(key: str) -> str:
    return f"backbone.cnn.{resnet_name(key)}"


def _recorded_name(key: str) -> str:
    return f"backbone.features.{key}"


class RecordedNetwork(nn.Module):
    """Convolution 5 × 5, ReLU, twice convolution 3 × 3, batch norm, ReLU: [B, 3, S, S] → [B, width, h, w].

    Args:
        kernels: weights of the three convolutions, for their shapes.
        strides: of the three convolutions.
    """

    def __init__(self, kernels: list[Tensor], strides: tuple[int, int, int]) -> None:
        super().__init__()
        first, *others = zip(kernels, strides, strict=True)
        blocks = [_NormedConvolution(kernel, stride) for kernel, stride in others]
        self.features = nn.Sequential(_convolution(*first, bias=True), nn.ReLU(), nn.Sequential(*blocks))
        self.width = len(kernels[-1])

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)  # type: ignore[no-any-return]


class _NormedConvolution(nn.Module):
    def __init__(self, weight: Tensor, stride: int) -> None:
        super().__init__()
        self.conv = _convolution(weight, stride, bias=False)
        self.bn = nn.BatchNorm2d(len(weight))

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.relu(self.bn(self.conv(features)))


def _convolution(weight: Tensor, stride: int, *, bias: bool) -> nn.Conv2d:
    out, channels, side, _ = weight.shape
    return nn.Conv2d(channels, out, side, stride=stride, padding=side // 2, bias=bias)
