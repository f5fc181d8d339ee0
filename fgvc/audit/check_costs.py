"""Checks of published costs: parameters against class counts, shares of a backbone, units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fgvc.audit.context import PublishedContext
from fgvc.audit.finding import Finding
from fgvc.audit.published_tables import printed, subject_of
from fgvc.audit.registry import published_check
from fgvc.audit.rounding import Interval
from fgvc.config.audit_facts import BACKBONE, BACKBONE_CLASSES, OTHER_CLASSES
from fgvc.config.published import PublishedCosts
from fgvc.config.published_records import Record

#: A recount agrees with a published count within this (percent).
AGREEMENT_PCT = 0.5


def class_parameters_m(context: PublishedContext) -> float | None:
    """Parameters that one more class costs a linear head on ViT-B/16, in millions; None: records are missing.

    From two cost records of the same model with different class counts: D + 1 = 769.
    """
    few = context.costs.find(BACKBONE, 224, BACKBONE_CLASSES)
    many = context.costs.find(BACKBONE, 224, OTHER_CLASSES)
    if few is None or many is None:
        return None
    return float((many["params_m"] - few["params_m"]) / (OTHER_CLASSES - BACKBONE_CLASSES))


def _no_record(context: PublishedContext, size: int = 224, classes: int = BACKBONE_CLASSES) -> str:
    return f"a cost record is missing: {context.costs.command(BACKBONE, size, classes)}"


@published_check(
    "head_parameters",
    title="Trainable parameters against class counts",
    inputs=("params/published", "params/datasets", "results/cost"),
)
def head_parameters(context: PublishedContext) -> Iterator[Finding]:
    """A linear head on ViT-B/16 has 769 parameters a class. A total of trainable parameters over the datasets of
    a table is at least the heads for their class counts (params/datasets); what a class costs is recounted
    from two cost records. Contradicted: the printed total is less. Confirmed: it is not (which says that heads
    fit in, no more). Not checkable: a table that prints zero for linear probing leaves the heads out; or the
    class counts or the record are not here.
    """
    each = class_parameters_m(context)
    totals = [r for r in context.records if r.metric == "trainable_params_m" and r.is_reference]
    for record in totals:
        table = [r for r in totals if r.table == record.table]
        common: dict[str, Any] = {
            "subject": subject_of(record),
            "published": f"{printed(record)} {record.unit}",
            "source": record.source.full,
        }
        classes = _classes_of_table(context, record)
        if any(r.value == 0 for r in table):
            why = "linear probing is printed with 0: the heads are left out of these numbers"
        elif "total" not in record.dataset:
            why = "whether the heads are counted, and over which datasets, is not stated"
        elif classes is None:
            why = "the class counts of its datasets are not all known"
        elif each is None:
            why = _no_record(context, classes=OTHER_CLASSES)
        else:
            yield _judge_heads(record, classes, each, common)
            continue
        yield Finding(verdict="not_checkable", explanation=why, **common)


def _classes_of_table(context: PublishedContext, record: Record) -> list[int] | None:
    """Class counts of the datasets of the record's table; None when one of them is not ours."""
    rows = {r.row: r.dataset_id for r in context.records if r.table == record.table and r.metric == "top1"}
    ids = [name for name in rows.values() if name is not None]
    if not rows or len(ids) < len(rows):
        return None
    return [context.project.dataset(name).classes for name in ids]


def _judge_heads(record: Record, classes: list[int], each: float, common: dict[str, Any]) -> Finding:
    heads = each * sum(classes)
    fits = float(printed(record).interval.high) >= heads
    told = f"linear heads for {' + '.join(map(str, classes))} = {sum(classes):,} classes need {heads:.2f} M"
    return Finding(
        verdict="confirmed" if fits else "contradicted",
        recomputed=f"at least {heads:.2f} M",
        explanation=f"{told}, {'which fit in' if fits else 'more than all trainable parameters together'}",
        **common,
    )


@published_check(
    "total_parameters",
    title="Parameters of one method on several datasets",
    inputs=("params/published", "params/datasets", "results/cost"),
)
def total_parameters(context: PublishedContext) -> Iterator[Finding]:
    """The parameters of one method on two datasets differ only in the head: 769 a class for a linear head on
    ViT-B/16. Each printed count is held against that of the dataset with the fewest classes in its source.
    Confirmed: they differ by what the classes need, as far as rounding goes. Contradicted: they do not.
    """
    each = class_parameters_m(context)
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in context.records:
        if record.metric == "params_m" and record.dataset_id and record.is_reference:
            groups.setdefault((record.table, record.method), []).append(record)
    for found in groups.values():
        ordered = sorted(found, key=lambda r: context.project.dataset(str(r.dataset_id)).classes)
        for record in ordered:
            yield _judge_total(context, record, ordered[0], each)


def _judge_total(context: PublishedContext, record: Record, least: Record, each: float | None) -> Finding:
    common: dict[str, Any] = {
        "subject": subject_of(record),
        "published": f"{printed(record)} {record.unit}",
        "source": record.source.full,
    }
    if each is None:
        return Finding(
            verdict="not_checkable", explanation=_no_record(context, classes=OTHER_CLASSES), **common
        )
    if record is least:
        why = "the fewest classes: the others are held against it"
        return Finding(verdict="not_checkable", explanation=why, **common)
    classes = [context.project.dataset(str(r.dataset_id)).classes for r in (record, least)]
    expected = least.value + each * (classes[0] - classes[1])
    step = 10.0**-record.decimals
    fits = abs(record.value - expected) <= step + 1e-9
    return Finding(
        verdict="confirmed" if fits else "contradicted",
        recomputed=f"{expected:.{record.decimals}f} M",
        explanation=f"{least.dataset} has {printed(least)} M; {classes[0] - classes[1]} more classes need "
        f"{each * (classes[0] - classes[1]):.3f} M more",
        **common,
    )


# --- costs of choosing regions -------------------------------------------------------------------------


def _cost_tables(context: PublishedContext) -> Iterator[tuple[str, PublishedCosts]]:
    for name in context.project.names("published"):
        found = context.project.published(name)
        if isinstance(found, PublishedCosts):
            yield name, found


def _by_place(context: PublishedContext, table: str) -> dict[tuple[str, int, str], Record]:
    return {(r.column, r.image_size or 0, r.metric): r for r in context.records if r.table == table}


@published_check("cost_shares", title="Costs and their shares", inputs=("params/published",))
def cost_shares(context: PublishedContext) -> Iterator[Finding]:
    """A table that prints costs and their shares of a backbone has the same backbone behind all of them. Each
    printed share is held against the printed cost divided by the backbone's, as far as rounding goes.
    Confirmed: the division comes out. Contradicted: it does not. This is arithmetic alone: whether numerator
    and denominator are in one unit is another check.
    """
    for table, found in _cost_tables(context):
        records = _by_place(context, table)
        for (column, size, metric), record in records.items():
            if metric != "flops_pct_of_backbone":
                continue
            cost = records[column, size, "flops_g"]
            backbone = found.backbone_cost_g.get(str(size))
            if backbone is None:
                continue
            low, high = (float(v) for v in (printed(cost).interval.low, printed(cost).interval.high))
            shares = Interval(*(_fraction(100 * v / backbone) for v in (low, high)))
            fits = shares.meets(printed(record).interval)
            yield Finding(
                subject=subject_of(record) + f", {size} px",
                verdict="confirmed" if fits else "contradicted",
                published=f"{printed(record)} %",
                recomputed=f"{100 * cost.value / backbone:.4g} %",
                explanation=f"{cost.value:g} of {backbone:g} ({found.backbone_cost_unit})",
                source=record.source.full,
            )


def _fraction(value: float) -> Any:
    from fractions import Fraction

    return Fraction(value)


@published_check(
    "backbone_cost", title="The backbone's own cost", inputs=("params/published", "results/cost")
)
def backbone_cost(context: PublishedContext) -> Iterator[Finding]:
    """What shares are divided by is recounted: the MACs of the plain backbone at the same image size and class
    count, by three counts that agree. Confirmed: within 0.5 %. Contradicted: further off; where the difference
    is the patch embedding once more, that is told: it was counted in FLOPs, two a MAC, among MACs. Not
    checkable: there is no cost record of the size.
    """
    for table, found in _cost_tables(context):
        records = _by_place(context, table)
        for size_text in found.backbone_cost_g:
            record = records["backbone", int(size_text), "flops_g"]
            yield _judge_backbone(context, record, int(size_text))


def _judge_backbone(context: PublishedContext, record: Record, size: int) -> Finding:
    common: dict[str, Any] = {
        "subject": f"{subject_of(record)}, {size} px",
        "published": f"{record.value:g} {record.unit}",
        "source": record.source.full,
    }
    counted = context.costs.find(BACKBONE, size, BACKBONE_CLASSES)
    if counted is None:
        return Finding(
            verdict="not_checkable", explanation=_no_record(context, size, BACKBONE_CLASSES), **common
        )
    macs = float(counted["macs_g"])
    off = 100 * (record.value - macs) / macs
    embedding = patch_embedding_macs_g(size)
    why = f"{off:+.2f} % from {macs:.4f} GMACs by three counts"
    if abs(record.value - embedding - macs) / macs < 1e-3:
        why += f"; the patch embedding ({embedding:.4f} GMACs) is in it twice, as FLOPs among MACs"
    return Finding(
        verdict="confirmed" if abs(off) <= AGREEMENT_PCT else "contradicted",
        recomputed=f"{macs:.4f} GMACs",
        explanation=why,
        **common,
    )


def patch_embedding_macs_g(image_size: int, stride: int = 16) -> float:
    """GMACs of ViT-B/16's patch embedding: each of 16·16·3 inputs meets each of 768 outputs, once a patch."""
    patches = ((image_size - 16) // stride + 1) ** 2
    return patches * 16 * 16 * 3 * 768 / 1e9


def vit_b16_macs_g(image_size: int, stride: int, classes: int) -> float:
    """GMACs of ViT-B/16 (12 blocks of width 768) whose patches start every ``stride`` pixels.

    A block of S tokens and width D: 4·S·D² (q, k, v, output) + 2·S²·D (attention) + 8·S·D² (MLP). Source:
    Dosovitskiy et al., arXiv:2010.11929, Table 1; `backbone_cost` holds it against the counted record.
    """
    width, blocks = 768, 12
    tokens = ((image_size - 16) // stride + 1) ** 2 + 1
    block = 12 * tokens * width**2 + 2 * tokens**2 * width
    return patch_embedding_macs_g(image_size, stride) + (blocks * block + width * classes) / 1e9


#: Tokens that start every so many pixels, and FLOPs a multiply-add, behind the columns of GLSim's Table 1
#: (its tools/calc_flops.py @99cc474: the product of attention maps is counted as S²(2S−1) FLOPs, the rest as
#: one operation a multiply-add).
_NUMERATORS = {
    "psm": (12, 2),
    "attention_rollout": (16, 2),
    "maws": (16, 1),
    "sacm": (12, 1),
    "gls": (16, 1),
}


@published_check(
    "mixed_units", title="Shares in one unit, on the same tokens", inputs=("params/published", "results/cost")
)
def mixed_units(context: PublishedContext) -> Iterator[Finding]:
    """A share of a backbone's cost means something when both are counted in one unit, on the same tokens. The
    shares of GLSim's Table 1 divide costs in which a multiply-add is two FLOPs (products of attention maps) or
    one (the others) by a backbone that is counted in MACs, and two columns use overlapping patches (stride 12)
    while the backbone does not (stride 16). Each share is computed anew: FLOPs by FLOPs, with the tokens of the
    numerator; the backbone's closed form is held against the counted record first. Confirmed: within 5 % of
    the printed share. Contradicted: further off.
    """
    for table, found in _cost_tables(context):
        records = _by_place(context, table)
        for column, (stride, flops) in _NUMERATORS.items():
            if column not in found.columns:
                continue
            for cell in found.columns[column].cells:
                share = records[column, cell.image_size, "flops_pct_of_backbone"]
                cost = records[column, cell.image_size, "flops_g"]
                yield _judge_share(context, share, cost, stride, flops)


def _judge_share(
    context: PublishedContext, share: Record, cost: Record, stride: int, flops_a_mac: int
) -> Finding:
    size = share.image_size or 0
    common: dict[str, Any] = {
        "subject": f"{subject_of(share)}, {size} px",
        "published": f"{printed(share)} %",
        "source": share.source.full,
    }
    checked = context.costs.find(BACKBONE, 224, BACKBONE_CLASSES)
    if checked is None:
        return Finding(verdict="not_checkable", explanation=_no_record(context), **common)
    formula_off = abs(vit_b16_macs_g(224, 16, BACKBONE_CLASSES) / float(checked["macs_g"]) - 1)
    if formula_off > 0.01:
        why = f"the closed form of the backbone is {100 * formula_off:.1f} % off the counted record"
        return Finding(verdict="not_checkable", explanation=why, **common)
    # The printed cost has two digits; the share has more, and gives the numerator back.
    numerator = share.value / 100 * _denominator(context, share)
    flops = numerator if flops_a_mac == 2 else 2 * numerator
    consistent = 100 * flops / (2 * vit_b16_macs_g(size, stride, BACKBONE_CLASSES))
    off = abs(share.value / consistent - 1)
    unit = "FLOPs over MACs" if flops_a_mac == 2 else "one operation a multiply-add over MACs"
    tokens = "overlapping (stride 12) over plain patches" if stride == 12 else "the same tokens"
    return Finding(
        verdict="confirmed" if off <= 0.05 else "contradicted",
        recomputed=f"{consistent:.3g} %",
        explanation=f"printed: {unit}, {tokens}; FLOPs by FLOPs on the numerator's tokens: {consistent:.3g} %",
        **common,
    )


def _denominator(context: PublishedContext, share: Record) -> float:
    found = context.project.published(share.table)
    assert isinstance(found, PublishedCosts)
    return found.backbone_cost_g[str(share.image_size)]
