"""Size statistics against values computed by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from datakit import Toy, list_text, picture

from fgvc.data.splits import prepare_splits
from fgvc.data.stats import moments, size_statistics
from fgvc.errors import FgvcError


def test_by_hand(make_toy: Callable[..., Toy]) -> None:
    # Width x height; a: class 0, b: class 1; 0 and 1 are in train_val, 2 in test.
    sizes = {"a0": (10, 20), "a1": (30, 20), "b0": (20, 20), "b1": (20, 40), "a2": (40, 10), "b2": (10, 10)}
    files = {f"img/{name}.jpg": picture(9 * i, size) for i, (name, size) in enumerate(sizes.items())}
    files["lists/train_val.csv"] = list_text([(0, "a0.jpg"), (0, "a1.jpg"), (1, "b0.jpg"), (1, "b1.jpg")])
    files["lists/test.csv"] = list_text([(0, "a2.jpg"), (1, "b2.jpg")])
    toy = make_toy(files | {"LICENSE": b"x"}, classes=2)
    toy.fetch()
    prepare_splits(toy.project, "toy")
    record = size_statistics(toy.project, "toy")
    assert record["parts"]["train_val"] == {
        "images": 4,
        "classes": 2,
        "height_px": {"mean": 25.0, "std": 8.660254, "min": 20, "max": 40},
        "width_px": {"mean": 20.0, "std": 7.071068, "min": 10, "max": 30},
        "aspect_ratio": {"mean": 0.875, "std": 0.414578, "min": 0.5, "max": 1.5},
        "ratio_of_means": 0.8,
    }
    assert record["parts"]["train"]["width_px"] == {"mean": 15.0, "std": 5.0, "min": 10, "max": 20}
    assert record["parts"]["test"]["aspect_ratio"] == {"mean": 2.5, "std": 1.5, "min": 1.0, "max": 4.0}
    assert (record["all"]["images"], record["all"]["width_px"]["max"]) == (6, 40)
    assert json.loads(toy.project.paths.stats("toy").read_text()) == record


def test_no_image_is_opened(toy: Toy) -> None:
    toy.fetch()
    prepare_splits(toy.project, "toy")
    for path in toy.folder.rglob("*.jpg"):
        path.unlink()
    assert size_statistics(toy.project, "toy")["all"]["images"] == 15


def test_before_the_split(toy: Toy) -> None:
    toy.fetch()
    with pytest.raises(FgvcError) as caught:
        size_statistics(toy.project, "toy")
    assert caught.value.cure == "fgvc data split toy"


def test_order_does_not_matter() -> None:
    values = [1e16, 1.0, -1e16, 3.0]
    assert moments(values) == moments(values[::-1])


def test_the_record_is_the_same_twice(toy: Toy, tmp_path: Path) -> None:
    toy.fetch()
    prepare_splits(toy.project, "toy")
    size_statistics(toy.project, "toy")
    before = toy.project.paths.stats("toy").read_bytes()
    size_statistics(toy.project, "toy")
    assert toy.project.paths.stats("toy").read_bytes() == before
