"""How sure a number is: spread over seeds, bootstrap over images, correction for many comparisons.

The unit that is resampled is the image; what is averaged first is the correctness of an image over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fgvc.provenance.digests import seed_from

Floats = npt.NDArray[np.float64]

RESAMPLES = 10_000
ALPHA = 0.05
#: Largest number of multinomial counts held at a time.
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (ddof=1; None for a single value) of ``n`` values."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Interval:
    """A mean and its percentile bootstrap interval, all in the unit of the scores."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Mean of ``first - second`` over images, its bootstrap interval and its two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def spread(values: Sequence[float]) -> Spread:
    """Mean ± std of at least one value."""
    if not len(values):
        raise ValueError("no values to average")
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), std, len(values))


def paired_bootstrap(
    first: Floats, second: Floats, *, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> Comparison:
    """Compare two methods on the same images.

    Args:
        first, second: scores ``[N]`` in the same order of images, each averaged over seeds.

    The p-value is twice the smaller share of resampled differences on either side of zero, with one added
    to both counts of each share so that it is never 0 (Davison & Hinkley 1997, section 4.2.5). Methods that
    score every image alike give 1.
    """
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise ValueError(f"paired scores must be two equal [N] arrays, not {first.shape} and {second.shape}")
    # Thirds and their sums are not exact; without rounding equal scores would differ by 1e-17.
    difference = np.round(first - second, 12)
    means = _resampled_means(difference, resamples, np.random.default_rng(seed))
    low, high = _percentiles(means, level)
    not_above = (1 + np.count_nonzero(means <= 0)) / (resamples + 1)
    not_below = (1 + np.count_nonzero(means >= 0)) / (resamples + 1)
    p_value = min(1.0, 2 * min(not_above, not_below))
    return Comparison(float(difference.mean()), low, high, float(p_value))


def bootstrap_interval(
    datasets: Sequence[Floats], *, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> Interval:
    """Interval of a method's average over datasets.

    Args:
        datasets: scores ``[N_d]`` of each dataset's images, averaged over seeds. One dataset gives the
            interval of its own accuracy; of several, each is resampled by itself and weighs the same.
    """
    rng = np.random.default_rng(seed)
    means = np.mean([_resampled_means(np.round(d, 12), resamples, rng) for d in datasets], axis=0)
    low, high = _percentiles(means, level)
    return Interval(float(np.mean([d.mean() for d in datasets])), low, high)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's step-down method."""
    if not len(p_values):
        return []
    from statsmodels.stats.multitest import multipletests

    corrected = multipletests(np.asarray(p_values, dtype=np.float64), method="holm")[1]
    return [float(p) for p in corrected]


def inseparable_from(best: str, scores: Mapping[str, Floats], *, alpha: float = ALPHA) -> set[str]:
    """The methods that the images cannot tell from ``best``, after Holm's correction over the others.

    Args:
        scores: ``[N]`` of each method, on the same images in the same order, averaged over seeds.
    """
    others = sorted(name for name in scores if name != best)
    # The seed depends on the pair only, so that one more method changes no other comparison.
    p_values = [
        paired_bootstrap(scores[best], scores[name], seed=seed_from("paired bootstrap", best, name)).p_value
        for name in others
    ]
    return {name for name, p in zip(others, holm(p_values), strict=True) if p >= alpha}


def _resampled_means(values: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Means ``[resamples]`` of images drawn with replacement.

    Only how often each distinct value is drawn matters, and correctness has few distinct values; so the
    counts of values are drawn (multinomial) rather than images, which is the same in distribution.
    """
    distinct, counts = np.unique(values, return_counts=True)
    shares = counts / values.size
    chunk = max(1, _CHUNK // distinct.size)
    parts = [
        rng.multinomial(values.size, shares, size=min(chunk, resamples - start)) @ distinct
        for start in range(0, resamples, chunk)
    ]
    means: Floats = np.concatenate(parts) / values.size
    return means


def _percentiles(means: Floats, level: float) -> tuple[float, float]:
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(low), float(high)
