"""GLSim: look again at the region whose patches resemble the whole image most, and let both looks decide.

Source: Rios et al., Global-Local Similarity for Efficient Fine-Grained Image Recognition with Vision
Transformers, arXiv 2407.12891; code arkel23/GLSim at 99cc474 (``glsim.py``; its variant on timm backbones,
``timm_glsim.py``) and the author's later DownSamplingInterLayerAdapter at 9b2248c. Written from a description
of what that code computes, and compared with its outputs (tests/methods/test_golden_glsim.py). Where the
three differ, or the code differs from what it means to do, `GLSimOptions` has an option.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fgvc.backbones.attention import AttentionRecorder
from fgvc.backbones.attention_chain import rollout, run_and_read
from fgvc.backbones.closed_form import encoder_macs, is_plain
from fgvc.backbones.tokens import TokenBackbone
from fgvc.errors import FgvcError
from fgvc.methods.aggregators import (
    AGGREGATORS,
    Aggregator,
    ConvAggregator,
    NoAggregator,
    TransformerAggregator,
)
from fgvc.methods.base import Method, MethodOutput, ModelSpec, register
from fgvc.methods.heads import HEAD_INITS, HeadInit, check_choice, linear_head, token_backbone
from fgvc.methods.similarity_crop import (
    CROP_ENDS,
    METRICS,
    boxes_around,
    crop_and_resize,
    most_similar,
    random_patches,
    similarity,
)
from fgvc.methods.token_selection import require_cls_and_trunk


@dataclass(frozen=True)
class GLSimOptions:
    """Options of `GLSim`; the defaults are those of the code at 99cc474 on a timm backbone's own norms.

    Attributes:
        score: what ranks the patches: their ``similarity`` to CLS, or ``rollout``: how much of CLS comes from
            them through the attention of all layers, as RAMS-Trans has it (see `rollout`).
        metric: similarity of CLS and patches: ``cos``, or the distances ``l1`` and ``l2``.
        top_k: O, the number of patches that are chosen. Upstream doubles it for Dogs.
        top_k_doubles_at: image side in pixels from which on O is twice that: 448 in the ILA code base, never
            (None) in GLSim's.
        select: ``crop``: a second pass over the box around them. ``tokens``: no second pass; their tokens
            are aggregated with CLS (upstream's ablation ``select_top_k``).
        anchors: the ``similar`` patches, or ``random`` ones (an ablation; see `random_patches`).
        crop_end: see `boxes_around`: ``upstream`` is what published numbers were made with.
        crop_cls: the CLS token of the second pass: ``shared`` with the first (99cc474), or its ``own``, which
            starts as a copy (both other versions of the code).
        tokens: ``normed`` by the encoder's last norm; ``raw``: the encoder has none (``timm_glsim.py``).
        norm_eps: eps of every norm in encoder and aggregator; None: the backbone's. The author's: 1e-12.
        aggregator: ``transformer`` block, or ``none``; with ``select: tokens`` also ``dwsc`` and ``conv``.
        aggregator_heads: of the transformer block; None: as many as a block of the encoder has.
        aggregator_mlp_ratio: of the transformer block.
        aggregator_norm_eps: of the norm after it; None: as in the encoder.
        classifier: ``cls``: the head reads row 0. ``avg_cls``, ``max_cls``: it reads all rows, and the mean
            or the maximum of their logits counts.
        head_init: ``zeros`` or torch's ``default``.
    """

    score: str = "similarity"
    metric: str = "cos"
    top_k: int = 8
    top_k_doubles_at: int | None = None
    select: str = "crop"
    anchors: str = "similar"
    crop_end: str = "upstream"
    crop_cls: str = "shared"
    tokens: str = "normed"
    norm_eps: float | None = None
    aggregator: str = "transformer"
    aggregator_heads: int | None = None
    aggregator_mlp_ratio: float = 4.0
    aggregator_norm_eps: float | None = None
    classifier: str = "cls"
    head_init: HeadInit = "zeros"

    def __post_init__(self) -> None:
        check_choice("score", self.score, ("similarity", "rollout"))
        check_choice("metric", self.metric, METRICS)
        check_choice("select", self.select, ("crop", "tokens"))
        check_choice("anchors", self.anchors, ("similar", "random"))
        check_choice("crop_end", self.crop_end, CROP_ENDS)
        check_choice("crop_cls", self.crop_cls, ("shared", "own"))
        check_choice("tokens", self.tokens, ("normed", "raw"))
        check_choice("aggregator", self.aggregator, AGGREGATORS)
        check_choice("classifier", self.classifier, ("cls", "avg_cls", "max_cls"))
        check_choice("head_init", self.head_init, HEAD_INITS)
        if self.top_k < 1:
            raise ValueError(f"top_k={self.top_k}; at least one patch is chosen")
        if self.top_k_doubles_at is not None and self.top_k_doubles_at < 1:
            raise ValueError(f"top_k_doubles_at={self.top_k_doubles_at}; a side in pixels, or null: never")
        if self.score == "rollout" and self.metric != "cos":
            raise ValueError(f"metric={self.metric}, but score=rollout compares nothing: leave it out")
        if self.select == "crop" and self.aggregator in ("dwsc", "conv"):
            raise ValueError(
                f"aggregator={self.aggregator} is as long as CLS and top_k tokens: select=tokens"
            )
        if self.select == "tokens" and self.crop_cls == "own":
            raise ValueError("crop_cls=own, but there is no second pass with select=tokens")
        if self.select == "tokens" and self.aggregator == "none" and self.classifier == "cls":
            raise ValueError("with select=tokens, aggregator=none and classifier=cls nobody reads the tokens")


@register
class GLSim(Method):
    """Two encoder passes: the image, and a crop around the patches most similar to its CLS token.

    With ``score: rollout``, around those that CLS draws most from through the attention of all layers, after
    RAMS-Trans (Hu et al., ACM MM 2021); that ``top_k`` of them are boxed is of the ``rollout`` selector of
    arkel23/DownSamplingInterLayerAdapter at 9b2248c.

    Training and inference are the same; the loss is cross-entropy on the logits, and its gradient flows
    through both passes. The choice of the box has none.

    Outputs besides the logits: ``crops`` and ``boxes`` (with ``select: crop``), ``masks["gls"]`` (the
    similarity [B, N] as its metric defines it: distances are low where patches are similar) or
    ``masks["rollout"]``, and ``embeddings["cls"]`` (row 0 after the aggregator).
    """

    name = "glsim"
    Options = GLSimOptions
    backbone: TokenBackbone
    options: GLSimOptions

    def __init__(self, spec: ModelSpec, options: GLSimOptions) -> None:
        super().__init__(spec, options)
        self.backbone = token_backbone(spec, norm_eps=options.norm_eps, final_norm=options.tokens == "normed")
        height, width = self.backbone.grid
        doubled = options.top_k_doubles_at is not None and spec.image_size >= options.top_k_doubles_at
        #: O at this image size.
        self.top_k = options.top_k * (2 if doubled else 1)
        if self.top_k > height * width:
            raise FgvcError(
                f"top_k={self.top_k}, but {spec.image_size} pixels a side are {height * width} patches",
                key="options.top_k",
                cure="choose fewer patches, or use larger images",
            )
        if options.score == "rollout":
            require_cls_and_trunk(self.backbone, spec.backbone, "Attention rollout")
            AttentionRecorder(self.backbone.blocks)  # refuses what cannot be recorded before anything runs
        if options.crop_cls == "own":
            self.crop_cls = nn.Parameter(self._backbone_cls().detach().clone())
        self.aggregator = self._make_aggregator()
        self.head = linear_head(self.backbone.width, spec.num_classes, options.head_init)

    def _backbone_cls(self) -> Tensor:
        if self.backbone.cls_token is None:
            raise FgvcError(
                f"crop_cls=own, but '{self.spec.backbone}' has no CLS token",
                key="options.crop_cls",
                cure="use crop_cls=shared, or a backbone with a CLS token",
            )
        return self.backbone.cls_token

    def _make_aggregator(self) -> Aggregator:
        options, width = self.options, self.backbone.width
        final_norm_eps = options.aggregator_norm_eps or self.backbone.norm_eps
        if options.aggregator == "none":
            return NoAggregator()
        if options.aggregator == "transformer":
            heads = options.aggregator_heads or self.backbone.heads
            if width % heads:
                raise FgvcError(
                    f"aggregator_heads={heads} do not divide the width {width} of '{self.spec.backbone}'",
                    key="options.aggregator_heads",
                )
            return TransformerAggregator(
                width,
                heads,
                options.aggregator_mlp_ratio,
                norm_eps=self.backbone.norm_eps,
                final_norm_eps=final_norm_eps,
                dropout=self.spec.dropout,
                stochastic_depth=self.spec.stochastic_depth,
            )
        separable = options.aggregator == "dwsc"
        return ConvAggregator(width, self._rows(), separable=separable, norm_eps=final_norm_eps)

    def weights_loaded(self) -> None:
        """The crop's own CLS token starts where the image's does."""
        if self.options.crop_cls == "own":
            with torch.no_grad():
                self.crop_cls.copy_(self._backbone_cls())

    def forward(self, images: Tensor) -> MethodOutput:
        options, backbone = self.options, self.backbone
        tokens, scores = self._look_and_score(images)
        cls, patches = backbone.cls(tokens), backbone.patches(tokens)
        chosen = self._choose(images, scores)
        crops = boxes = None
        if options.select == "crop":
            boxes = boxes_around(chosen, backbone.grid, backbone.patch_size, options.crop_end)
            crops = crop_and_resize(images, boxes)
            again = backbone(crops, cls_token=self.crop_cls if options.crop_cls == "own" else None)
            rows = torch.stack([cls, backbone.cls(again)], dim=1)
        else:
            seen = patches.gather(1, chosen[:, :, None].expand(-1, -1, backbone.width))
            rows = torch.cat([cls[:, None], seen], dim=1)
        rows = self.aggregator(rows)
        return MethodOutput(
            logits=self._classify(rows),
            embeddings={"cls": rows[:, 0]},
            crops=None if crops is None else crops[:, None],
            boxes=None if boxes is None else boxes[:, None],
            masks={"gls" if options.score == "similarity" else "rollout": scores},
            grid=backbone.grid,
        )

    def _look_and_score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """All tokens of the first pass, and a score [B, N] of each patch, which has no gradient."""
        backbone = self.backbone
        if self.options.score == "rollout":
            tokens, row = run_and_read([*backbone.blocks], backbone.embed(images), rollout)
            return backbone.norm(tokens), row[:, backbone.num_prefix :]
        tokens = backbone(images)
        with torch.no_grad():
            return tokens, similarity(backbone.cls(tokens), backbone.patches(tokens), self.options.metric)

    def _choose(self, images: Tensor, scores: Tensor) -> Tensor:
        """Indices [B, O] of the patches that are chosen."""
        if self.options.anchors == "random":
            return random_patches(images, scores.shape[1], self.top_k, training=self.training)
        return most_similar(scores, self.options.metric, self.top_k)

    def _classify(self, rows: Tensor) -> Tensor:
        """[B, L, D] → logits [B, K]."""
        if self.options.classifier == "cls":
            return self.head(rows[:, 0])  # type: ignore[no-any-return]
        logits: Tensor = self.head(rows)
        return logits.mean(dim=1) if self.options.classifier == "avg_cls" else logits.amax(dim=1)

    def _rows(self) -> int:
        """Rows that the aggregator is given: the image's, and the crop's or the chosen patches'."""
        return 2 if self.options.select == "crop" else 1 + self.top_k

    def forward_passes(self) -> int:
        return 2 if self.options.select == "crop" else 1

    def closed_form_macs(self) -> int | None:
        if not is_plain(self.backbone):
            return None
        classified = 1 if self.options.classifier == "cls" else self._rows()
        if isinstance(self.aggregator, ConvAggregator):
            classified = 1
        return (
            self.forward_passes() * encoder_macs(self.backbone)
            + self.aggregator.macs(self._rows())
            + classified * self.head.in_features * self.head.out_features
            + (self.selection_macs() if self.options.score == "rollout" else 0)
        )

    def selection_macs(self) -> int:
        """D·N: one product of CLS with each patch (for distances: one difference each).

        Of a rollout S·D for the CLS row of the top map, and H·S² a layer for a row times its maps; what is
        made again for want of memory is not counted.

        Norms, ranking and resampling are no multiply-accumulates of a product; as the similarity is computed
        element by element, cost records have it among the other operations with them.
        """
        backbone = self.backbone
        patches = backbone.grid[0] * backbone.grid[1]
        if self.options.score == "similarity":
            return backbone.width * patches
        length = backbone.num_prefix + patches
        return length * backbone.width + (backbone.depth - 1) * length**2 * backbone.heads
