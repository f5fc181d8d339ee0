"""Finer last feature maps of a ResNet: its last stage without the stride of 2."""

from __future__ import annotations

from timm.models.resnet import ResNet
from torch import nn

from fgvc.errors import FgvcError

#: Pixels of the image a side for one of the last feature map, as ResNets are made.
RESNET_STRIDE = 32


def set_output_stride(network: nn.Module, backbone: str, stride: int | None) -> None:
    """Give a timm ResNet output stride 16 in place of 32: 28 × 28 cells at 448 pixels, with the same weights.

    The last stage (layer4) keeps its convolutions' dilation of 1 and only loses the stride, as in
    raoyongming/CAL at 0ba9d50. timm's own ``output_stride=16`` dilates that stage as well, which is another
    function of the same weights.

    Args:
        network: as timm made it.
        backbone: its name, for the error.
        stride: 16, 32 (as it is), or None: 16 for a ResNet, any other network as it is.

    Raises FgvcError when a stride is given and the network is no ResNet.
    """
    if not isinstance(network, ResNet):
        if stride is not None:
            raise FgvcError(
                f"the output stride of '{backbone}' cannot be chosen: it is no ResNet",
                key="options.output_stride",
                cure="leave output_stride out: the network's own",
            )
        return
    if stride != RESNET_STRIDE:
        _remove_stride(network.layer4)


def _remove_stride(stage: nn.Module) -> None:
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
    for block in stage.children():
        # What timm does not build where a stage has no stride: pools against aliasing and of the shortcut.
        block.aa = nn.Identity()
        shortcut = block.downsample
        if isinstance(shortcut, nn.Sequential) and not isinstance(shortcut[0], nn.Conv2d):
            shortcut[0] = nn.Identity()
