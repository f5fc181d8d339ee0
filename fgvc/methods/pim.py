"""PIM: every location of four levels is classified, the most confident ones are combined by a graph.

Source: Chou, Lin and Kao, A Novel Plug-in Module for Fine-Grained Visual Classification, arXiv 2202.03822;
code chou141253/FGVC-PIM at 348edd9 (``models/pim_module/pim_module.py``, ``models/builder.py``, ``main.py``,
``eval.py``, ``configs/CUB200_SwinT.yaml``). Written from a description of what that code computes, and
compared with its outputs (tests/methods/test_golden_pim.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fgvc.backbones.closed_form import encoder_macs, is_plain
from fgvc.backbones.levels import LEVELS, Level, LevelBackbone, block_outputs, token_levels
from fgvc.backbones.tokens import TokenBackbone, is_vit
from fgvc.errors import FgvcError
from fgvc.methods.base import Method, MethodOutput, ModelSpec, register
from fgvc.methods.heads import check_choice, token_backbone
from fgvc.methods.pim_heads import (
    PREDICTIONS,
    Predict,
    all_predictions,
    class_heat,
    highest_k_upstream,
    sum_of_heads,
    top_k,
)
from fgvc.methods.pim_parts import (
    LOCATIONS_PER_NODE,
    FeaturePyramid,
    GraphCombiner,
    LevelClassifier,
    most_confident,
    not_selected_penalty,
)
from fgvc.methods.token_selection import gather_tokens


@dataclass(frozen=True)
class PIMOptions:
    """Options of `PIM`; the defaults are those of the code at 348edd9.

    Attributes:
        fpn_size: E, the width of the pyramid, a multiple of 4 (upstream: 1536 for Swin-L on CUB, else 512).
        num_selects: how many locations of each level the combiner gets, the finest level first: a number, or
            a share of them below 1. Swin-L on CUB: 2048, 512, 128, 32 at 384, which are 8/9, 8/9, 8/9, 2/9.
        predict: what ``logits`` are: ``sum`` of the probabilities of all five heads (four levels and the
            combiner), the ``combiner`` alone, ``top_k``: the ``heads`` most confident ones, or
            ``highest_k_upstream``: the least confident ones, which upstream calls highest-k.
        heads: k of the latter two.
        combiner_dropout: rate before the combiner's classifier.
        combiner_weight, level_weight, drop_weight, select_weight: of the four terms of the loss; the last is
            0 in the published configurations.
        norm_eps: eps of a CNN's batch norms; None: timm's own. torchvision's EfficientNets have 0.001.
    """

    fpn_size: int = 512
    num_selects: tuple[float, ...] = (32, 32, 32, 32)
    predict: Predict = "sum"
    heads: int = 5
    combiner_dropout: float = 0.1
    combiner_weight: float = 1.0
    level_weight: float = 0.5
    drop_weight: float = 5.0
    select_weight: float = 0.0
    norm_eps: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_selects", tuple(self.num_selects))
        check_choice("predict", self.predict, PREDICTIONS)
        if self.fpn_size < 4 or self.fpn_size % 4:
            raise ValueError(f"fpn_size={self.fpn_size} is no multiple of 4")
        if len(self.num_selects) != LEVELS:
            raise ValueError(f"num_selects has {len(self.num_selects)} numbers for {LEVELS} levels")
        if any(n <= 0 or (n > 1 and n != int(n)) for n in self.num_selects):
            raise ValueError(f"num_selects={list(self.num_selects)}: numbers from 1, or shares below 1")
        if not 1 <= self.heads <= LEVELS + 1:
            raise ValueError(f"heads={self.heads}; possible: 1 … {LEVELS + 1}")


@dataclass(frozen=True)
class _Looks:
    """Of each level: logits [B, S, K] and chosen locations [B, n]; and the combiner's logits [B, K]."""

    logits: list[Tensor]
    chosen: list[Tensor]
    combiner: Tensor

    @property
    def heads(self) -> list[Tensor]:
        """Logits [B, K] of the four levels, each the mean over its locations, and of the combiner."""
        return [*(one.mean(dim=1) for one in self.logits), self.combiner]


@register
class PIM(Method):
    """A feature pyramid on four levels, a classifier for each, and a graph over what they chose.

    Outputs besides the logits: ``aux_logits``: ``layer1`` … ``layer4`` [B, K] (means over the locations of
    each level, the finest first), ``combiner`` [B, K], and ``select_layer1`` … [B, n, K] where the loss wants
    them; ``selected``: ``layer1`` … [B, n], most confident first (of a ViT 0 is CLS); ``masks["heat"]``: how
    probable the predicted class is at each place, on the grid of the first level (`class_heat`; `heat_map`
    gives that of any class); ``losses["not_selected"]``.

    Args:
        backbone: takes the place of ``spec.backbone``: a module [B, 3, S, S] → four levels with their shapes
            (``levels``) and ``sequences``, for checkpoints of networks that timm lacks.
    """

    name = "pim"
    Options = PIMOptions
    options: PIMOptions

    def __init__(self, spec: ModelSpec, options: PIMOptions, backbone: nn.Module | None = None) -> None:
        super().__init__(spec, options)
        self.backbone = _backbone(spec, options) if backbone is None else backbone
        self.levels, sequences = _shapes(self.backbone)
        self.counts = _counts(options.num_selects, self.levels)
        width, classes = options.fpn_size, spec.num_classes
        self.pyramid = FeaturePyramid(self.levels, width, sequences=sequences)
        self.classifiers = nn.ModuleList(LevelClassifier(width, classes) for _ in self.levels)
        # A transformer drops in its blocks.
        self.dropout = nn.Dropout(0.0 if sequences else spec.dropout)
        self.combiner = GraphCombiner(sum(self.counts), width, classes, options.combiner_dropout)

    # --- computation ------------------------------------------------------------------------------
    def forward(self, images: Tensor) -> MethodOutput:
        looks = self._look(images)
        names = [f"layer{place}" for place in range(1, LEVELS + 1)]
        logits = self._predict(looks.heads)
        aux = dict(zip([*names, "combiner"], looks.heads, strict=True))
        penalties = [not_selected_penalty(*one) for one in zip(looks.logits, looks.chosen, strict=True)]
        if self.options.select_weight:
            aux |= {
                f"select_{name}": gather_tokens(of_level, chosen)
                for name, of_level, chosen in zip(names, looks.logits, looks.chosen, strict=True)
            }
        return MethodOutput(
            logits=logits,
            aux_logits=aux,
            masks={"heat": self._heat(looks, logits.argmax(dim=1))},
            selected=dict(zip(names, looks.chosen, strict=True)),
            grid=self.levels[0].grid,
            losses={"not_selected": torch.stack(penalties).sum()},
        )

    def _look(self, images: Tensor) -> _Looks:
        if isinstance(self.backbone, TokenBackbone):
            levels = block_outputs(self.backbone, images)
        else:
            levels = self.backbone(images)
        features = self.pyramid(levels)
        logits = [classify(one) for classify, one in zip(self.classifiers, features, strict=True)]
        chosen = [most_confident(one, n) for one, n in zip(logits, self.counts, strict=True)]
        selected = torch.cat([gather_tokens(f, c) for f, c in zip(features, chosen, strict=True)], dim=1)
        return _Looks(logits, chosen, self.combiner(self.dropout(selected)))

    def _predict(self, heads: Sequence[Tensor]) -> Tensor:
        options = self.options
        if options.predict == "combiner":
            return heads[-1]
        if options.predict == "sum":
            return sum_of_heads(heads)
        return (top_k if options.predict == "top_k" else highest_k_upstream)(heads, options.heads)

    def head_logits(self, output: MethodOutput) -> dict[str, Tensor]:
        """``layer1`` … ``layer4``, ``combiner``, ``sum``, ``top_1`` … ``top_4`` and upstream's."""
        names = [*(f"layer{place}" for place in range(1, LEVELS + 1)), "combiner"]
        return all_predictions({name: output.aux_logits[name] for name in names})

    @torch.no_grad()
    def _heat(self, looks: _Looks, classes: Tensor) -> Tensor:
        return class_heat(looks.logits, self.levels, classes)

    def heat_map(self, images: Tensor, classes: Tensor) -> Tensor:
        """How probable a class is at each place of the first level's grid (`class_heat`), [B, h, w]."""
        heat: Tensor = self._heat(self._look(images), classes)
        return heat.reshape(len(heat), *self.levels[0].grid)

    # --- loss -------------------------------------------------------------------------------------
    def loss(self, output: MethodOutput, targets: Tensor) -> dict[str, Tensor]:
        """λ_c·CE(combiner) + Σ_levels [λ_b·CE(level) + λ_n·MSE(tanh(not chosen), -1) + λ_s·CE(chosen)].

        Sums over the levels, not means; each CE is a mean over images (and over chosen locations). The last
        term, whose published weight is 0, is computed only where it has one. Source: main.py.
        """
        options, aux = self.options, output.aux_logits
        names = [f"layer{place}" for place in range(1, LEVELS + 1)]
        by_level = torch.stack([self.classification_loss(aux[name], targets) for name in names])
        terms = {
            "combiner": options.combiner_weight * self.classification_loss(aux["combiner"], targets),
            "levels": options.level_weight * by_level.sum(),
            "not_selected": options.drop_weight * output.losses["not_selected"],
        }
        if options.select_weight:
            chosen = [self._chosen_loss(aux[f"select_{name}"], targets) for name in names]
            terms["selected"] = options.select_weight * torch.stack(chosen).sum()
        return {**terms, "total": torch.stack(list(terms.values())).sum()}

    def _chosen_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """[B, n, K]: each chosen location is to tell its image's class."""
        repeated = targets.repeat_interleave(logits.shape[1], dim=0)
        return self.classification_loss(logits.flatten(0, 1), repeated)  # type: ignore[no-any-return]

    # --- cost -------------------------------------------------------------------------------------
    def closed_form_macs(self) -> int | None:
        """The backbone's, and of the plug-in: pyramid, E² + E·K a location, and the graph."""
        backbone = self.backbone
        if isinstance(backbone, TokenBackbone):
            macs = encoder_macs(backbone) if is_plain(backbone) else None
        else:
            macs = backbone.closed_form_macs() if isinstance(backbone, LevelBackbone) else None
        if macs is None:
            return None
        width, classes = self.options.fpn_size, self.spec.num_classes
        locations = sum(level.locations for level in self.levels)
        plugin = self.pyramid.closed_form_macs(width) + self.combiner.closed_form_macs()
        return macs + plugin + locations * width * (width + classes)


def _backbone(spec: ModelSpec, options: PIMOptions) -> nn.Module:
    if is_vit(spec.backbone):
        # The levels are what the blocks leave; the norm behind the last one is not used.
        return token_backbone(spec, final_norm=False)
    return LevelBackbone(
        spec.backbone,
        spec.image_size,
        stochastic_depth=spec.stochastic_depth,
        dropout=spec.dropout,
        norm_eps=options.norm_eps,
        shape=spec.shape,
    )


def _shapes(backbone: nn.Module) -> tuple[tuple[Level, ...], bool]:
    """The shapes of the levels, and whether they are sequences."""
    if isinstance(backbone, TokenBackbone):
        return token_levels(backbone), True
    return tuple(backbone.levels), bool(backbone.sequences)  # type: ignore[arg-type]


def _counts(asked: Sequence[float], levels: Sequence[Level]) -> tuple[int, ...]:
    """How many locations of each level are chosen.

    Raises FgvcError where none would be left over, or too few are chosen for a graph of one node.
    """
    counts = []
    for place, (number, level) in enumerate(zip(asked, levels, strict=True), start=1):
        count = max(round(number * level.locations), 1) if number < 1 else int(number)
        if count >= level.locations:
            raise FgvcError(
                f"level {place} has {level.locations} locations, and {count} of them are to be chosen",
                key="options.num_selects",
                cure="choose fewer (a number below 1 is a share of them), or use larger images",
            )
        counts.append(count)
    if sum(counts) < LOCATIONS_PER_NODE:
        raise FgvcError(
            f"{sum(counts)} locations are chosen in all; the graph needs {LOCATIONS_PER_NODE}",
            key="options.num_selects",
            cure="choose more, or use larger images",
        )
    return tuple(counts)
