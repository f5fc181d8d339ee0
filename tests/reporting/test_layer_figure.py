"""The figure of how alike layers are: its panels, what it leaves out and says so, and what it refuses."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from fgvc.errors import FgvcError
from fgvc.reporting import figures
from fgvc.reporting.layer_figure import LayerPanels, draw_layers, grid_of, layer_panels

BenchT = Any


def record(bench: BenchT, method: str, value: float, blocks: int = 4, **more: Any) -> None:
    """A record as `fgvc explain cka` leaves it: one value everywhere off the diagonal."""
    file = bench.project.paths.layer_similarity("birds", method, 64, 1)
    file.parent.mkdir(parents=True, exist_ok=True)
    matrix = (value + (1 - value) * np.eye(blocks)).tolist()
    content = {
        "status": "ok",
        "images": 256,
        "attention": matrix,
        "attention_mean_off_diagonal": value,
        "features": np.ones((blocks, blocks)).tolist(),
        "features_mean_off_diagonal": 1.0,
    }
    file.write_text(json.dumps(content | more))


def figure_file(bench: BenchT, **keys: Any) -> None:
    shown = {"image_size": 64, "of": "attention"} | keys
    bench.write("figures/layers.yaml", bench._table("layer_similarity", **shown))


@pytest.fixture
def three(bench: BenchT) -> BenchT:
    """A plain ViT and one that was adapted, with records; and a CNN."""
    figure_file(bench)
    for name in ("birds", "dogs"):
        bench.dataset(name)
    bench.method("cnn", title="CNN", method="cnn", backbone="resnet50", group="CNN-based")
    bench.method("plain", title="Plain")
    bench.method("adapted", title="Adapted", method="ila", group="Parameter-efficient")
    bench.suite(["birds", "dogs"], ["plain", "cnn", "adapted"], [1, 2])
    record(bench, "plain", 0.9)
    record(bench, "adapted", 0.4)
    return bench


def panels(bench: BenchT, **options: Any) -> LayerPanels:
    project = bench.project
    return layer_panels(project, "quick", project.figure("layers"), "x.pdf", **options)


def drawn(bench: BenchT, **options: Any) -> Any:
    with figures.house_style():
        return draw_layers(panels(bench, **options), bench.project.figure("layers"))


def words(page: Any) -> str:
    return " ".join(" ".join(text.get_text() for text in page.texts).split())


def test_methods_on_a_vit_stand_side_by_side(three: BenchT) -> None:
    page = drawn(three)
    images = {i.get_gid(): i for axes in page.axes for i in axes.images if i.get_gid()}
    assert list(images) == ["layers-plain", "layers-adapted"]
    np.testing.assert_allclose(images["layers-adapted"].get_array()[0], [1, 0.4, 0.4, 0.4])
    assert {i.get_clim() for i in images.values()} == {(0.0, 1.0)}, "one scale of colours"
    left, right = page.axes[:2]
    assert (left.get_title(), right.get_title()) == ("Plain\nmean 0.90", "Adapted\nmean 0.40")
    assert [t.get_text() for t in left.get_xticklabels()] == ["1", "2", "3", "4"]
    one, other = left.get_position(), right.get_position()
    assert one.y0 == pytest.approx(other.y0) and one.x1 < other.x0
    assert left.get_ylim()[0] < left.get_ylim()[1], "the first block is below"
    assert "attention maps (all heads)" in words(page) and "Birds, 256 test images, seed 1" in words(page)


def test_features_come_from_the_same_records(three: BenchT) -> None:
    figure_file(three, of="features")
    assert [p.mean for p in panels(three).panels] == [1.0, 1.0]
    assert "behind the second norm" in words(drawn(three))


def test_a_figure_may_name_its_methods_in_order(three: BenchT) -> None:
    figure_file(three, methods=["adapted", "plain"])
    assert [p.method for p in panels(three).panels] == ["adapted", "plain"]


def test_it_is_written_and_its_bytes_do_not_change(three: BenchT) -> None:
    first = [f.read_bytes() for f in figures.write_figure(three.project, "quick", "layers")]
    assert [f.read_bytes() for f in figures.write_figure(three.project, "quick", "layers")] == first
    assert all(len(content) > 5000 for content in first)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7, 12, 20])
def test_headings_and_panels_do_not_collide(bench: BenchT, count: int) -> None:
    figure_file(bench)
    bench.dataset("birds")
    names = [f"m{i}" for i in range(count)]
    for name in names:
        bench.method(name, title=f"A rather long name of {name}")
        record(bench, name, 0.5, blocks=12)
    bench.suite(["birds"], names, [1])
    page = drawn(bench)
    page.canvas.draw()
    assert len(page.axes) == count + 1
    boxes = [axes.get_tightbbox() for axes in page.axes] + [text.get_window_extent() for text in page.texts]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    whole = page.bbox.padded(0.5)
    assert all(whole.containsx(b.x0) and whole.containsx(b.x1) and whole.containsy(b.y1) for b in boxes)


def test_rows_of_panels_are_of_about_one_length() -> None:
    assert [grid_of(n) for n in (1, 2, 3, 4, 5, 7, 12, 20)] == [
        *((1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (2, 4), (3, 4), (4, 5))
    ]


def test_a_method_that_is_not_compared_yet_is_named(three: BenchT) -> None:
    three.project.paths.layer_similarity("birds", "adapted", 64, 1).unlink()
    with pytest.raises(
        FgvcError, match="the layers of adapted on birds at image size 64 are not compared yet"
    ) as it:
        panels(three)
    assert "snakemake --cores all -- x.pdf" in str(it.value)
    found = panels(three, allow_missing=True)
    assert found.left_out == (("Adapted", "not compared yet"),) and found.is_partial
    assert words(drawn(three, allow_missing=True)).count("PARTIAL.") == 1
    written = figures.write_figure(three.project, "quick", "layers", allow_missing=True)
    assert [f.name for f in written] == ["layers.partial.pdf", "layers.partial.png"]


def test_a_diverged_run_is_left_out_and_said(three: BenchT) -> None:
    record(three, "adapted", 0.0, status="diverged", cause="the loss is NaN")
    found = panels(three)
    assert found.left_out == (("Adapted", "the run diverged"),) and not found.is_partial
    assert "Not drawn: Adapted (the run diverged)." in words(drawn(three))
    record(three, "plain", 0.0, status="diverged", cause="the loss is NaN")
    with pytest.raises(
        FgvcError, match="has no method to draw: Plain: the run diverged; Adapted: the run diverged"
    ):
        panels(three)


@pytest.mark.parametrize(
    ("keys", "problem", "where"),
    [
        (
            {"methods": ["adpated"]},
            "did you mean 'adapted'?",
            "params/figures/layers.yaml:5, key 'methods.0'",
        ),
        ({"methods": ["plain", "plain"]}, "listed twice: plain", "key 'methods'"),
        (
            {"methods": ["spare"]},
            "the suite 'quick' lacks 'spare'",
            "params/suites/quick.yaml, key 'methods'",
        ),
        ({"image_size": 448}, "has no runs at image size 448", "params/suites/quick.yaml, key 'image_sizes'"),
        ({"of": "heads"}, "'heads' is not a possible value", "key 'of'"),
    ],
)
def test_mistakes_in_the_figure_s_file(three: BenchT, keys: Any, problem: str, where: str) -> None:
    three.method("spare")
    figure_file(three, **keys)
    with pytest.raises(FgvcError) as caught:
        panels(three)
    assert problem in str(caught.value) and where in str(caught.value)


def test_a_suite_without_a_vit_has_no_such_figure(three: BenchT) -> None:
    three.suite(["birds"], ["cnn"], [1])
    with pytest.raises(FgvcError, match="the suite 'quick' has no method on a ViT"):
        panels(three)
