"""Published accuracy against the cost that we count: a first look at the field before anything is trained.

Methods without a counted cost stand in a strip beside the axes, at their accuracy and at no cost.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fgvc.config.published import PublishedAccuracies
from fgvc.config.suite import PublishedFigure
from fgvc.errors import FgvcError
from fgvc.reporting.accuracy_table import METRIC_NAMES
from fgvc.reporting.cost_axes import (
    FOOTNOTE_WIDTH,
    LEFT,
    RIGHT,
    Label,
    Page,
    draw_labels,
    draw_points,
    new_page,
    set_scales,
)
from fgvc.reporting.cost_points import Point
from fgvc.reporting.marks import Style, group_styles
from fgvc.reporting.published_table import Shown, column_headings

#: Width of the strip of methods without a cost, and the gap before it, as shares of the figure's width.
STRIP, STRIP_GAP = 0.17, 0.012
#: Where the markers of the strip stand, as a share of its width, and their diameter in pt.
STRIP_X, STRIP_MARKER_PT = 0.16, 7.0


@dataclass(frozen=True)
class Uncounted:
    """A published method without a cost: its accuracy (percent, mean over datasets), and why."""

    column: str
    name: str
    group: str
    accuracy_pct: float
    why: str


@dataclass(frozen=True)
class PublishedPoints:
    """What the figure shows: methods with a recounted cost, methods without, and those without an average."""

    points: tuple[Point, ...]
    uncounted: tuple[Uncounted, ...]
    left_out: tuple[str, ...]
    printed: PublishedAccuracies
    is_partial: bool


def published_points(shown: Shown, target: str) -> PublishedPoints:
    """The points of a published table. Raises FgvcError when not one of its methods has a counted cost."""
    points: list[Point] = []
    uncounted: list[Uncounted] = []
    left_out: list[str] = []
    headings = column_headings(shown)
    titles = [h.title for h in headings]
    for heading in headings:
        average, record = shown.averages[heading.key], shown.cost(heading.key)
        name = heading.title if titles.count(heading.title) == 1 else heading.one_line
        if average is None:
            left_out.append(heading.one_line)
        elif record is None:
            why = "not counted yet" if heading.key in shown.recounts else "method not here yet"
            uncounted.append(Uncounted(heading.key, name, heading.group, average.mean, why))
        else:
            point = Point(
                method=heading.key,
                title=heading.title,
                subtitle=heading.subtitle,
                group=heading.group,
                macs_g=float(record["macs_g"]),
                trainable_params_m=float(record["trainable_params_m"]),
                accuracy_pct=average.mean,
                std_pct=None,
            )
            points.append(point)
    if not points:
        raise FgvcError(
            f"no method of {shown.printed.source.place} has a counted cost to draw it at",
            cure=f"snakemake --cores all -- {target}"
            if shown.recounts
            else "name our variants in params/published, key `variant`",
        )
    return PublishedPoints(
        tuple(points), tuple(uncounted), tuple(left_out), shown.printed, bool(shown.uncounted)
    )


def draw_published(found: PublishedPoints, config: PublishedFigure) -> Figure:
    """The figure itself; needs no display."""
    page = new_page(config.title, footnote(found))
    styles = group_styles([*found.points, *found.uncounted])
    strip_width = STRIP + STRIP_GAP if found.uncounted else 0.0
    axes = page.add_axes(LEFT, RIGHT - strip_width)
    what = f"Published {METRIC_NAMES[found.printed.metric]}, mean of {len(found.printed.rows)} datasets"
    others = [u.accuracy_pct for u in found.uncounted]
    set_scales(axes, found.points, config.image_size, what, others)
    draw_points(page, axes, found.points, styles)
    if found.uncounted:
        _draw_strip(page, axes, found.uncounted, styles)
    return page.figure


def _draw_strip(page: Page, axes: Axes, uncounted: Sequence[Uncounted], styles: dict[str, Style]) -> None:
    """The methods without a cost: hollow markers on the same vertical axis, beside no horizontal one."""
    strip = page.add_axes(RIGHT - STRIP, RIGHT)
    strip.set_xlim(0, 1)
    strip.set_ylim(axes.get_ylim())
    strip.set_yticks(axes.get_yticks(), labels=[""] * len(axes.get_yticks()))
    strip.set_ylim(axes.get_ylim())  # ticks beyond the range would widen it
    strip.tick_params(axis="y", length=0)
    strip.set_xticks([])
    strip.set_facecolor("0.97")
    strip.grid(True, axis="y", color="0.9", linewidth=0.7)
    strip.set_axisbelow(True)
    strip.set_xlabel("cost not recounted")
    named = []
    for method in uncounted:
        style = styles[method.group]
        (marker,) = strip.plot(
            [STRIP_X],
            [method.accuracy_pct],
            linestyle="",
            marker=style.marker,
            markersize=STRIP_MARKER_PT,
            markerfacecolor="white",
            markeredgecolor=style.color,
            zorder=4,
        )
        marker.set_gid(f"uncounted-{method.column}")
        place = (STRIP_X, method.accuracy_pct, STRIP_MARKER_PT / 2)
        named.append(Label(f"label-{method.column}", method.name, style.text_color, *place))
    draw_labels(strip, named, [], pixels=page.figure.dpi / 72)


def footnote(found: PublishedPoints) -> list[str]:
    """The lines under the figure: whose numbers these are, what is not drawn or has no cost, and why."""
    printed = found.printed
    text = (
        f"Accuracy: as printed in {printed.source.full}, averaged here over its {len(printed.rows)} "
        "datasets. No error bars: the ± printed with an average is the spread across datasets. "
        f"Cost: counted here with {printed.cost_classes} classes. "
        "Dashed: Pareto front of the recounted methods."
    )
    reasons = dict.fromkeys(u.why for u in found.uncounted)
    for why in reasons:
        names = ", ".join(u.name for u in found.uncounted if u.why == why)
        text += f" Not recounted ({why}), hollow: {names}."
    if found.left_out:
        text += f" Not drawn (cells are missing): {', '.join(found.left_out)}."
    return textwrap.wrap(("PARTIAL. " if found.is_partial else "") + text, FOOTNOTE_WIDTH)
