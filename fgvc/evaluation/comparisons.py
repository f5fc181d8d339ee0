"""Pairs of methods on one dataset: which is better, or that it cannot be told.

Two things vary: the test images, which could have been others, and the training, which another seed makes
anew. The bootstrap and McNemar's test look at images only, with the models as they are; Welch's test looks at
seeds only. A verdict needs both (see `compare_methods`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from fgvc.evaluation.statistics import ALPHA, Floats, holm, paired_bootstrap
from fgvc.provenance.digests import seed_from

#: Of the first method against the second.
Decision = Literal["better", "worse", "inconclusive"]


@dataclass(frozen=True)
class McNemar:
    """Images on which one method is right (more often) and the other is not, and what that says.

    ``exact_p`` is two-sided and conditional on the discordant images; ``mid_p`` counts the observed table
    half, which makes up for the exact test's caution. Both are 1 where no image is discordant.
    """

    first_only: int
    second_only: int
    exact_p: float
    mid_p: float


def mcnemar(first: Floats, second: Floats) -> McNemar:
    """McNemar's test of two methods on the same images.

    Args:
        first, second: correctness ``[N]`` in the same order of images: 0 or 1, or its mean over seeds. With
            means, an image counts for the method that is right on it more often, and the test is the sign
            test over images; with one seed that is McNemar's test itself.

    The mid-p form after Fagerland, Lydersen & Laake 2013 (BMC Med. Res. Methodol. 13:91), who advise it for
    every sample size. Raises ValueError for arrays that do not fit together.
    """
    from scipy.stats import binom
    from statsmodels.stats.contingency_tables import mcnemar as exact_test

    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise ValueError(f"paired scores must be two equal [N] arrays, not {first.shape} and {second.shape}")
    difference = np.round(first - second, 12)  # thirds of seeds are not exact
    more, less = int((difference > 0).sum()), int((difference < 0).sum())
    if more + less == 0:
        return McNemar(0, 0, 1.0, 1.0)
    exact = float(exact_test([[0, more], [less, 0]], exact=True).pvalue)
    # Halves the weight of the observed table: in one tail of each side, or all of it where both are equal.
    observed = float(binom.pmf(more, more + less, 0.5))
    mid = 1.0 - 0.5 * observed if more == less else exact - observed
    return McNemar(more, less, exact, mid)


def seeds_p_value(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p-value of Welch's t-test on the accuracies of the single runs.

    1, which decides nothing, where a method has one run, or where no run differs from its sisters: then
    nothing is known of the spread.
    """
    from scipy.stats import ttest_ind_from_stats

    if min(len(first), len(second)) < 2 or np.ptp(first) + np.ptp(second) < 1e-12:
        return 1.0
    one, other = ((np.mean(runs), np.std(runs, ddof=1), len(runs)) for runs in (first, second))
    return float(ttest_ind_from_stats(*one, *other, equal_var=False).pvalue)


@dataclass(frozen=True)
class Scored:
    """A method on one dataset.

    Attributes:
        images: score ``[N]`` of each image, averaged over seeds.
        runs: accuracy of each run, in the same unit as the mean of ``images``.
    """

    images: Floats
    runs: tuple[float, ...]


@dataclass(frozen=True)
class Pair:
    """Two methods on one dataset; differences are first minus second, in the unit of the scores.

    ``low`` and ``high`` end the 95 % bootstrap interval over images. A name with ``_holm`` is corrected for
    the number of pairs.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    mcnemar: McNemar
    bootstrap_p: float
    seeds_p: float
    bootstrap_holm: float
    mcnemar_holm: float
    both_holm: float
    decision: Decision
    reason: str


def compare_methods(methods: Mapping[str, Scored], *, alpha: float = ALPHA) -> list[Pair]:
    """Every pair of methods on one dataset, in the order given.

    The rule: the first is *better* (or *worse*) when images and seeds both tell them apart, that is when
    max(p of the paired bootstrap over images, p of Welch's test over seeds), corrected by Holm's method for
    the number of pairs, is below ``alpha``; otherwise the pair is *inconclusive*. The larger of two p-values
    tests that both differences are there (Berger 1982, Technometrics 24:295), so that neither one lucky
    training nor a handful of images makes a winner. A single seed is always inconclusive.
    """
    pairs = list(combinations(methods, 2))
    # The seed depends on the pair only, so that one more method changes no other comparison.
    boots = [
        paired_bootstrap(methods[a].images, methods[b].images, seed=seed_from("pair", a, b)) for a, b in pairs
    ]
    tables = [mcnemar(methods[a].images, methods[b].images) for a, b in pairs]
    over_seeds = [seeds_p_value(methods[a].runs, methods[b].runs) for a, b in pairs]
    both = [max(boot.p_value, p) for boot, p in zip(boots, over_seeds, strict=True)]
    corrected = zip(
        holm([boot.p_value for boot in boots]), holm([t.mid_p for t in tables]), holm(both), strict=True
    )
    found = []
    for (a, b), boot, table, p, (boot_holm, table_holm, both_holm) in zip(
        pairs, boots, tables, over_seeds, corrected, strict=True
    ):
        seeds = min(len(methods[a].runs), len(methods[b].runs))
        decision, reason = decide(boot.difference, boot.p_value, p, both_holm, seeds, alpha=alpha)
        found.append(
            Pair(
                first=a,
                second=b,
                difference=boot.difference,
                low=boot.low,
                high=boot.high,
                mcnemar=table,
                bootstrap_p=boot.p_value,
                seeds_p=p,
                bootstrap_holm=boot_holm,
                mcnemar_holm=table_holm,
                both_holm=both_holm,
                decision=decision,
                reason=reason,
            )
        )
    return found


def decide(
    difference: float,
    images_p: float,
    seeds_p: float,
    both_holm: float,
    seeds: int,
    *,
    alpha: float = ALPHA,
) -> tuple[Decision, str]:
    """The verdict on a pair and, in words, what it lacks when it is inconclusive (see `compare_methods`).

    Args:
        images_p, seeds_p: of the paired bootstrap and of Welch's test, as they are.
        both_holm: the larger of the two, corrected; it alone decides.
        seeds: the smaller number of runs of the two methods.
    """
    if both_holm < alpha:
        return ("better" if difference > 0 else "worse"), "images and seeds tell them apart"
    if seeds < 2:
        return "inconclusive", "one seed says nothing about another training"
    if images_p >= alpha:
        return "inconclusive", "the images do not tell them apart"
    if seeds_p >= alpha:
        return "inconclusive", f"{seeds} seeds do not tell them apart"
    return "inconclusive", "neither do so clearly enough for so many pairs (Holm's correction)"
