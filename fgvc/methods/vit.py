"""A vision transformer and a head on its tokens: the baselines "ViT" and "linear" of the tables.

Trained as a whole it is plain fine-tuning. With nothing but the head (``train: ["head.*"]``) it is a linear
probe, whose backbone leaves no graph behind; with the CLS token as well it is the ILA table's row "linear".

Source: Dosovitskiy et al., An Image is Worth 16×16 Words, ICLR 2021, §3.1 (eq. 4: the classifier reads the
CLS token after the final LayerNorm); GLSim code base at 99cc474 for the zero-initialised head; heads other
than on CLS: arkel23/DownSamplingInterLayerAdapter at 9b2248c, written from a description and compared with
its outputs (tests/methods/test_golden_heads.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from fgvc.backbones.closed_form import encoder_macs, is_plain
from fgvc.backbones.tokens import TokenBackbone
from fgvc.methods.base import Method, MethodOutput, ModelSpec, register
from fgvc.methods.bilinear import second_moment
from fgvc.methods.heads import (
    HEAD_INITS,
    HeadInit,
    check_choice,
    draw_xavier,
    linear_head,
    token_backbone,
)

_POOLS = ("cls", "patches", "flatten", "bilinear")


@dataclass(frozen=True)
class ViTOptions:
    """Options of `ViT`.

    Attributes:
        pool: what the head reads: the ``cls`` token, the mean of the ``patches``, all patches one after the
            other (``flatten``), or their mean product of all pairs of channels (``bilinear``).
        projection: width to which one linear layer takes the patches before ``bilinear`` (the ILA code's
            ``lrblp``: 64); None: none (its ``blp``).
        head_init: ``zeros``, ``xavier`` (ILA code) or torch's ``default``.
        norm_eps: eps of the encoder's norms; None: the backbone's. GLSim's and ILA's code bases have 1e-12.
    """

    pool: str = "cls"
    projection: int | None = None
    head_init: HeadInit = "zeros"
    norm_eps: float | None = None

    def __post_init__(self) -> None:
        check_choice("pool", self.pool, _POOLS)
        check_choice("head_init", self.head_init, HEAD_INITS)
        if self.projection is not None and (self.pool != "bilinear" or self.projection < 1):
            raise ValueError(
                f"projection={self.projection} with pool={self.pool!r}; a width, with 'bilinear' only"
            )


@register
class ViT(Method):
    """One encoder pass, a linear head on what `ViTOptions.pool` makes of its tokens."""

    name = "vit"
    Options = ViTOptions
    is_head_on_features = True
    backbone: TokenBackbone
    options: ViTOptions

    def __init__(self, spec: ModelSpec, options: ViTOptions) -> None:
        super().__init__(spec, options)
        self.backbone = backbone = token_backbone(spec, norm_eps=options.norm_eps)
        self.projection: nn.Linear | None = None
        if options.projection is not None:
            self.projection = nn.Linear(backbone.width, options.projection)
            draw_xavier(self.projection)
        features = backbone.width
        if options.pool == "flatten":
            features *= backbone.grid[0] * backbone.grid[1]
        elif options.pool == "bilinear":
            features = (options.projection or features) ** 2
        self.head = linear_head(features, spec.num_classes, options.head_init)

    def forward(self, images: Tensor) -> MethodOutput:
        return self.from_features(self.backbone_features(images))

    def backbone_features(self, images: Tensor) -> Tensor:
        """What is pooled, [B, D] or, for ``bilinear``, the patches [B, N, D]."""
        backbone, pool = self.backbone, self.options.pool
        tokens = backbone(images)
        if pool == "cls":
            return backbone.cls(tokens)
        if pool == "patches":
            return backbone.mean_patch(tokens)
        patches: Tensor = backbone.patch_norm(backbone.patches(tokens))
        return patches.flatten(1) if pool == "flatten" else patches

    def from_features(self, features: Tensor) -> MethodOutput:
        if self.options.pool == "bilinear":
            features = second_moment(features if self.projection is None else self.projection(features))
        return MethodOutput(logits=self.head(features), grid=self.backbone.grid)

    def closed_form_macs(self) -> int | None:
        """The encoder, the head, and with ``bilinear`` N·C² for the products (N·D·C for the projection)."""
        backbone = self.backbone
        if not is_plain(backbone):
            return None
        patches = backbone.grid[0] * backbone.grid[1]
        pooling = 0 if self.projection is None else patches * self.projection.weight.numel()
        if self.options.pool == "bilinear":
            pooling += patches * self.head.in_features
        return encoder_macs(backbone) + pooling + self.head.weight.numel()
