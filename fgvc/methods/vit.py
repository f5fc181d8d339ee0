"""Plain fine-tuning of a vision transformer: the baseline "ViT" of the tables.

Source: Dosovitskiy et al., An Image is Worth 16×16 Words, ICLR 2021, §3.1 (eq. 4: the classifier reads the
CLS token after the final LayerNorm); GLSim code base at 99cc474 for the zero-initialised head.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fgvc.backbones.closed_form import encoder_macs, is_plain
from fgvc.backbones.tokens import TokenBackbone
from fgvc.methods.base import Method, MethodOutput, ModelSpec, register
from fgvc.methods.heads import HEAD_INITS, HeadInit, check_choice, linear_head, token_backbone


@dataclass(frozen=True)
class ViTOptions:
    """Options of `ViT`.

    Attributes:
        pool: what the head reads: the ``cls`` token, or the mean of the ``patches``.
        head_init: ``zeros`` or torch's ``default``.
        norm_eps: eps of the encoder's norms; None: the backbone's. GLSim's code base has 1e-12.
    """

    pool: str = "cls"
    head_init: HeadInit = "zeros"
    norm_eps: float | None = None

    def __post_init__(self) -> None:
        check_choice("pool", self.pool, ("cls", "patches"))
        check_choice("head_init", self.head_init, HEAD_INITS)


@register
class ViT(Method):
    """One encoder pass, a linear head on the CLS token (or on the mean patch token)."""

    name = "vit"
    Options = ViTOptions
    backbone: TokenBackbone
    options: ViTOptions

    def __init__(self, spec: ModelSpec, options: ViTOptions) -> None:
        super().__init__(spec, options)
        self.backbone = token_backbone(spec, norm_eps=options.norm_eps)
        self.head = linear_head(self.backbone.width, spec.num_classes, options.head_init)

    def forward(self, images: Tensor) -> MethodOutput:
        tokens = self.backbone(images)
        pool = self.backbone.cls if self.options.pool == "cls" else self.backbone.mean_patch
        return MethodOutput(logits=self.head(pool(tokens)), grid=self.backbone.grid)

    def closed_form_macs(self) -> int | None:
        if not is_plain(self.backbone):
            return None
        return encoder_macs(self.backbone) + self.head.in_features * self.head.out_features
