"""Checks of what sources say of data and code, of licences, and that no published number is left out."""

from __future__ import annotations

from collections.abc import Iterator

from fgvc.audit.context import PublishedContext
from fgvc.audit.finding import Finding, Verdict
from fgvc.audit.published_tables import printed, subject_of
from fgvc.audit.registry import published_check
from fgvc.config.audit_facts import STATEMENTS, Statement, read_statements
from fgvc.config.published_records import Record


@published_check(
    "stated_facts",
    title="What sources say of data and code",
    inputs=("params/audit/statements.yaml", "params/datasets"),
)
def stated_facts(context: PublishedContext) -> Iterator[Finding]:
    """Papers, documentation and scripts say how many classes and images a dataset has, and how a method was
    run. Each statement that we noted is held against the dataset as it is here (class count and the rows of
    the split lists in params/datasets), or against what another file of the same source says. Contradicted:
    the two differ. Not checkable: they differ, but both may be right; or the dataset's lists are not known.
    """
    for statement in read_statements(context.project).statements:
        yield _judge(context, statement)


def _judge(context: PublishedContext, statement: Statement) -> Finding:
    found, where = statement.found, statement.found_in or ""
    if statement.dataset is not None:
        found = _fact_of(context, statement)
        where = f"params/datasets/{statement.dataset}.yaml"
    verdict: Verdict = "not_checkable"
    if found is None:
        why = f"{where} does not say"
    elif found == statement.said:
        verdict, why = "confirmed", f"{where} has the same"
    else:
        verdict = "contradicted" if statement.conclusive else "not_checkable"
        why = f"{where} has {_text(found)}"
    return Finding(
        subject=statement.subject,
        verdict=verdict,
        published=_text(statement.said),
        recomputed=None if found is None else _text(found),
        explanation=f"{why}; {statement.note}" if statement.note else why,
        source=statement.source,
    )


def _fact_of(context: PublishedContext, statement: Statement) -> float | None:
    dataset = context.project.dataset(str(statement.dataset))
    if statement.fact == "classes":
        return dataset.classes
    rows = dataset.expected.get(statement.fact)  # type: ignore[arg-type]
    return rows.rows if rows else None


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:,g}" if value < 1e6 else str(value)


@published_check(
    "licences",
    title="Licences",
    inputs=("params/audit/statements.yaml", "params/datasets"),
)
def licences(context: PublishedContext) -> Iterator[Finding]:
    """Code without a licence may be read and not reused, whatever a paper says of its availability; images
    likewise. Confirmed: a repository has a licence file, a dataset's licence was read. Not checkable: there
    is none, or its wording could not be verified; nothing of such code is copied here.
    """
    for entry in read_statements(context.project).licences:
        at = f" @{entry.commit}" if entry.commit else ""
        why = f"licence file: {entry.licence}" if entry.licence else "no licence file: all rights reserved"
        yield Finding(
            subject=f"{entry.repository}: licence",
            verdict="confirmed" if entry.licence else "not_checkable",
            published=entry.licence,
            explanation=f"{why}; {entry.note}" if entry.note else why,
            source=f"github.com/{entry.repository}{at} ({STATEMENTS})",
        )
    for name in context.project.names("dataset"):
        dataset = context.project.dataset(name)
        unread = any("licence" in text and "published lists" not in text for text in dataset.unverified)
        yield Finding(
            subject=f"{dataset.title} ({name}): licence of the images",
            verdict="not_checkable" if unread else "confirmed",
            published=dataset.licence,
            explanation="the wording was not verified" if unread else "read at its source",
            source=f"params/datasets/{name}.yaml",
        )


_WHY_NOT = {
    "throughput": "read off a figure; neither the GPU nor the batch size is stated, so it cannot be repeated",
    "train_time_min": "the GPU is not stated, so that no time can be held against it",
    "flops_g": "which method the number is of, or what it counts, is not stated",
}


@published_check("left_over", title="Numbers that no other check reads", inputs=("params/published",))
def left_over(context: PublishedContext) -> Iterator[Finding]:
    """Every published number that we quote is in this audit. Those that no other check looks at are listed
    here with the reason, and are not checkable.
    """
    for record in context.records:
        if not is_read_elsewhere(record):
            yield Finding(
                subject=subject_of(record),
                verdict="not_checkable",
                published=f"{printed(record)} {record.unit}",
                explanation=_WHY_NOT.get(record.metric, "nothing here can be held against it"),
                source=record.source.full,
            )


def is_read_elsewhere(record: Record) -> bool:
    """Whether another check reads the record: accuracies, parameters, printed costs, claims, memories."""
    if record.recalled or record.metric in ("top1", "top5", "average_top1", "average_top5", "claim"):
        return True
    if record.metric in ("trainable_params_m", "params_m", "flops_pct_of_backbone"):
        return True
    return record.metric == "flops_g" and not record.approximate
