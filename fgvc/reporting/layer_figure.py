"""How alike the layers of methods are, as maps side by side: a plain ViT beside one that was adapted, say.

After the CKA figure of the ILA paper (arXiv 2409.11051); read from the records of `fgvc explain cka`.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from fgvc.config.grid import compared
from fgvc.config.project import Project
from fgvc.config.suite import LayerFigure
from fgvc.errors import FgvcError
from fgvc.provenance.files import read_json
from fgvc.reporting.cost_axes import FOOTNOTE_WIDTH, LEFT, WIDTH_INCHES, new_canvas
from fgvc.reporting.cost_points import nothing_to_draw
from fgvc.reporting.grid_table import method_headings, short_titles

#: In inches: the largest side of a panel, the room between panels, for a line of a heading, for the numbers
#: under a panel and for the words under the lowest, and for the colour bar with its numbers.
SIDE, GAP, LINE, NUMBERS, WORDS, BAR = 2.0, 0.32, 0.125, 0.24, 0.2, 0.5
#: Room in inches that the number of a block needs on an axis, and the most numbers there.
NUMBER, MOST_NUMBERS = 0.2, 6
#: Side in inches of a cell that has room for its value.
READABLE = 0.27
#: Letters of a heading that an inch takes.
LETTERS_PER_INCH = 15.5

_WHAT = {
    "attention": "attention maps (all heads)",
    "features": "features (behind the second norm)",
}


@dataclass(frozen=True)
class Panel:
    """One method: CKA [blocks, blocks] between its blocks, and the mean off the diagonal."""

    method: str
    title: str
    values: np.ndarray
    mean: float


@dataclass(frozen=True)
class LayerPanels:
    """What the figure shows, of which dataset and seed, and the methods that it cannot show and why."""

    panels: tuple[Panel, ...]
    left_out: tuple[tuple[str, str], ...]
    dataset: str
    seed: int
    images: int

    @property
    def is_partial(self) -> bool:
        """Whether more records would change the figure. A diverged run would not."""
        return any(why == "not compared yet" for _, why in self.left_out)


def layer_panels(
    project: Project, suite_name: str, config: LayerFigure, target: str, *, allow_missing: bool = False
) -> LayerPanels:
    """The panels of a suite's methods, on its first dataset and with its first seed.

    Raises FgvcError naming a missing record and the command that makes ``target``, unless ``allow_missing``;
    and when nothing is left to show.
    """
    runs = compared(project, suite_name, config)
    titles = short_titles(method_headings(project, [method for _, method, _, _ in runs]))
    panels: list[Panel] = []
    left_out: list[tuple[str, str]] = []
    images = 0
    for dataset, method, size, seed in runs:
        file = project.paths.layer_similarity(dataset, method, size, seed)
        if not file.is_file():
            if not allow_missing:
                raise FgvcError(
                    f"the layers of {method} on {dataset} at image size {size} are not compared yet",
                    file=project.paths.shown(file),
                    cure=f"snakemake --cores all -- {target}\nor add --allow-missing to see what is there",
                )
            left_out.append((titles[method], "not compared yet"))
            continue
        record: dict[str, Any] = read_json(file)
        if record["status"] == "diverged":
            left_out.append((titles[method], "the run diverged"))
            continue
        images = record["images"]
        mean = record[f"{config.of}_mean_off_diagonal"]
        panels.append(Panel(method, titles[method], np.array(record[config.of]), mean))
    if not panels:
        raise nothing_to_draw(suite_name, left_out, target)
    (dataset, _, _, seed), *_ = runs
    return LayerPanels(tuple(panels), tuple(left_out), project.dataset(dataset).title, seed, images)


def draw_layers(found: LayerPanels, config: LayerFigure) -> Figure:
    """The figure itself; needs no display."""
    rows, columns = grid_of(len(found.panels))
    notes = footnote(found, config)
    side = min(SIDE, (WIDTH_INCHES * (1 - LEFT) - BAR - (columns - 1) * GAP) / columns)
    headings = [_heading(panel, int((side + GAP) * LETTERS_PER_INCH)) for panel in found.panels]
    pitch = side + NUMBERS + LINE * max(map(len, headings)) + 0.1
    below = 0.12 * len(notes) + 0.12 + NUMBERS + WORDS
    height = below + rows * pitch - NUMBERS + 0.24
    figure = new_canvas(config.title, notes, height)
    for number, (panel, heading) in enumerate(zip(found.panels, headings, strict=True)):
        row, column = divmod(number, columns)
        left, bottom = LEFT + column * (side + GAP) / WIDTH_INCHES, below + (rows - 1 - row) * pitch
        axes = figure.add_axes((left, bottom / height, side / WIDTH_INCHES, side / height))
        drawn = _draw_panel(axes, panel, side)
        axes.set_title("\n".join(heading), size=7.5, pad=4)
        if column == 0:
            axes.set_ylabel("Block")
        if number + columns >= len(found.panels):
            axes.set_xlabel("Block")
    right = LEFT + (columns * (side + GAP) - GAP + 0.12) / WIDTH_INCHES
    top = (below + (rows - 1) * pitch) / height
    scale = figure.add_axes((right, top, 0.11 / WIDTH_INCHES, side / height))
    figure.colorbar(drawn, cax=scale, ticks=[0.0, 0.5, 1.0])
    scale.tick_params(labelsize=7, length=2.5, pad=2)
    scale.set_title("CKA", size=7.5, pad=4, loc="left")
    return figure


def grid_of(count: int) -> tuple[int, int]:
    """Rows and columns of so many panels: one row while it is readable, then rows of about one length."""
    most = 3 if count <= 6 else 4 if count <= 12 else 5
    rows = -(-count // most)
    return rows, -(-count // rows)


def _heading(panel: Panel, letters: int) -> list[str]:
    """The lines above a panel: its method on two lines at most, and the mean."""
    title = textwrap.wrap(panel.title, letters, max_lines=2, placeholder=" …")
    return [*title, f"mean {panel.mean:.2f}"]


def _draw_panel(axes: Axes, panel: Panel, side: float) -> AxesImage:
    """The map of a method, the first block in the lower left corner; all panels have one scale of colours."""
    image = axes.imshow(panel.values, origin="lower", cmap="magma", vmin=0.0, vmax=1.0)
    image.set_gid(f"layers-{panel.method}")
    blocks = len(panel.values)
    step = -(-blocks // min(MOST_NUMBERS, int(side / NUMBER)))
    named = range(step, blocks + 1, step)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([block - 1 for block in named], [str(block) for block in named], size=7)
    axes.tick_params(length=2.5, pad=2)
    if side / blocks >= READABLE:
        for (row, column), value in np.ndenumerate(panel.values):
            ink = "0.1" if value > 0.6 else "white"
            shown = f"{value:.2f}".replace("-0.00", "0.00")
            axes.text(column, row, shown, size=6.5, color=ink, ha="center", va="center")
    return image


def footnote(found: LayerPanels, config: LayerFigure) -> list[str]:
    """The lines under the figure: what is compared, on which images, and what is not drawn and why."""
    text = (
        f"Unbiased minibatch CKA of {_WHAT[config.of]} between all pairs of blocks; 1: alike up to rotation "
        "and scale. "
        f"Mean: of pairs of different blocks. {found.dataset}, {found.images} test images, seed {found.seed}."
    )
    text += "".join(f" Not drawn: {name} ({why})." for name, why in found.left_out)
    return textwrap.wrap(("PARTIAL. " if found.is_partial else "") + text, FOOTNOTE_WIDTH)
