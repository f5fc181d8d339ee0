"""Checks of claims: a better accuracy for its cost, a margin over others, on the papers' own numbers."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean

from fgvc.audit.context import PublishedContext
from fgvc.audit.finding import Finding, Verdict
from fgvc.audit.published_tables import printed
from fgvc.audit.registry import published_check
from fgvc.audit.tables import listed
from fgvc.config.audit_facts import Claim, MarginClaim, TradeoffClaim, read_claims
from fgvc.config.published_records import Record
from fgvc.errors import FgvcError
from fgvc.evaluation.pareto import Tradeoff, dominates
from fgvc.evaluation.statistics import Interval


@published_check(
    "claims",
    title="Claims of papers",
    inputs=("params/audit/claims.yaml", "params/published", "results/cost"),
)
def claims(context: PublishedContext) -> Iterator[Finding]:
    """Claims such as a superior trade-off, restated so that they can be checked, on the numbers that the
    paper itself prints. A method dominates another when it is at least as accurate and as cheap, and better
    in one; costs are MACs recounted here, or printed throughputs and FLOPs. Numbers are as printed, give or
    take their rounding and what reading a figure may be off by. Confirmed and contradicted are about the
    restated claim. Not checkable: the costs or numbers are not here, intervals overlap, or the claim is about
    more than what is printed.
    """
    for claim in read_claims(context.project).claims:
        verdict, published, recomputed, why = _judge(context, claim)
        yield Finding(
            subject=f"{claim.paper}: {claim.statement}",
            verdict=verdict,
            published=published,
            recomputed=recomputed,
            explanation=why,
            source=claim.wording,
        )


#: What reading a figure may be off by, by unit: points, images a second; 0.1 for others (axes in 10^9).
_READING = {"%": 0.05, "img/s": 2.0}

_Answer = tuple[Verdict, str | None, str | None, str]


def _judge(context: PublishedContext, claim: Claim) -> _Answer:
    if isinstance(claim, TradeoffClaim):
        return _judge_tradeoff(context, claim)
    if isinstance(claim, MarginClaim):
        return _judge_margin(context, claim)
    return "not_checkable", None, None, claim.why


def _cell(context: PublishedContext, table: str, column: str, row: str) -> Record:
    """Raises FgvcError for a row or column that the published table does not have."""
    for record in context.records:
        if (record.table, record.column) == (table, column) and row in (record.row, record.id.split("/")[-1]):
            return record
    raise FgvcError(
        f"the published table '{table}' has no number in row '{row}' of column '{column}'",
        file="params/audit/claims.yaml",
        cure=f"fgvc describe {table}",
    )


# --- accuracy for its cost ------------------------------------------------------------------------------


def _judge_tradeoff(context: PublishedContext, claim: TradeoffClaim) -> _Answer:
    rivals = claim.rivals or _other_columns(context, claim)
    points = {column: _tradeoff(context, claim, column) for column in (claim.method, *rivals)}
    missing = [answer for answer in points.values() if isinstance(answer, str)]
    if missing:
        return "not_checkable", None, None, f"the cost is not here: {missing[0]}"
    known = {_title(context, claim, c): p for c, p in points.items() if isinstance(p, Tradeoff)}
    method = _title(context, claim, claim.method)
    judge = _judge_dominance if claim.reading == "dominates" else _judge_front
    verdict, why = judge(method, known)
    told = [f"{name} {_told(claim, point)}" for name, point in known.items()]
    return verdict, told[0], "; ".join(told[1:]), why


def _judge_dominance(method: str, points: dict[str, Tradeoff]) -> tuple[Verdict, str]:
    answers = {name: dominates(points[method], point) for name, point in points.items() if name != method}
    held = [name for name, answer in answers.items() if answer]
    failed = [name for name, answer in answers.items() if answer is False]
    why = f"it dominates {_names(held)}" + (f"; not {_names(failed)}" if failed else "")
    if failed:
        return "contradicted", why
    return ("confirmed", why) if len(held) == len(answers) else ("not_checkable", f"{why}; the rest is open")


def _judge_front(method: str, points: dict[str, Tradeoff]) -> tuple[Verdict, str]:
    answers = {name: dominates(point, points[method]) for name, point in points.items() if name != method}
    by = [name for name, answer in answers.items() if answer]
    if by:
        return "contradicted", f"dominated by {_names(by)}"
    cheaper = [name for name in answers if points[name].cost.high < points[method].cost.low]
    why = f"nobody dominates it; cheaper: {_names(cheaper)}"
    return ("not_checkable", f"{why}; intervals overlap") if None in answers.values() else ("confirmed", why)


def _names(titles: list[str]) -> str:
    return listed(titles) if titles else "none"


def _title(context: PublishedContext, claim: TradeoffClaim | MarginClaim, column: str) -> str:
    return next(r.method for r in context.records if (r.table, r.column) == (claim.table, column))


def _other_columns(context: PublishedContext, claim: TradeoffClaim) -> list[str]:
    found = [r.column for r in context.records if r.table == claim.table and r.row == claim.accuracy]
    return [column for column in dict.fromkeys(found) if column != claim.method]


def _tradeoff(context: PublishedContext, claim: TradeoffClaim, column: str) -> Tradeoff | str:
    """The accuracy and cost of a column; what would make its cost record, where that is missing."""
    accuracy = _cell(context, claim.table, column, claim.accuracy)
    bounds = _bounds(accuracy)
    if claim.throughput is not None:
        speed = _bounds(_cell(context, claim.table, column, claim.throughput))
        return Tradeoff(bounds, Interval(1 / speed.mean, 1 / speed.high, 1 / speed.low))
    if claim.printed_flops is not None:
        return Tradeoff(bounds, _bounds(_cell(context, claim.table, column, claim.printed_flops)))
    variant = accuracy.cost_variant or accuracy.variant
    if variant is None or claim.classes is None:
        return f"no variant here computes what the column '{column}' does"
    record = context.costs.find(variant, claim.image_size, claim.classes)
    if record is None:
        return context.costs.command(variant, claim.image_size, claim.classes)
    macs = float(record["macs_g"])
    return Tradeoff(bounds, Interval(macs, macs, macs))


def _bounds(record: Record) -> Interval:
    """The number, between what rounding and reading a figure leave open."""
    found = printed(record).interval
    off = _READING.get(record.unit, 0.1) if record.approximate else 0.0
    return Interval(record.value, float(found.low) - off, float(found.high) + off)


def _told(claim: TradeoffClaim, point: Tradeoff) -> str:
    if claim.throughput is not None:
        return f"{point.accuracy.mean:g} % at {1 / point.cost.mean:.4g} img/s"
    unit = "GMACs" if claim.classes is not None else "G"
    return f"{point.accuracy.mean:g} % at {point.cost.mean:.4g} {unit}"


# --- a margin over others -------------------------------------------------------------------------------


def _judge_margin(context: PublishedContext, claim: MarginClaim) -> _Answer:
    table, column, row = claim.record.split("/")
    said = _cell(context, table, column, row)
    own = _mean(context, claim, claim.method)
    rivals = {rival: _mean(context, claim, rival) for rival in claim.rivals}
    margins = {rival: _margin(claim, own, value) for rival, value in rivals.items()}
    if claim.over == "mean":
        found = _margin(claim, own, mean(rivals.values()))
        told = f"{found:.1f} over the mean of {len(rivals)}"
    else:
        least = min(margins, key=lambda rival: margins[rival])
        found = margins[least]
        nearest = _title(context, claim, least)
        told = f"{found:.1f} over {nearest}, the nearest of {len(rivals)}"
    # One digit of the claim's own: 123 is kept by 122.5.
    reached = found >= said.value - 0.5 * 10.0**-said.decimals - 1e-9
    why = {
        "points_more": "points above",
        "times_less": "times less",
        "percent_less": "percent less",
    }[claim.quantity]
    verdict: Verdict = "confirmed" if reached else "contradicted" if claim.complete else "not_checkable"
    note = "" if claim.complete else "; the claim is about more than is printed"
    return verdict, f"{printed(said)} {said.unit}", told, f"{told} ({why}){note}"


def _mean(context: PublishedContext, claim: MarginClaim, column: str) -> float:
    return mean(_cell(context, claim.table, column, row).value for row in claim.rows)


def _margin(claim: MarginClaim, own: float, other: float) -> float:
    if claim.quantity == "points_more":
        return own - other
    if claim.quantity == "times_less":
        return other / own
    return 100 * (1 - own / other)
