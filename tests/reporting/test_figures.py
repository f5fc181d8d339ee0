"""The cost figure: what it shows, that nothing collides, and that its bytes do not change."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from fgvc.errors import FgvcError
from fgvc.reporting import figures, marks
from fgvc.reporting.cost_points import Point, cost_points, pareto_front

BenchT = Any


def many(bench: BenchT, count: int) -> BenchT:
    """Methods crowded as ViT methods are: nearly the same cost and accuracy."""
    rng = np.random.default_rng(1)
    bench.dataset("birds")
    bench.dataset("dogs")
    names = [f"method_{i}" for i in range(count)]
    for i, name in enumerate(names):
        bench.method(name, title=f"Method {i}", group=["CNN-based", "ViT-based", "Other"][i % 3])
        bench.cost(name, float(17 + rng.normal()), float(rng.choice([0.3, 20.0, 86.0])))
        for dataset in ("birds", "dogs"):
            for seed in (1, 2):
                bench.metrics(dataset, name, seed, status="ok", top1_pct=float(90 + rng.normal()))
    bench.suite(["birds", "dogs"], names, [1, 2])
    return bench


def drawn(bench: BenchT) -> Any:
    project = bench.project
    found = cost_points(project, "quick", 64, "top1_pct", "x.pdf")
    with figures.house_style():
        return figures.draw(
            found, project.figure("cost"), [project.dataset(d).title for d in found.cells.datasets]
        )


@pytest.mark.parametrize("count", [1, 2, 6, 15, 20])
def test_labels_do_not_collide(bench: BenchT, count: int) -> None:
    figure = drawn(many(bench, count))
    axes = figure.axes[0]
    texts = [t for t in axes.texts if (t.get_gid() or "").startswith("label-")]
    assert len(texts) == count
    boxes = [t.get_window_extent() for t in texts]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    inside = axes.get_window_extent().padded(1)
    assert all(inside.containsx(b.x0) and inside.containsx(b.x1) for b in boxes)
    assert all(inside.containsy(b.y0) and inside.containsy(b.y1) for b in boxes)


def test_what_is_drawn(bench: BenchT) -> None:
    axes = drawn(many(bench, 6)).axes[0]
    assert axes.get_xscale() == "log" and axes.get_xlabel().startswith("GMACs per image (64 × 64")
    assert axes.get_ylabel() == "Top-1 accuracy, mean of 2 datasets (%)"
    (above,) = axes.child_axes
    assert above.get_xlabel() == "GFLOPs per image (1 MAC = 2 FLOPs)"
    above.figure.draw_without_rendering()
    assert above.get_xlim() == pytest.approx(2 * np.array(axes.get_xlim()))
    gids = [a.get_gid() for a in axes.get_children() if a.get_gid()]
    assert sum(g.startswith("marker-") for g in gids) == 6 and "front" in gids
    legends = [t.get_text() for legend in axes.figure.legends for t in legend.get_texts()]
    assert {"CNN-based", "ViT-based", "Other"} < set(legends)
    words = " ".join(t.get_text() for t in axes.figure.texts)
    assert "Error bars: standard deviation over 2 seeds of the average over datasets." in words


def test_values_of_a_point(bench: BenchT) -> None:
    bench.dataset("birds")
    bench.dataset("dogs")
    bench.method("m")
    for dataset, seed, value in (("birds", 1, 80), ("birds", 2, 82), ("dogs", 1, 90), ("dogs", 2, 96)):
        bench.metrics(dataset, "m", seed, status="ok", top1_pct=value)
    bench.cost("m", 4.0, 20.0)
    bench.suite(["birds", "dogs"], ["m"], [1, 2])
    (point,) = cost_points(bench.project, "quick", 64, "top1_pct", "x.pdf").points
    assert point.accuracy_pct == pytest.approx(87.0)
    assert point.std_pct == pytest.approx(np.std([85, 89], ddof=1))
    assert (point.macs_g, point.trainable_params_m) == (4.0, 20.0)


def a_point(macs: float, accuracy: float, params: float = 1.0, group: str = "g") -> Point:
    return Point(f"{macs}-{accuracy}", "t", "", group, macs, params, accuracy, None)


def test_pareto_front() -> None:
    points = [a_point(4, 90), a_point(1, 80), a_point(2, 79), a_point(4, 85), a_point(8, 90)]
    assert [(p.macs_g, p.accuracy_pct) for p in pareto_front(points)] == [(1, 80), (4, 90)]


@pytest.mark.parametrize("marker", marks.MARKERS)
def test_marker_areas_are_true(marker: str) -> None:
    """Filled pixels of a drawn marker, whatever its shape, match the area asked for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1), dpi=288)  # 4 pixels a pt
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), frame_on=False, xticks=[], yticks=[])
    size, _ = marks.drawn_size(300.0, marker)
    axes.scatter(0.5, 0.5, s=size, marker=marker, color="black", linewidth=0)
    canvas.draw()
    darkness = 1 - np.asarray(canvas.buffer_rgba())[..., 0] / 255.0
    assert darkness.sum() / 16 == pytest.approx(300.0, rel=0.05)  # edges are snapped to pixels


def test_groups_differ_in_colour_and_marker() -> None:
    styles = marks.group_styles([a_point(1, 1, group=g) for g in "abcdef"])
    assert len({s.marker for s in styles.values()}) == len({s.color for s in styles.values()}) == 6
    # Text on white: WCAG contrast of at least 4.5.
    for style in styles.values():
        linear = [
            (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for c in to_rgb(style.text_color)
        ]
        luminance = np.dot([0.2126, 0.7152, 0.0722], linear)
        assert 1.05 / (luminance + 0.05) > 4.5


def test_no_trainable_parameters_at_all(bench: BenchT) -> None:
    bench.dataset("birds")
    bench.method("frozen")
    bench.metrics("birds", "frozen", 1, status="ok", top1_pct=50.0)
    bench.cost("frozen", 4.0, 0.0)
    bench.suite(["birds"], ["frozen"], [1])
    assert drawn(bench).axes[0].get_ylabel() == "Top-1 accuracy on Birds (%)"
    assert marks.round_sizes([a_point(1, 1, params=0.0)]) == []


def test_missing_cost_and_runs_are_named(full_bench) -> None:
    bench = full_bench({"a": 0.9, "b": 0.8}, seeds=[1])
    file = bench.project.paths.cost("b", 64, 8)
    file.unlink()
    with pytest.raises(FgvcError, match="cost of b at image size 64 is not counted yet") as caught:
        figures.write_figure(bench.project, "quick", "cost")
    assert "results/figures/cost.pdf" in str(caught.value)
    partial = figures.write_figure(bench.project, "quick", "cost", allow_missing=True)
    assert [f.name for f in partial] == ["cost.partial.pdf", "cost.partial.png"]
    file.write_text('{"macs_g": 5.0, "trainable_params_m": 1.0}')
    whole = figures.write_figure(bench.project, "quick", "cost", allow_missing=True)
    assert [f.name for f in whole] == ["cost.pdf", "cost.png"] and not partial[0].exists()


def test_diverged_methods_are_named_not_drawn(full_bench) -> None:
    bench = full_bench({"a": 0.9, "b": 0.8}, seeds=[1])
    bench.metrics("birds", "b", 1, status="diverged", cause="loss is nan")
    found = cost_points(bench.project, "quick", 64, "top1_pct", "x.pdf")
    assert [p.method for p in found.points] == ["a"] and not found.is_partial
    assert "Not drawn: B (ViT-Pico) (a run diverged)." in " ".join(figures.footnote(found))


def test_nothing_to_draw(full_bench) -> None:
    bench = full_bench({"a": 0.9}, seeds=[1])
    bench.metrics("birds", "a", 1, status="diverged", cause="loss is nan")
    with pytest.raises(FgvcError, match="no method to draw"):
        figures.write_figure(bench.project, "quick", "cost")


def test_bytes_do_not_depend_on_day_process_or_settings(full_bench, tmp_path: Path) -> None:
    bench = full_bench({"a": 0.9, "b": 0.8})
    first = [f.read_bytes() for f in figures.write_figure(bench.project, "quick", "cost")]
    config = tmp_path / "matplotlibrc"
    config.write_text("font.size: 20\nsavefig.dpi: 50\nlines.linewidth: 9\npdf.compression: 0\n")
    code = (
        "from pathlib import Path; from fgvc.config.project import Project; "
        "from fgvc.reporting.figures import write_figure; "
        f"write_figure(Project(Path({str(bench.root)!r})), 'quick', 'cost')"
    )
    environment = {k: v for k, v in os.environ.items() if k != "DISPLAY"}
    environment |= {"MATPLOTLIBRC": str(config), "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    figure = bench.root / "results" / "figures" / "cost"
    assert [figure.with_suffix(s).read_bytes() for s in (".pdf", ".png")] == first
    pdf = first[0]
    assert b"CreationDate" not in pdf and b"/FontFile2" in pdf and b"/Type3" not in pdf
    assert b"matplotlib" not in first[1].lower()


def test_the_footnote_tells_who_is_off_the_front_and_who_may_be(full_bench: Any) -> None:
    """Costs rise from method to method: a worse one is off the front, one that is hardly better may be."""
    bench = full_bench({"cheap": 0.7, "bad": 0.4, "close": 0.705, "best": 0.95}, seeds=[1, 2, 3])
    found = cost_points(bench.project, "quick", 64, "top1_pct", "x.pdf")
    assert {m: p.standing for m, p in found.standings.items()} == {
        "cheap": "not_dominated",
        "bad": "dominated",
        "close": "inconclusive",
        "best": "not_dominated",
    }
    text = " ".join(figures.footnote(found))
    assert "Off it beyond doubt (95 % intervals): BAD." in text
    assert "On or off it: undecided (95 % intervals): CLOSE." in text


def test_without_intervals_nothing_is_said_about_the_front(bench: BenchT) -> None:
    bench.dataset("birds")
    bench.method("m")
    bench.cost("m", 4.0, 1.0)
    bench.metrics("birds", "m", 1, status="ok", top1_pct=90.0)
    bench.suite(["birds"], ["m"], [1])
    assert cost_points(bench.project, "quick", 64, "top1_pct", "x.pdf").standings == {}


def areas_drawn(axes: Any) -> dict[str, float]:
    """Matplotlib's size of each method's marker."""
    found = [a for a in axes.collections if (a.get_gid() or "").startswith("marker-")]
    return {a.get_gid().removeprefix("marker-"): float(a.get_sizes()[0]) for a in found}


def of_few_and_many(bench: BenchT, trained: dict[str, float], **more: Any) -> Any:
    """The figure of methods that train so many millions of parameters."""
    bench.dataset("birds")
    for i, (name, millions) in enumerate(trained.items()):
        bench.method(name, title=name.upper())
        bench.cost(name, 10.0 + i, millions)
        bench.metrics("birds", name, 1, status="ok", top1_pct=50.0 + i)
    bench.suite(["birds"], list(trained), [1])
    bench.write("figures/cost.yaml", bench._table("accuracy_vs_cost", image_size=64, **more))
    return drawn(bench)


def test_areas_in_proportion_lose_what_trains_little(bench: BenchT) -> None:
    areas = areas_drawn(of_few_and_many(bench, {"p": 0.1, "q": 1.0, "r": 100.0}).axes[0])
    assert areas["r"] / areas["q"] == pytest.approx(100) and areas["q"] / areas["p"] == pytest.approx(10)


def test_areas_by_logarithm_grow_evenly_with_each_factor_of_ten(bench: BenchT) -> None:
    millions = {"p": 0.1, "q": 1.0, "r": 10.0, "s": 100.0, "none": 0.0}
    figure = of_few_and_many(bench, millions, parameters="log_area")
    areas = areas_drawn(figure.axes[0])
    steps = [areas[b] - areas[a] for a, b in (("p", "q"), ("q", "r"), ("r", "s"))]
    assert steps == pytest.approx([steps[0]] * 3) and steps[0] > 0
    assert areas["none"] == areas["p"] > 0.05 * areas["s"], "the smallest can still be seen"
    legend = [t.get_text() for legend in figure.legends for t in legend.get_texts()]
    assert legend[-4:] == ["0.1 M", "1 M", "10 M", "100 M"]
    words = " ".join(t.get_text() for t in figure.texts)
    assert "Marker area: trainable parameters (by logarithm)" in words


def test_areas_by_logarithm_of_methods_that_train_alike(bench: BenchT) -> None:
    areas = areas_drawn(of_few_and_many(bench, {"p": 1.0, "q": 1.0}, parameters="log_area").axes[0])
    assert areas["p"] == areas["q"] > 0
