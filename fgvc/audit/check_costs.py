"""Checks of published costs: parameters against class counts, shares of a backbone, units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fgvc.audit.context import PublishedContext
from fgvc.audit.finding import Finding
from fgvc.audit.published_tables import printed, subject_of
from fgvc.audit.registry import published_check
from fgvc.config.audit_facts import BACKBONE, BACKBONE_CLASSES, OTHER_CLASSES
from fgvc.config.published import PublishedCosts
from fgvc.config.published_records import Record
from fgvc.cost.published_formulas import Geometry, RecomputedCost, published_backbone, recomputed_costs

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
    """A linear head on ViT-B/16 has 769 parameters a class. A total of trainable parameters over the datasets
    of a table is at least the heads for their class counts (params/datasets); what a class costs is recounted
    from two cost records. Contradicted: the printed total is less. Confirmed: it is not (which says that
    heads fit in, no more). Not checkable: a table that prints zero for linear probing leaves the heads out;
    or the class counts or the record are not here.
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


def _cost_tables(context: PublishedContext) -> Iterator[tuple[PublishedCosts, dict[str, Record]]]:
    """Published tables of costs, with their records by id without the table's name."""
    for name in context.project.names("published"):
        found = context.project.published(name)
        if isinstance(found, PublishedCosts):
            yield found, {r.id.removeprefix(f"{name}/"): r for r in context.records if r.table == name}


@published_check("cost_formulas", title="Printed costs against their formulas", inputs=("params/published",))
def cost_formulas(context: PublishedContext) -> Iterator[Finding]:
    """Each printed cost of choosing regions, and its share of the backbone, is computed again by the formulas
    of the paper's own tool (fgvc/cost/published_formulas.py). Confirmed: every printed digit comes out.
    Contradicted: it does not. This says that the table was printed as its tool computes it; whether the
    shares mean what they seem to is another check.
    """
    for found, records in _cost_tables(context):
        for cost in recomputed_costs(found):
            at = f"{cost.column}/{cost.image_size}"
            flops, share = records[f"{at}/flops_g"], records[f"{at}/flops_pct_of_backbone"]
            yield _reproduced(flops, cost.flops_reproduced, f"{cost.flops / 1e9:.6g} GFLOPs")
            yield _reproduced(share, cost.percent_reproduced, f"{cost.percent:.6g} %")


def _reproduced(record: Record, fits: bool, recomputed: str) -> Finding:
    return Finding(
        subject=subject_of(record),
        verdict="confirmed" if fits else "contradicted",
        published=f"{record.value:g} {record.unit}",
        recomputed=recomputed,
        explanation="the tool's formula gives every printed digit" if fits else "the tool's formula does not",
        source=record.source.full,
    )


@published_check("mixed_units", title="Shares in one unit, on the same tokens", inputs=("params/published",))
def mixed_units(context: PublishedContext) -> Iterator[Finding]:
    """A share of a backbone's cost means something when both are counted in one unit, on the same tokens.
    Each printed share is computed again by the same formula, but as FLOPs over FLOPs (two a multiply-add),
    with a backbone of the numerator's tokens. Confirmed: the printed shares of the column come out.
    Contradicted: they do not; the finding says what was mixed, and what the shares are without.
    """
    for found, records in _cost_tables(context):
        by_column: dict[str, list[RecomputedCost]] = {}
        for cost in recomputed_costs(found):
            by_column.setdefault(cost.column, []).append(cost)
        for column, costs in by_column.items():
            record = records[f"{column}/{costs[0].image_size}/flops_pct_of_backbone"]
            fits = all(cost.is_consistent for cost in costs)
            why = dict.fromkeys(cost.explanation.split("; ")[0] for cost in costs)
            if costs[0].tokens != costs[0].backbone_tokens:
                why["the numerator has overlapping tokens, the backbone has not"] = None
                plain = ", ".join(f"{cost.plain_percent:.3g} %" for cost in costs)
                why[f"without overlap on either side: {plain}"] = None
            yield Finding(
                subject=f"{context.place_of(record.table)}: {record.method}, share of the backbone",
                verdict="confirmed" if fits else "contradicted",
                published=", ".join(f"{c.printed_percent:g} % ({c.image_size} px)" for c in costs),
                recomputed=", ".join(f"{c.consistent_percent:.3g} %" for c in costs),
                explanation="one unit, the same tokens" if fits else "; ".join(why),
                source=record.source.full,
            )


@published_check(
    "backbone_cost", title="The backbone's own cost", inputs=("params/published", "results/cost")
)
def backbone_cost(context: PublishedContext) -> Iterator[Finding]:
    """What shares are divided by is recounted: the MACs of the plain backbone at the same image size and
    class count, by three counts that agree. Confirmed: within 0.5 %. Contradicted: further off; where the
    difference is the patch embedding once more, that is told: it was counted in FLOPs, two a MAC, among
    MACs. Not checkable: there is no cost record of the size.
    """
    for found, records in _cost_tables(context):
        for size in found.backbone_cost_g:
            yield _judge_backbone(context, records[f"backbone/{size}/flops_g"], int(size))


def _judge_backbone(context: PublishedContext, record: Record, size: int) -> Finding:
    common: dict[str, Any] = {
        "subject": subject_of(record),
        "published": f"{record.value:g} {record.unit}",
        "source": record.source.full,
    }
    counted = context.costs.find(BACKBONE, size, BACKBONE_CLASSES)
    if counted is None:
        why = _no_record(context, size, BACKBONE_CLASSES)
        return Finding(verdict="not_checkable", explanation=why, **common)
    macs = float(counted["macs_g"])
    off = 100 * (record.value - macs) / macs
    geometry = Geometry(size, classes=BACKBONE_CLASSES)
    embedding = (published_backbone(geometry) - geometry.backbone_macs) / 1e9
    why = f"{off:+.2f} % from {macs:.4f} GMACs by three counts"
    if abs(record.value - embedding - macs) / macs < 1e-3:
        why += f"; the patch embedding ({embedding:.4f} GMACs) is in it twice, as FLOPs among MACs"
    return Finding(
        verdict="confirmed" if abs(off) <= AGREEMENT_PCT else "contradicted",
        recomputed=f"{macs:.4f} GMACs",
        explanation=why,
        **common,
    )
