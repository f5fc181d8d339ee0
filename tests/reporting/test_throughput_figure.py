"""The figure of accuracy and throughput: its bars, its baseline, and what it refuses to put side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fgvc.errors import FgvcError
from fgvc.reporting import figures
from fgvc.reporting.throughput_figure import throughput_bars

BenchT = Any
CONDITIONS = "cpu-fp32-b8-t2"


def speed(bench: BenchT, dataset: str, method: str, images_s: float, host: str = "node1") -> Path:
    """A speed record as `fgvc benchmark --write` leaves it."""
    file: Path = bench.project.paths.throughput(dataset, method, 64, CONDITIONS)
    file.parent.mkdir(parents=True)
    key = "model_throughput_images_s"
    record = {
        key: images_s,
        f"{key}_min": images_s - 5,
        f"{key}_max": images_s + 1,
        "device": {"kind": "cpu", "name": "cpu"},
        "host": {"name": host, "processor": "A processor"},
    }
    file.write_text(json.dumps(record))
    return file


@pytest.fixture
def measured(bench: BenchT) -> BenchT:
    """Two methods on two datasets with two seeds; the second is plain fine-tuning of class vit."""
    bench.write("figures/speed.yaml", bench._table("accuracy_vs_throughput", image_size=64))
    for name in ("birds", "dogs"):
        bench.dataset(name)
    bench.method("crops", title="Crops", method="glsim")
    bench.method("plain", title="Plain")
    for dataset, shift in (("birds", 0.0), ("dogs", 4.0)):
        for method, top1 in (("crops", 92.0), ("plain", 90.0)):
            for seed in (1, 2):
                bench.metrics(dataset, method, seed, status="ok", top1_pct=top1 + shift + seed)
        speed(bench, dataset, "crops", 50.0 + shift)
        speed(bench, dataset, "plain", 100.0 + shift)
    bench.suite(["birds", "dogs"], ["crops", "plain"], [1, 2])
    return bench


def bars(bench: BenchT, **options: Any) -> Any:
    project = bench.project
    return throughput_bars(project, "quick", project.figure("speed"), "x.pdf", **options)


def test_values_are_means_over_datasets(measured: BenchT) -> None:
    found = bars(measured)
    crops, plain = found.bars
    assert (crops.accuracy_pct, crops.images_s) == (95.5, 52.0)
    assert (crops.images_s_least, crops.images_s_largest) == (47.0, 53.0)
    assert crops.std_pct == pytest.approx(0.5**0.5)
    assert (plain.accuracy_pct, plain.images_s) == (93.5, 102.0)
    assert found.baseline == "plain" and found.machine == "A processor in node1"


def test_what_is_drawn(measured: BenchT) -> None:
    (pdf, png) = figures.write_figure(measured.project, "quick", "speed")
    assert pdf.stat().st_size > 5000 and png.stat().st_size > 5000
    project = measured.project
    with figures.house_style():
        page, partial = figures._throughput(project, "quick", project.figure("speed"), "x", False)
    left, right = page.axes
    heights = {p.get_gid(): p.get_height() for axes in (left, right) for p in axes.patches}
    assert heights == {
        "accuracy-crops": 95.5,
        "accuracy-plain": 93.5,
        "throughput-crops": 52.0,
        "throughput-plain": 102.0,
    }
    lines = {a.get_gid(): a.get_ydata()[0] for axes in (left, right) for a in axes.lines if a.get_gid()}
    assert lines["baseline-accuracy"] == 93.5 and lines["baseline-throughput"] == 102.0
    words = " ".join(t.get_text() for t in page.texts)
    assert "CPU, 2 threads, fp32, batches of 8" in " ".join(words.split()) and not partial
    assert "Dashed: Plain on ViT-Pico." in " ".join(words.split())


def test_speeds_of_two_machines_are_not_put_side_by_side(measured: BenchT) -> None:
    measured.project.paths.throughput("dogs", "plain", 64, CONDITIONS).parent.rename(measured.root / "away")
    speed(measured, "dogs", "plain", 80.0, host="node2")
    with pytest.raises(FgvcError, match="different machines: A processor in node1 and A processor in node2"):
        bars(measured)


def test_a_method_without_a_measurement_is_named(measured: BenchT) -> None:
    measured.project.paths.throughput("dogs", "plain", 64, CONDITIONS).unlink()
    with pytest.raises(FgvcError, match="the throughput of plain on dogs at image size 64 is not measured"):
        bars(measured)
    found = bars(measured, allow_missing=True)
    assert found.left_out == (("Plain (ViT-Pico)", "not measured"),) and found.is_partial
