"""Checks of a number against the same number elsewhere: in a figure, in a log, in another paper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations

from fgvc.audit.context import PublishedContext
from fgvc.audit.finding import Finding
from fgvc.audit.published_tables import printed, subject_of
from fgvc.audit.registry import published_check
from fgvc.config.published_records import Record

#: What reading a bar chart may be off by (points).
READING = 0.05
#: Two sources that quote one training should not be further apart (points).
QUOTED_ALIKE = 1.0
_AGAIN = re.compile(r"re-?implement", re.IGNORECASE)


def _key(record: Record) -> tuple[object, ...]:
    dataset = record.dataset_id or record.dataset
    return (_name(record.method), record.backbone, dataset, record.image_size, record.metric)


def _name(method: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", method.lower())


def _accuracies(context: PublishedContext) -> list[Record]:
    return [r for r in context.records if r.unit == "%" and "top" in r.metric and r.is_reference]


@published_check("figure_against_table", title="Figures against tables", inputs=("params/published",))
def figure_against_table(context: PublishedContext) -> Iterator[Finding]:
    """A number that was read off a figure is held against the number of the same method, dataset and image
    size that the same paper prints in a table. Confirmed: they are within 0.05 points (what reading may be
    off by) and half a printed digit. Contradicted: they are not. Not checkable: no table prints it; it stays
    as read.
    """
    accuracies = _accuracies(context)
    tables = {(r.source.short, *_key(r)): r for r in accuracies if not r.approximate}
    for record in accuracies:
        if not record.approximate:
            continue
        other = tables.get((record.source.short, *_key(record)))
        if other is None:
            yield Finding(
                subject=subject_of(record),
                verdict="not_checkable",
                published=str(printed(record)),
                explanation="read off a figure; no table of the paper that is here prints it",
                source=record.source.full,
            )
            continue
        off = abs(record.value - other.value)
        fits = off <= READING + 0.5 * 10.0**-other.decimals
        yield Finding(
            subject=subject_of(record),
            verdict="confirmed" if fits else "contradicted",
            published=str(printed(record)),
            recomputed=f"{printed(other)} ({other.source.table})",
            explanation=f"the figure and {other.source.place} are {off:.2f} points apart",
            source=record.source.full,
        )


@published_check("quoted_from_log", title="Printed numbers against logs", inputs=("params/published",))
def quoted_from_log(context: PublishedContext) -> Iterator[Finding]:
    """Where a paper's repository ships training logs, its printed accuracies should be found in them: the
    best or the last epoch of the log, rounded. Confirmed: one of them is printed so. Contradicted: none is;
    the number is of another run than the one that is shown.
    """
    accuracies = _accuracies(context)
    logs: dict[tuple[object, ...], list[Record]] = {}
    for record in accuracies:
        if record.evidence == "primary_repo_log":
            logs.setdefault((record.source.short, *_key(record)), []).append(record)
    for record in accuracies:
        logged = logs.get((record.source.short, *_key(record)))
        if logged is None or record.evidence == "primary_repo_log":
            continue
        fits = [r for r in logged if printed(r).interval.meets(printed(record).interval)]
        told = ", ".join(f"{printed(r)} ({r.source.table})" for r in logged)
        yield Finding(
            subject=subject_of(record),
            verdict="confirmed" if fits else "contradicted",
            published=str(printed(record)),
            recomputed=told,
            explanation="the log has it" if fits else "neither accuracy of the log is printed so",
            source=record.source.full,
        )


@published_check("conflicting_sources", title="Two sources, one number", inputs=("params/published",))
def conflicting_sources(context: PublishedContext) -> Iterator[Finding]:
    """Two sources that give an accuracy of the same method, backbone, dataset and image size, with nothing
    known to differ in protocol, should agree. Contradicted: they are more than one point apart. Confirmed:
    they are not. Where one of them implemented the method again, more than a point is no contradiction but
    another training, and not checkable.
    """
    groups: dict[tuple[object, ...], list[Record]] = {}
    for record in _accuracies(context):
        if not record.approximate:
            groups.setdefault(_key(record), []).append(record)
    for found in groups.values():
        for a, b in combinations(found, 2):
            if not _are_two_sources(a, b) or _protocols_differ(a, b):
                continue
            yield _compare(a, b)


def _are_two_sources(a: Record, b: Record) -> bool:
    """Two papers, or two reporters in one table. A paper's own table and README are other runs of its own."""
    if a.table == b.table:
        return a.reported_by != b.reported_by
    return a.source.short != b.source.short


def _protocols_differ(a: Record, b: Record) -> bool:
    first, second = a.protocol.model_dump(), b.protocol.model_dump()
    return any(
        first[key] is not None and second[key] is not None and first[key] != second[key] for key in first
    )


def _compare(a: Record, b: Record) -> Finding:
    off = abs(a.value - b.value)
    again = any(_AGAIN.search(r.reported_by) for r in (a, b)) and a.reported_by != b.reported_by
    apart = off > QUOTED_ALIKE
    why = f"{off:.2f} points apart"
    if apart and again:
        why += "; one of the two implemented the method again"
    elif apart:
        why += ": they cannot both be the accuracy of the method as it is named"
    return Finding(
        subject=f"{subject_of(a)} against {b.source.place}",
        verdict="confirmed" if not apart else "not_checkable" if again else "contradicted",
        published=str(printed(a)),
        recomputed=f"{printed(b)} ({b.reported_by})",
        explanation=why,
        source=f"{a.source.full}; {b.source.full}",
    )


@published_check("from_memory", title="Numbers from memory", inputs=("params/published",))
def from_memory(context: PublishedContext) -> Iterator[Finding]:
    """Some numbers are remembered and stand in no source that could be read. They are listed so that nobody
    takes them for quoted ones, never used as a reference, and not checkable.
    """
    for record in context.records:
        if record.recalled:
            yield Finding(
                subject=subject_of(record),
                verdict="not_checkable",
                published=str(printed(record)),
                explanation="from memory; no source that was read has it",
                source=record.source.full,
            )
