"""The marks of the cost figure: markers, error bars, the Pareto front, and the legends that explain them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Literal, Protocol, cast

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle

from fgvc.reporting.cost_points import Point, pareto_front

Rgb = tuple[float, float, float]

MARKERS = ("o", "s", "^", "D", "v", "P")
#: Area in pt² of the marker with most trainable parameters; with many methods it is smaller.
LARGEST_MARKER = 300.0
#: From more methods than this on, markers shrink and labels leave out the backbone.
MANY_METHODS = 8
_FILL = 0.35
#: With areas by logarithm: area in pt² where fewest parameters train, as a share of the largest.
_SMALLEST_SHARE = 0.06
#: How a marker's area follows from the trainable parameters.
Areas = Literal["area", "log_area"]
#: Area in pt² of so many millions of trainable parameters.
AreaOf = Callable[[float], float]


@dataclass(frozen=True)
class Style:
    """Colour and marker of a group of methods: never told by colour alone."""

    color: Rgb
    marker: str

    @property
    def text_color(self) -> Rgb:
        """Text needs more contrast than a marker."""
        red, green, blue = self.color
        return 0.62 * red, 0.62 * green, 0.62 * blue


class InGroup(Protocol):
    """Whatever stands in a group of methods."""

    @property
    def group(self) -> str: ...


def group_styles(points: Sequence[InGroup]) -> dict[str, Style]:
    """A style for each group, in order of appearance."""
    groups = list(dict.fromkeys(p.group for p in points))
    palette = [cast(Rgb, tuple(color)) for color in sns.color_palette("colorblind", len(groups))]
    return {g: Style(palette[i], MARKERS[i % len(MARKERS)]) for i, g in enumerate(groups)}


def area_scale(points: Sequence[Point], areas: Areas) -> AreaOf:
    """The area of a marker: in proportion to the parameters, or growing evenly with each factor of ten.

    By logarithm, the smallest area stands for the power of ten below all points, and for no parameters.
    """
    most = max(p.trainable_params_m for p in points)
    largest = LARGEST_MARKER * min(1.0, MANY_METHODS / len(points))
    per_million = largest / most if most > 0 else 0.0
    if areas == "area" or most <= 0:
        return lambda millions: millions * per_million
    low, high = _decades(points)
    smallest = _SMALLEST_SHARE * largest

    def area_of(millions: float) -> float:
        share = (log10(millions) - low) / (high - low) if millions > 0 else 0.0
        return smallest + max(share, 0.0) * (largest - smallest)

    return area_of


def _decades(points: Sequence[Point]) -> tuple[int, int]:
    """Exponents of the powers of ten between which all points that train something lie."""
    some = [p.trainable_params_m for p in points if p.trainable_params_m > 0]
    low, high = floor(log10(min(some))), ceil(log10(max(some)))
    return low, max(high, low + 1)


def drawn_size(area: float, marker: str) -> tuple[float, float]:
    """Matplotlib's ``s`` for a marker of ``area`` pt², and its half extent in pt.

    The shapes fill different shares of the square s; areas can be compared only when that is made up for.
    """
    style = MarkerStyle(marker)
    outline = np.asarray(style.get_path().transformed(style.get_transform()).to_polygons()[0])
    x, y = outline[:, 0], outline[:, 1]
    filled = 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))
    size = area / filled
    return size, float(np.abs(outline).max()) * size**0.5


def draw_point(axes: Axes, point: Point, style: Style, area_of: AreaOf) -> None:
    """Error bar, marker, and a dot in its middle so that few trainable parameters are not lost."""
    x, y, color = point.macs_g, point.accuracy_pct, style.color
    if point.std_pct is not None:
        axes.errorbar(x, y, point.std_pct, fmt="none", ecolor=color, elinewidth=1.1, capsize=2.5, zorder=3)
    area = area_of(point.trainable_params_m)
    axes.scatter(
        x,
        y,
        s=drawn_size(area, style.marker)[0],
        marker=style.marker,
        facecolor=(*color, _FILL),
        edgecolor=color,
        linewidth=1.0,
        zorder=4 - area / 1e4,  # small ones on top
        gid=f"marker-{point.method}",
    )
    axes.scatter(x, y, s=5, marker="o", color=[color], linewidth=0, zorder=5)


def draw_front(axes: Axes, points: Sequence[Point]) -> None:
    """The best accuracy that can be had up to each cost: a step line."""
    front = pareto_front(points)
    x = [*(p.macs_g for p in front), axes.get_xlim()[1]]
    y = [*(p.accuracy_pct for p in front), front[-1].accuracy_pct]
    dashes = (0, (4, 2))
    (line,) = axes.plot(x, y, drawstyle="steps-post", color="0.55", linewidth=1.0, linestyle=dashes, zorder=2)
    line.set_gid("front")


def draw_legends(
    figure: Figure,
    points: Sequence[Point],
    styles: dict[str, Style],
    left: float,
    group_y: float,
    size_y: float,
    areas: Areas = "area",
) -> None:
    """Two rows: the groups, and what a marker's area means. Positions are fractions of the figure."""
    groups = [
        _key(group, style.marker, 6.5, (*style.color, _FILL), style.color) for group, style in styles.items()
    ]
    _legend_row(figure, groups, left - 0.014, group_y)
    area_of = area_scale(points, areas)
    sizes = [
        _key(
            f"{millions:g} M",
            "o",
            drawn_size(area_of(millions), "o")[0] ** 0.5,
            (0.9, 0.9, 0.9, 1.0),
            (0.5,) * 3,
        )
        for millions in round_sizes(points, areas)
    ]
    if sizes:
        told = "Marker area: trainable parameters" + (" (by logarithm)" if areas == "log_area" else "")
        what = figure.text(left, size_y, told, size=7.5, va="center")
        width = what.get_window_extent().width / figure.bbox.width
        _legend_row(figure, sizes, left + width + 0.006, size_y)


def round_sizes(points: Sequence[Point], areas: Areas = "area") -> list[float]:
    """Round numbers of millions that span the markers shown; none where nothing trains.

    Three of them; or powers of ten, where areas are by logarithm.
    """
    most = max(p.trainable_params_m for p in points)
    if most <= 0:
        return []
    if areas == "log_area":
        low, high = _decades(points)
        step = 1 if high - low <= 4 else 2  # as many as fit in a row
        return [10.0**exponent for exponent in reversed(range(high, low - 1, -step))]
    steps = [float(f"{10.0**e * s:.6g}") for e in range(-4, 5) for s in (1, 2, 5)]
    largest = max(s for s in steps if s <= most * 1.0001)
    return [float(f"{largest / 16:.1g}"), float(f"{largest / 4:.1g}"), largest]


def _legend_row(figure: Figure, handles: list[Line2D], left: float, y: float) -> None:
    figure.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(left, y),
        ncols=len(handles),
        frameon=False,
        fontsize=7.5,
        borderpad=0.0,
        handlelength=2.0,
        handletextpad=0.3,
        columnspacing=1.2,
    )


def _key(label: str, marker: str, size: float, face: tuple[float, float, float, float], edge: Rgb) -> Line2D:
    key = Line2D([], [], linestyle="", marker=marker, markersize=size, label=label)
    key.set_markerfacecolor(face)
    key.set_markeredgecolor(edge)
    return key
