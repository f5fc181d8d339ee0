"""Accuracy and throughput side by side: two bars a method, and the baseline's values as dashed lines.

The layout of GLSim's accuracy-vs-throughput figure, for a suite's own runs on one machine.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from fgvc.config.conditions import Conditions
from fgvc.config.project import Project
from fgvc.config.suite import ThroughputFigure
from fgvc.errors import FgvcError
from fgvc.provenance.files import read_json
from fgvc.reporting.accuracy_table import METRIC_NAMES
from fgvc.reporting.cells import CellTable, average, gather, require_runs
from fgvc.reporting.cost_axes import FOOTNOTE_WIDTH, LEFT, WIDTH_INCHES, new_page
from fgvc.reporting.cost_points import nothing_to_draw, std_over_seeds
from fgvc.reporting.grid_table import Heading, method_headings
from fgvc.reporting.marks import Rgb, Style

RIGHT = 0.915  # room for the second axis
#: Width of a bar; the distance between two methods is 1.
BAR = 0.38
#: Size of the methods' names in pt where they fit, and the width of a letter as a share of its size.
NAME_PT, LETTER = 7.5, 0.56
_COLORS = [cast(Rgb, tuple(color)) for color in sns.color_palette("colorblind", 2)]
ACCURACY, SPEED = Style(_COLORS[0], ""), Style(_COLORS[1], "")


@dataclass(frozen=True)
class Bars:
    """A method: accuracy in percent (± over seeds) and images per second (median, least, largest)."""

    method: str
    name: str
    accuracy_pct: float
    std_pct: float | None
    images_s: float
    images_s_least: float
    images_s_largest: float


@dataclass(frozen=True)
class ThroughputBars:
    """What the figure shows, the machine that it was measured on, and what it cannot show and why."""

    bars: tuple[Bars, ...]
    baseline: str | None
    conditions: Conditions
    machine: str
    left_out: tuple[tuple[str, str], ...]
    cells: CellTable

    @property
    def is_partial(self) -> bool:
        """Whether more runs or measurements would change the figure."""
        return bool(self.cells.unfinished) or any(why == "not measured" for _, why in self.left_out)


def throughput_bars(
    project: Project, suite_name: str, config: ThroughputFigure, target: str, *, allow_missing: bool = False
) -> ThroughputBars:
    """The bars of a suite.

    Raises FgvcError naming missing runs or measurements and the command that makes ``target``, unless
    ``allow_missing``; when speeds come from more than one machine; and when nothing is left to show.
    """
    cells = gather(project, suite_name, config.image_size, config.metric, decimals=2)
    if not allow_missing:
        require_runs(project, cells, target)
    found: list[Bars] = []
    left_out: list[tuple[str, str]] = []
    machines: dict[str, str] = {}
    conditions, required = project.suite(suite_name).throughput, None if allow_missing else target
    for heading in method_headings(project, cells.methods):
        speeds = _speeds(project, cells, heading.key, conditions, required, machines)
        mean = average(cells, heading.key)
        if mean is None:
            left_out.append((heading.one_line, "not every run ended well"))
        elif speeds is None:
            left_out.append((heading.one_line, "not measured"))
        else:
            found.append(_bars(cells, heading, mean[0], speeds))
    if len(machines) > 1:
        (first, one), (second, other) = list(machines.items())[:2]
        raise FgvcError(
            f"the speeds were measured on different machines: {first} and {second}",
            file=other,
            cure=f"measure all on one: remove {other} or {one}, and run: snakemake --cores all -- {target}",
        )
    if not found:
        raise nothing_to_draw(suite_name, left_out, target)
    of_class = [b.method for b in found if project.variant(b.method).method == config.baseline_class]
    baseline, machine = next(iter(of_class), None), next(iter(machines))
    return ThroughputBars(tuple(found), baseline, conditions, machine, tuple(left_out), cells)


def _speeds(
    project: Project,
    cells: CellTable,
    method: str,
    conditions: Conditions,
    target: str | None,
    machines: dict[str, str],
) -> tuple[float, float, float] | None:
    """Median, least and largest images per second, averaged over datasets; None when one is missing."""
    found: list[list[float]] = []
    for dataset in cells.datasets:
        file = project.paths.throughput(dataset, method, cells.size, conditions.text)
        if not file.is_file():
            if target is None:
                return None
            raise FgvcError(
                f"the throughput of {method} on {dataset} at image size {cells.size} is not measured yet",
                file=project.paths.shown(file),
                cure=f"snakemake --cores all -- {target}",
            )
        record = read_json(file)
        # A CPU calls itself "cpu": its host's processor tells more.
        kind, where = record["device"]["kind"], record["host"]
        device = record["device"]["name"] if kind != "cpu" else where["processor"] or "cpu"
        machines.setdefault(f"{device} in {where['name']}", project.paths.shown(file))
        found.append([record["model_throughput_images_s" + end] for end in ("", "_min", "_max")])
    median, least, largest = np.mean(found, axis=0)
    return float(median), float(least), float(largest)


def _bars(cells: CellTable, heading: Heading, mean: float, speeds: tuple[float, float, float]) -> Bars:
    name = f"{heading.title}\n{heading.subtitle}" if heading.subtitle else heading.title
    return Bars(heading.key, name, mean, std_over_seeds(cells, heading.key), *speeds)


def draw_throughput(found: ThroughputBars, config: ThroughputFigure, dataset_titles: Sequence[str]) -> Figure:
    """The figure itself; needs no display."""
    page = new_page(config.title, footnote(found))
    left = page.add_axes(LEFT, RIGHT)
    right = left.twinx()
    _scales(left, right, found)
    datasets = len(dataset_titles)
    over = f" on {dataset_titles[0]}" if datasets == 1 else f", mean of {datasets} datasets"
    what = METRIC_NAMES[config.metric].capitalize()
    left.set_ylabel(f"{what}{over} (%)", color=ACCURACY.text_color)
    right.set_ylabel("Model throughput (images per second)", color=SPEED.text_color)
    spread = [b.std_pct or 0.0 for b in found.bars]
    accuracies = _Side("accuracy", [b.accuracy_pct for b in found.bars], spread, spread, "{:.1f}")
    speeds = _Side(
        "throughput",
        [b.images_s for b in found.bars],
        [b.images_s - b.images_s_least for b in found.bars],
        [b.images_s_largest - b.images_s for b in found.bars],
        "{:.3g}",
    )
    handles: list[Any] = [
        _draw_side(left, accuracies, found, -BAR / 2, ACCURACY, hatch=""),
        _draw_side(right, speeds, found, BAR / 2, SPEED, hatch="///"),  # never told by colour alone
    ]
    names = [f"{what} (left)", "Model throughput (right)"]
    legend = page.figure.legend(handles, names, loc="center left", ncols=2, frameon=False, fontsize=7.5)
    legend.set_bbox_to_anchor((LEFT - 0.014, page.legend_heights[1]))
    return page.figure


@dataclass(frozen=True)
class _Side:
    """One of the two bars of every method: values, and how far they reach down and up."""

    name: str
    values: Sequence[float]
    below: Sequence[float]
    above: Sequence[float]
    form: str


def _draw_side(
    axes: Axes, side: _Side, found: ThroughputBars, shift: float, style: Style, *, hatch: str
) -> BarContainer:
    """Bars with whiskers and their values, and the baseline's value as a dashed line across all."""
    places = np.arange(len(found.bars)) + shift
    reach = np.maximum([side.below, side.above], 0.0)
    whiskers = {"elinewidth": 1.0, "capsize": 2.0, "ecolor": "0.25"}
    drawn = axes.bar(places, side.values, BAR, color=style.color, hatch=hatch, yerr=reach, error_kw=whiskers)
    for bars, patch, value, above in zip(found.bars, drawn, side.values, reach[1], strict=True):
        patch.set_gid(f"{side.name}-{bars.method}")
        place = (patch.get_x() + BAR / 2, value + above)
        text = side.form.format(value)
        note = axes.annotate(
            text, place, (0, 2.5), textcoords="offset points", ha="center", size=6.5, zorder=6
        )
        note.set_color(style.text_color)
        note.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5})
        if bars.method == found.baseline:
            line = axes.axhline(
                value, color=style.text_color, linewidth=0.9, linestyle=(0, (5, 2)), zorder=2.5
            )
            line.set_gid(f"baseline-{side.name}")
    return drawn


def _scales(left: Axes, right: Axes, found: ThroughputBars) -> None:
    """Throughput from 0; accuracy from somewhat below the lowest, as methods differ by little."""
    low = min(b.accuracy_pct - (b.std_pct or 0.0) for b in found.bars)
    high = max(b.accuracy_pct + (b.std_pct or 0.0) for b in found.bars)
    room = max(high - low, 2.0)
    left.set_ylim(max(0.0, low - 0.35 * room), min(high + 0.22 * room, 108.0))
    right.set_ylim(0.0, 1.18 * max(b.images_s_largest for b in found.bars))
    left.set_xticks(range(len(found.bars)), [b.name for b in found.bars])
    left.tick_params(axis="x", length=0, labelsize=_name_size(found))
    left.set_xlim(-0.6, len(found.bars) - 0.4)
    left.set_axisbelow(True)
    left.grid(True, axis="y", color="0.92", linewidth=0.7)


def _name_size(found: ThroughputBars) -> float:
    """The size in pt at which neighbouring names do not touch."""
    room_pt = 0.95 * (RIGHT - LEFT) * WIDTH_INCHES * 72 / len(found.bars)
    longest = max(len(line) for bars in found.bars for line in bars.name.split("\n"))
    return float(min(NAME_PT, room_pt / (LETTER * longest)))


def footnote(found: ThroughputBars) -> list[str]:
    """The lines under the figure: where and how speeds were measured, what the bars and lines are."""
    seeds = len(found.cells.seeds)
    text = f"Throughput: {found.machine}; {found.conditions.title}; images on the device, decoding apart. "
    text += "Whiskers: " + (f"standard deviation over {seeds} seeds, and " if seeds > 1 else "")
    text += "least and largest of the repeats."
    if found.baseline:
        name = next(b.name for b in found.bars if b.method == found.baseline).replace("\n", " on ")
        text += f" Dashed: {name}."
    text += " The accuracy axis does not begin at 0."
    if found.left_out:
        text += " Not drawn: " + "; ".join(f"{name} ({why})" for name, why in found.left_out) + "."
    return textwrap.wrap(("PARTIAL. " if found.is_partial else "") + text, FOOTNOTE_WIDTH)
