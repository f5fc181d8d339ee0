"""Checks of single accuracies: is a printed number a share of the test images, is its std possible?"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

from fgvc.audit.finding import Finding
from fgvc.audit.granularity import (
    attainable_share,
    is_mean_of_rounded,
    is_share,
    padded,
    spread_of_runs,
    true_accuracies,
)
from fgvc.audit.registry import table_check
from fgvc.audit.rounding import Printed
from fgvc.audit.run_inference import RUNS_TRIED, fits, runs_behind
from fgvc.audit.tables import Score, ScoreTable, listed

#: Processes of an evaluation that are tried, where the test images alone do not give a number.
PROCESSES_TRIED = (2, 4, 8)
#: Cells would be shares of a padded test set by chance at most so often: where the number of processes is
#: stated, and where it is tried.
PADDING_CHANCE, PADDING_CHANCE_TRIED = 0.1, 1e-4


@table_check("granularity", title="Shares of the test images", inputs=("test images of each dataset",))
def granularity(table: ScoreTable) -> Iterator[Finding]:
    """An accuracy is k/N for N test images, and a mean of n runs is k/(nN): nothing between is possible.
    Each printed accuracy is held against every k, exactly, with rounding to the nearest and ties either way;
    a mean of runs that were rounded first is allowed, too. Where the number of runs is not stated it is
    inferred from cells measured alike, if they all fit and would by chance less than once in 1000; else one
    to five runs are tried. Contradicted: nothing of this gives the printed number. Confirmed: it is possible
    (which is little where most printable numbers are; the share of them is told). Not checkable: N is not
    known, or every number with so few decimals is possible.
    """
    inferred = {group: runs_behind(table.of_group(group)) for group in table.groups}
    for score in table.scores:
        runs = score.runs or inferred[score.group]
        verdict = _judge(score, runs, is_inferred=score.runs is None and runs is not None)
        yield Finding(subject=table.subject(score), published=score.text, source=table.source, **verdict)


def _judge(score: Score, runs: int | None, is_inferred: bool) -> dict[str, Any]:
    """Verdict, explanation and recomputed value of one cell, as keywords of a finding."""
    if score.images is None:
        return _said("not_checkable", "how many test images there are is not known")
    if runs is None:
        return _judge_unknown(score, score.images)
    known = "as inferred from the cells measured alike" if is_inferred else "as stated"
    reading = "one run" if runs == 1 else f"the mean of {runs} runs ({known})"
    share = attainable_share(score.value.decimals, score.images, runs)
    if share >= 1:
        return _said("not_checkable", _everything(score, f"{reading} over {score.images:,} images"))
    if is_share(score.value, score.images, runs):
        return _fits(
            score, score.images, runs, f"possible as {reading}; {_percent(share)} of such numbers are"
        )
    if fits(score, runs):
        what = f"accuracies on {score.parts} parts of the test images" if runs == 1 else f"{runs} accuracies"
        why = (
            f"possible as the mean of {what} that were each rounded to {score.value.decimals} decimals first"
        )
        return _said("confirmed", why, _nearest(score.value, score.images * runs))
    return _contradicted(score, score.images, reading, runs)


def _judge_unknown(score: Score, images: int) -> dict[str, Any]:
    """Of a cell whose number of runs nobody says: one to five runs are possible."""
    decimals = score.value.decimals
    possible = [runs for runs in RUNS_TRIED if fits(score, runs)]
    if attainable_share(decimals, images) >= 1:
        return _said("not_checkable", _everything(score, f"one run over {images:,} images"))
    if 1 in possible:
        share = _percent(attainable_share(decimals, images))
        return _fits(score, images, 1, f"possible as one run; {share} of such numbers are")
    if possible:
        why = f"no single run over {images:,} images gives it, the mean of {listed(map(str, possible))} could"
        return _said(
            "not_checkable", f"{why}; how many runs there were is not stated", _nearest(score.value, images)
        )
    return _contradicted(score, images, f"one run, nor the mean of up to {RUNS_TRIED[-1]}", 1)


def _contradicted(score: Score, images: int, reading: str, runs: int) -> dict[str, Any]:
    why = f"no number of right answers among {images:,} test images is printed so, as {reading}"
    tried = (score.processes,) if score.processes else PROCESSES_TRIED
    for processes in tried:
        total = padded(images, processes)
        if total > images and is_share(score.value, total, runs):
            why += (
                f"; of {total:,} it would be: {processes} processes evaluate so many,"
                f" {total - images} of them twice"
            )
            break
    nearest = _nearest(score.value, images * runs)
    fewer = [d for d in range(1, score.value.decimals) if is_mean_of_rounded(score.value, images, 3, d)]
    if runs == 1 and fewer:
        why += f"; a mean of three runs rounded to {fewer[-1]} decimals first could be printed so"
    return _said("contradicted", why, nearest)


def _fits(score: Score, images: int, runs: int, why: str) -> dict[str, Any]:
    return _said("confirmed", why, _nearest(score.value, images * runs))


def _said(verdict: str, explanation: str, recomputed: str | None = None) -> dict[str, Any]:
    said = {"verdict": verdict, "explanation": explanation}
    return said if recomputed is None else {**said, "recomputed": recomputed}


def _everything(score: Score, what: str) -> str:
    return f"with {score.value.decimals} decimals every number is possible for {what}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _nearest(value: Printed, outcomes: int) -> str:
    """The nearest possible accuracy: ``5105/5794 = 88.1084``."""
    k = min(outcomes, max(0, round(value.exact * outcomes / 100)))
    return f"{k}/{outcomes} = {100 * k / outcomes:.{value.decimals + 1}f}"


# --- the std of runs -----------------------------------------------------------------------------------


@table_check("spread_of_runs", title="Stds of a few runs", inputs=("test images of each dataset",))
def spread_of_seeds(table: ScoreTable) -> Iterator[Finding]:
    """A mean and std of n runs come from n whole numbers of right answers. For each cell with a std such
    numbers are searched exhaustively, for the std of the sample and of the population, with an allowance for
    runs that were rounded first. Contradicted: there are none. Confirmed: there are; an example is shown
    (with large test sets nearly every std is possible). Not checkable: N or n is not known, or the search
    grew too long.
    """
    for score in table.scores:
        if score.std is None:
            continue
        yield Finding(
            subject=table.subject(score), published=score.text, source=table.source, **_judge_spread(score)
        )


def _judge_spread(score: Score) -> dict[str, Any]:
    if score.images is None or score.std is None:
        return _said("not_checkable", "how many test images there are is not known")
    if score.runs is None:
        return _said("not_checkable", "how many runs there were is not known")
    answer = spread_of_runs(
        score.value, score.std, score.images, score.runs, run_decimals=score.value.decimals
    )
    if answer.possible is None:
        return _said("not_checkable", "the search for runs with this mean and std grew too long")
    runs = f"{score.runs} runs over {score.images:,} images"
    if not answer.possible:
        return _said("contradicted", f"no {runs} have this mean and this std, sample's or population's")
    kind = "sample" if answer.ddof else "population"
    example = ", ".join(str(k) for k in answer.example)
    return _said("confirmed", f"possible for {runs} (std of the {kind})", f"right answers: {example}")


# --- padding -------------------------------------------------------------------------------------------


@table_check("sampler_padding", title="Padded test sets", inputs=("test images of each dataset",))
def sampler_padding(table: ScoreTable) -> Iterator[Finding]:
    """An evaluation on several processes pads the test set to a multiple of them, and so counts some images
    twice. It shows where the accuracies of a dataset are no shares of N but shares of N rounded up. Looked
    at are datasets with an accuracy that is no share of N. Contradicted: all are shares of the padded number
    for the stated number of processes, and by chance would be less than once in 10; or for 2, 4 or 8
    processes, and less than once in 10,000; the finding says how far the true accuracy may lie off.
    Confirmed: the stated number of processes divides N, so that nothing is counted twice.
    """
    for dataset in table.datasets:
        scores = [s for s in table.of_dataset(dataset) if s.runs in (1, None) and s.images is not None]
        if scores:
            yield from _padding_of(table, dataset, scores)


def _padding_of(table: ScoreTable, dataset: str, scores: list[Score]) -> Iterator[Finding]:
    images = scores[0].images or 1
    said = scores[0].processes
    subject = f"{table.place}: test images of {dataset}"
    texts = ", ".join(str(score.value) for score in scores)
    if said and images % said == 0:
        yield Finding(
            subject=subject,
            verdict="confirmed",
            published=texts,
            recomputed=f"{images} images",
            explanation=f"{said} processes divide {images:,} images: none counts twice",
            source=table.source,
        )
        return
    if all(is_share(score.value, images) for score in scores):
        return
    for processes in (said,) if said else PROCESSES_TRIED:
        total = padded(images, processes)
        odds = prod(attainable_share(score.value.decimals, total) for score in scores)
        limit = PADDING_CHANCE if said else PADDING_CHANCE_TRIED
        if total == images or odds > limit or not all(is_share(score.value, total) for score in scores):
            continue
        bounds = [true_accuracies(score.value, images, processes) for score in scores]
        off = max(
            max(abs(b.low - s.value.exact), abs(b.high - s.value.exact))
            for s, b in zip(scores, bounds, strict=True)
            if b is not None
        )
        yield Finding(
            subject=subject,
            verdict="contradicted",
            published=texts,
            recomputed=f"shares of {total}",
            explanation=f"not all are shares of {images:,} images, all are of {total:,}: with {processes} "
            f"processes {total - images} image(s) count twice, and the true accuracy lies up to "
            f"{float(off):.2f} points off",
            source=table.source,
        )
        return
