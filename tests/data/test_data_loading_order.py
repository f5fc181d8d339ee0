"""Order = f(seed, epoch); augmentation = f(seed, epoch, sample); and nothing else plays a part."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from datakit import plain_dataset
from PIL import Image
from torch import Tensor

from fgvc.config.recipe import Augmentation, Recipe
from fgvc.data.loading import (
    Batch,
    EpochBatches,
    ImageSet,
    Sample,
    batches_of,
    decode,
    epoch_order,
    eval_loader,
    train_loader,
)
from fgvc.data.transforms import HALF, eval_pipeline, train_pipeline
from fgvc.errors import FgvcError

COUNT, BATCH, EPOCHS, SIZE = 11, 4, 3, 24
DATASET = plain_dataset()
SAMPLES = [Sample(i % 3, f"{i}.png") for i in range(COUNT)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for sample in SAMPLES:
        pixels = rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / sample.path)
    return root


def images(folder: Path, augmentation: Augmentation = "medium", seed: int = 1) -> ImageSet:
    recipe = Recipe(epochs=EPOCHS, batch_size=BATCH, learning_rate=0.1, augmentation=augmentation).resolved()
    return ImageSet(folder, SAMPLES, train_pipeline(recipe, DATASET, SIZE, HALF, HALF), seed)


def run(
    image_set: ImageSet, *, workers: int = 0, first_batch: int = 0, seed: int = 1, size: int = BATCH
) -> list[Batch]:
    sampler = EpochBatches(len(image_set), size, EPOCHS, seed, first_batch)
    found = list(batches_of(train_loader(image_set, sampler, workers, pin_memory=False)))
    assert len(found) == len(sampler)
    return found


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.images, b.images)
        and torch.equal(a.targets, b.targets)
        and torch.equal(a.indices, b.indices)
        for a, b in zip(one, other, strict=True)
    )


# --- the order ------------------------------------------------------------------------------------


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch_alone() -> None:
    order = epoch_order(100, 7, 3)
    assert sorted(order) == list(range(100)) and order != list(range(100))
    torch.manual_seed(0)
    first = epoch_order(100, 7, 3)
    torch.manual_seed(1)
    assert first == epoch_order(100, 7, 3) == order
    others = [epoch_order(100, seed, epoch) for seed, epoch in ((7, 4), (8, 3), (3, 7))]
    assert all(other != order for other in others)


def test_the_last_incomplete_batch_is_left_out_another_one_each_epoch() -> None:
    sampler = EpochBatches(COUNT, BATCH, 30, seed=1)
    assert sampler.batches_per_epoch == 2
    batches = list(sampler)
    assert {len(batch) for batch in batches} == {BATCH}
    addresses = [address for batch in batches for address in batch]
    left_out = []
    for epoch in range(30):
        seen = [index for e, index in addresses if e == epoch]
        assert len(seen) == len(set(seen)) == 2 * BATCH
        left_out.append(frozenset(range(COUNT)) - set(seen))
    assert {len(images) for images in left_out} == {COUNT - 2 * BATCH}
    assert len(set(left_out)) > 10
    assert frozenset.union(*left_out) == frozenset(range(COUNT))


def test_a_split_smaller_than_a_batch_is_one_batch() -> None:
    sampler = EpochBatches(3, 8, 2, seed=1)
    assert (sampler.batches_per_epoch, len(sampler)) == (1, 2)
    assert [sorted(index for _, index in batch) for batch in sampler] == [[0, 1, 2]] * 2


@pytest.mark.parametrize("first", [0, 1, 2, 3, 5, 6])
def test_starting_later_gives_the_tail(first: int) -> None:
    whole = list(EpochBatches(COUNT, BATCH, EPOCHS, seed=1))
    late = EpochBatches(COUNT, BATCH, EPOCHS, seed=1, first_batch=first)
    assert list(late) == whole[first:]
    assert len(late) == len(whole) - first


# --- the augmentation -----------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation", ["weak", "medium", "strong"])
def test_f22_pictures_do_not_depend_on_workers(folder: Path, augmentation: Augmentation) -> None:
    """Order and augmentation of every picture are the same with 0, 1 or 2 loader workers, with or without the
    cache, and from whichever step one starts."""
    whole = run(images(folder, augmentation))
    assert same(whole, run(images(folder, augmentation), workers=1))
    assert same(whole, run(images(folder, augmentation), workers=2))
    assert same(whole[3:], run(images(folder, augmentation), first_batch=3, workers=2))
    cached = images(folder, augmentation)
    if cached.cache_bytes() is not None:
        cached.fill_cache(threads=2)
        assert same(whole, run(cached))
        assert same(whole[1:], run(cached, first_batch=1, workers=2))
    else:
        assert augmentation == "strong"


@pytest.mark.parametrize("augmentation", ["weak", "medium", "strong"])
def test_workers_that_get_a_pickled_copy_see_the_same(folder: Path, augmentation: Augmentation) -> None:
    """As where processes are spawned: macOS, and Linux from Python 3.14 on."""
    original = images(folder, augmentation)
    copy = pickle.loads(pickle.dumps(original))
    assert same(run(original), run(copy))


def test_pictures_do_not_depend_on_the_batch_size_or_on_their_company(folder: Path) -> None:
    def by_sample(batches: list[Batch]) -> dict[tuple[int, int], Tensor]:
        found, seen = {}, dict.fromkeys(range(COUNT), 0)
        for batch in batches:
            for index, image in zip(batch.indices.tolist(), batch.images, strict=True):
                found[seen[index], index] = image
                seen[index] += 1
        return found

    one, other = by_sample(run(images(folder), size=1)), by_sample(run(images(folder), size=COUNT))
    assert one.keys() == other.keys() and len(one) == EPOCHS * COUNT
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_global_generators_play_no_part(folder: Path) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    first = run(images(folder, "strong"))
    torch.manual_seed(5)
    np.random.seed(5)
    assert same(first, run(images(folder, "strong")))


def test_seeds_epochs_and_samples_differ(folder: Path) -> None:
    one, other = images(folder, seed=1), images(folder, seed=2)
    first = one[(0, 0)]
    assert not isinstance(first, FgvcError)
    for different in (one[(1, 0)], other[(0, 0)], one[(0, 1)]):
        assert not isinstance(different, FgvcError)
        assert not torch.equal(first[0], different[0])


def test_a_sample_is_known_by_its_path_not_by_its_place(folder: Path) -> None:
    backwards = images(folder)
    backwards.samples = SAMPLES[::-1]
    here, there = images(folder)[(2, 4)], backwards[(2, COUNT - 1 - 4)]
    assert not isinstance(here, FgvcError) and not isinstance(there, FgvcError)
    assert torch.equal(here[0], there[0]) and here[1] == there[1]


def test_evaluation_sees_every_image_once_in_list_order(folder: Path) -> None:
    recipe = Recipe(epochs=1, batch_size=1, learning_rate=0.1)
    pipeline = eval_pipeline(recipe, DATASET, SIZE, HALF, HALF)
    found = []
    for workers in (0, 2):
        image_set = ImageSet(folder, SAMPLES, pipeline, None)
        batches = list(batches_of(eval_loader(image_set, BATCH, workers, pin_memory=False)))
        assert torch.cat([b.indices for b in batches]).tolist() == list(range(COUNT))
        assert torch.cat([b.targets for b in batches]).tolist() == [s.class_id for s in SAMPLES]
        assert [len(b.targets) for b in batches] == [4, 4, 3]
        found.append(batches)
    assert same(*found)


# --- images that cannot be decoded ----------------------------------------------------------------


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    """The same images, of which 7.png ends in the middle."""
    root = tmp_path / "broken"
    root.mkdir()
    for sample in SAMPLES:
        data = (folder / sample.path).read_bytes()
        (root / sample.path).write_bytes(data[: len(data) // 2] if sample.path == "7.png" else data)
    return root


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_corrupt_image_is_an_error_that_names_it_also_from_a_worker(broken: Path, workers: int) -> None:
    with pytest.raises(FgvcError, match="cannot be decoded") as caught:
        run(images(broken), workers=workers, size=1)
    assert caught.value.file == str(broken / "7.png")
    assert "Traceback" not in str(caught.value) and len(str(caught.value).splitlines()) <= 5


def test_a_corrupt_image_is_found_when_the_cache_is_filled(broken: Path) -> None:
    with pytest.raises(FgvcError) as caught:
        images(broken).fill_cache(threads=3)
    assert caught.value.file == str(broken / "7.png")


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"no image at all",
        lambda data: data[:20],
        lambda data: data[:60] + bytes(40) + data[100:],
    ],
    ids=["empty", "text", "header only", "zeros inside"],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_every_kind_of_damage_is_the_same_error(
    tmp_path: Path, folder: Path, kind: str, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"x.{kind.lower()}"
    Image.open(folder / "0.png").save(path, kind)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FgvcError, match="cannot be decoded") as caught:
        decode(path)
    assert caught.value.file == str(path)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_image_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.tif"
    if mode == "I;16":
        Image.fromarray(np.full((9, 7), 40000, dtype=np.uint16)).save(path)
    else:
        Image.new(mode, (7, 9)).save(path)
    image = decode(path)
    assert (image.mode, image.size) == ("RGB", (7, 9))
