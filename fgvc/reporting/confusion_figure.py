"""The figure of confusion matrices: a panel a method, rows are true classes; or lists of pairs.

A matrix of hundreds of classes cannot be read, so that of such a dataset the most confused pairs are listed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby
from math import ceil

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fgvc.config.project import Project
from fgvc.config.suite import ConfusionFigure
from fgvc.reporting.confusion_counts import Confusion, Confusions
from fgvc.reporting.cost_axes import FOOTNOTE_WIDTH, LEFT, RIGHT, WIDTH_INCHES, new_canvas
from fgvc.reporting.grid_table import method_headings, short_titles
from fgvc.reporting.labels import cut_in_the_middle

#: Panels beside one another, at most: of matrices, and of lists.
_MATRICES, _LISTS = 3, 2
#: Inches: between panels, above each (its title), for a heading of a dataset, a line of a list of pairs.
_GAP, _TITLE, _HEADING, _LINE = 0.12, 0.24, 0.24, 0.125
#: Inches that a letter of a class's name takes, and letters of it that are shown.
_LETTER, _NAME = 0.045, 27
#: Letters of a class's name in a list of pairs.
_PAIR_NAME = 26


def draw_confusions(project: Project, confusions: Confusions, config: ConfusionFigure) -> Figure:
    """The figure; needs no display."""
    blocks = [
        _Block(project, list(of_dataset), config)
        for _, of_dataset in groupby(confusions.found, lambda one: one.dataset)
    ]
    notes = textwrap.wrap(_footnote(confusions, blocks, config), FOOTNOTE_WIDTH)
    below = 0.14 + 0.12 * len(notes)
    height = below + sum(block.height for block in blocks) + 0.34
    figure = new_canvas(config.title, notes, height, LEFT / 2)
    top = height - 0.34
    for block in blocks:
        block.draw(figure, top)
        top -= block.height
    return figure


def _footnote(confusions: Confusions, blocks: Sequence[_Block], config: ConfusionFigure) -> str:
    text = "PARTIAL. " if confusions.is_partial else ""
    counts = {len(one.seeds) for one in confusions.found if one.counts is not None}
    seeds = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    text += f"Test images of {seeds} seed{'s' * (seeds != '1')}, added up. "
    if any(block.is_matrix for block in blocks):
        text += "Rows: true classes; columns: predicted ones; shade: share of the true class's images. "
    if not all(block.is_matrix for block in blocks):
        text += (
            f"Datasets of more than {config.max_classes} classes: true → predicted, images, share of the "
            "true class's images. "
        )
    for block in blocks:
        for one in block.confusions:
            if one.counts is None:
                text += f"Not drawn: {block.titles[one.method]} on {block.title} ({one.why}). "
    return text.rstrip()


class _Block:
    """The panels of one dataset, in rows.

    Args:
        confusions: of its methods.
    """

    def __init__(self, project: Project, confusions: list[Confusion], config: ConfusionFigure) -> None:
        self.confusions, self.config = confusions, config
        self.drawn = [one for one in confusions if one.counts is not None]
        self.title = project.dataset(confusions[0].dataset).title
        self.titles = short_titles(method_headings(project, [one.method for one in confusions]))
        known = [*self.drawn, confusions[0]][0]  # a run that is there knows the names
        self.names = [cut_in_the_middle(name, _NAME) for name in known.names]
        self.is_matrix = len(self.names) <= config.max_classes
        self.columns = min(_MATRICES if self.is_matrix else _LISTS, max(len(self.drawn), 1))
        self.rows = ceil(len(self.drawn) / self.columns)
        room = _LETTER * max(map(len, self.names)) + 0.1 if self.is_matrix else 0.0
        #: Inches for the names of the classes, left of the first panel and below the last row.
        self.names_room = room

    @property
    def side(self) -> float:
        """Width in inches of a panel."""
        usable = WIDTH_INCHES * (RIGHT - LEFT / 2) - self.names_room
        wide = (usable - _GAP * (self.columns - 1)) / self.columns
        return min(wide, 3.2) if self.is_matrix else wide

    @property
    def tall(self) -> float:
        """Height in inches of a panel without its title."""
        return self.side if self.is_matrix else _LINE * (self.config.pairs + 0.5)

    @property
    def height(self) -> float:
        return _HEADING + self.rows * (self.tall + _TITLE) + self.names_room + 0.1

    def draw(self, figure: Figure, top: float) -> None:
        """Draw the panels below ``top`` inches."""
        width, height = figure.get_size_inches()
        figure.text(LEFT / 2, (top - 0.1) / height, self.title, weight="bold", size=8, va="center")
        for place, one in enumerate(self.drawn):
            row, column = divmod(place, self.columns)
            left = LEFT / 2 * width + self.names_room + column * (self.side + _GAP)
            bottom = top - _HEADING - (row + 1) * (self.tall + _TITLE)
            axes = figure.add_axes((left / width, bottom / height, self.side / width, self.tall / height))
            axes.set_title(f"{self.titles[one.method]}  {one.accuracy_pct:.2f} %", size=7, pad=3)
            axes.set_gid(f"panel-{one.dataset}-{one.method}")
            if self.is_matrix:
                last = place + self.columns >= len(self.drawn)
                self._draw_matrix(axes, one, rows=column == 0, columns=last)
            else:
                self._draw_pairs(axes, one)

    def _draw_matrix(self, axes: Axes, one: Confusion, *, rows: bool, columns: bool) -> None:
        """Args: rows, columns: whether the classes are named there."""
        axes.imshow(one.shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest", aspect="equal")
        places = range(len(self.names))
        size = min(6.5, 72 * self.side / len(self.names) * 0.9)
        axes.set_yticks(places, self.names if rows else [], size=size) if rows else axes.set_yticks([])
        axes.set_xticks(places, self.names, size=size, rotation=90) if columns else axes.set_xticks([])
        axes.tick_params(length=0, pad=1.5)
        if len(self.names) <= self.config.max_numbers:
            for i, j in ((i, j) for i in places for j in places if one.shares[i, j] >= 0.005):
                share = one.shares[i, j]
                axes.text(
                    j, i, f"{100 * share:.0f}", ha="center", va="center", size=size,
                    color="white" if share > 0.55 else "0.15",
                )  # fmt: skip

    def _draw_pairs(self, axes: Axes, one: Confusion) -> None:
        axes.set_axis_off()
        axes.set_xlim(0, 1)
        axes.set_ylim(self.config.pairs, -0.5)
        for line, pair in enumerate(one.pairs(self.config.pairs)):
            told = " → ".join(cut_in_the_middle(n, _PAIR_NAME) for n in (pair.true, pair.predicted))
            axes.text(0, line + 0.2, told, size=6, va="center")
            number = f"{pair.images}  {100 * pair.share:.0f} %"
            axes.text(1, line + 0.2, number, size=6, va="center", ha="right", color="0.35")
