"""Figures for papers: PDF and PNG, the same bytes every time. Here also accuracy against inference cost."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure

from fgvc.config.project import Project
from fgvc.config.suite import (
    ConfusionFigure,
    CostFigure,
    CriticalDifferenceFigure,
    ExamplesFigure,
    LayerFigure,
    PublishedFigure,
    ThroughputFigure,
)
from fgvc.provenance.files import atomic_path, write_text
from fgvc.reporting.accuracy_table import METRIC_NAMES
from fgvc.reporting.confusion_counts import counts_csv, read_confusions
from fgvc.reporting.confusion_figure import draw_confusions
from fgvc.reporting.cost_axes import (
    FOOTNOTE_WIDTH,
    LEFT,
    RIGHT,
    draw_points,
    new_page,
    set_scales,
)
from fgvc.reporting.cost_points import CostPoints, cost_points
from fgvc.reporting.critical_difference import draw_ranking, read_ranking
from fgvc.reporting.examples_figure import draw_examples, read_examples
from fgvc.reporting.layer_figure import draw_layers, layer_panels
from fgvc.reporting.marks import group_styles
from fgvc.reporting.published_figure import draw_published, published_points
from fgvc.reporting.published_table import read_published
from fgvc.reporting.throughput_figure import draw_throughput, throughput_bars

#: What each format would otherwise say about the day and the version of the program.
FORMATS: dict[str, dict[str, None]] = {
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".png": {"Software": None},
}
PNG_DPI = 220


@dataclass(frozen=True)
class Drawn:
    """A figure; whether it is partial; and its numbers as text by suffix, where it has them."""

    figure: Figure
    is_partial: bool
    texts: dict[str, str] = field(default_factory=dict)


def write_figure(
    project: Project,
    suite_name: str,
    figure: str,
    *,
    suite_path: str | None = None,
    allow_missing: bool = False,
) -> list[Path]:
    """Write a figure of a suite as ``.pdf`` and ``.png`` (some: numbers as ``.csv``) and return the files.

    Args:
        suite_path: the suite's folder in ``results/``, or None for the default suite's short path.
        allow_missing: draw what is there. A figure that is not complete goes to ``FIGURE.partial.*``.

    Raises FgvcError when results are missing and ``allow_missing`` is not given.
    """
    whole = project.paths.figure(suite_path, figure)
    with house_style():
        drawn = _drawn(project, suite_name, figure, project.paths.shown(whole) + ".pdf", allow_missing)
        suffixes = (*FORMATS, *drawn.texts)
        partial = [whole.with_name(f"{whole.name}.partial{suffix}") for suffix in suffixes]
        final = [whole.with_name(f"{whole.name}{suffix}") for suffix in suffixes]
        written = partial if drawn.is_partial else final
        for file, (suffix, metadata) in zip(written, FORMATS.items(), strict=False):
            with atomic_path(file) as temporary:
                drawn.figure.savefig(temporary, format=suffix[1:], dpi=PNG_DPI, metadata=metadata)
        for file, text in zip(written[len(FORMATS) :], drawn.texts.values(), strict=True):
            write_text(file, text)
    if not drawn.is_partial:
        for stale in partial:
            stale.unlink(missing_ok=True)
    return written


def _drawn(project: Project, suite_name: str, figure: str, target: str, allow_missing: bool) -> Drawn:
    config = project.figure(figure)
    if isinstance(config, PublishedFigure):
        return Drawn(*_published(project, config, target, allow_missing))
    if isinstance(config, CriticalDifferenceFigure):
        ranking = read_ranking(project, suite_name, config, target, allow_missing=allow_missing)
        return Drawn(draw_ranking(ranking, config), ranking.is_partial)
    if isinstance(config, ConfusionFigure):
        found = read_confusions(project, suite_name, config, target, allow_missing=allow_missing)
        return Drawn(draw_confusions(project, found, config), found.is_partial, {".csv": counts_csv(found)})
    if isinstance(config, LayerFigure):
        layers = layer_panels(project, suite_name, config, target, allow_missing=allow_missing)
        return Drawn(draw_layers(layers, config), layers.is_partial)
    if isinstance(config, ExamplesFigure):
        examples = read_examples(project, suite_name, config, target, allow_missing=allow_missing)
        return Drawn(draw_examples(project, examples, config), examples.is_partial)
    if isinstance(config, ThroughputFigure):
        return Drawn(*_throughput(project, suite_name, config, target, allow_missing))
    return Drawn(*_of_suite(project, suite_name, config, target, allow_missing))


def _of_suite(
    project: Project, suite_name: str, config: CostFigure, target: str, allow_missing: bool
) -> tuple[Figure, bool]:
    """The figure of a suite's own results, and whether it is partial."""
    found = cost_points(
        project, suite_name, config.image_size, config.metric, target, allow_missing=allow_missing
    )
    return draw(found, config, [project.dataset(d).title for d in found.cells.datasets]), found.is_partial


def _published(
    project: Project, config: PublishedFigure, target: str, allow_missing: bool
) -> tuple[Figure, bool]:
    """The figure of a published table, and whether it is partial."""
    found = published_points(read_published(project, config, target, allow_missing=allow_missing), target)
    return draw_published(found, config), found.is_partial


def _throughput(
    project: Project, suite_name: str, config: ThroughputFigure, target: str, allow_missing: bool
) -> tuple[Figure, bool]:
    """Accuracy and throughput of a suite's methods, and whether the figure is partial."""
    found = throughput_bars(project, suite_name, config, target, allow_missing=allow_missing)
    titles = [project.dataset(d).title for d in found.cells.datasets]
    return draw_throughput(found, config, titles), found.is_partial


def draw(found: CostPoints, config: CostFigure, dataset_titles: Sequence[str]) -> Figure:
    """The figure itself; needs no display."""
    page, styles = new_page(config.title, footnote(found)), group_styles(found.points)
    axes = page.add_axes(LEFT, RIGHT)
    datasets = len(dataset_titles)
    over = f" on {dataset_titles[0]}" if datasets == 1 else f", mean of {datasets} datasets"
    set_scales(axes, found.points, config.image_size, METRIC_NAMES[config.metric].capitalize() + over)
    draw_points(page, axes, found.points, styles, config.parameters)
    return page.figure


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


def _told_standings(found: CostPoints) -> str:
    """Which methods lie off the front beyond doubt, and of which that cannot be said."""
    titles = [p.title for p in found.points]
    told = ""
    for standing, words in (
        ("dominated", "Off it beyond doubt"),
        ("inconclusive", "On or off it: undecided"),
    ):
        names = [
            p.title if titles.count(p.title) == 1 else f"{p.title} ({p.subtitle})"
            for p in found.points
            if p.method in found.standings and found.standings[p.method].standing == standing
        ]
        told += f" {words} (95 % intervals): {', '.join(names)}." if names else ""
    return told


def footnote(found: CostPoints) -> list[str]:
    """The lines under the figure: what the bars are, and which methods it cannot show and why."""
    seeds, datasets = len(found.cells.seeds), len(found.cells.datasets)
    what = "" if datasets == 1 else " of the average over datasets"
    bars = f"Error bars: standard deviation over {seeds} seeds{what}."
    text = (bars if seeds > 1 else "One seed, so no error bars.") + " Dashed: Pareto front."
    text += _told_standings(found)
    if found.left_out:
        text += " Not drawn: " + "; ".join(f"{name} ({why})" for name, why in found.left_out) + "."
    return textwrap.wrap(("PARTIAL. " if found.is_partial else "") + text, FOOTNOTE_WIDTH)
