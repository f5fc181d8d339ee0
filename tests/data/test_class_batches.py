"""Batches of P classes with K images each: what every batch holds, and what an epoch is made of."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from fgvc.config.recipe import Recipe
from fgvc.data.class_batches import ClassBatches, batches_of_recipe
from fgvc.data.loading import EpochBatches, Sample
from fgvc.errors import FgvcError

#: Images of each class; batch size; images of a class in a batch.
CASES = {
    "even": ([20] * 12, 15, 3),
    "uneven": ([7, 18, 12, 5, 15, 9, 14], 8, 2),
    "long tail": ([400, 90, 40, 20, 10, 5, 3, 2, 1, 1], 12, 3),
    "one class is most of it": ([500, 10, 10, 10], 6, 2),
    "two classes are nearly all": ([300, 300, 1, 1, 1], 6, 2),
    "one image a class": ([1] * 40, 8, 4),
    "fewer images than a batch": ([2, 1, 3], 12, 4),
    "as many classes as a batch holds": ([9, 14, 3], 9, 3),
    "more classes than groups": ([1] * 30, 6, 3),
}
EPOCHS = 4


def ids(sizes: list[int]) -> list[int]:
    """A class id for each sample, mixed up."""
    found = [c for c, size in enumerate(sizes) for _ in range(size)]
    return np.random.default_rng(0).permutation(found).tolist()


def batches_of(case: str, epochs: int = EPOCHS, seed: int = 1, first: int = 0) -> ClassBatches:
    sizes, batch_size, images = CASES[case]
    return ClassBatches(ids(sizes), batch_size, images, epochs, seed, first)


@pytest.mark.parametrize("case", CASES)
def test_every_batch_is_so_many_images_of_so_many_classes_side_by_side(case: str) -> None:
    sizes, batch_size, images = CASES[case]
    labels = ids(sizes)
    for batch in batches_of(case):
        classes = [labels[index] for _, index in batch]
        assert len(classes) == batch_size
        groups = [classes[start : start + images] for start in range(0, batch_size, images)]
        assert all(len(set(group)) == 1 for group in groups)
        assert len({group[0] for group in groups}) == batch_size // images


@pytest.mark.parametrize("case", CASES)
def test_an_epoch_is_as_long_as_one_of_images_drawn_one_by_one(case: str) -> None:
    sizes, batch_size, _ = CASES[case]
    found = batches_of(case)
    assert found.batches_per_epoch == EpochBatches(sum(sizes), batch_size, EPOCHS, 1).batches_per_epoch
    assert len(list(found)) == len(found) == EPOCHS * found.batches_per_epoch
    epochs = Counter(epoch for batch in found for epoch, _ in batch)
    assert epochs == dict.fromkeys(range(EPOCHS), found.batches_per_epoch * batch_size)


@pytest.mark.parametrize("case", CASES)
def test_an_epoch_visits_every_class_and_no_image_again_before_the_others_of_its_class(case: str) -> None:
    sizes, batch_size, images = CASES[case]
    labels, found = ids(sizes), batches_of(case)
    room = found.batches_per_epoch * (batch_size // images) >= len(sizes)
    for epoch in range(EPOCHS):
        seen = Counter(index for batch in found.of_epoch(epoch) for index in batch)
        visited = {labels[index] for index in seen}
        assert visited == set(range(len(sizes))) if room else len(visited) > 1
        for class_id in visited:
            times = [seen[index] for index, label in enumerate(labels) if label == class_id]
            assert max(times) - min(times) <= 1


def test_classes_take_part_by_their_share_of_the_images() -> None:
    sizes, batch_size, images = CASES["uneven"]
    labels, found = ids(sizes), batches_of("uneven")
    groups = found.batches_per_epoch * batch_size // images
    counts = np.zeros((400, len(sizes)))
    for epoch in range(len(counts)):
        for batch in found.of_epoch(epoch):
            for index in batch[::images]:
                counts[epoch, labels[index]] += 1
    wanted = groups * np.array(sizes) / sum(sizes)
    assert (np.abs(counts - wanted) < 1).all()
    np.testing.assert_allclose(counts.mean(axis=0), wanted, atol=0.1)


def test_a_class_that_is_most_of_the_images_is_in_every_batch() -> None:
    sizes, _, images = CASES["one class is most of it"]
    labels, found = ids(sizes), batches_of("one class is most of it")
    for batch in found.of_epoch(0):
        assert [labels[index] for index in batch].count(0) == images
    others = Counter(labels[index] for batch in found.of_epoch(0) for index in batch if labels[index])
    assert max(others.values()) - min(others.values()) <= images


def test_what_is_left_out_is_another_each_epoch() -> None:
    labels = ids([10] * 5)
    found = ClassBatches(labels, 9, 3, 30, seed=1)
    left_out = [
        frozenset(range(50)) - {index for batch in found.of_epoch(epoch) for index in batch}
        for epoch in range(30)
    ]
    assert all(left_out) and len(set(left_out)) > 20
    assert not frozenset.intersection(*left_out)


def test_classes_meet_others_in_each_batch() -> None:
    """No class has the same company all epoch long."""
    labels, found = ids([30] * 20), ClassBatches(ids([30] * 20), 15, 3, 1, seed=1)
    company = [frozenset(labels[index] for index in batch) for batch in found.of_epoch(0)]
    assert len(set(company)) == len(company) == 40


@pytest.mark.parametrize("case", CASES)
def test_an_epoch_depends_on_seed_and_epoch_alone(case: str) -> None:
    torch.manual_seed(0)
    one = list(batches_of(case))
    torch.manual_seed(1)
    assert list(batches_of(case)) == one
    again = batches_of(case)
    assert again.of_epoch(2) == again.of_epoch(2)
    assert again.of_epoch(2) != again.of_epoch(1)
    assert list(batches_of(case, seed=2)) != one


@pytest.mark.parametrize("case", CASES)
def test_starting_later_gives_the_tail(case: str) -> None:
    whole = list(batches_of(case))
    for first in range(0, len(whole) + 1, max(1, len(whole) // 7)):
        late = batches_of(case, first=first)
        assert list(late) == whole[first:]
        assert len(late) == len(whole) - first


# --- as the recipe says ---------------------------------------------------------------------------


def recipe(**more: int) -> Recipe:
    return Recipe.model_validate({"epochs": 2, "batch_size": 6, "learning_rate": 0.1, **more})


SAMPLES = [Sample(i % 3, f"{i}.png") for i in range(21)]


def test_images_are_drawn_one_by_one_unless_the_recipe_says_otherwise() -> None:
    assert list(batches_of_recipe(recipe(), SAMPLES, 1)) == list(EpochBatches(21, 6, 2, 1))
    grouped = batches_of_recipe(recipe(samples_per_class=3), SAMPLES, 1)
    assert {len({index % 3 for _, index in batch}) for batch in grouped} == {2}


def test_too_few_classes_for_a_batch_are_one_error_that_names_the_key() -> None:
    with pytest.raises(FgvcError, match="needs 4 classes; there are 3") as caught:
        batches_of_recipe(recipe(batch_size=8, samples_per_class=2), SAMPLES, 1)
    assert caught.value.key == "recipe.samples_per_class"
    assert "batch_size of at most 6" in (caught.value.cure or "")
