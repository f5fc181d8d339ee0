"""Plain fine-tuning of a convolutional network: the baseline "CNN" of the tables (ResNet-101 and others).

Source: the usual recipe of the field, pooled features and a linear classifier (He et al., Deep Residual
Learning, CVPR 2016, §3.3), on any CNN that timm has.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from fgvc.backbones.closed_form import layer_sum
from fgvc.backbones.features import FeatureBackbone
from fgvc.methods.base import Method, MethodOutput, ModelSpec, register
from fgvc.methods.heads import HEAD_INITS, HeadInit, check_choice, linear_head


@dataclass(frozen=True)
class CNNOptions:
    """Options of `CNN`.

    Attributes:
        head_init: ``zeros`` or torch's ``default``.
    """

    head_init: HeadInit = "zeros"

    def __post_init__(self) -> None:
        check_choice("head_init", self.head_init, HEAD_INITS)


@register
class CNN(Method):
    """One pass, the model's own pooling, a linear head."""

    name = "cnn"
    Options = CNNOptions
    is_head_on_features = True
    backbone: FeatureBackbone

    def __init__(self, spec: ModelSpec, options: CNNOptions) -> None:
        super().__init__(spec, options)
        self.backbone = FeatureBackbone(spec.backbone, stochastic_depth=spec.stochastic_depth)
        self.dropout = nn.Dropout(spec.dropout)
        self.head = linear_head(self.backbone.pooled_width, spec.num_classes, options.head_init)

    def forward(self, images: Tensor) -> MethodOutput:
        return self.from_features(self.backbone_features(images))

    def backbone_features(self, images: Tensor) -> Tensor:
        return self.backbone.pool(self.backbone(images))

    def from_features(self, features: Tensor) -> MethodOutput:
        return MethodOutput(logits=self.head(self.dropout(features)))

    def closed_form_macs(self) -> int | None:
        layers = layer_sum(self, self.spec.image_size)
        return None if layers is None else layers.macs
