"""The figure of published accuracy against recounted cost: no method at a cost that nobody counted."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from fgvc.errors import FgvcError
from fgvc.reporting import figures
from fgvc.reporting.published_figure import draw_published, footnote, published_points
from fgvc.reporting.published_table import read_published

BenchT = Any


def field(bench: BenchT, counted: int, uncounted: int) -> BenchT:
    """Published methods as crowded as those of the field: within two points of one another."""
    rng = np.random.default_rng(3)
    for dataset in ("birds", "dogs"):
        bench.dataset(dataset)
    columns, variants = {}, {}
    for i in range(counted + uncounted):
        values = 90 + rng.normal(size=2)
        columns[f"m{i}"] = {
            d: (round(float(v), 2), 0.1) for d, v in zip(("birds", "dogs"), values, strict=True)
        }
        if i < counted:
            bench.method(f"ours_{i}")
            bench.cost(f"ours_{i}", 17.0 + i, 86.0)
            variants[f"m{i}"] = f"ours_{i}"
    bench.suite(["birds"], list(variants.values()) or ["none"], [1])
    bench.published(columns, variants)
    return bench


def points(bench: BenchT, **options: Any) -> Any:
    project = bench.project
    shown = read_published(project, project.figure("field"), "x.pdf", **options)
    return published_points(shown, "x.pdf")


def test_points_are_recounted_and_the_rest_has_no_cost(bench: BenchT) -> None:
    found = points(field(bench, 2, 3))
    printed = found.printed
    assert [(p.method, p.macs_g) for p in found.points] == [("m0", 17.0), ("m1", 18.0)]
    assert [u.column for u in found.uncounted] == ["m2", "m3", "m4"]
    for shown in (*found.points, *found.uncounted):
        column = printed.columns[getattr(shown, "method", None) or shown.column]
        assert shown.accuracy_pct == pytest.approx(np.mean([c.value for c in column.cells.values()]))
    assert "Not recounted (method not here yet), hollow: M2-Net, M3-Net, M4-Net." in " ".join(footnote(found))


@pytest.mark.parametrize(("counted", "uncounted"), [(1, 0), (2, 4), (3, 9)])
def test_what_is_drawn(bench: BenchT, counted: int, uncounted: int) -> None:
    field(bench, counted, uncounted)
    with figures.house_style():
        figure = draw_published(points(bench), bench.project.figure("field"))
    axes, *strips = figure.axes
    gids = [artist.get_gid() or "" for artist in axes.get_children()]
    assert sum(gid.startswith("marker-") for gid in gids) == counted
    assert axes.get_ylabel() == "Published top-1 accuracy, mean of 2 datasets (%)"
    assert len(strips) == (uncounted > 0)
    for strip in strips:
        assert strip.get_ylim() == axes.get_ylim(), "one scale of accuracy"
        assert not len(strip.get_xticks()) and strip.get_xlabel() == "cost not recounted"
        hollow = [a for a in strip.lines if (a.get_gid() or "").startswith("uncounted-")]
        assert len(hollow) == uncounted and {a.get_markerfacecolor() for a in hollow} == {"white"}
        assert all(axes.get_ylim()[0] < a.get_ydata()[0] < axes.get_ylim()[1] for a in hollow)
    texts = [t for a in figure.axes for t in a.texts if (t.get_gid() or "").startswith("label-")]
    assert len(texts) == counted + uncounted
    assert not any(a.overlaps(b) for a, b in combinations([t.get_window_extent() for t in texts], 2))


def test_a_missing_cost_is_told_or_the_figure_is_partial(bench: BenchT) -> None:
    field(bench, 2, 0)
    bench.project.paths.cost("ours_1", 64, 8).unlink()
    with pytest.raises(FgvcError, match="the cost of ours_1 at image size 64 is not counted yet"):
        figures.write_figure(bench.project, "quick", "field")
    partial = figures.write_figure(bench.project, "quick", "field", allow_missing=True)
    assert [f.name for f in partial] == ["field.partial.pdf", "field.partial.png"]
    said = " ".join(footnote(points(bench, allow_missing=True)))
    assert said.startswith("PARTIAL.") and "Not recounted (not counted yet), hollow: M1-Net." in said
    bench.project.paths.cost("ours_1", 64, 8).write_text('{"macs_g": 5.0, "trainable_params_m": 1.0}')
    whole = figures.write_figure(bench.project, "quick", "field")
    assert [f.name for f in whole] == ["field.pdf", "field.png"] and not partial[0].exists()
    first = [f.read_bytes() for f in whole]
    assert [f.read_bytes() for f in figures.write_figure(bench.project, "quick", "field")] == first


def test_nothing_to_draw(bench: BenchT) -> None:
    bench.method("none")
    with pytest.raises(FgvcError, match="no method of AP, Table 1 has a counted cost"):
        points(field(bench, 0, 2))
