"""TransFG: the last block sees CLS and, for each head, the patch to which attention leads through all layers.

Source: He et al., TransFG: A Transformer Architecture for Fine-Grained Recognition, AAAI 2022, arXiv
2103.07976; code TACJu/TransFG at 9336fba (``models/modeling.py``, ``train.py``). Written from a description
of what that code computes, and compared with its outputs (tests/methods/test_golden_transfg.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from fgvc.backbones.attention import AttentionRecorder
from fgvc.backbones.attention_chain import ATTENTIONS, Attention, chained_cls_row, run_and_read
from fgvc.backbones.closed_form import block_macs, embedding_macs, is_plain
from fgvc.backbones.precision import without_autocast
from fgvc.backbones.tokens import TokenBackbone
from fgvc.methods.base import Method, MethodOutput, ModelSpec, register
from fgvc.methods.heads import HEAD_INITS, HeadInit, check_choice, linear_head, token_backbone
from fgvc.methods.token_selection import (
    SELECTION_BLOCK_INITS,
    SelectionBlockInit,
    gather_tokens,
    histogram,
    require_cls_and_trunk,
    start_last_block,
)


@dataclass(frozen=True)
class TransFGOptions:
    """Options of `TransFG`; the defaults are those of the code at 9336fba with its README's command.

    Attributes:
        patch_stride: pixels from one patch to the next: 12 (README, on patches of 16; the code's own default
            does not overlap). None: the patch size, patches do not overlap.
        contrast_weight: of the contrastive loss on the normalised part embedding; 0: there is none.
            Upstream 1; the re-implementations in the GLSim and ILA code bases 0.1.
        contrast_margin: similarity up to which two classes may share their direction.
        last_block_init: ``random``: the last block starts anew (upstream, by a rule of names); the norm after
            it is pre-trained. ``xavier``: likewise, by the ILA code base's rule (see `start_last_block`).
            ``pretrained``: the block is pre-trained, too.
        head_init: torch's ``default`` (upstream), ``zeros`` or ``xavier`` (ILA code base).
        norm_eps: eps of all norms; None: the backbone's.
        attention: where the maps come from that the choice needs: see `run_and_read`. No prediction depends
            on it but for rounding.
    """

    patch_stride: int | None = 12
    contrast_weight: float = 1.0
    contrast_margin: float = 0.4
    last_block_init: SelectionBlockInit = "random"
    head_init: HeadInit = "default"
    norm_eps: float | None = None
    attention: Attention = "auto"

    def __post_init__(self) -> None:
        check_choice("last_block_init", self.last_block_init, SELECTION_BLOCK_INITS)
        check_choice("head_init", self.head_init, HEAD_INITS)
        check_choice("attention", self.attention, ATTENTIONS)
        if self.patch_stride is not None and self.patch_stride < 1:
            raise ValueError(f"patch_stride={self.patch_stride}; at least one pixel")
        if self.contrast_weight < 0:
            raise ValueError(f"contrast_weight={self.contrast_weight}; it cannot be negative")
        if not -1 <= self.contrast_margin <= 1:
            raise ValueError(f"contrast_margin={self.contrast_margin} is no cosine")


@register
class TransFG(Method):
    """All blocks but the last see every token; the last sees CLS and one patch a head.

    The patch of a head is where the CLS row of the product of its attention maps is largest; the same patch
    may be chosen by several heads. CLS and registers are no candidates. The choice has no gradient.

    Outputs besides the logits: ``embeddings["part"]`` (CLS after the last norm), ``selected["patches"]``
    [B, H], ``masks["selected"]`` (how many heads chose each patch) and ``masks["psm"]`` (the mean over heads
    of that CLS row).
    """

    name = "transfg"
    Options = TransFGOptions
    backbone: TokenBackbone
    options: TransFGOptions

    def __init__(self, spec: ModelSpec, options: TransFGOptions) -> None:
        super().__init__(spec, options)
        self.backbone = token_backbone(spec, norm_eps=options.norm_eps, patch_stride=options.patch_stride)
        require_cls_and_trunk(self.backbone, spec.backbone, "TransFG")
        AttentionRecorder(self.backbone.blocks)  # refuses what cannot be recorded before anything runs
        self.head = linear_head(self.backbone.width, spec.num_classes, options.head_init)

    def weights_loaded(self) -> None:
        """The last block forgets its pre-training where upstream's does."""
        start_last_block(self.backbone.blocks[-1], self.options.last_block_init)

    def forward(self, images: Tensor) -> MethodOutput:
        backbone = self.backbone
        tokens, rows = run_and_read(
            [*backbone.blocks][:-1], backbone.embed(images), chained_cls_row, self.options.attention
        )
        psm = rows[:, :, backbone.num_prefix :]
        chosen = psm.argmax(dim=-1)
        parts = gather_tokens(backbone.patches(tokens), chosen)
        seen = backbone.blocks[-1](torch.cat([tokens[:, :1], parts], dim=1))
        part = backbone.norm(seen)[:, 0]
        return MethodOutput(
            logits=self.head(part),
            embeddings={"part": part},
            masks={"selected": histogram(chosen, psm.shape[-1]), "psm": psm.mean(dim=1)},
            grid=backbone.grid,
            selected={"patches": chosen},
        )

    def loss(self, output: MethodOutput, targets: Tensor) -> dict[str, Tensor]:
        """Cross-entropy and, if it has a weight, the contrastive loss (see `contrastive_loss`)."""
        terms = super().loss(output, targets)
        if self.options.contrast_weight > 0:
            contrastive = contrastive_loss(output.embeddings["part"], targets, self.options.contrast_margin)
            terms["contrastive"] = self.options.contrast_weight * contrastive
            terms["total"] = terms["total"] + terms["contrastive"]
        return terms

    @property
    def batch_coupled(self) -> bool:
        """The contrastive loss compares images; where only the head trains, it has no gradient."""
        compared = self.options.contrast_weight > 0
        return super().batch_coupled or (
            compared and any(p.requires_grad for p in self.backbone.parameters())
        )

    def closed_form_macs(self) -> int | None:
        backbone = self.backbone
        if not is_plain(backbone):
            return None
        return (
            embedding_macs(backbone)
            + (backbone.depth - 1) * block_macs(backbone)
            + block_macs(backbone, 1 + backbone.heads)
            + self.head.in_features * self.head.out_features
            + self.selection_macs()
        )

    def selection_macs(self) -> int:
        """S·D for the CLS row of the top map, then one product of a row with a map, H·S², a layer.

        With ``attention: recomputed`` S²·D a layer for the maps themselves, too. What ``auto`` makes again
        for want of memory is not counted.
        """
        backbone = self.backbone
        height, width = backbone.grid
        length, below_top = backbone.num_prefix + height * width, backbone.depth - 2
        again = backbone.width if self.options.attention == "recomputed" else 0
        return length * backbone.width + below_top * length**2 * (backbone.heads + again)


def contrastive_loss(embeddings: Tensor, targets: Tensor, margin: float) -> Tensor:
    """Pulls the images of a class together and pushes those of two classes below a cosine of ``margin``.

    (1/B²) Σ_ij p_ij·(1 - c_ij) + (1 - p_ij)·max(c_ij - margin, 0), with c the cosine of two embeddings and p
    whether their classes are the same. For soft targets, which upstream does not have, p_ij = t_i·t_j: the
    probability that they are; an image is always of its own class.

    Args:
        embeddings: [B, D].
        targets: class ids [B] or soft targets [B, K].

    Source: TACJu/TransFG at 9336fba, models/modeling.py (con_loss).
    """
    wide = torch.promote_types(embeddings.dtype, torch.float32)
    with without_autocast(embeddings):
        directions = normalize(embeddings.to(wide), dim=-1)
        cosine = directions @ directions.T
        soft = (targets if targets.ndim == 2 else one_hot(targets)).to(wide)
        same = (soft @ soft.T).fill_diagonal_(1.0)
        return (same * (1 - cosine) + (1 - same) * (cosine - margin).clamp(min=0)).mean()
