"""How alike the layers of methods are, as maps side by side: vanilla fine-tuning against the rest.

Source: the attention-CKA figure of the ILA paper (arXiv 2409.11051); read from `fgvc cka`'s records.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fgvc.config.project import Project
from fgvc.config.suite import LayerFigure
from fgvc.provenance.files import read_json
from fgvc.reporting.cost_axes import FOOTNOTE_WIDTH, LEFT, WIDTH_INCHES, new_canvas
from fgvc.reporting.grid_table import method_headings

#: Panels of a row, and their side and the room around them in inches.
ACROSS, PANEL, GAP, ABOVE = 3, 1.75, 0.38, 0.42


@dataclass(frozen=True)
class Panel:
    """One method: CKA [layers, layers], and the mean of what stands beside the diagonal."""

    method: str
    name: str
    values: np.ndarray
    images: int

    @property
    def mean_off_diagonal(self) -> float:
        off = ~np.eye(len(self.values), dtype=bool)
        return float(self.values[off].mean())


def layer_panels(project: Project, suite_name: str, config: LayerFigure, target: str) -> list[Panel]:
    """The panels of a suite's methods: of its first dataset and its first seed.

    Raises FgvcError naming a missing record and the command that makes ``target``.
    """
    suite = project.suite(suite_name)
    dataset, seed = suite.datasets[0], suite.seeds[0]
    panels = []
    for heading in method_headings(project, config.methods):
        file = project.paths.layer_similarity(dataset, heading.key, config.image_size, seed)
        record: dict[str, Any] = read_json(file, made_by=f"snakemake --cores all -- {target}")
        panels.append(Panel(heading.key, heading.one_line, np.array(record[config.of]), record["images"]))
    return panels


def draw_layers(panels: Sequence[Panel], config: LayerFigure, dataset_title: str, seed: int) -> Figure:
    """The figure itself; needs no display."""
    rows = -(-len(panels) // ACROSS)
    notes = footnote(panels, config, dataset_title, seed)
    below = 0.5 + 0.12 * len(notes)
    height = below + rows * (PANEL + GAP + ABOVE) + 0.3
    figure = new_canvas(config.title, notes, height)
    drawn = None
    for number, panel in enumerate(panels):
        row, column = divmod(number, ACROSS)
        left = LEFT + column * (PANEL + GAP) / WIDTH_INCHES
        bottom = (below + (rows - 1 - row) * (PANEL + GAP + ABOVE) + GAP) / height
        axes = figure.add_axes((left, bottom, PANEL / WIDTH_INCHES, PANEL / height))
        drawn = axes.imshow(panel.values, origin="lower", cmap="magma", vmin=0.0, vmax=1.0)
        drawn.set_gid(f"layers-{panel.method}")
        axes.set_title(f"{panel.name}\nmean off the diagonal {panel.mean_off_diagonal:.2f}", size=7.5)
        axes.set_xlabel("Block")
        if column == 0:
            axes.set_ylabel("Block")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6, integer=True))
            axis.set_major_formatter(lambda value, _: f"{value + 1:.0f}")
    if drawn is not None:
        right = LEFT + min(len(panels), ACROSS) * (PANEL + GAP) / WIDTH_INCHES
        bottom = (below + (rows - 1) * (PANEL + GAP + ABOVE) + GAP) / height
        scale = figure.add_axes((right - 0.02, bottom, 0.018, PANEL / height))
        figure.colorbar(drawn, cax=scale, label="CKA")
    return figure


def footnote(panels: Sequence[Panel], config: LayerFigure, dataset_title: str, seed: int) -> list[str]:
    """The lines under the figure."""
    what = {"attention": "attention maps of all heads", "features": "outputs of the blocks' second norms"}
    text = (
        f"Unbiased minibatch CKA between the {what[config.of]} of every two blocks; 1: alike up to rotation and "
        f"scale. {dataset_title}, {panels[0].images} test images, seed {seed}."
    )
    return textwrap.wrap(text, FOOTNOTE_WIDTH)
