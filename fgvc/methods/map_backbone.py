"""Backbones that give feature maps: CNNs, and plain ViTs whose patch tokens are put in their places."""

from __future__ import annotations

from torch import Tensor, nn

from fgvc.backbones.closed_form import encoder_macs, is_plain, layer_sum
from fgvc.backbones.features import FeatureBackbone
from fgvc.backbones.strides import RESNET_STRIDE, set_output_stride
from fgvc.backbones.tokens import TokenBackbone, is_vit
from fgvc.errors import FgvcError
from fgvc.methods.base import ModelSpec
from fgvc.methods.heads import token_backbone


def map_backbone(
    spec: ModelSpec,
    output_stride: int | None,
    *,
    cls_token: bool = True,
    norm_eps: float | None = None,
) -> nn.Module:
    """The network that a spec asks for, a `TokenBackbone` or a `FeatureBackbone`.

    Args:
        output_stride: see `set_output_stride`, also for errors.
        cls_token: False: a ViT has patches alone (see `TokenBackbone`, ``with_cls``).
        norm_eps: of a ViT's norms; None: its own.

    Raises FgvcError when something is asked of a CNN that only a ViT has.
    """
    if is_vit(spec.backbone):
        vit = token_backbone(spec, norm_eps=norm_eps, with_cls=cls_token)
        set_output_stride(vit.vit, spec.backbone, output_stride)
        return vit
    for option, given in (("cls_token", not cls_token), ("norm_eps", norm_eps is not None)):
        if given:
            raise FgvcError(
                f"{option} is of ViTs alone, and '{spec.backbone}' is a CNN",
                key=f"options.{option}",
                cure="leave it out, or use a ViT",
            )
    cnn = FeatureBackbone(spec.backbone, stochastic_depth=spec.stochastic_depth)
    set_output_stride(cnn.cnn, spec.backbone, output_stride)
    return cnn


def check_output_stride(stride: int | None) -> None:
    """Raise ValueError for a stride that no network here can have (for use in ``__post_init__``)."""
    if stride not in (None, RESNET_STRIDE // 2, RESNET_STRIDE):
        raise ValueError(f"output_stride={stride}; possible: 16, 32 (ResNets), null")


def feature_maps(backbone: nn.Module, images: Tensor, name: str) -> Tensor:
    """The last feature map [B, C, h, w] with C = ``backbone.width``; of a ViT, its patches without CLS.

    Args:
        name: the backbone's, for the error.

    Raises FgvcError when the network has no feature maps of this form.
    """
    features: Tensor = backbone(images)
    if isinstance(backbone, TokenBackbone):
        patches = backbone.patch_norm(backbone.patches(features))
        features = patches.transpose(1, 2).unflatten(2, backbone.grid)
    if features.ndim != 4 or features.shape[1] != backbone.width:
        raise FgvcError(
            f"'{name}' gives {list(features.shape)}, no maps [B, {backbone.width}, h, w]",
            cure="use a convolutional network or a plain ViT",
        )
    return features


def map_macs(backbone: nn.Module, image_size: int) -> tuple[int | None, int]:
    """MACs of one image's pass, where there is a formula (else None), and cells h·w of its feature map."""
    if isinstance(backbone, TokenBackbone):
        height, width = backbone.grid
        return (encoder_macs(backbone) if is_plain(backbone) else None), height * width
    layers = layer_sum(backbone, image_size)
    return (None, 0) if layers is None else (layers.macs, layers.cells)
