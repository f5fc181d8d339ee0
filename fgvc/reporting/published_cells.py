"""What others published, set against what is recomputed from it and against our own cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from fgvc.config.project import Project
from fgvc.config.published import PublishedAccuracies, PublishedCell, PublishedColumn
from fgvc.config.published_list import PublishedRecords
from fgvc.config.published_records import Record, records_of
from fgvc.evaluation.statistics import spread
from fgvc.reporting.cells import CellTable
from fgvc.reporting.grid_table import Note

State = Literal["not run", "within", "outside"]
#: Our mean is within when it lies no further from the published one than so many combined deviations.
WITHIN_DEVIATIONS = 2.0


@dataclass(frozen=True)
class Average:
    """The mean of a column's printed cells and its sample std across datasets (ddof=1), and what was printed.

    ``mean_disagrees`` and ``std_disagrees``: the printed number differs by more than rounding explains.
    """

    mean: float
    std: float | None
    n: int
    printed: PublishedCell | None
    mean_disagrees: bool
    std_disagrees: bool


def recomputed_average(column: PublishedColumn, rows: Sequence[str], decimals: int) -> Average | None:
    """The average of a column over ``rows``; None where it lacks a cell of them.

    Every printed cell may be off by half a unit u of its last digit. So may their mean, and their std by at
    most u √(n/(n−1)); the printed average is rounded once more. Only what lies beyond disagrees.
    """
    if any(row not in column.cells for row in rows):
        return None
    over, printed = spread([column.cells[row].value for row in rows]), column.average
    half, slack = 0.5 * 10.0**-decimals, 1e-9
    mean_off = std_off = False
    if printed is not None:
        mean_off = abs(printed.value - over.mean) > 2 * half + slack
    if printed is not None and printed.std is not None and over.std is not None:
        reach = half * (1 + float(np.sqrt(over.n / (over.n - 1))))
        std_off = abs(printed.std - over.std) > reach + slack
    return Average(over.mean, over.std, over.n, printed, mean_off, std_off)


@dataclass(frozen=True)
class PublishedBeside:
    """A published mean ± std (percent, as printed) and the state of our cell against it."""

    mean: float
    std: float | None
    decimals: int
    state: State


@dataclass(frozen=True)
class Beside:
    """What stands beside the cells of an accuracy table, by dataset and method, with the notes about it.

    ``totals``: by method, what was published of the parameters that it trains for all datasets together.
    """

    cells: dict[tuple[str, str], PublishedBeside] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    totals: dict[str, Record] = field(default_factory=dict)


def compare(project: Project, cells: CellTable, published: str | None) -> Beside:
    """What ``params/published/{published}.yaml`` says of the cells of a suite; nothing for None.

    Only of the same metric, at the same image size, on the same dataset, by a variant that a column names.
    Numbers that were only remembered are never taken.

    Raises FgvcError where the file holds no accuracies.
    """
    if published is None:
        return Beside()
    printed = project.published(published)
    if not isinstance(printed, PublishedRecords):
        printed = project.published_accuracies(published)
    known = [
        r
        for r in records_of(published, printed)
        if r.is_reference and r.image_size == cells.size and r.variant in cells.methods
    ]
    metric = cells.metric.removesuffix("_pct")
    found: dict[tuple[str, str], PublishedBeside] = {}
    for r in known:
        if r.metric == metric and r.dataset_id in cells.datasets and r.variant:
            state = state_of(cells.cell(r.dataset_id, r.variant), r, r.decimals)
            found.setdefault((r.dataset_id, r.variant), PublishedBeside(r.value, r.std, r.decimals, state))
    totals = {r.variant: r for r in known if r.metric == "trainable_params_m" and r.variant}
    if not found and not totals:
        return Beside()
    return Beside(found, (Note(_told(printed)),), totals)


def _told(printed: PublishedAccuracies | PublishedRecords) -> str:
    """How the published numbers and the words behind them are to be read."""
    spread_text = f", ± {printed.spread}" if isinstance(printed, PublishedAccuracies) else ""
    return (
        f"published: as printed in {printed.source.full}{spread_text}; not our runs, and never "
        f"ranked. within: our mean is no further from it than {WITHIN_DEVIATIONS:g} √(our std² + published "
        "std²), judged as printed; outside: it is, or a seed of ours diverged; not run: seeds of ours are "
        "missing."
    )


def state_of(cell: dict[str, Any], published: PublishedCell | Record, decimals: int) -> State:
    """The state of our cell against a published number.

    A mean of some of the seeds is not judged; a diverged run is a finished run, and not what was published.
    With one seed, or where no ± was printed, the other's deviation stands alone.
    """
    if cell["status"] == "diverged":
        return "outside"
    if cell["status"] != "ok":
        return "not run"
    reach = WITHIN_DEVIATIONS * float(np.hypot(cell["std"] or 0.0, published.std or 0.0))
    away = abs(round(cell["mean"], decimals) - published.value)
    return "within" if round(away, decimals) <= round(reach, decimals) else "outside"
