"""FFVT: the last block sees CLS and, from every layer before it, the tokens that CLS and they agree on most.

Source: Wang et al., Feature Fusion Vision Transformer for Fine-Grained Visual Categorization, BMVC 2021;
code Markin-Wang/FFVT at 9e44d1b (``models/modeling.py``). Written from a description of
what that code computes, and compared with its outputs (tests/methods/test_golden_ffvt.py). The
``maws`` of arkel23/DownSamplingInterLayerAdapter at 9b2248c on a frozen ViT differs in how the last block and
norm start, no more; no recorded output of that exists.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fgvc.backbones.attention import AttentionRecorder, QueriesAndKeys
from fgvc.backbones.closed_form import block_macs, embedding_macs, encoder_macs, is_plain
from fgvc.backbones.tokens import TokenBackbone
from fgvc.errors import FgvcError
from fgvc.methods.base import Method, MethodOutput, ModelSpec, register
from fgvc.methods.heads import (
    HEAD_INITS,
    LAST_BLOCK_INITS,
    HeadInit,
    LastBlockInit,
    check_choice,
    linear_head,
    token_backbone,
)
from fgvc.methods.token_selection import (
    SELECTION_BLOCK_INITS,
    SelectionBlockInit,
    gather_tokens,
    histogram,
    require_cls_and_trunk,
    start_last_block,
)


@dataclass(frozen=True)
class FFVTOptions:
    """Options of `FFVT`; the defaults are those of the code at 9e44d1b with its README's commands.

    Attributes:
        num_token: m, how many tokens each layer contributes. Upstream: 24 for Dogs, 12 otherwise.
        include_cls: CLS is a candidate like the patches, and is typically chosen (upstream).
        feature_fusion: False: a plain ViT without any choice (upstream without ``--feature_fusion``).
        last_block_init: with fusion; ``random``: the last block and the norm after it start anew (upstream,
            by a rule of names). ``xavier``: likewise, by the ILA code base's rule (see `start_last_block`).
            ``pretrained``: neither does.
        last_norm_init: with fusion, of that norm where it does not start as the block does: ``pretrained``
            or ``random``. In the ILA code base the norm is pre-trained, the block is not.
        head_init: ``zeros`` (upstream), torch's ``default`` or ``xavier`` (ILA code base).
        norm_eps: eps of all norms; None: the backbone's.
    """

    num_token: int = 12
    include_cls: bool = True
    feature_fusion: bool = True
    last_block_init: SelectionBlockInit = "random"
    last_norm_init: LastBlockInit | None = None
    head_init: HeadInit = "zeros"
    norm_eps: float | None = None

    def __post_init__(self) -> None:
        check_choice("last_block_init", self.last_block_init, SELECTION_BLOCK_INITS)
        if self.last_norm_init is not None:
            check_choice("last_norm_init", self.last_norm_init, LAST_BLOCK_INITS)
        check_choice("head_init", self.head_init, HEAD_INITS)
        if self.num_token < 1:
            raise ValueError(f"num_token={self.num_token}; each layer contributes at least one")


@register
class FFVT(Method):
    """All blocks but the last see every token; the last fuses CLS with tokens chosen from each of them.

    The tokens of a layer are those with the highest `mutual_attention`, as they leave that layer, without a
    norm. Registers are no candidates. The choice has no gradient, the tokens have.

    Outputs besides the logits: ``selected["tokens"]`` [B, L-1, m], best first; ``masks["selected"]`` (how
    many layers chose each patch) and ``masks["maws.0"]`` … (the scores of each layer's patches).
    """

    name = "ffvt"
    Options = FFVTOptions
    backbone: TokenBackbone
    options: FFVTOptions

    def __init__(self, spec: ModelSpec, options: FFVTOptions) -> None:
        super().__init__(spec, options)
        self.backbone = token_backbone(spec, norm_eps=options.norm_eps)
        if options.feature_fusion:
            require_cls_and_trunk(self.backbone, spec.backbone, "FFVT")
            self._require_candidates()
            self._recorder = AttentionRecorder([*self.backbone.blocks][:-1])
        self.head = linear_head(self.backbone.width, spec.num_classes, options.head_init)

    def _require_candidates(self) -> None:
        candidates = self._patches() + self.options.include_cls
        if self.options.num_token > candidates:
            raise FgvcError(
                f"num_token={self.options.num_token}, but {self.spec.image_size} pixels a side are "
                f"{candidates} candidates",
                key="options.num_token",
                cure="choose fewer tokens, or use larger images",
            )

    def _patches(self) -> int:
        height, width = self.backbone.grid
        return height * width

    def weights_loaded(self) -> None:
        """The fusing block and its norm forget their pre-training where upstream's do."""
        options, norm = self.options, self.backbone.norm
        if not options.feature_fusion:
            return
        start_last_block(self.backbone.blocks[-1], options.last_block_init)
        norm_init = options.last_norm_init or options.last_block_init
        if norm_init != "pretrained" and isinstance(norm, nn.LayerNorm):
            norm.reset_parameters()

    def forward(self, images: Tensor) -> MethodOutput:
        backbone = self.backbone
        if not self.options.feature_fusion:
            return MethodOutput(logits=self.head(backbone.cls(backbone(images))), grid=backbone.grid)
        tokens, fused, chosen = backbone.embed(images), [], []
        with self._recorder.reading(mutual_attention) as scores:
            for block in [*backbone.blocks][:-1]:
                tokens = block(tokens)
                chosen.append(self._choose(scores[-1]))
                fused.append(gather_tokens(tokens, chosen[-1]))
        seen = backbone.norm(backbone.blocks[-1](torch.cat([tokens[:, :1], *fused], dim=1)))
        return MethodOutput(
            logits=self.head(seen[:, 0]),
            masks=self._masks(torch.cat(chosen, dim=1), scores),
            grid=backbone.grid,
            selected={"tokens": torch.stack(chosen, dim=1)},
        )

    def _choose(self, scores: Tensor) -> Tensor:
        """Indices [B, m] of tokens, best first, by their scores [B, S]."""
        prefix, m = self.backbone.num_prefix, self.options.num_token
        if prefix == 1 and self.options.include_cls:
            return scores.topk(m).indices
        if not self.options.include_cls:
            return scores[:, prefix:].topk(m).indices + prefix
        scores = scores.clone()
        scores[:, 1:prefix] = -1  # registers: below any product of probabilities
        return scores.topk(m).indices

    def _masks(self, chosen: Tensor, scores: list[Tensor]) -> dict[str, Tensor]:
        prefix = self.backbone.num_prefix
        masks = {f"maws.{i}": layer[:, prefix:] for i, layer in enumerate(scores)}
        return {"selected": histogram(chosen - prefix, self._patches()), **masks}

    def closed_form_macs(self) -> int | None:
        backbone = self.backbone
        if not is_plain(backbone):
            return None
        head = self.head.in_features * self.head.out_features
        if not self.options.feature_fusion:
            return encoder_macs(backbone) + head
        trunk = backbone.depth - 1
        return (
            embedding_macs(backbone)
            + trunk * block_macs(backbone)
            + block_macs(backbone, 1 + trunk * self.options.num_token)
            + head
            + self.selection_macs()
        )

    def selection_macs(self) -> int:
        """2·S·D a layer: one row of scores and one column."""
        if not self.options.feature_fusion:
            return 0
        length = self.backbone.num_prefix + self._patches()
        return (self.backbone.depth - 1) * 2 * length * self.backbone.width


def mutual_attention(layer: QueriesAndKeys) -> Tensor:
    """How much CLS and each token attend to one another, [B, S]: mutual attention weight selection (MAWS).

    The mean over heads of CLS's attention to a token, times the mean over heads of the token's share among
    all that attend to CLS. In float32 at least: half precision ties tokens.

    Source: Markin-Wang/FFVT at 9e44d1b, models/modeling.py, which builds both maps whole.
    """
    return layer.cls_row().mean(dim=1) * layer.cls_column().mean(dim=1)
