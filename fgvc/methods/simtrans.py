"""SIM-Trans: the spatial structure of what CLS attends to, added to CLS in several layers.

Source: Sun, He and Peng, SIM-Trans: Structure Information Modeling Transformer for Fine-grained Visual
Categorization, ACM MM 2022; code PKU-ICST-MIPL/SIM-Trans_ACMMM2022 at d862e46 (models/modeling.py, train.py).
Written from a description of what that code computes, and compared with its outputs
(tests/methods/test_golden_simtrans.py). Where the code differs from what it means to do, `SIMTransOptions`
has an option.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fgvc.backbones.attention import AttentionRecorder
from fgvc.backbones.closed_form import encoder_macs, is_plain
from fgvc.backbones.precision import without_autocast
from fgvc.backbones.timm_models import draw_block
from fgvc.backbones.tokens import TokenBackbone
from fgvc.errors import FgvcError
from fgvc.methods.base import Method, MethodOutput, ModelSpec, register
from fgvc.methods.heads import LAST_BLOCK_INITS, LastBlockInit, check_choice, token_backbone
from fgvc.methods.structure_learning import Structure, StructureLearning


@dataclass(frozen=True)
class SIMTransOptions:
    """Options of `SIMTrans`; the defaults are those of the code at d862e46 as its README trains it.

    Attributes:
        patch_stride: pixels from one patch to the next; 12 lets patches of 16 overlap, None (or the patch
            size) does not.
        sil_layers: blocks whose attention gives a structure and whose CLS token the head reads; negative
            numbers count from the end, -1 is the last block, which must be among them.
        gcn_hidden: width between the two graph convolutions.
        gcn_dropout: rate of their dropouts.
        head_hidden: width of the classifier's hidden layer.
        contrast_weight: of the contrastive term; 0 leaves it out.
        contrast_margin: see `adaptive_contrast`.
        last_block_init: ``random``: the last block is drawn anew, as upstream does; or ``pretrained``.
        upstream_eval_dropout: one of the graph's dropouts stays on in evaluation, as upstream's does by
            mistake. Predictions are then random, and depend on the rest of their batch.
    """

    patch_stride: int | None = 12
    sil_layers: tuple[int, ...] = (-3, -2, -1)
    gcn_hidden: int = 512
    gcn_dropout: float = 0.1
    head_hidden: int = 1024
    contrast_weight: float = 1.0
    contrast_margin: float = 0.3
    last_block_init: LastBlockInit = "random"
    upstream_eval_dropout: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "sil_layers", tuple(self.sil_layers))
        check_choice("last_block_init", self.last_block_init, LAST_BLOCK_INITS)
        if self.patch_stride is not None and self.patch_stride < 1:
            raise ValueError(f"patch_stride={self.patch_stride}; at least one pixel")
        if not self.sil_layers or not all(isinstance(layer, int) for layer in self.sil_layers):
            raise ValueError(
                f"sil_layers={list(self.sil_layers)}; a list of block numbers such as [-3, -2, -1]"
            )
        for name in ("gcn_hidden", "head_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; at least 1")
        if not 0 <= self.gcn_dropout < 1:
            raise ValueError(f"gcn_dropout={self.gcn_dropout}; a rate lies in [0, 1)")
        for name in ("contrast_weight", "contrast_margin"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}; not below 0")


@register
class SIMTrans(Method):
    """One pass; CLS is given the structure that its own attention draws, and is read after several blocks.

    After each block of ``sil_layers``: CLS ← CLS + structure vector (one graph network for all blocks, see
    `StructureLearning`). These CLS tokens, normalised by the encoder's last norm, are concatenated for the
    head (multi-level feature boosting). Training adds a contrastive term on the last of them.

    Outputs besides the logits, for each block i of ``sil_layers``: ``masks["attention_i"]`` (CLS row of its
    attention, summed over heads), ``masks["object_i"]`` (1 where that is above its mean),
    ``selected["reference_i"]`` [B, 1] (the patch with the most attention); and ``embeddings["part"]``.
    """

    name = "simtrans"
    Options = SIMTransOptions
    backbone: TokenBackbone
    options: SIMTransOptions

    def __init__(self, spec: ModelSpec, options: SIMTransOptions) -> None:
        super().__init__(spec, options)
        self.backbone = token_backbone(spec, patch_stride=options.patch_stride)
        if not self.backbone.has_cls:
            raise FgvcError(
                f"simtrans reads the attention of the CLS token, and '{spec.backbone}' has none",
                cure="use a backbone with a CLS token",
            )
        #: Blocks of ``sil_layers``, counted from 0.
        self.levels = _levels(options.sil_layers, self.backbone.depth)
        self.structure = StructureLearning(
            self.backbone.width,
            options.gcn_hidden,
            options.gcn_dropout,
            upstream_eval_dropout=options.upstream_eval_dropout,
        )
        read = self.backbone.width * len(self.levels)
        self.head = nn.Sequential(
            nn.BatchNorm1d(read),
            nn.Linear(read, options.head_hidden),
            nn.BatchNorm1d(options.head_hidden),
            nn.ELU(),
            nn.Linear(options.head_hidden, spec.num_classes),
        )
        self._recorder = AttentionRecorder([self.backbone.blocks[i] for i in self.levels])

    def weights_loaded(self) -> None:
        """The last block is drawn anew, unless the option says otherwise."""
        if self.options.last_block_init == "random":
            draw_block(self.backbone.blocks[-1])

    def forward(self, images: Tensor) -> MethodOutput:
        """Raises FgvcError for a single image in training, of which the head's batch norm learns nothing."""
        if len(images) == 1 and self.head[0].training:
            raise FgvcError(
                "the head of simtrans has a batch norm, which cannot be trained on one image",
                key="recipe.batch_size",
                cure="use batches of two images at least; its statistics want 16 or more",
            )
        cls_tokens, structures = self._encode(images)
        levels = self.backbone.norm(torch.stack(cls_tokens, dim=1))
        found = dict(zip(self.levels, structures, strict=True))
        return MethodOutput(
            logits=self.head(levels.flatten(1)),
            embeddings={"part": levels[:, -1]},
            masks={f"attention_{i}": s.attention.detach() for i, s in found.items()}
            | {f"object_{i}": s.on_object for i, s in found.items()},
            selected={f"reference_{i}": s.reference[:, None] for i, s in found.items()},
            grid=self.backbone.grid,
        )

    def _encode(self, images: Tensor) -> tuple[list[Tensor], list[Structure]]:
        """CLS [B, D] after each block of ``levels``, its structure added; and the structures."""
        backbone = self.backbone
        tokens = backbone.embed(images)
        cls_tokens, structures = [], []
        with self._recorder.recording() as layers:
            for i, block in enumerate(backbone.blocks):
                tokens = block(tokens)
                if i not in self.levels:
                    continue
                # Taken from the list, so that no more than one layer's queries and keys are held.
                row = layers.pop().cls_row()[:, :, backbone.num_prefix :]
                structures.append(self.structure(row, backbone.grid))
                cls_tokens.append(tokens[:, 0] + structures[-1].vector.to(tokens.dtype))
                if i < self.levels[-1]:
                    tokens = torch.cat([cls_tokens[-1][:, None], tokens[:, 1:]], dim=1)
        return cls_tokens, structures

    def loss(self, output: MethodOutput, targets: Tensor) -> dict[str, Tensor]:
        """Cross-entropy and the weighted contrastive term.

        Where images are mixed, an image counts to the class that it has most of.
        """
        terms = {"cross_entropy": self.classification_loss(output.logits, targets)}
        if self.options.contrast_weight:
            labels = targets.argmax(dim=1) if targets.ndim == 2 else targets
            contrast = adaptive_contrast(output.embeddings["part"], labels, self.options.contrast_margin)
            terms["contrastive"] = self.options.contrast_weight * contrast
        return {**terms, "total": torch.stack(list(terms.values())).sum()}

    @property
    def batch_coupled(self) -> bool:
        """True while the head's batch norm trains, or anything before the contrastive term does."""
        before = [*self.backbone.parameters(), *self.structure.parameters()]
        contrasts = self.options.contrast_weight > 0 and any(p.requires_grad for p in before)
        return contrasts or super().batch_coupled

    def closed_form_macs(self) -> int | None:
        if not is_plain(self.backbone):
            return None
        height, width = self.backbone.grid
        head = sum(m.in_features * m.out_features for m in self.head if isinstance(m, nn.Linear))
        structure = len(self.levels) * self.structure.macs(height * width)
        return encoder_macs(self.backbone) + self.selection_macs() + structure + head

    def selection_macs(self) -> int:
        """S·D for each block of ``sil_layers``: the CLS row of its scores, where mask and reference lie."""
        height, width = self.backbone.grid
        tokens = self.backbone.num_prefix + height * width
        return len(self.levels) * tokens * self.backbone.width


def _levels(sil_layers: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """Block numbers from 0. Raises FgvcError unless they exist, ascend, and end with the last block."""
    levels = tuple(layer + depth if layer < 0 else layer for layer in sil_layers)
    ascending = all(a < b for a, b in pairwise(levels))
    if levels[0] < 0 or not ascending or levels[-1] != depth - 1:
        raise FgvcError(
            f"sil_layers={list(sil_layers)} is not possible with {depth} blocks: different blocks of 0 … "
            f"{depth - 1}, in order, the last one among them",
            key="options.sil_layers",
            cure=f"for example {list(range(-min(3, depth), 0))}",
        )
    return levels


def adaptive_contrast(embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Pull images of a class together, push those of others away that are nearer than a margin says.

    With cosines c_ij, distances s_ij = (1 - c_ij)/2 and the mean distance p_i of an image to the others of
    its class (0 where there are none): Σ over pairs of a class (1 - c_ij) + Σ over pairs of two classes with
    ``margin`` + p_i - s_ij ≥ 0 of (1 + c_ij), divided by B². Which pairs count has no gradient.
    Source: SIM-Trans at d862e46, models/modeling.py, con_loss_new.

    Args:
        embeddings: [B, D]; computed in float32 at least.
        labels: [B], class ids.
    """
    with without_autocast(embeddings):
        unit = normalize(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), dim=1)
        cosine = unit @ unit.T
        same = (labels[:, None] == labels[None]).to(cosine.dtype)
        with torch.no_grad():
            distance = (1 - cosine) / 2
            # Without the image itself, whose rounding error the 1e-6 (upstream's, against 0/0) would magnify.
            others = same - torch.eye(len(same), dtype=same.dtype, device=same.device)
            own = (distance * others).sum(dim=1, keepdim=True) / (others.sum(dim=1, keepdim=True) + 1e-6)
            near = (margin + own - distance >= 0).to(cosine.dtype)
        terms = same * (1 - cosine) + (1 - same) * near * (1 + cosine)
        return terms.sum() / len(labels) ** 2
