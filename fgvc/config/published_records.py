"""Every published number as one flat record, whatever kind of file in ``params/published`` it stands in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from fgvc.config.project import Project
from fgvc.config.published import (
    Protocol,
    PublishedAccuracies,
    PublishedCell,
    PublishedColumn,
    PublishedCosts,
    Source,
)
from fgvc.config.published_list import Published, PublishedRecords

__all__ = ["AVERAGE", "NOT_STATED", "Protocol", "Record", "Source", "published_records", "records_of"]

#: The row of printed averages.
AVERAGE = "average"
#: Of a backbone or pre-training that the source does not name.
NOT_STATED = "not stated"
_METRICS = {"top1_pct": "top1", "top5_pct": "top5", "macro_accuracy_pct": "macro_accuracy"}


@dataclass(frozen=True)
class Record:
    """One published number.

    Args:
        id: unique and stable, ``TABLE/COLUMN/ROW`` (``glsim_table4/vit_b16/cub``), with the metric behind it
            where a row holds several.
        dataset: as printed; ``dataset_id``: ours, or None.
        metric: top1, top5, average_top1, params_m, trainable_params_m, flops_g, flops_pct_of_backbone,
            throughput, train_time_min, claim.
        decimals: as printed; negative where the last printed digit stands for tens or more.
        approximate: read off a figure.
        recalled: from memory alone; listed, and never used as a reference value.
        variant: our variant that is the same method; ``cost_variant``: the one with the same inference.
    """

    id: str
    table: str
    column: str
    row: str
    method: str
    backbone: str
    pretraining: str
    reported_by: str
    dataset: str
    dataset_id: str | None
    image_size: int | None
    metric: str
    value: float
    std: float | None
    unit: str
    decimals: int
    approximate: bool
    recalled: bool
    evidence: str
    note: str | None
    source: Source
    variant: str | None
    cost_variant: str | None
    protocol: Protocol

    @property
    def is_reference(self) -> bool:
        """Whether the number may be set beside another one: someone was seen to have printed it."""
        return not self.recalled


def published_records(project: Project) -> list[Record]:
    """All published numbers: files sorted by name, then columns and rows in the order of the file."""
    return [r for name in project.names("published") for r in records_of(name, project.published(name))]


def records_of(table: str, found: Published) -> list[Record]:
    """The numbers of one file of ``params/published``."""
    if isinstance(found, PublishedAccuracies):
        return list(_of_accuracies(table, found))
    if isinstance(found, PublishedCosts):
        return list(_of_costs(table, found))
    return list(_of_list(table, found))


def _of_accuracies(table: str, found: PublishedAccuracies) -> Iterator[Record]:
    metric = _METRICS[found.metric]
    for key, column in found.columns.items():
        for row, printed in found.rows.items():
            if row in column.cells:
                record = _accuracy(table, found, key, column, column.cells[row])
                yield replace(
                    record,
                    id=f"{table}/{key}/{row}",
                    row=row,
                    dataset=printed.title,
                    dataset_id=printed.dataset,
                    metric=metric,
                )
        if column.average is not None:
            record = _accuracy(table, found, key, column, column.average)
            yield replace(record, dataset=f"AVERAGE({len(found.rows)})", metric=f"average_{metric}")


def _accuracy(
    table: str, found: PublishedAccuracies, key: str, column: PublishedColumn, cell: PublishedCell
) -> Record:
    """The record of a cell as that of the average row; what the row says is set by the caller."""
    evidence = cell.evidence or found.source.evidence
    return Record(
        id=f"{table}/{key}/{AVERAGE}",
        table=table,
        column=key,
        row=AVERAGE,
        method=column.method,
        backbone=column.backbone,
        pretraining=column.pretraining,
        reported_by=column.reported_by,
        dataset="",
        dataset_id=None,
        image_size=column.image_size,
        metric="",
        value=cell.value,
        std=cell.std,
        unit=found.unit,
        decimals=found.decimals,
        approximate=False,
        recalled=False,
        evidence=evidence,
        note=cell.note,
        source=found.source.model_copy(update={"evidence": evidence}),
        variant=column.variant,
        cost_variant=column.cost_variant,
        protocol=column.protocol.over(found.protocol),
    )


def _of_costs(table: str, found: PublishedCosts) -> Iterator[Record]:
    for key, column in found.columns.items():
        for cell in column.cells:
            record = _cost(table, found, key, cell.image_size)
            record = replace(record, method=column.method, reported_by=column.reported_by, note=cell.note)
            yield replace(
                record,
                value=cell.flops_g,
                unit="GFLOPs",
                decimals=_decimals(cell.flops_g, found.flops_digits),
            )
            percent = cell.percent_of_backbone
            yield replace(
                record,
                id=record.id.replace("/flops_g", "/flops_pct_of_backbone"),
                metric="flops_pct_of_backbone",
                value=percent,
                unit="%",
                decimals=min(_decimals(percent, found.percent_digits), found.percent_decimals),
                note=found.percent_note,
            )
    for size, cost in found.backbone_cost_g.items():
        source = found.source.model_copy(
            update={"table": found.backbone_cost_source, "asset": None, "evidence": "recomputed_here"}
        )
        yield replace(
            _cost(table, found, "backbone", int(size)),
            method=found.backbone_method,
            reported_by="own code, recomputed",
            value=cost,
            unit=found.backbone_cost_unit,
            decimals=found.backbone_cost_decimals,
            evidence=source.evidence,
            source=source,
        )


def _cost(table: str, found: PublishedCosts, column: str, image_size: int) -> Record:
    """The record of a cost at one image size; what the column and the cell say is set by the caller."""
    return Record(
        id=f"{table}/{column}/{image_size}/flops_g",
        table=table,
        column=column,
        row=str(image_size),
        method="",
        backbone=found.backbone,
        pretraining=NOT_STATED,
        reported_by="",
        dataset="-",
        dataset_id=None,
        image_size=image_size,
        metric="flops_g",
        value=math.nan,
        std=None,
        unit="",
        decimals=0,
        approximate=False,
        recalled=False,
        evidence=found.source.evidence,
        note=None,
        source=found.source,
        variant=None,
        cost_variant=None,
        protocol=Protocol(),
    )


def _decimals(value: float, digits: int) -> int:
    """Decimals of a number of so many significant digits; −1 where its last digit stands for tens."""
    return digits - 1 - math.floor(math.log10(value))


def _of_list(table: str, found: PublishedRecords) -> Iterator[Record]:
    for key, column in found.columns.items():
        for row, printed in found.rows.items():
            if row not in column.cells:
                continue
            cell, said = column.cells[row], {}
            for name in ("backbone", "pretraining", "reported_by", "image_size", "metric", "unit"):
                said[name] = found.fact(key, row, name)
            source = found.source_of(key, row)
            yield Record(
                id=f"{table}/{key}/{row}",
                table=table,
                column=key,
                row=row,
                method=column.method,
                backbone=said["backbone"] or NOT_STATED,
                pretraining=said["pretraining"] or NOT_STATED,
                reported_by=said["reported_by"],
                dataset=printed.title,
                dataset_id=printed.dataset,
                image_size=said["image_size"],
                metric=said["metric"],
                value=cell.value,
                std=cell.std,
                unit=said["unit"],
                decimals=found.fact(key, row, "decimals"),
                approximate=bool(found.fact(key, row, "approximate")),
                recalled=source.evidence == "none",
                evidence=source.evidence,
                note=found.fact(key, row, "note"),
                source=source,
                variant=column.variant,
                cost_variant=column.cost_variant,
                protocol=found.protocol_of(key, row),
            )
