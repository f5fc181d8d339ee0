"""Pairs of methods: McNemar's test, and the rule that decides from seeds and images."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from fgvc.evaluation.comparisons import Scored, compare_methods, decide, mcnemar, seeds_p_value
from fgvc.evaluation.statistics import holm


def discordant(more: int, less: int, both: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Two methods of which the first alone is right ``more`` times, and the second alone ``less`` times."""
    first = np.array([1.0] * more + [0.0] * less + [1.0] * both)
    second = np.array([0.0] * more + [1.0] * less + [1.0] * both)
    return first, second


def scored(share: float, spread: float, images: int = 1000, seeds: int = 3, salt: int = 0) -> Scored:
    """A method that is right on ``share`` of the images, whose runs differ by a standard deviation."""
    right = np.zeros(images)
    right[np.random.default_rng(salt).permutation(images)[: round(share * images)]] = 1.0
    steps = np.linspace(-1, 1, seeds) if seeds > 1 else np.zeros(1)
    unit = steps / np.std(steps, ddof=1) if seeds > 1 else steps
    return Scored(right, tuple(map(float, share + spread * unit)))


def test_mcnemar_gives_the_p_values_of_its_textbook_example() -> None:
    """Fagerland, Lydersen & Laake 2013, table 1 (Bentur et al.): 1 against 7 discordant pairs."""
    found = mcnemar(*discordant(1, 7, both=13))
    assert (found.first_only, found.second_only) == (1, 7)
    assert found.exact_p == pytest.approx(0.0703, abs=5e-5)
    assert found.mid_p == pytest.approx(0.0391, abs=5e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_a_sum_of_binomial_terms(more: int, less: int) -> None:
    found, n = mcnemar(*discordant(more, less)), more + less
    terms = [comb(n, k) / 2**n for k in range(n + 1)]
    tail = sum(terms[: min(more, less) + 1])
    assert found.exact_p == pytest.approx(min(1.0, 2 * tail))
    # Tables further from the middle count whole, those as far from it as the observed one count half.
    away = abs(more - n / 2)
    weights = [1.0 if abs(k - n / 2) > away else 0.5 if abs(k - n / 2) == away else 0.0 for k in range(n + 1)]
    as_defined = sum(w * p for w, p in zip(weights, terms, strict=True)) if n else 1.0
    assert found.mid_p == pytest.approx(as_defined)
    assert found.mid_p <= found.exact_p + 1e-12


def test_an_image_counts_for_the_method_that_is_right_on_it_more_often() -> None:
    first = np.array([1.0, 2 / 3, 1 / 3, 0.0, 1.0])
    second = np.array([0.0, 1 / 3, 1 / 3, 1 / 3, 1.0])
    found = mcnemar(first, second)
    assert (found.first_only, found.second_only) == (2, 1)


def test_unequal_lengths_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="equal"):
        mcnemar(np.ones(3), np.ones(4))


def test_seeds_are_compared_by_welch() -> None:
    first, second = (90.1, 90.4, 90.9), (88.0, 89.9, 90.2)
    assert seeds_p_value(first, second) == pytest.approx(ttest_ind(first, second, equal_var=False).pvalue)
    assert seeds_p_value((90.0,), second) == 1.0
    assert seeds_p_value((90.0, 90.0), (80.0, 80.0)) == 1.0, "no spread was seen, so it is not known"


def test_a_clear_winner_is_better_and_its_rival_is_worse() -> None:
    methods = {"a": scored(0.9, 0.002), "b": scored(0.8, 0.002, salt=1)}
    (pair,) = compare_methods(methods)
    assert pair.decision == "better" and pair.difference == pytest.approx(0.1)
    assert pair.low < 0.1 < pair.high and pair.low > 0
    (turned,) = compare_methods(dict(reversed(methods.items())))
    assert turned.decision == "worse" and turned.difference == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("first", "second", "lacks"),
    [
        (scored(0.9, 0.0, seeds=1), scored(0.5, 0.0, seeds=1, salt=1), "one seed"),
        (scored(0.801, 0.001), scored(0.80, 0.001, salt=1), "images"),
        (scored(0.9, 0.08), scored(0.8, 0.08, salt=1), "3 seeds"),
    ],
    ids=["a single seed", "images that agree", "seeds that differ as much"],
)
def test_it_says_inconclusive_when_it_is(first: Scored, second: Scored, lacks: str) -> None:
    (pair,) = compare_methods({"a": first, "b": second})
    assert pair.decision == "inconclusive" and lacks in pair.reason


def test_many_comparisons_are_corrected_for() -> None:
    """What two methods alone would show, ten may not."""
    assert decide(1.0, 0.001, 0.02, 0.02, 3) == ("better", "images and seeds tell them apart")
    decision, reason = decide(1.0, 0.01, 0.02, 0.3, 3)
    assert decision == "inconclusive" and "Holm" in reason
    methods = {f"m{i}": scored(0.7 + 0.01 * i, 0.004, salt=i) for i in range(5)}
    found = compare_methods(methods)
    assert len(found) == 10
    assert [p.bootstrap_holm for p in found] == pytest.approx(holm([p.bootstrap_p for p in found]))
    assert [p.mcnemar_holm for p in found] == pytest.approx(holm([p.mcnemar.mid_p for p in found]))
    assert [p.both_holm for p in found] == pytest.approx(holm([max(p.bootstrap_p, p.seeds_p) for p in found]))


@pytest.mark.slow
@pytest.mark.exhaustive
def test_equal_methods_rarely_win() -> None:
    """Three seeds each of two methods that are equally good: the share of winners stays below 5 %."""
    rng, wins = np.random.default_rng(0), 0
    for _ in range(60):
        runs = 0.8 + 0.01 * rng.standard_normal((2, 3))
        images = [(rng.random((3, 400)) < r[:, None]).mean(axis=0) for r in runs]
        methods = {n: Scored(i, tuple(map(float, r))) for n, i, r in zip("ab", images, runs, strict=True)}
        wins += compare_methods(methods)[0].decision != "inconclusive"
    assert wins <= 0.05 * 60
