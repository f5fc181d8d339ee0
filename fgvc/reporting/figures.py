"""Accuracy against inference cost, as a figure for papers: PDF and PNG, the same bytes every time."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import XAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from fgvc.config.project import Project
from fgvc.config.suite import CostFigure
from fgvc.provenance.files import atomic_path
from fgvc.reporting import labels
from fgvc.reporting.accuracy_table import METRIC_NAMES
from fgvc.reporting.cost_points import CostPoints, Point, cost_points, pareto_front
from fgvc.reporting.marks import (
    MANY_METHODS,
    area_scale,
    draw_front,
    draw_legends,
    draw_point,
    drawn_size,
    group_styles,
)

#: What each format would otherwise say about the day and the version of the program.
FORMATS: dict[str, dict[str, None]] = {
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".png": {"Software": None},
}
WIDTH_INCHES = 6.9  # two columns of a paper
AXES_HEIGHT_INCHES = 3.05
PNG_DPI = 220
#: Left end of the axes and of all text, as a share of the width.
LEFT = 0.095
#: Characters of the footnote that fit on a line.
FOOTNOTE_WIDTH = 128


def write_figure(
    project: Project,
    suite_name: str,
    figure: str,
    *,
    suite_path: str | None = None,
    allow_missing: bool = False,
) -> list[Path]:
    """Write a figure of a suite as ``.pdf`` and ``.png`` and return the files.

    Args:
        suite_path: the suite's folder in ``results/``, or None for the default suite's short path.
        allow_missing: draw what is there. A figure that is not complete goes to ``FIGURE.partial.*``.

    Raises FgvcError when results are missing and ``allow_missing`` is not given.
    """
    config = project.figure(figure)
    whole = project.paths.figure(suite_path, figure)
    found = cost_points(
        project,
        suite_name,
        config.image_size,
        config.metric,
        project.paths.shown(whole) + ".pdf",
        allow_missing=allow_missing,
    )
    partial = whole.with_name(f"{whole.name}.partial")
    files = [base.with_name(base.name + s) for base in (whole, partial) for s in FORMATS]
    written = files[len(FORMATS) :] if found.is_partial else files[: len(FORMATS)]
    with house_style():
        drawn = draw(found, config, [project.dataset(d).title for d in found.cells.datasets])
        for file, (suffix, metadata) in zip(written, FORMATS.items(), strict=True):
            with atomic_path(file) as temporary:
                drawn.savefig(temporary, format=suffix[1:], dpi=PNG_DPI, metadata=metadata)
    if not found.is_partial:
        for stale in files[len(FORMATS) :]:
            stale.unlink(missing_ok=True)
    return written


def draw(found: CostPoints, config: CostFigure, dataset_titles: Sequence[str]) -> Figure:
    """The figure itself; needs no display. Lengths here are inches."""
    notes = footnote(found)
    below = 1.02 + 0.12 * len(notes)  # tick labels, two rows of legends, footnote
    height = below + AXES_HEIGHT_INCHES + 0.72
    figure = Figure(figsize=(WIDTH_INCHES, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((LEFT, below / height, 0.982 - LEFT, AXES_HEIGHT_INCHES / height))
    _set_scales(axes, found.points, config, dataset_titles)
    draw_front(axes, found.points)
    styles, scale = group_styles(found.points), area_scale(found.points)
    for point in found.points:
        draw_point(axes, point, styles[point.group], scale)
    draw_legends(figure, found.points, LEFT, (below - 0.61) / height, (below - 0.85) / height)
    figure.text(LEFT, 1 - 0.14 / height, config.title, weight="bold", size=9.5, va="center")
    figure.text(LEFT, 0.06 / height, "\n".join(notes), size=6.5, color="0.35", va="bottom")
    _draw_labels(axes, found.points, pixels=figure.dpi / 72)
    return figure


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """The look of every figure, whatever the user's matplotlibrc and fonts are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(sns.axes_style("ticks") | sns.plotting_context("paper"))
        mpl.rcParams.update(
            {
                "font.family": "sans-serif",
                "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so it is the same everywhere
                "font.size": 8,
                "axes.labelsize": 8.5,
                "xtick.labelsize": 8,
                "ytick.labelsize": 8,
                "axes.linewidth": 0.8,
                "pdf.fonttype": 42,  # fonts embedded whole, as publishers ask
            }
        )
        yield


# --- axes --------------------------------------------------------------------------------------------


def _set_scales(axes: Axes, points: Sequence[Point], config: CostFigure, titles: Sequence[str]) -> None:
    cost = np.array([p.macs_g for p in points])
    # Half a decade at least, so that one method or alike ones still stand in a readable range.
    margin = max(1.25, (10**0.5 / (cost.max() / cost.min())) ** 0.5) * (cost.max() / cost.min()) ** 0.1
    low, high = float(cost.min() / margin), float(cost.max() * margin)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    _plain_log_ticks(axes.xaxis, low, high)
    axes.set_xlabel(f"GMACs per image ({config.image_size} × {config.image_size} pixels)")
    above = axes.secondary_xaxis("top", functions=(_flops_of, _macs_of))
    above.set_xlabel("GFLOPs per image (1 MAC = 2 FLOPs)")
    _plain_log_ticks(above.xaxis, 2 * low, 2 * high)

    spread = [p.std_pct or 0.0 for p in points]
    bottom = min(p.accuracy_pct - s for p, s in zip(points, spread, strict=True))
    top = max(p.accuracy_pct + s for p, s in zip(points, spread, strict=True))
    room = max(top - bottom, 2.0) * 0.16
    axes.set_ylim(max(bottom - room, -2.0), min(top + room, 102.0))
    metric = METRIC_NAMES[config.metric].capitalize()
    over = f" on {titles[0]}" if len(titles) == 1 else f", mean of {len(titles)} datasets"
    axes.set_ylabel(f"{metric}{over} (%)")
    axes.grid(True, which="major", color="0.92", linewidth=0.7)
    axes.set_axisbelow(True)


def _flops_of(macs: Any) -> Any:
    return np.multiply(macs, 2.0)


def _macs_of(flops: Any) -> Any:
    return np.divide(flops, 2.0)


def _plain_log_ticks(axis: XAxis, low: float, high: float) -> None:
    """Ticks at round numbers, written as numbers; the coarsest set that has at least four in the range."""
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = sorted(float(f"{d * s:.6g}") for d in decades for s in steps if low <= d * s <= high)
        if len(ticks) >= 4:
            break
    else:
        ticks = [t for t in MaxNLocator(6).tick_values(low, high) if low <= t <= high]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


# --- words -------------------------------------------------------------------------------------------


def _draw_labels(axes: Axes, points: Sequence[Point], pixels: float) -> None:
    """Each method's name beside its marker; a thin line leads to it where it had to move away.

    ``pixels`` is the length of one pt on the canvas.
    """
    styles, scale = group_styles(points), area_scale(points)
    anchors, texts = [], []
    for point in points:
        style = styles[point.group]
        text = axes.text(0, 0, _label(point, points), size=7.5, color=style.text_color, zorder=6)
        # The ground keeps grid and front from running through the letters.
        text.set(ha="center", va="center", gid=f"label-{point.method}")
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.4})
        extent = text.get_window_extent()
        x, y = axes.transData.transform((point.macs_g, point.accuracy_pct))
        radius = max(drawn_size(point.trainable_params_m * scale, style.marker)[1], 2.0) * pixels
        anchors.append(labels.Anchor(float(x), float(y), radius, extent.width, extent.height))
        texts.append(text)
    frame = labels.Box(*map(float, axes.get_window_extent().padded(-3 * pixels).extents))
    near = 6 * pixels
    boxes = labels.place(anchors, frame, _obstacles(axes, points, pixels), gap=3.5 * pixels, near=near)
    to_data = axes.transData.inverted()
    for anchor, box, text in zip(anchors, boxes, texts, strict=True):
        text.set_position(tuple(to_data.transform(box.center)))
        text.set_multialignment("left" if box.x0 > anchor.x else "right" if box.x1 < anchor.x else "center")
        end = labels.leader_end(anchor, box, near)
        if end is not None:
            x, y = np.transpose(to_data.transform([(anchor.x, anchor.y), end]))
            axes.plot(x, y, color=text.get_color(), linewidth=0.6, zorder=4.5, gid="leader")


def _obstacles(axes: Axes, points: Sequence[Point], pixels: float) -> list[labels.Box]:
    """Error bars and the front's steps, which labels had better not cover."""

    def box(x0: float, y0: float, x1: float, y1: float) -> labels.Box:
        (a, b), (c, d) = axes.transData.transform([(x0, y0), (x1, y1)])
        return labels.Box(min(a, c) - pixels, min(b, d) - pixels, max(a, c) + pixels, max(b, d) + pixels)

    bars = [(p.macs_g, p.accuracy_pct, p.std_pct) for p in points if p.std_pct]
    found = [box(x, y - std, x, y + std) for x, y, std in bars]
    front = pareto_front(points)
    ends = [*(p.macs_g for p in front[1:]), axes.get_xlim()[1]]
    for point, end in zip(front, ends, strict=True):
        found.append(box(point.macs_g, point.accuracy_pct, end, point.accuracy_pct))
    for point, following in pairwise(front):
        found.append(box(following.macs_g, point.accuracy_pct, following.macs_g, following.accuracy_pct))
    return found


def _label(point: Point, points: Sequence[Point]) -> str:
    crowded = len(points) > MANY_METHODS
    needed = sum(p.title == point.title for p in points) > 1
    return f"{point.title}\n{point.subtitle}" if point.subtitle and (needed or not crowded) else point.title


def footnote(found: CostPoints) -> list[str]:
    """The lines under the figure: what the bars are, and which methods it cannot show and why."""
    seeds, datasets = len(found.cells.seeds), len(found.cells.datasets)
    what = "" if datasets == 1 else " of the average over datasets"
    bars = f"Error bars: standard deviation over {seeds} seeds{what}."
    text = (bars if seeds > 1 else "One seed, so no error bars.") + " Dashed: Pareto front."
    if found.left_out:
        text += " Not drawn: " + "; ".join(f"{name} ({why})" for name, why in found.left_out) + "."
    return textwrap.wrap(("PARTIAL. " if found.is_partial else "") + text, FOOTNOTE_WIDTH)
