"""The canvas of all figures; page and axes of the cost figures.

Scales that read GMACs and GFLOPs, labels that do not collide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import XAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from fgvc.reporting import labels
from fgvc.reporting.cost_points import Point, pareto_front
from fgvc.reporting.marks import (
    MANY_METHODS,
    Areas,
    Rgb,
    Style,
    area_scale,
    draw_front,
    draw_legends,
    draw_point,
    drawn_size,
)

WIDTH_INCHES = 6.9  # two columns of a paper
AXES_HEIGHT_INCHES = 3.05
#: Left end of the axes and of all text, and right end of the axes, as shares of the width.
LEFT, RIGHT = 0.095, 0.982
#: Characters of the footnote that fit on a line.
FOOTNOTE_WIDTH = 128


@dataclass(frozen=True)
class Page:
    """A figure with its title and footnote, and room for axes and two rows of legends; lengths in inches."""

    figure: Figure
    height: float
    below: float

    def add_axes(self, left: float, right: float) -> Axes:
        """Axes of the usual height between two shares of the width."""
        bottom, tall = self.below / self.height, AXES_HEIGHT_INCHES / self.height
        return self.figure.add_axes((left, bottom, right - left, tall))

    @property
    def legend_heights(self) -> tuple[float, float]:
        """Where the two rows of legends stand, as shares of the height."""
        return (self.below - 0.61) / self.height, (self.below - 0.85) / self.height


def new_canvas(title: str, notes: Sequence[str], height: float, left: float = LEFT) -> Figure:
    """An empty figure with title and footnote, ``height`` inches high; needs no display.

    Args:
        left: where the text begins, as a share of the width.
    """
    figure = Figure(figsize=(WIDTH_INCHES, height))
    FigureCanvasAgg(figure)
    figure.text(left, 1 - 0.14 / height, title, weight="bold", size=9.5, va="center")
    figure.text(left, 0.06 / height, "\n".join(notes), size=6.5, color="0.35", va="bottom")
    return figure


def new_page(title: str, notes: Sequence[str]) -> Page:
    """A canvas with room for axes and two rows of legends."""
    below = 1.02 + 0.12 * len(notes)  # tick labels, two rows of legends, footnote
    height = below + AXES_HEIGHT_INCHES + 0.72
    return Page(new_canvas(title, notes, height), height, below)


def set_scales(
    axes: Axes, points: Sequence[Point], image_size: int, what: str, others: Sequence[float] = ()
) -> None:
    """Ranges, ticks and words of both axes.

    Args:
        what: what the accuracy is, for the axis.
        others: accuracies (percent) that the vertical axis has to reach, besides those of the points.
    """
    cost = np.array([p.macs_g for p in points])
    # Half a decade at least, so that one method or alike ones still stand in a readable range.
    margin = max(1.25, (10**0.5 / (cost.max() / cost.min())) ** 0.5) * (cost.max() / cost.min()) ** 0.1
    low, high = float(cost.min() / margin), float(cost.max() * margin)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    _plain_log_ticks(axes.xaxis, low, high)
    axes.set_xlabel(f"GMACs per image ({image_size} × {image_size} pixels)")
    above = axes.secondary_xaxis("top", functions=(_flops_of, _macs_of))
    above.set_xlabel("GFLOPs per image (1 MAC = 2 FLOPs)")
    _plain_log_ticks(above.xaxis, 2 * low, 2 * high)

    spread = [p.std_pct or 0.0 for p in points]
    bottom = min(*(p.accuracy_pct - s for p, s in zip(points, spread, strict=True)), *others, 100.0)
    top = max(*(p.accuracy_pct + s for p, s in zip(points, spread, strict=True)), *others, 0.0)
    room = max(top - bottom, 2.0) * 0.16
    axes.set_ylim(max(bottom - room, -2.0), min(top + room, 102.0))
    axes.set_ylabel(f"{what} (%)")
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


def draw_points(
    page: Page,
    axes: Axes,
    points: Sequence[Point],
    styles: dict[str, Style],
    areas: Areas = "area",
) -> None:
    """The Pareto front, the methods with their names, and the legends; the scales are set before."""
    draw_front(axes, points)
    area_of = area_scale(points, areas)
    for point in points:
        draw_point(axes, point, styles[point.group], area_of)
    draw_legends(page.figure, points, styles, LEFT, *page.legend_heights, areas)
    pixels = page.figure.dpi / 72
    draw_labels(axes, point_labels(points, styles, areas), obstacles(axes, points, pixels), pixels)


@dataclass(frozen=True)
class Label:
    """A name to be set beside a marker at ``x``, ``y`` (data), whose half extent is ``radius_pt``."""

    gid: str
    text: str
    color: Rgb
    x: float
    y: float
    radius_pt: float


def point_labels(points: Sequence[Point], styles: dict[str, Style], areas: Areas = "area") -> list[Label]:
    """The names of the points, in the colours of their groups."""
    area_of = area_scale(points, areas)
    return [
        Label(
            f"label-{p.method}",
            _name(p, points),
            styles[p.group].text_color,
            p.macs_g,
            p.accuracy_pct,
            drawn_size(area_of(p.trainable_params_m), styles[p.group].marker)[1],
        )
        for p in points
    ]


def draw_labels(axes: Axes, named: Sequence[Label], obstacles: Sequence[labels.Box], pixels: float) -> None:
    """Each name beside its marker; a thin line leads to it where it had to move away.

    ``pixels`` is the length of one pt on the canvas.
    """
    anchors, texts = [], []
    for name in named:
        text = axes.text(0, 0, name.text, size=7.5, color=name.color, zorder=6)
        # The ground keeps grid and front from running through the letters.
        text.set(ha="center", va="center", gid=name.gid)
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.4})
        extent = text.get_window_extent()
        x, y = axes.transData.transform((name.x, name.y))
        radius = max(name.radius_pt, 2.0) * pixels
        anchors.append(labels.Anchor(float(x), float(y), radius, extent.width, extent.height))
        texts.append(text)
    frame = labels.Box(*map(float, axes.get_window_extent().padded(-3 * pixels).extents))
    near = 6 * pixels
    boxes = labels.place(anchors, frame, obstacles, gap=3.5 * pixels, near=near)
    to_data = axes.transData.inverted()
    for anchor, box, text in zip(anchors, boxes, texts, strict=True):
        text.set_position(tuple(to_data.transform(box.center)))
        text.set_multialignment("left" if box.x0 > anchor.x else "right" if box.x1 < anchor.x else "center")
        end = labels.leader_end(anchor, box, near)
        if end is not None:
            x, y = np.transpose(to_data.transform([(anchor.x, anchor.y), end]))
            axes.plot(x, y, color=text.get_color(), linewidth=0.6, zorder=4.5, gid="leader")


def obstacles(axes: Axes, points: Sequence[Point], pixels: float) -> list[labels.Box]:
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


def _name(point: Point, points: Sequence[Point]) -> str:
    crowded = len(points) > MANY_METHODS
    needed = sum(p.title == point.title for p in points) > 1
    return f"{point.title}\n{point.subtitle}" if point.subtitle and (needed or not crowded) else point.title
