"""iSQRT-COV: a linear classifier on the square root of the channels' covariance, in place of their means.

Source: Li et al., Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix Square
Root Normalization, CVPR 2018, arXiv 1712.01034; code jiangtaoxie/fast-MPN-COV at c430c78, and the recipe of
Hawkeye-FineGrained/Hawkeye at 626ad69. The parts of the computation are in `fgvc.methods.covariance`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fgvc.backbones.tokens import TokenBackbone
from fgvc.methods.base import Method, MethodOutput, ModelSpec, register
from fgvc.methods.covariance import CovariancePooling
from fgvc.methods.heads import HEAD_INITS, HeadInit, check_choice, linear_head
from fgvc.methods.map_backbone import check_output_stride, feature_maps, map_backbone, map_macs


@dataclass(frozen=True)
class ISqrtCovOptions:
    """Options of `ISqrtCov`; the defaults are those of fast-MPN-COV's networks at c430c78.

    Attributes:
        reduced: d, channels after the 1 × 1 convolution, batch norm and ReLU; None: the network's own,
            without any of the three. ILA's head on ViTs has 64.
        iterations: n, steps towards the square root; 5 in all published networks.
        output_stride: pixels of the image a side for one cell of the feature map: 16 takes the stride out of
            a ResNet's last stage (fast-MPN-COV), 32 keeps it (Hawkeye). None: 16 for a ResNet, any other
            network's own.
        mirror: a prediction is the mean of the logits of the image and of its mirror image, as fast-MPN-COV
            tests fine-tuned networks; training never mirrors here.
        cls_token: False: a ViT sees its patches alone (ILA's head); they are the feature map either way.
        norm_eps: eps of a ViT's norms; None: the backbone's. GLSim's and ILA's code bases have 1e-12.
        head_init: torch's ``default``, ``zeros``, or ``xavier`` (ILA code base).
    """

    reduced: int | None = 256
    iterations: int = 5
    output_stride: int | None = None
    mirror: bool = True
    cls_token: bool = True
    norm_eps: float | None = None
    head_init: HeadInit = "default"

    def __post_init__(self) -> None:
        check_choice("head_init", self.head_init, HEAD_INITS)
        check_output_stride(self.output_stride)
        if self.reduced is not None and self.reduced < 1:
            raise ValueError(f"reduced={self.reduced}; at least one channel, or null for all")
        if self.iterations < 1:
            raise ValueError(f"iterations={self.iterations}; at least one step")


@register
class ISqrtCov(Method):
    """Feature maps, covariance pooling with iterative square root, a linear head. Loss: cross-entropy.

    Where a map has fewer cells than d channels (224 pixels at stride 32: 49), the covariance has not full
    rank; the steps and their gradient do not mind.

    Outputs besides the logits: ``embeddings["covariance"]`` [B, d(d+1)/2], the triangle of the square root
    (of the image itself, not of its mirror image).
    """

    name = "isqrtcov"
    Options = ISqrtCovOptions
    options: ISqrtCovOptions

    def __init__(self, spec: ModelSpec, options: ISqrtCovOptions) -> None:
        super().__init__(spec, options)
        self.backbone = map_backbone(
            spec, options.output_stride, cls_token=options.cls_token, norm_eps=options.norm_eps
        )
        self.width = int(self.backbone.width)  # type: ignore[arg-type]
        self.pooling = CovariancePooling(self.width, options.reduced, options.iterations)
        # A ViT drops inside of its blocks.
        self.dropout = nn.Dropout(0.0 if isinstance(self.backbone, TokenBackbone) else spec.dropout)
        self.head = linear_head(self.pooling.out_features, spec.num_classes, options.head_init)

    def forward(self, images: Tensor) -> MethodOutput:
        mirrored = self.options.mirror and not self.training
        views = torch.cat([images, images.flip(-1)]) if mirrored else images
        pooled = self.pooling(feature_maps(self.backbone, views, self.spec.backbone))
        logits = self.head(self.dropout(pooled))
        if mirrored:
            logits = logits.unflatten(0, (2, len(images))).mean(dim=0)
        return MethodOutput(logits=logits, embeddings={"covariance": pooled[: len(images)]})

    def forward_passes(self) -> int:
        return 2 if self.options.mirror else 1

    def training_passes(self) -> int:
        return 1

    def closed_form_macs(self) -> int | None:
        """Each pass: the network, the reduction C·d·M, the covariance d²·M, 12·d³ for n = 5, the head."""
        network, cells = map_macs(self.backbone, self.spec.image_size)
        if network is None:
            return None
        head = self.head.in_features * self.head.out_features
        return self.forward_passes() * (network + self.pooling.macs(self.width, cells) + head)
