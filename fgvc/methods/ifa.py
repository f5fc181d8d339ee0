"""IFA: a head that mixes the CLS tokens of all blocks of a ViT.

Source: the head ``ifacls`` of arkel23/DownSamplingInterLayerAdapter at 9b2248c, the row "IFA" of the ILA
table (arXiv 2409.11051). Written from a description of what that code computes; no recorded output of it
exists. Where the description is silent: CLS tokens are read as the blocks leave them, and the norm behind
the mixture is the only one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fgvc.backbones.closed_form import encoder_macs, is_plain
from fgvc.backbones.tokens import TokenBackbone
from fgvc.methods.base import Method, MethodOutput, ModelSpec, register
from fgvc.methods.heads import (
    HEAD_INITS,
    HeadInit,
    check_choice,
    draw_xavier,
    linear_head,
    token_backbone,
)


@dataclass(frozen=True)
class IFAOptions:
    """Options of `IFA`.

    Attributes:
        head_init: of the classifier: ``xavier``, ``zeros`` or torch's ``default``.
        norm_eps: eps of all norms; None: the backbone's. The ILA code: 1e-12.
    """

    head_init: HeadInit = "xavier"
    norm_eps: float | None = None

    def __post_init__(self) -> None:
        check_choice("head_init", self.head_init, HEAD_INITS)


class LayerwiseHead(nn.Module):
    """Linear(LN(ReLU(Σ wₗ·CLSₗ + b))): CLS of all layers [B, L, D] → logits [B, K]."""

    def __init__(self, depth: int, width: int, num_classes: int, init: HeadInit, norm_eps: float) -> None:
        super().__init__()
        self.mix = nn.Linear(depth, 1)
        draw_xavier(self.mix)
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.classifier = linear_head(width, num_classes, init)

    def forward(self, layers: Tensor) -> Tensor:
        mixed = self.mix(layers.transpose(1, 2)).squeeze(-1)
        return self.classifier(self.norm(mixed.relu()))  # type: ignore[no-any-return]


@register
class IFA(Method):
    """One encoder pass without its last norm; a `LayerwiseHead` on the CLS tokens after all blocks."""

    name = "ifa"
    Options = IFAOptions
    is_head_on_features = True
    backbone: TokenBackbone
    options: IFAOptions

    def __init__(self, spec: ModelSpec, options: IFAOptions) -> None:
        super().__init__(spec, options)
        self.backbone = backbone = token_backbone(spec, norm_eps=options.norm_eps, final_norm=False)
        self.head = LayerwiseHead(
            backbone.depth, backbone.width, spec.num_classes, options.head_init, backbone.norm_eps
        )

    def forward(self, images: Tensor) -> MethodOutput:
        return self.from_features(self.backbone_features(images))

    def backbone_features(self, images: Tensor) -> Tensor:
        """The CLS tokens after all blocks, [B, L, D]."""
        backbone = self.backbone
        tokens, layers = backbone.embed(images), []
        for block in backbone.blocks:
            tokens = block(tokens)
            layers.append(backbone.cls(tokens))
        return torch.stack(layers, dim=1)

    def from_features(self, features: Tensor) -> MethodOutput:
        return MethodOutput(logits=self.head(features), grid=self.backbone.grid)

    def closed_form_macs(self) -> int | None:
        """The encoder, L·D for the mixture, and the classifier."""
        if not is_plain(self.backbone):
            return None
        head = self.head.mix.weight.numel() * self.backbone.width + self.head.classifier.weight.numel()
        return encoder_macs(self.backbone) + head
