"""The grid of example classifications: which images stand there, and what is said of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fgvc.errors import FgvcError
from fgvc.reporting import figures
from fgvc.reporting.examples_figure import RIGHT_COLOUR, WRONG_COLOUR, Examples, draw_examples, read_examples

BenchT = Any


def with_examples(bench: BenchT, images: int = 4, seen: int = 40, **methods: float) -> None:
    """One seed of each method on ``birds``; its images are on disk."""
    bench.dataset("birds")
    for number, (method, share) in enumerate(methods.items()):
        bench.result("birds", method, 1, bench.hits(share, images=seen, seed=number))
        bench.method(method, title=f"Method {method}")
    frame = predictions(bench, next(iter(methods)))
    names = [f"Class {label}" for label in range(frame["label"].max() + 1)]
    project = bench.project
    classes = project.paths.split_list("birds", "classes")
    classes.parent.mkdir(parents=True, exist_ok=True)
    lines = ["class_id,class_name", *(f"{i},{name}" for i, name in enumerate(names))]
    classes.write_text("\n".join(lines) + "\n")
    for sample in frame["sample_id"]:
        path = project.paths.data_dir("birds") / sample
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 60, 3), 90, dtype=np.uint8)).save(path, format="PNG")
    bench.suite(["birds"], list(methods), [1, 2])
    bench.write("figures/examples.yaml", bench._table("examples", image_size=64, images=images))


def predictions(bench: BenchT, method: str) -> pd.DataFrame:
    frame = pd.read_parquet(bench.run_dir("birds", method, 1) / "predictions.parquet")
    return frame.sort_values("sample_id", ignore_index=True)


def read(bench: BenchT, **options: Any) -> Examples:
    project = bench.project
    return read_examples(project, "quick", project.figure("examples"), "x.pdf", **options)


def test_images_stand_at_equal_distances_whatever_the_methods_say(bench: BenchT) -> None:
    with_examples(bench, a=0.9, b=0.2)
    expected = predictions(bench, "a")["sample_id"].iloc[[0, 10, 20, 30]].tolist()
    found = read(bench)
    assert [example.sample_id for example in found.found] == expected
    assert (found.test_images, found.seed, found.is_partial) == (40, 1, False)


def test_each_method_s_best_class_stands_below(bench: BenchT) -> None:
    with_examples(bench, a=0.5, b=0.5)
    for place, example in zip((0, 10, 20, 30), read(bench).found, strict=True):
        for answer, method in zip(example.answers, "ab", strict=True):
            row = predictions(bench, method).iloc[place]
            assert answer.method == f"Method {method}"
            assert answer.predicted == f"Class {row['top_classes'][0]}"
            assert answer.is_right == (row["top_classes"][0] == row["label"])
            assert answer.probability == pytest.approx(row["top_probabilities"][0])
            assert example.true == f"Class {row['label']}"


def test_right_and_wrong_differ_in_sign_and_colour(bench: BenchT) -> None:
    with_examples(bench, a=1.0, b=0.0)
    project = bench.project
    with figures.house_style():
        drawn = draw_examples(project, read(bench), project.figure("examples"))
    texts = {text.get_text(): text.get_color() for text in drawn.texts}
    assert {colour for text, colour in texts.items() if "Method a" in text} == {RIGHT_COLOUR}
    assert {colour for text, colour in texts.items() if "Method b" in text} == {WRONG_COLOUR}
    assert all(text.startswith("✓") for text in texts if "Method a" in text)
    assert all(re.fullmatch(r"✗ 0\.\d\d Method b: Class \d", text) for text in texts if "Method b" in text)
    assert sum(axes.get_gid() is not None for axes in drawn.axes) == 4


def test_fewer_test_images_than_asked_for_are_all_shown(bench: BenchT) -> None:
    with_examples(bench, images=60, seen=9, a=0.5)
    assert len({example.sample_id for example in read(bench).found}) == 9


def test_the_files_are_the_same_bytes_each_time(bench: BenchT) -> None:
    with_examples(bench, a=0.5)
    first = [file.read_bytes() for file in figures.write_figure(bench.project, "quick", "examples")]
    written = figures.write_figure(bench.project, "quick", "examples")
    assert [file.name for file in written] == ["examples.pdf", "examples.png"]
    assert [file.read_bytes() for file in written] == first


def test_a_method_without_results_is_named(bench: BenchT) -> None:
    with_examples(bench, a=0.5)
    bench.method("late", title="Late")
    bench.suite(["birds"], ["a", "late"], [1])
    with pytest.raises(FgvcError, match="late"):
        read(bench)
    found = read(bench, allow_missing=True)
    assert found.is_partial and found.lacking == ("Late",)
    written = figures.write_figure(bench.project, "quick", "examples", allow_missing=True)
    assert [file.name for file in written] == ["examples.partial.pdf", "examples.partial.png"]


def test_an_image_that_is_gone_is_named(bench: BenchT) -> None:
    with_examples(bench, a=0.5)
    sample = read(bench).found[0].sample_id
    (bench.project.paths.data_dir("birds") / sample).unlink()
    with pytest.raises(FgvcError) as caught:
        figures.write_figure(bench.project, "quick", "examples")
    assert sample in str(caught.value) and not list(Path(bench.root).rglob("examples.pdf"))


def test_no_results_at_all_is_one_error(bench: BenchT) -> None:
    with_examples(bench, a=0.5)
    bench.method("late")
    bench.suite(["birds"], ["late"], [1])
    with pytest.raises(FgvcError, match="no run of the suite 'quick'"):
        read(bench, allow_missing=True)
