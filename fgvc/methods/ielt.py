"""IELT: patches that many heads vote for, from all layers, are refined together and voted on once more.

Source: Xu et al., Fine-Grained Visual Classification via Internal Ensemble Learning Transformer, IEEE TMM
2023; code mobulan/IELT at b185111 (models/IELT.py, models/modules.py). Written from a description of what
that code computes, and compared with its outputs (tests/methods/test_golden_ielt.py).
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fgvc.backbones.attention import AttentionRecorder, QueriesAndKeys
from fgvc.backbones.closed_form import block_macs, embedding_macs, is_plain
from fgvc.backbones.timm_models import draw_block, encoder_block
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
from fgvc.methods.token_selection import gather_tokens, histogram, require_cls_and_trunk
from fgvc.methods.voting import (
    INTERVALS,
    KERNELS,
    SELECT_INITS,
    DynamicSelection,
    Enhancement,
    Intervals,
    Kernel,
    SelectInit,
    merged_token,
    ranked,
    votes,
)

ExtraBlocks = Literal["vit", "dino"]
EXTRA_BLOCKS = ("vit", "dino")
#: eps of the norms in blocks of DINOv2's code as it draws them, and of the norm after each stage.
_DINO_EPS = 1e-5
_STAGE_EPS = 1e-6


@dataclass(frozen=True)
class IELTOptions:
    """Options of `IELT`; the defaults are those of the code at b185111.

    Attributes:
        vote_perhead: v, patches that each head votes for.
        total_num: tokens that all layers contribute together, but for rounding.
        key_tokens: of these, how many the last vote keeps.
        select_init: where the numbers of tokens a layer start (see `DynamicSelection`). The code always
            starts with ``ushape``; its comment means ``uniform`` for datasets other than CUB and NABirds.
        dynamic_rate: at which they follow the last vote in training; 0: they stay.
        dynamic_warm_steps: training steps (passes of a batch) before they begin to. Upstream says ten epochs:
            1870 are ten of CUB in batches of 32.
        dynamic_warm_epochs: the same in epochs, in the place of ``dynamic_warm_steps``; None: steps count.
            Nothing moves until `begin_training` says how long an epoch is.
        dynamic_intervals: see `DynamicSelection`; ``upstream`` for parity.
        kernel: see `Enhancement`. ``learnable`` stays as drawn unless tokens are merged: ranks have no
            gradient.
        complement_weight: α, of the cross-entropy of the complement's logits; 1 - α is that of the logits.
        last_block_init: ``random``: the two blocks after the trunk and their norms start anew (upstream's
            configurations). ``pretrained``: both start as the backbone's last block and norm (what upstream
            means for Dogs and NABirds, and misses by the names of its data sets).
        extra_blocks: what is drawn with ``random``: blocks of a ``vit``, or of ``dino``v2's code (no bias of
            queries, keys and values, eps 1e-5, torch's initialisation); neither has layer scale.
        head_init: ``zeros`` (upstream) or torch's ``default``. With ``zeros`` the assist logits are 0 too.
        norm_eps: eps of the backbone's norms; None: its own.
    """

    vote_perhead: int = 24
    total_num: int = 126
    key_tokens: int = 24
    select_init: SelectInit = "ushape"
    dynamic_rate: float = 1e-3
    dynamic_warm_steps: int = 1870
    dynamic_warm_epochs: float | None = None
    dynamic_intervals: Intervals = "actual"
    kernel: Kernel = "gauss"
    complement_weight: float = 0.4
    last_block_init: LastBlockInit = "random"
    extra_blocks: ExtraBlocks = "vit"
    head_init: HeadInit = "zeros"
    norm_eps: float | None = None

    def __post_init__(self) -> None:
        check_choice("select_init", self.select_init, SELECT_INITS)
        check_choice("dynamic_intervals", self.dynamic_intervals, INTERVALS)
        check_choice("kernel", self.kernel, KERNELS)
        check_choice("last_block_init", self.last_block_init, LAST_BLOCK_INITS)
        check_choice("extra_blocks", self.extra_blocks, EXTRA_BLOCKS)
        check_choice("head_init", self.head_init, HEAD_INITS)
        for name in ("vote_perhead", "total_num", "key_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; at least 1")
        if self.total_num < max(self.vote_perhead, self.key_tokens):
            raise ValueError(
                f"total_num={self.total_num} tokens, of which each head is to choose {self.vote_perhead} and "
                f"the last vote {self.key_tokens}"
            )
        for name in ("dynamic_rate", "complement_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}; a share lies in [0, 1]")
        if self.dynamic_warm_steps < 0:
            raise ValueError(f"dynamic_warm_steps={self.dynamic_warm_steps}; not below 0")
        if self.dynamic_warm_epochs is not None and self.dynamic_warm_epochs < 0:
            raise ValueError(f"dynamic_warm_epochs={self.dynamic_warm_epochs}; not below 0")


@register
class IELT(Method):
    """A trunk of all blocks but the last, cross-layer refinement, and a block over the tokens that remain.

    In each trunk block every head votes for the patches that CLS attends to most; the patches with the most
    votes, smoothed over their neighbours (`Enhancement`), contribute their tokens as they leave the block.
    CLS and all of these go through one block and a norm (cross-layer refinement); its heads vote again, and
    CLS of the trunk with the tokens that win goes through the key block. Registers are no candidates. No
    choice has a gradient, the tokens have.

    The refining block and its norm stand in the place of the backbone's last block and ``backbone.vit.norm``;
    the key stage is ``key_layer`` and ``key_norm``.

    Outputs besides the logits: ``aux_logits``: ``complement`` (the head on the refined CLS) and ``assist``,
    softmax(complement)_k · Σ_d W_kd, which ``logits`` include; ``embeddings``: ``trunk_cls`` and
    ``key_layers`` [B, L-1] (how many key tokens come from each layer); ``selected``: ``patches`` [B, Σ m_t]
    (layer after layer, best first) and ``key`` (places among all contributed tokens, best first); ``masks``:
    ``selected`` (how many layers chose each patch) and ``votes.0`` … (the scores of each layer's patches).
    """

    name = "ielt"
    Options = IELTOptions
    backbone: TokenBackbone
    options: IELTOptions
    #: What `SC4001` adds.
    dilations: tuple[int, ...] = (1,)
    merges: bool = False
    index_shift: bool = False

    def __init__(self, spec: ModelSpec, options: IELTOptions) -> None:
        super().__init__(spec, options)
        self.backbone = backbone = token_backbone(spec, norm_eps=options.norm_eps)
        require_cls_and_trunk(backbone, spec.backbone, self.name)
        AttentionRecorder(backbone.blocks)  # refuses what cannot be recorded before anything runs
        if options.vote_perhead > self._patches():
            raise FgvcError(
                f"vote_perhead={options.vote_perhead}, but {spec.image_size} pixels a side are "
                f"{self._patches()} patches",
                key="options.vote_perhead",
                cure="let each head vote for fewer patches, or use larger images",
            )
        self.enhancement = Enhancement(options.kernel, self.dilations)
        self.selection = DynamicSelection(
            backbone.depth - 1,
            options.total_num,
            options.select_init,
            options.dynamic_rate,
            options.dynamic_warm_steps if options.dynamic_warm_epochs is None else sys.maxsize,
            options.dynamic_intervals,
        )
        fresh = options.last_block_init == "random"
        self.key_layer = self._draw_block() if fresh else copy.deepcopy(backbone.blocks[-1])
        self.key_norm = nn.LayerNorm(backbone.width, eps=_STAGE_EPS)
        self.head = linear_head(backbone.width, spec.num_classes, options.head_init)

    def weights_loaded(self) -> None:
        """The refining stage is drawn anew, or the key stage starts as the backbone's last block as well."""
        vit = self.backbone.vit
        if self.options.last_block_init == "random":
            vit.blocks[-1] = self._draw_block()
            vit.norm = nn.LayerNorm(self.backbone.width, eps=_STAGE_EPS)
            return
        self.key_layer.load_state_dict(vit.blocks[-1].state_dict())
        if isinstance(vit.norm, nn.LayerNorm):
            self.key_norm.load_state_dict(vit.norm.state_dict())

    def _draw_block(self) -> nn.Module:
        """A block as wide as the backbone's, with weights of its own."""
        backbone, spec = self.backbone, self.spec
        mlp: Any = backbone.blocks[0].mlp
        dino = self.options.extra_blocks == "dino"
        block = encoder_block(
            backbone.width,
            backbone.heads,
            4.0 if dino else mlp.fc1.out_features / backbone.width,
            norm_eps=_DINO_EPS if dino else backbone.norm_eps,
            qkv_bias=not dino,
            dropout=spec.dropout,
            stochastic_depth=spec.stochastic_depth,
        )
        if not dino:
            draw_block(block)
        return block

    def _patches(self) -> int:
        height, width = self.backbone.grid
        return height * width

    # --- one pass ---------------------------------------------------------------------------------
    def forward(self, images: Tensor) -> MethodOutput:
        backbone, prefix, v = self.backbone, self.backbone.num_prefix, self.options.vote_perhead
        *trunk, refine = backbone.blocks
        tokens, sizes = backbone.embed(images), self._sizes()
        kept, chosen, scores = [], [], []
        with AttentionRecorder(backbone.blocks).reading(QueriesAndKeys.cls_row) as rows:
            for block, size in zip(trunk, sizes, strict=True):
                tokens = block(tokens)
                scores.append(self.enhancement(votes(rows[-1][:, :, prefix:], v), backbone.grid))
                chosen.append(ranked(scores[-1].detach(), size))
                kept += self._contribution(tokens, scores[-1], chosen[-1])
            cls = tokens[:, :1]
            refined = backbone.norm(refine(torch.cat([cls, *kept], dim=1)))
        key = ranked(votes(rows[-1][:, :, 1:], v), self.options.key_tokens)
        seen = torch.cat([cls, gather_tokens(refined, key + (0 if self.index_shift else 1))], dim=1)
        logits, aux_logits = self._classify(self.key_norm(self.key_layer(seen))[:, 0], refined[:, 0])
        places = key - 1 if self.index_shift else key
        layers = self.selection.layers_of(places, [size + self.merges for size in sizes])
        patches = torch.cat(chosen, dim=1)
        return MethodOutput(
            logits=logits,
            aux_logits=aux_logits,
            embeddings={"trunk_cls": cls[:, 0], "key_layers": layers},
            masks={
                "selected": histogram(patches, self._patches()),
                **{f"votes.{i}": layer.detach() for i, layer in enumerate(scores)},
            },
            grid=backbone.grid,
            selected={"patches": patches, "key": key},
        )

    def _sizes(self) -> list[int]:
        """Tokens that each trunk block contributes, without the merged one; no more than there are."""
        return [min(size, self._patches()) for size in self.selection.sizes()]

    def _contribution(self, tokens: Tensor, scores: Tensor, chosen: Tensor) -> list[Tensor]:
        """A layer's tokens: [B, m, D] of the chosen patches and, if asked for, [B, 1, D] of the rest."""
        # Upstream's shift takes the token before the patch: CLS for the first one.
        first = self.backbone.num_prefix - self.index_shift
        parts = [gather_tokens(tokens, chosen + first)]
        if self.merges:
            parts.append(merged_token(self.backbone.patches(tokens), scores, chosen))
        return parts

    def _classify(self, key: Tensor, refined: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits [B, K] of the two CLS tokens [B, D], and the logits that they are made with."""
        complement: Tensor = self.head(refined)
        assist = complement.softmax(dim=-1) * self.head.weight.sum(dim=1)
        return self.head(key) + assist, {"complement": complement, "assist": assist}

    # --- training ---------------------------------------------------------------------------------
    def begin_training(self, passes_per_epoch: int) -> None:
        """Warm-up in epochs becomes one in steps; how many are done stands in a buffer."""
        if self.options.dynamic_warm_epochs is not None:
            self.selection.warm_steps = round(self.options.dynamic_warm_epochs * passes_per_epoch)

    def loss(self, output: MethodOutput, targets: Tensor) -> dict[str, Tensor]:
        """(1 - α)·CE(logits) + α·CE(complement). In training the numbers of tokens a layer move here."""
        weight = self.options.complement_weight
        terms = {
            "cross_entropy": (1 - weight) * self.classification_loss(output.logits, targets),
            "complement": weight * self.classification_loss(output.aux_logits["complement"], targets),
        }
        if self.training:
            self.selection.observe(output.embeddings["key_layers"].sum(dim=0))
        return {**terms, "total": torch.stack(list(terms.values())).sum()}

    # --- cost -------------------------------------------------------------------------------------
    def closed_form_macs(self) -> int | None:
        """Embedding, trunk, the two later blocks, and the head on both CLS tokens, at the initial numbers."""
        backbone = self.backbone
        if not is_plain(backbone):
            return None
        seen = 1 + self.options.key_tokens
        return (
            embedding_macs(backbone)
            + (backbone.depth - 1) * block_macs(backbone)
            + block_macs(backbone, self._refined_tokens())
            + block_macs(backbone, seen)
            + 2 * self.head.weight.numel()
            + self.selection_macs()
        )

    def _refined_tokens(self) -> int:
        return 1 + sum(self._sizes()) + self.merges * (self.backbone.depth - 1)

    def selection_macs(self) -> int:
        """A trunk layer: S·D for the CLS row, 9·N a kernel, N·D for a merged token; then one more CLS row."""
        backbone, patches = self.backbone, self._patches()
        length = backbone.num_prefix + patches
        layer = length * backbone.width + self.enhancement.macs(patches)
        layer += self.merges * patches * backbone.width
        return (backbone.depth - 1) * layer + self._refined_tokens() * backbone.width
