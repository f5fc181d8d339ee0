"""The critical-difference diagram: methods on a line of average ranks, with bars over those that are alike.

After Demšar 2006 (JMLR 7:1-30), figure 1; the best method stands on the right.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fgvc.config.project import Project
from fgvc.config.suite import CriticalDifferenceFigure
from fgvc.errors import FgvcError
from fgvc.evaluation.ranking import Friedman, alike_groups, critical_difference, friedman, least_datasets
from fgvc.evaluation.statistics import ALPHA
from fgvc.reporting.accuracy_table import METRIC_NAMES
from fgvc.reporting.cells import CellTable, gather, require_runs
from fgvc.reporting.cost_axes import FOOTNOTE_WIDTH, LEFT, RIGHT, WIDTH_INCHES, new_canvas
from fgvc.reporting.grid_table import Heading, method_headings, short_titles

#: Height in inches of a line of names, and of one bar.
_LINE, _BAR = 0.22, 0.12
#: Width in inches that a letter of a name takes, generously.
_LETTER = 0.066


@dataclass(frozen=True)
class Ranking:
    """Average ranks of the methods that have every cell, and what Friedman and Nemenyi say of them.

    ``difference`` is Nemenyi's critical difference; None where there are fewer datasets than ``least``, on
    which no two methods could differ. ``left_out``: headings of the methods that lack cells, with the reason.
    """

    cells: CellTable
    methods: tuple[Heading, ...]
    test: Friedman
    difference: float | None
    least: int
    left_out: tuple[tuple[str, str], ...]

    @property
    def is_partial(self) -> bool:
        """Whether more runs would change the figure. A diverged run would not."""
        return bool(self.cells.unfinished)

    @property
    def groups(self) -> list[tuple[int, ...]]:
        """Methods that cannot be told apart (indices); all of them where Friedman's test finds nothing."""
        if self.difference is None:
            return []
        if self.test.f_p >= ALPHA:
            return [tuple(sorted(range(len(self.methods)), key=lambda i: self.test.ranks[i]))]
        return alike_groups(self.test.ranks, self.difference)


def read_ranking(
    project: Project,
    suite_name: str,
    config: CriticalDifferenceFigure,
    target: str,
    *,
    allow_missing: bool = False,
) -> Ranking:
    """Ranks of a suite's methods over its datasets.

    Raises FgvcError naming missing runs and the command that makes ``target``, unless ``allow_missing``; and
    when fewer than two methods have every cell.
    """
    cells = gather(project, suite_name, config.image_size, config.metric, decimals=2)
    if not allow_missing:
        require_runs(project, cells, target)
    ranked: list[Heading] = []
    left_out: list[tuple[str, str]] = []
    for heading in method_headings(project, cells.methods):
        statuses = {cells.cell(d, heading.key)["status"] for d in cells.datasets}
        if statuses == {"ok"}:
            ranked.append(heading)
        else:
            left_out.append(
                (heading.one_line, "a run diverged" if "diverged" in statuses else "runs are missing")
            )
    if len(ranked) < 2:
        raise FgvcError(
            f"{len(ranked)} method(s) of the suite '{suite_name}' can be ranked; two are needed",
            cure=f"snakemake --cores all -- {target}",
        )
    values = [[cells.cell(d, h.key)["mean"] for h in ranked] for d in cells.datasets]
    n, k, least = len(values), len(ranked), least_datasets(len(ranked))
    difference = critical_difference(k, n) if n >= least else None
    return Ranking(cells, tuple(ranked), friedman(np.array(values)), difference, least, tuple(left_out))


def statement(found: Ranking) -> str:
    """What the tests say, in one sentence or two."""
    test, n = found.test, len(found.cells.datasets)
    datasets = f"{n} dataset{'s' if n > 1 else ''}"
    if found.difference is None:
        return (
            f"Too few datasets: on {datasets} no two of {test.methods} methods could "
            f"differ by Nemenyi's test; {found.least} are needed at least. The ranks say nothing more "
            "than the table."
        )
    f = "∞" if test.f is None or np.isinf(test.f) else f"{test.f:.2f}"
    told = (
        f"Friedman: χ² = {test.chi2:.2f}, F({test.methods - 1}, {(test.methods - 1) * (n - 1)}) = {f}, "
        f"p = {test.f_p:.2g}. "
    )
    if test.f_p >= ALPHA:
        return (
            told + f"Inconclusive: at α = {ALPHA:g} it finds no difference, so no two methods are told apart."
        )
    return (
        told
        + f"Nemenyi: critical difference {found.difference:.2f} at α = {ALPHA:g}; methods under one bar are "
        "not told apart."
    )


def _footnote(found: Ranking) -> str:
    n = len(found.cells.datasets)
    text = (
        f"Average rank by {METRIC_NAMES[found.cells.metric]} over {n} {'dataset' if n == 1 else 'datasets'}; "
        f"1 is the best. {statement(found)}"
    )
    text += "".join(f" Not ranked: {name} ({why})." for name, why in found.left_out)
    return ("PARTIAL. " if found.is_partial else "") + text


def draw_ranking(found: Ranking, config: CriticalDifferenceFigure) -> Figure:
    """The diagram; needs no display."""
    count, bars = len(found.methods), len(found.groups)
    notes = textwrap.wrap(_footnote(found), FOOTNOTE_WIDTH)
    below, names = 0.16 + 0.12 * len(notes), (count + 1) // 2
    deep = 0.12 + _BAR * bars + _LINE * names  # under the line of ranks
    height = below + deep + 1.0
    figure = new_canvas(config.title, notes, height)
    axes = figure.add_axes((LEFT, below / height, RIGHT - LEFT, (deep + 0.62) / height))
    axes.set_axis_off()
    # One unit of the vertical axis is an inch; the ranks hang from zero.
    axes.set_ylim(-deep, 0.62)
    titles = short_titles(found.methods)
    room = _LETTER * (max(map(len, titles.values())) + 8)
    margin = (count - 1) * room / (WIDTH_INCHES * (RIGHT - LEFT) - 2 * room)
    axes.set_xlim(count + margin, 1 - margin)
    _draw_scale(axes, count, found.difference)
    for level, group in enumerate(found.groups):
        ends = [found.test.ranks[i] for i in group]
        y, reach = -0.1 - _BAR * level, 0.012 * (count - 1)
        (bar,) = axes.plot([min(ends) - reach, max(ends) + reach], [y, y], color="0.25", linewidth=3.2)
        bar.set(solid_capstyle="butt", gid="group")
    _draw_names(axes, found, top=-0.12 - _BAR * bars, margin=0.1 * margin, titles=titles)
    return figure


def _draw_scale(axes: Axes, count: int, difference: float | None) -> None:
    axes.plot([1, count], [0, 0], color="0.2", linewidth=1.0)
    for rank in np.arange(1, count + 0.5, 0.5):
        whole = float(rank).is_integer()
        axes.plot([rank, rank], [0, 0.08 if whole else 0.04], color="0.2", linewidth=0.8)
        if whole:
            axes.text(float(rank), 0.11, f"{rank:g}", ha="center", va="bottom", size=8)
    if difference is not None:
        start, y = float(count), 0.38
        axes.errorbar(
            [start - difference / 2], [y], xerr=difference / 2, color="0.2", capsize=3, linewidth=1.2
        )
        axes.text(
            start - difference / 2, y + 0.05, f"CD = {difference:.2f}", ha="center", va="bottom", size=8
        )


def _draw_names(axes: Axes, found: Ranking, *, top: float, margin: float, titles: dict[str, str]) -> None:
    """The better half on the right, the others on the left, the outermost highest; a line leads to each."""
    ranks = found.test.ranks
    order: Sequence[int] = sorted(range(len(ranks)), key=lambda i: ranks[i])
    half = len(order) // 2
    sides = (
        ("left", order[:half], 1 - margin),
        ("right", order[half:][::-1], len(ranks) + margin),
    )
    for align, members, x in sides:
        for line, i in enumerate(members):
            y = top - _LINE * (line + 0.5)
            axes.plot([ranks[i], ranks[i], x], [0, y, y], color="0.45", linewidth=0.7, gid="leader")
            told = f" {titles[found.methods[i].key]}  {ranks[i]:.2f} "
            text = axes.text(x, y, told, ha=align, va="center", size=7.5)
            text.set_gid(f"label-{found.methods[i].key}")
