"""The search for close hashes finds what comparing every pair finds; the hash sees copies, and only them."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fgvc.data.near_duplicates import MAX_DISTANCE, close_pairs, perceptual_hash


def all_pairs(hashes: np.ndarray, most: int) -> set[tuple[int, int, int]]:
    """By comparing each with each, one bit string with another."""
    texts = [f"{int(value):064b}" for value in hashes]
    found = set()
    for i, first in enumerate(texts):
        for j in range(i + 1, len(texts)):
            distance = sum(a != b for a, b in zip(first, texts[j], strict=True))
            if distance <= most:
                found.add((i, j, distance))
    return found


def found_by_search(hashes: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    pairs = close_pairs(hashes, most)
    assert pairs.is_complete
    return list(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.distance.tolist(), strict=True))


def crowded(seed: int, count: int) -> np.ndarray:
    """Hashes around few centres, with exact copies: far more close pairs than chance gives."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**64, 12, dtype=np.uint64)
    hashes = centres[rng.integers(0, len(centres), count)]
    for at in range(count):
        for bit in rng.choice(64, rng.integers(0, 7), replace=False):
            hashes[at] ^= np.uint64(1 << int(bit))
    return hashes


@pytest.mark.parametrize("most", [0, 1, 4, 6, 9])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_search_finds_exactly_the_close_pairs(most: int, seed: int) -> None:
    hashes = crowded(seed, 120)
    found = found_by_search(hashes, most)
    assert len(set(found)) == len(found), "none is there twice"
    assert set(found) == all_pairs(hashes, most) and found
    assert found == sorted(found, key=lambda pair: (pair[2], pair[0], pair[1]))


def test_nothing_is_close_where_there_is_nothing_or_one() -> None:
    assert found_by_search(np.array([], dtype=np.uint64), 4) == []
    assert found_by_search(np.array([7], dtype=np.uint64), 4) == []


def test_twenty_thousand_take_no_time_and_planted_pairs_are_found() -> None:
    rng = np.random.default_rng(5)
    hashes = rng.integers(0, 2**64, 20_000, dtype=np.uint64)
    planted = set()
    for number, distance in enumerate(np.repeat(np.arange(MAX_DISTANCE + 3), 20)):
        first, second = 2 * number, 2 * number + 1
        bits = rng.choice(64, distance, replace=False)
        hashes[second] = hashes[first] ^ np.uint64(sum(1 << int(bit) for bit in bits))
        if distance <= MAX_DISTANCE:
            planted.add((first, second, int(distance)))
    began = time.perf_counter()
    found = found_by_search(hashes, MAX_DISTANCE)
    assert time.perf_counter() - began < 3
    assert set(found) == planted


def test_a_crowd_of_copies_ends_the_search_early() -> None:
    pairs = close_pairs(np.zeros(3000, dtype=np.uint64), limit=10_000)
    assert not pairs.is_complete and len(pairs.first) == 10_000


def scene(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (160, 120), tuple(map(int, rng.integers(0, 256, 3))))
    pen = ImageDraw.Draw(image)
    for _ in range(14):
        x, y = rng.integers(0, 130), rng.integers(0, 90)
        size, colour = rng.integers(10, 60), tuple(map(int, rng.integers(0, 256, 3)))
        pen.ellipse((x, y, x + size, y + size), fill=colour)
    return image


def distance(first: Image.Image, second: Image.Image) -> int:
    a, b = perceptual_hash(first), perceptual_hash(second)
    assert a is not None and b is not None
    return (a ^ b).bit_count()


@pytest.mark.parametrize("seed", range(5))
def test_a_copy_is_near_and_another_scene_is_not(seed: int) -> None:
    image = scene(seed)
    out = io.BytesIO()
    image.resize((97, 71)).save(out, "JPEG", quality=60)
    assert distance(image, Image.open(out)) <= MAX_DISTANCE
    assert distance(image, image.point(lambda value: int(0.9 * value + 10))) <= MAX_DISTANCE
    assert distance(image, scene(seed + 100)) > 2 * MAX_DISTANCE


def test_one_colour_has_no_hash() -> None:
    assert perceptual_hash(Image.new("RGB", (9, 9), (3, 200, 40))) is None
