"""What others published, set against what is recomputed from it and against our own cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from fgvc.config.project import Project
from fgvc.config.published import PublishedCell, PublishedColumn
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
    """A published mean ± std (percent) and the state of our cell against it."""

    mean: float
    std: float | None
    state: State


@dataclass(frozen=True)
class Beside:
    """What stands beside the cells of an accuracy table, by dataset and method, with the notes about it."""

    cells: dict[tuple[str, str], PublishedBeside] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    decimals: int = 2


def compare(project: Project, cells: CellTable, published: str | None) -> Beside:
    """What ``params/published/{published}.yaml`` says of the cells of a suite; nothing for None.

    Only of the same metric, at the same image size, on the same dataset, by a variant that a column names.

    Raises FgvcError where the file holds no accuracies.
    """
    if published is None:
        return Beside()
    printed = project.published_accuracies(published)
    found: dict[tuple[str, str], PublishedBeside] = {}
    for dataset in cells.datasets if printed.metric == cells.metric else ():
        for method in cells.methods:
            there = printed.cell_of(method, cells.size, dataset)
            if there is not None:
                state = state_of(cells.cell(dataset, method), there, printed.decimals)
                found[dataset, method] = PublishedBeside(there.value, there.std, state)
    if not found:
        return Beside()
    text = (
        f"published: as printed in {printed.source.full}, ± {printed.spread}; not our runs, and never "
        f"ranked. within: our mean is no further from it than {WITHIN_DEVIATIONS:g} √(our std² + published "
        "std²), judged as printed; outside: it is, or a seed of ours diverged; not run: seeds of ours are "
        "missing."
    )
    return Beside(found, (Note(text),), printed.decimals)


def state_of(cell: dict[str, Any], published: PublishedCell, decimals: int) -> State:
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
