"""Published totals of trainable parameters, set against what models and datasets give, in two readings.

The first: the sum over the tasks, each with its own head. The second: as many tasks, each the mean over a
longer list of datasets. Which of them the printed number is, its digits tell.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fgvc.config.project import Project
from fgvc.config.published_records import Record, records_of
from fgvc.config.suite import TrainableTable
from fgvc.errors import FgvcError
from fgvc.reporting.cost_table import significant
from fgvc.reporting.grid_table import Entry, Grid, GridRow, Heading, Note, letter, method_headings
from fgvc.reporting.trainable import trainable_by_dataset

CSV_COLUMNS = (
    "published_id",
    "published_method",
    "method",
    "size",
    "trainable_per_task_without_head_m",
    "sum_of_tasks_m",
    "mean_based_m",
    "published_m",
    "published_decimals",
    "difference_m",
    "agrees_with",
)
_SUM, _MEAN, _BOTH, _NEITHER = "sum", "mean", "both", "neither"
_HEADINGS = (
    Heading("method", "", "Ours"),
    Heading("rest", "", "A task without head (M)"),
    Heading("sum", "", "Sum of tasks (M)"),
    Heading("mean", "", "By the mean (M)"),
    Heading("published", "", "Published (M)"),
    Heading("difference", "", "Sum − published"),
    Heading("agrees", "", "Published is"),
)
_WORDS = {_SUM: "the sum", _MEAN: "by the mean", _BOTH: "either", _NEITHER: "neither"}


@dataclass(frozen=True)
class Total:
    """A published total, and what our variant of the method trains; None where there is no such variant.

    Attributes:
        rest: of one task, what does not depend on its number of classes.
        over_tasks: summed over the tasks.
        by_mean: as many tasks as these, each the mean of the longer list.
    """

    record: Record
    variant: str | None
    rest: float | None = None
    over_tasks: float | None = None
    by_mean: float | None = None

    @property
    def agrees_with(self) -> str | None:
        """Which reading the printed digits fit: within half a unit of the last one."""
        if self.over_tasks is None or self.by_mean is None:
            return None
        half = 0.5 * 10.0**-self.record.decimals + 1e-9
        fits_sum, fits_mean = (
            abs(count / 1e6 - self.record.value) <= half for count in (self.over_tasks, self.by_mean)
        )
        return (_BOTH if fits_mean else _SUM) if fits_sum else (_MEAN if fits_mean else _NEITHER)


def read_totals(project: Project, config: TrainableTable) -> list[Total]:
    """Every total of the published row, in the order of its columns; counted now, on shapes.

    Raises FgvcError where the file does not say at which image size a column was run.
    """
    records = records_of(config.published, project.published(config.published))
    return [_total(project, config, r) for r in records if r.row == config.row and r.is_reference]


def _total(project: Project, config: TrainableTable, record: Record) -> Total:
    variant = record.variant or record.cost_variant
    if variant is None:
        return Total(record, None)
    if record.image_size is None:
        raise FgvcError(
            f"the image size of the column '{record.column}' is not said",
            file=project.paths.shown(project.file("published", config.published)),
            key=f"columns.{record.column}",
            cure="give it the key image_size: position embeddings that train depend on it",
        )
    names = list(dict.fromkeys([*config.datasets, *config.mean_of]))
    counts = trainable_by_dataset(project, variant, record.image_size, names)
    over_tasks = sum(counts[d] for d in config.datasets)
    mean = sum(counts[d] for d in config.mean_of) / len(config.mean_of)
    return Total(
        record,
        variant,
        _without_head(project, counts),
        float(over_tasks),
        len(config.datasets) * mean,
    )


def _without_head(project: Project, counts: dict[str, int]) -> float | None:
    """What a task trains besides its head, whose size is in proportion to the classes; None of one size."""
    by_classes = {project.dataset(d).classes: count for d, count in counts.items()}
    few, many = min(by_classes), max(by_classes)
    if few == many:
        return None
    a_class = (by_classes[many] - by_classes[few]) / (many - few)
    return by_classes[few] - a_class * few


def trainable_grid(project: Project, name: str, config: TrainableTable, found: Sequence[Total]) -> Grid:
    """The table as it is printed, one row a published total."""
    headings = method_headings(project, dict.fromkeys(t.variant for t in found if t.variant))
    titles = {h.key: h.one_line for h in headings}
    remarks: dict[str, str] = {}
    rows = []
    for total in found:
        told = _remark(total)
        letters = remarks.setdefault(told, letter(len(remarks))) if told else ""
        rows.append(GridRow(total.record.method, _entries(total, titles), letters))
    return Grid(
        name=name,
        title=config.title,
        caption=f"{config.caption.strip()} {project.published(config.published).source.full}.",
        row_heading="Published as",
        headings=_HEADINGS,
        rows=tuple(rows),
        notes=(
            *map(Note, _reading(project, config, found)),
            *(Note(text, mark) for text, mark in remarks.items()),
        ),
    )


def _entries(total: Total, titles: dict[str, str]) -> tuple[Entry, ...]:
    printed = Entry(f"{total.record.value:,.{total.record.decimals}f}")
    if total.variant is None or total.over_tasks is None or total.by_mean is None:
        return (Entry("not here"), *[Entry("–")] * 3, printed, *[Entry("–")] * 2)
    difference = total.over_tasks / 1e6 - total.record.value
    return (
        Entry(titles[total.variant]),
        Entry("–" if total.rest is None else significant(total.rest / 1e6, 4)),
        Entry(f"{total.over_tasks / 1e6:,.3f}"),
        Entry(f"{total.by_mean / 1e6:,.3f}"),
        printed,
        Entry(f"{difference:+,.3f}".replace("-", "−")),
        Entry(_WORDS[total.agrees_with or _NEITHER]),
    )


def _remark(total: Total) -> str | None:
    """What is to be said about a row: which variant was taken, and what the source says of it."""
    if total.variant is None:
        return "No variant here is the same method, so that nothing is counted."
    if total.record.variant is None:
        return "Counted by the variant whose inference is the same; whether it trained the same is not known."
    return None


def _reading(project: Project, config: TrainableTable, found: Sequence[Total]) -> list[str]:
    """How the columns are to be read, and how many printed totals each reading explains."""
    tasks = len(config.datasets)
    classes = [project.dataset(d).classes for d in config.datasets]
    others = [project.dataset(d).classes for d in config.mean_of]
    terms = " + ".join(f"{k:,}" for k in classes)
    verdicts = [t.agrees_with for t in found if t.variant]
    counted = {word: verdicts.count(word) for word in (_SUM, _MEAN, _BOTH, _NEITHER)}
    return [
        f"Sum of tasks: what our variant trains, summed over {tasks} tasks with a head each: "
        f"{_titles(project, config.datasets)}; {terms} = {sum(classes):,} classes.",
        f"By the mean: {tasks} times the mean over {len(others)} datasets "
        f"({_titles(project, config.mean_of)}), whose heads have {sum(others) / len(others):,.1f} classes "
        f"on average: {tasks * sum(others) / len(others):,.0f} in all.",
        "Counted from the models, with the classes of params/datasets; no weights and no data are needed. "
        "Published is: the reading that gives every printed digit.",
        f"Of {len(verdicts)} totals that can be counted, {counted[_MEAN]} are by the mean, {counted[_SUM]} "
        f"the sum, {counted[_BOTH]} either, {counted[_NEITHER]} neither.",
    ]


def _titles(project: Project, datasets: Sequence[str]) -> str:
    return ", ".join(project.dataset(d).title for d in datasets)


def trainable_csv(found: Sequence[Total]) -> str:
    """The tidy form: one row a published total, in millions; empty where nothing could be counted."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(tidy_records(found))
    return stream.getvalue()


def tidy_records(found: Sequence[Total]) -> list[dict[str, Any]]:
    """The rows of the CSV; None where nothing could be counted."""
    return [
        {
            "published_id": total.record.id,
            "published_method": total.record.method,
            "method": total.variant,
            "size": total.record.image_size,
            "trainable_per_task_without_head_m": _millions(total.rest),
            "sum_of_tasks_m": _millions(total.over_tasks),
            "mean_based_m": _millions(total.by_mean),
            "published_m": total.record.value,
            "published_decimals": total.record.decimals,
            "difference_m": None
            if total.over_tasks is None
            else round(total.over_tasks / 1e6 - total.record.value, 6),
            "agrees_with": total.agrees_with,
        }
        for total in found
    ]


def _millions(count: float | None) -> float | None:
    return None if count is None else round(count / 1e6, 7)
