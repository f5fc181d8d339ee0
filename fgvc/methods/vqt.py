"""VQT: learnt queries read every block of a frozen ViT, and a wide head reads them.

Source: Tu et al., Visual Query Tuning: Towards Effective Usage of Intermediate Representations for Parameter
and Memory Efficient Transfer Learning, CVPR 2023, arXiv 2212.03220, §3, code andytu28/VQT at 9bca87e
(vit_backbones/h2t_vit.py); in the form of the ILA table: arkel23/DownSamplingInterLayerAdapter at 9b2248c.
Written from a description of what that code computes, and compared with its outputs
(tests/methods/test_golden_prompts.py). The selection of features by group lasso (§3.4) is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fgvc.backbones.closed_form import encoder_macs, is_plain
from fgvc.backbones.query_path import check_query_blocks, query_macs, run_with_queries
from fgvc.backbones.tokens import TokenBackbone
from fgvc.methods.base import Method, MethodOutput, ModelSpec, register
from fgvc.methods.heads import HEAD_INITS, HeadInit, check_choice, linear_head, token_backbone
from fgvc.methods.prompts import Prompts, check_rate


@dataclass(frozen=True)
class VQTOptions:
    """Options of `VQT`.

    Attributes:
        num_queries: q, for each block. VQT's scripts have 1, its code 5, the ILA code 100.
        query_dropout: rate on queries in training; None: the recipe's dropout. VQT's scripts: 0.1.
        normalize: CLS and each block's queries are divided by their length.
        feature_order: where CLS stands among the head's inputs: ``cls_first`` (VQT), ``cls_last`` (ILA code).
        head_init: ``xavier`` (ILA code), ``rare`` (VQT's own), ``zeros`` or torch's ``default``.
        norm_eps: eps of the encoder's norms; None: the backbone's. VQT: 1e-6, the ILA code: 1e-12.
    """

    num_queries: int = 1
    query_dropout: float | None = None
    normalize: bool = True
    feature_order: Literal["cls_first", "cls_last"] = "cls_first"
    head_init: HeadInit = "xavier"
    norm_eps: float | None = None

    def __post_init__(self) -> None:
        check_choice("feature_order", self.feature_order, ("cls_first", "cls_last"))
        check_choice("head_init", self.head_init, HEAD_INITS)
        check_rate("query_dropout", self.query_dropout)
        if self.num_queries < 1:
            raise ValueError(f"num_queries={self.num_queries}; at least 1")
        if not isinstance(self.normalize, bool):
            raise ValueError(f"normalize={self.normalize!r}; true or false")


@register
class VQT(Method):
    """One pass of the ViT as it is; q queries a block read its tokens; a linear head on CLS and all queries.

    No token attends to a query, so that nothing needs a gradient but the queries' own path as long as the
    backbone is frozen as a whole. If its CLS token trains, as in the ILA code, all of it needs one.
    """

    name = "vqt"
    Options = VQTOptions
    backbone: TokenBackbone
    options: VQTOptions

    def __init__(self, spec: ModelSpec, options: VQTOptions) -> None:
        super().__init__(spec, options)
        self.backbone = token_backbone(spec, norm_eps=options.norm_eps)
        check_query_blocks(self.backbone.blocks)
        self.queries = Prompts(
            self.backbone,
            layers=self.backbone.depth,
            count=options.num_queries,
            dropout=spec.dropout if options.query_dropout is None else options.query_dropout,
        )
        features = self.backbone.width + self.queries.tokens.numel()
        self.head = linear_head(features, spec.num_classes, options.head_init)

    def forward(self, images: Tensor) -> MethodOutput:
        tokens, read = self.encode(images)
        logits = self.head(self.features(self.backbone.cls(tokens), read))
        return MethodOutput(logits=logits, grid=self.backbone.grid)

    def encode(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The backbone's tokens after its last norm [B, S, D], and what the queries of each block read
        [B, q, D], without a norm.
        """
        backbone = self.backbone
        tokens, read = backbone.embed(images), []
        for layer, block in enumerate(backbone.blocks):
            tokens, result = run_with_queries(block, tokens, self.queries(layer, len(tokens)))
            read.append(result)
        return backbone.norm(tokens), read

    def features(self, cls: Tensor, read: list[Tensor]) -> Tensor:
        """What the head reads, [B, D + L·q·D] in float32: squares of q·D numbers are beyond half precision.

        Args:
            cls: [B, D].
            read: [B, q, D] for each block; their q·D numbers have one length together.
        """
        blocks = [result.flatten(1) for result in read]
        ordered = [cls, *blocks] if self.options.feature_order == "cls_first" else [*blocks, cls]
        chunks = [chunk.to(torch.promote_types(chunk.dtype, torch.float32)) for chunk in ordered]
        return torch.cat([normalize(c, dim=1) for c in chunks] if self.options.normalize else chunks, dim=1)

    def closed_form_macs(self) -> int | None:
        """The ViT, the queries' path through every block, and the wide head."""
        backbone = self.backbone
        if not is_plain(backbone):
            return None
        height, width = backbone.grid
        tokens = backbone.num_prefix + height * width
        path = query_macs(backbone.blocks, tokens, self.queries.count)
        return encoder_macs(backbone) + path + self.head.weight.numel()
