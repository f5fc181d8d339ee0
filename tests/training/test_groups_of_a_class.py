"""Batches of whole classes in the real engine: the triplet loss always has something to compare."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor
from trainkit import DATASET, SETTINGS, run_dir, spec_of, variant, write_yaml

from fgvc.config.project import Project
from fgvc.data.fetch import fetch
from fgvc.data.loading import epoch_order
from fgvc.data.splits import prepare_splits
from fgvc.errors import FgvcError
from fgvc.methods.sc4001 import SC4001
from fgvc.training.run import train_run

CLASSES, BATCH = 24, 4
VOTES = {"vote_perhead": 2, "total_num": 5, "key_tokens": 3, "dynamic_warm_epochs": 1}


def sc4001(**recipe: Any) -> dict[str, Any]:
    facts = {"epochs": 1, "augmentation": "weak", "batch_size": BATCH, **recipe}
    return {**variant(method="sc4001", backbone="test_vit", **facts), "options": VOTES}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Twenty-four classes of two training images: a shuffled batch of four seldom has two of a class."""
    root = tmp_path_factory.mktemp("many") / "project"
    rng = np.random.default_rng(0)
    for part in ("train", "val", "test"):
        for label in range(CLASSES):
            path = root / f"pictures/{part}/c{label:02}/0.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (36, 40, 3), dtype=np.uint8)).save(path)
    write_yaml(root / "params/config.yaml", SETTINGS)
    write_yaml(root / "params/datasets/tiny.yaml", {**DATASET, "classes": CLASSES})
    variants = {
        "shuffled": sc4001(),
        "grouped": sc4001(samples_per_class=2),
        "accumulated": sc4001(samples_per_class=2, accumulate=3),
        "crowded": sc4001(batch_size=50, samples_per_class=2),
        "factors": variant(learning_rate_factors={"haed.*": 2.0}),
    }
    for name, content in variants.items():
        write_yaml(root / f"params/methods/{name}.yaml", content)
    fetch(Project(root), "tiny")
    prepare_splits(Project(root), "tiny")
    return Project(root)


@pytest.fixture
def terms(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[list[int], float]]]:
    """(classes of a pass, its triplet loss), for every pass of a training."""
    seen: list[tuple[list[int], float]] = []
    loss = SC4001.loss

    def watched(model: SC4001, output: Any, targets: Tensor) -> dict[str, Tensor]:
        found = loss(model, output, targets)
        seen.append((targets.tolist(), found["triplet"].item()))
        return found

    monkeypatch.setattr(SC4001, "loss", watched)
    yield seen


def seed_without_pairs(project: Project) -> int:
    """A seed whose first epoch of shuffled batches never has two images of a class in a batch."""
    classes = [sample.class_id for sample in spec_of(project, "shuffled").samples("train_val")]
    for seed in range(100):
        order = epoch_order(len(classes), seed, 0)
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        if all(len({classes[index] for index in batch}) == BATCH for batch in batches):
            return seed
    raise AssertionError("none of a hundred seeds")


def triplet_column(project: Project, method: str, seed: int) -> list[float]:
    with (run_dir(project, method, seed) / "history.csv").open() as stream:
        return [float(row["loss_triplet"]) for row in csv.DictReader(stream)]


def test_shuffled_images_of_many_classes_may_compare_nothing_all_epoch_long(
    many: Project, terms: list[tuple[list[int], float]]
) -> None:
    seed = seed_without_pairs(many)
    train_run(spec_of(many, "shuffled", seed=seed))
    assert len(terms) == 12 and {value for _, value in terms} == {0.0}
    assert triplet_column(many, "shuffled", seed) == [0.0]


@pytest.mark.parametrize("method", ["grouped", "accumulated"])
def test_groups_of_a_class_are_compared_in_every_micro_batch(
    many: Project, terms: list[tuple[list[int], float]], method: str
) -> None:
    seed = seed_without_pairs(many)
    record = train_run(spec_of(many, method, seed=seed)).record
    assert record["steps"] == (4 if method == "accumulated" else 12) and len(terms) == 12
    for classes, triplet in terms:
        assert classes[0] == classes[1] != classes[2] == classes[3]
        assert triplet > 0
    assert {c for classes, _ in terms for c in classes} == set(range(CLASSES))
    assert all(value > 0 for value in triplet_column(many, method, seed))


@pytest.mark.parametrize(
    ("method", "key", "problem"),
    [
        ("crowded", "recipe.samples_per_class", "needs 25 classes; there are 24"),
        ("factors", "recipe.learning_rate_factors", "'haed.*' matches no parameter"),
    ],
)
def test_what_does_not_fit_the_data_or_the_model_is_one_error_before_the_first_step(
    many: Project, method: str, key: str, problem: str
) -> None:
    with pytest.raises(FgvcError) as caught:
        train_run(spec_of(many, method))
    assert problem in caught.value.problem and caught.value.key == key and caught.value.cure
    assert not (run_dir(many, method) / "run.json").exists()
