"""Near-duplicates: pictures whose perceptual hashes differ in few bits.

The hash is pHash (ImageHash's ``phash``): which of the 64 lowest frequencies of a 32 × 32 grey thumbnail's
cosine transform are above their median. It survives resizing, recompression and mild changes of colour; it
does not see that a picture is mirrored, turned or cropped from another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

BITS = 64
#: Up to this many bits apart, pictures are called near-duplicates.
MAX_DISTANCE = 6
#: With less than this between darkest and brightest pixel there is no structure that a hash could see.
LEAST_CONTRAST = 9

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Pairs ``first[i] < second[i]`` of positions with their ``distance[i]`` in bits, sorted.

    Not ``is_complete``: there were more than were asked for.
    """

    first: Ints
    second: Ints
    distance: Ints
    is_complete: bool


def perceptual_hash(picture: Image.Image) -> int | None:
    """The 64 bits of a picture's pHash as a number; None for one without structure (a single colour)."""
    from imagehash import phash

    grey = picture.convert("L")
    darkest, brightest = grey.getextrema()
    if brightest - darkest < LEAST_CONTRAST:  # type: ignore[operator]
        return None
    return int(str(phash(grey)), 16)


def close_pairs(hashes: Hashes, max_distance: int = MAX_DISTANCE, limit: int = 1_000_000) -> Pairs:
    """All pairs of ``hashes`` [N] at most ``max_distance`` bits apart; more than ``limit`` end the search.

    Multi-index hashing (Norouzi, Punjani, Fleet, CVPR 2012): the bits are dealt to ``max_distance`` + 1
    bands, and two hashes so close agree in at least one band; so only hashes that agree in a band are
    compared, by sorting on it and comparing neighbours at growing lags. Memory is O(N + pairs), time
    O(b (N log N + C)) for b bands and C candidates a band: about N² / 2^(64/b + 1) where hashes are spread
    (600,000: half a minute), N² / 2 when all are alike.
    """
    masks = _bands(max_distance + 1)
    found: list[Ints] = []
    total = 0
    for number, mask in enumerate(masks):
        for pairs in _agreeing(hashes, mask, max_distance, masks[:number]):
            found.append(pairs)
            total += pairs.shape[1]
            if total > limit:
                return _sorted(hashes, found, limit, False)
    return _sorted(hashes, found, limit, True)


def _bands(count: int) -> list[np.uint64]:
    """Masks of the bands. Bits are dealt like cards: neighbouring frequencies, often alike, are parted."""
    return [np.uint64(sum(1 << bit for bit in range(band, BITS, count))) for band in range(count)]


def _agreeing(hashes: Hashes, mask: np.uint64, max_distance: int, earlier: list[np.uint64]) -> Iterator[Ints]:
    """Close pairs ``[2, n]`` that agree in the band ``mask`` and in no earlier one, lag by lag."""
    keys = hashes & mask
    order = np.argsort(keys, kind="stable")
    keys, ordered = keys[order], hashes[order]
    lag = 1
    active = np.flatnonzero(keys[:-1] == keys[1:])
    while active.size:
        differing = ordered[active] ^ ordered[active + lag]
        is_close = np.bitwise_count(differing) <= max_distance
        for other in earlier:
            is_close &= (differing & other) != 0
        at = active[is_close]
        if at.size:
            yield np.sort(np.stack([order[at], order[at + lag]]), axis=0)
        lag += 1
        # Of sorted keys, those that agree at a lag agree at every smaller one.
        active = active[active + lag < len(keys)]
        active = active[keys[active] == keys[active + lag]]


def _sorted(hashes: Hashes, found: list[Ints], limit: int, is_complete: bool) -> Pairs:
    first, second = np.concatenate(found, axis=1) if found else np.empty((2, 0), dtype=np.int64)
    distance = np.bitwise_count(hashes[first] ^ hashes[second]).astype(np.int64)
    order = np.lexsort((second, first, distance))[:limit]
    return Pairs(first[order], second[order], distance[order], is_complete)
