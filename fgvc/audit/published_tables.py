"""Published records as tables of accuracies."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fgvc.audit.rounding import Printed
from fgvc.audit.tables import Average, Score, ScoreTable
from fgvc.config.project import Project
from fgvc.config.published_records import AVERAGE, NOT_STATED, Record

#: Metrics that are shares of the test images.
SHARES = ("top1", "top5")
#: What follows the dataset in a subject; top-1 goes without saying.
_METRIC_WORDS = {
    "top5": "top-5",
    "average_top5": "top-5",
    "params_m": "parameters",
    "trainable_params_m": "trainable parameters",
    "flops_g": "GFLOPs",
    "flops_pct_of_backbone": "share of the backbone",
    "throughput": "throughput",
    "train_time_min": "training time",
    "claim": "claim",
}
_COUNT = re.compile(r"\((\d+)\b")


def subject_of(record: Record) -> str:
    """How findings name a published number: ``GLSim, Table 4: FFVT, Dogs``."""
    # A backbone that is printed as a title (not as an id) tells columns of one method apart.
    titled = record.backbone != record.backbone.lower() and record.backbone != NOT_STATED
    method = f"{record.method} ({record.backbone})" if titled else record.method
    row = "average" if record.row == AVERAGE else record.dataset.strip("-")
    # Figures and tables of costs show several sizes at once.
    sized = record.image_size and (record.approximate or record.metric.startswith("flops"))
    size = f"{record.image_size} px" if sized else ""
    parts = [method, row, _METRIC_WORDS.get(record.metric, ""), size]
    return f"{record.source.place}: {', '.join(filter(None, parts))}"


def images_of_test(project: Project, record: Record) -> int | None:
    """Images of the test set behind a record: as its protocol says, else as the dataset's lists have it."""
    if record.protocol.test_images is not None:
        return record.protocol.test_images
    if record.dataset_id is None:
        return None
    facts = project.dataset(record.dataset_id).expected.get("test")
    return facts.rows if facts else None


def parts_of_test(project: Project, record: Record) -> int:
    """Parts of the test images that are datasets of their own, of equal size; 1 where there are none."""
    if record.dataset_id is None or record.protocol.test_images is not None:
        return 1
    named = [name for name in project.names("dataset") if name.startswith(f"{record.dataset_id}_")]
    rows = [facts.rows for name in named if (facts := project.dataset(name).expected.get("test"))]
    return len(rows) if len(set(rows)) == 1 and sum(rows) == images_of_test(project, record) else 1


def printed(record: Record) -> Printed:
    return Printed(record.value, record.decimals)


def score_tables(project: Project, records: Sequence[Record]) -> list[ScoreTable]:
    """The accuracies that were printed, by file, image size and metric; figures and memories left out."""
    groups: dict[tuple[str, int | None, str], list[Record]] = {}
    for record in records:
        metric = record.metric.removeprefix("average_")
        if metric in SHARES and record.is_reference and not record.approximate:
            groups.setdefault((record.table, record.image_size, metric), []).append(record)
    return [_table(project, found) for found in groups.values()]


def _table(project: Project, records: list[Record]) -> ScoreTable:
    source = project.published(records[0].table).source
    names = _column_names(records)
    metric = "" if records[0].metric.endswith("top1") else f" ({records[0].metric})"
    return ScoreTable(
        place=source.place + metric,
        source=source.full,
        scores=tuple(_score(project, names, r) for r in records if not _is_average(r)),
        averages=tuple(_average(records, names, r) for r in records if _is_average(r)),
    )


def _is_average(record: Record) -> bool:
    return record.metric.startswith("average_")


def _column_names(records: list[Record]) -> dict[str, str]:
    """How a table's columns are called: as printed, with the column's id where two are printed alike."""
    titles = {record.column: record.method for record in records}
    alike = [title for title in titles.values() if list(titles.values()).count(title) > 1]
    return {column: f"{title} ({column})" if title in alike else title for column, title in titles.items()}


def _score(project: Project, names: dict[str, str], record: Record) -> Score:
    protocol = record.protocol
    return Score(
        dataset=record.dataset,
        method=names[record.column],
        value=printed(record),
        std=None if record.std is None else Printed(record.std, record.decimals),
        images=images_of_test(project, record),
        runs=protocol.seeds,
        processes=protocol.processes,
        parts=parts_of_test(project, record),
        group=f"{record.reported_by}; {protocol.training or ''}",
        label=subject_of(record),
    )


def _average(records: list[Record], names: dict[str, str], record: Record) -> Average:
    """A printed average; over how many cells where its row says so, or is the table's own average row."""
    count = _COUNT.search(record.dataset)
    own = len({r.row for r in records if r.column == record.column and not _is_average(r)})
    return Average(
        method=names[record.column],
        value=printed(record),
        std=None if record.std is None else Printed(record.std, record.decimals),
        cells=int(count[1]) if count else own if record.row == AVERAGE else None,
        label=subject_of(record),
    )
