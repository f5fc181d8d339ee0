"""What choosing regions costs by the formulas of GLSim's Table 1, and by the same ones on one footing.

Source: arkel23/GLSim at 99cc474, tools/calc_flops.py (`PUBLISHED` and `published_backbone`), written from a
description of what that tool computes and compared with the integers that it gives
(tests/golden/flops_a.json). Its percentages divide FLOPs by a sum of MACs, and two of its methods see other
tokens than the backbone that they are divided by; `consistent_percent` does neither. Integers throughout;
torch is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from fgvc.config.published import PublishedCostCell, PublishedCosts

#: Bytes of a number in float32.
_FLOAT = 4


@dataclass(frozen=True)
class Geometry:
    """A plain ViT and the image that it sees; the defaults are ViT-B/16 as GLSim's tool reckons with it.

    Attributes:
        image_size: I in pixels.
        stride: pixels from one patch to the next; less than ``patch_size`` where patches overlap.
        width: D.
        depth: L, blocks.
        heads: h.
        classes: K of the head.
    """

    image_size: int
    patch_size: int = 16
    stride: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    classes: int = 200

    @property
    def patches(self) -> int:
        """N, patches of the image."""
        return ((self.image_size - self.patch_size) // self.stride + 1) ** 2

    @property
    def tokens(self) -> int:
        """S, patches and CLS."""
        return self.patches + 1

    @property
    def overlapping(self) -> Geometry:
        """The same with patches that overlap by 4 pixels, as TransFG and AF-Trans have them."""
        return replace(self, stride=self.patch_size - 4)

    @property
    def backbone_macs(self) -> int:
        """MACs of one image's pass and the head: 3·P²·D·N + L·(12·S·D² + 2·S²·D) + D·K."""
        s, d = self.tokens, self.width
        embedding = 3 * self.patch_size**2 * d * self.patches
        return embedding + self.depth * (12 * s * d**2 + 2 * s**2 * d) + d * self.classes

    @property
    def map_bytes(self) -> int:
        """One attention map in float32."""
        return _FLOAT * self.tokens**2


@dataclass(frozen=True)
class Selection:
    """A way of choosing regions, as a column of the table names it.

    Attributes:
        flops: operations of one image's choice by the tool's formula, on given tokens.
        overlapping: whether the tool gives it overlapping patches.
        bytes_held: what stands in memory at once for it, in float32 and beyond what fused attention needs,
            where the choice is computed as the formula has it: as products of whole maps.
    """

    flops: Callable[[Geometry], int]
    overlapping: bool
    bytes_held: Callable[[Geometry], int]

    def published_geometry(self, image_size: int) -> Geometry:
        """The tokens that the tool counts this choice with."""
        plain = Geometry(image_size)
        return plain.overlapping if self.overlapping else plain


def _psm(g: Geometry) -> int:
    """TransFG: a product of the maps of all blocks but the last, head by head: (L-2)·h·S²·(2S-1)."""
    return (g.depth - 2) * g.heads * g.tokens**2 * (2 * g.tokens - 1)


def _rollout(g: Geometry) -> int:
    """Mean over heads, identity and norm of L maps, and their product: (L-1)·S²·(2S-1) and the rest."""
    s = g.tokens
    return g.depth * ((g.heads + 1) * s**2 + s + 1) + (g.depth - 1) * s**2 * (2 * s - 1)


def _maws(g: Geometry) -> int:
    """FFVT, all blocks but the last: a softmax over a column, two means over heads, a product."""
    return (g.depth - 1) * (5 * g.tokens * g.heads + 2 * g.heads + g.tokens)


def _sacm(g: Geometry) -> int:
    """AF-Trans: the mean over heads of each map, the weights of the layers, their weighted sum."""
    s, depth = g.tokens, g.depth
    return depth * (g.heads - 1) * s**2 + s**2 + 1 + 2 * 3 * depth + depth * (s - 1)


def _gls(g: Geometry) -> int:
    """GLSim: the cosine of CLS and each patch: (3·D+3)·N."""
    return (3 * g.width + 3) * g.patches


def ramstrans(g: Geometry) -> int:
    """RAMS-Trans, which the tool knows and the table does not show: rollout, normalised row by row."""
    s = g.tokens
    return _rollout(g) + g.depth * s**2


def pim(g: Geometry) -> int:
    """PIM, likewise: four classifiers on all tokens, 4·S·D·K."""
    return 4 * g.tokens * g.width * g.classes


#: By column of the published table.
PUBLISHED: Mapping[str, Selection] = MappingProxyType(
    {
        # All maps below the last block wait for the last of them; two products of one set of heads.
        "psm": Selection(_psm, True, lambda g: (g.depth - 1 + 2) * g.heads * g.map_bytes),
        # All maps, one of them averaged and normalised, and two products of averaged maps.
        "attention_rollout": Selection(_rollout, False, lambda g: (g.depth * g.heads + 3) * g.map_bytes),
        # Of one layer at a time: its scores, their softmax over keys and the one over queries.
        "maws": Selection(_maws, False, lambda g: 3 * g.heads * g.map_bytes),
        # The averaged maps of all layers, and the heads of the one that is being averaged.
        "sacm": Selection(_sacm, True, lambda g: (g.depth + g.heads) * g.map_bytes),
        # CLS times each patch, element by element, and the cosines.
        "gls": Selection(_gls, False, lambda g: _FLOAT * g.patches * (g.width + 1)),
    }
)


def published_backbone(g: Geometry) -> int:
    """What the tool divides by: MACs of the encoder and the head, but FLOPs of the patch embedding."""
    return g.backbone_macs + 3 * g.patch_size**2 * g.width * g.patches


def published_percent(column: str, image_size: int) -> float:
    """A percentage as the tool prints it: of MFLOPs rounded to four decimals, the backbone's to two."""
    selection = PUBLISHED[column]
    mflops = round(selection.flops(selection.published_geometry(image_size)) / 1e6, 4)
    return round(100 * mflops / round(published_backbone(Geometry(image_size)) / 1e6, 2), 4)


def consistent_percent(column: str, g: Geometry) -> float:
    """The same formula on the backbone's own tokens, in percent of the backbone's FLOPs (two a MAC)."""
    return 100 * PUBLISHED[column].flops(g) / (2 * g.backbone_macs)


def as_printed(value: float, digits: int, decimals: int | None = None) -> float:
    """Rounded to so many significant digits, and no more than so many decimals."""
    return float(f"{value if decimals is None else round(value, decimals):.{digits}g}")


@dataclass(frozen=True)
class RecomputedCost:
    """A cell of the published table beside what its own formula gives, and what a consistent one would.

    Attributes:
        column, image_size: the cell.
        printed_flops_g, printed_percent: as printed.
        flops: operations by the tool's formula, exact.
        percent: by the tool's formula, with its four decimals.
        tokens, backbone_tokens: what numerator and denominator were counted with.
        backbone_operations: the denominator, exact (see `published_backbone`).
        flops_reproduced, percent_reproduced: whether the formula gives every printed digit.
        consistent_percent: the same FLOPs in percent of the FLOPs of a backbone with the same tokens.
        plain_percent: both without overlap of patches.
        is_consistent: whether the consistent percentage reads as the printed one.
    """

    column: str
    image_size: int
    printed_flops_g: float
    printed_percent: float
    flops: int
    percent: float
    tokens: int
    backbone_tokens: int
    backbone_operations: int
    flops_reproduced: bool
    percent_reproduced: bool
    consistent_percent: float
    plain_percent: float
    is_consistent: bool

    @property
    def explanation(self) -> str:
        """What is mixed in the printed percentage."""
        texts = ["the denominator counts MACs (one a multiply-add), the numerator FLOPs"]
        if self.tokens != self.backbone_tokens:
            texts.append(
                f"the numerator is of {self.tokens} overlapping tokens, the denominator of a backbone with "
                f"{self.backbone_tokens}"
            )
        return "; ".join(texts)


def recomputed_costs(printed: PublishedCosts) -> list[RecomputedCost]:
    """Every cell of a published table of selection costs, recomputed; columns without a formula are left out.

    In the order of the file: column by column, as its cells stand.
    """
    return [
        _recomputed(printed, column, cell)
        for column, facts in printed.columns.items()
        if column in PUBLISHED
        for cell in facts.cells
    ]


def _recomputed(printed: PublishedCosts, column: str, cell: PublishedCostCell) -> RecomputedCost:
    selection, plain = PUBLISHED[column], Geometry(cell.image_size)
    own = selection.published_geometry(cell.image_size)
    flops, percent = selection.flops(own), published_percent(column, cell.image_size)
    consistent = consistent_percent(column, own)

    def as_printed_percent(value: float) -> float:
        return as_printed(value, printed.percent_digits, printed.percent_decimals)

    return RecomputedCost(
        column=column,
        image_size=cell.image_size,
        printed_flops_g=cell.flops_g,
        printed_percent=cell.percent_of_backbone,
        flops=flops,
        percent=percent,
        tokens=own.tokens,
        backbone_tokens=plain.tokens,
        backbone_operations=published_backbone(plain),
        flops_reproduced=as_printed(flops / 1e9, printed.flops_digits) == cell.flops_g,
        percent_reproduced=as_printed_percent(percent) == cell.percent_of_backbone,
        consistent_percent=consistent,
        plain_percent=consistent_percent(column, plain),
        is_consistent=as_printed_percent(consistent) == cell.percent_of_backbone,
    )
