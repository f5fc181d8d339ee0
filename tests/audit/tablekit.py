"""Tables of accuracies as honest experiments print them."""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass

from fgvc.audit.finding import Finding
from fgvc.audit.registry import TABLE, run_checks
from fgvc.audit.rounding import Printed
from fgvc.audit.tables import Average, Score, ScoreTable


@dataclass(frozen=True)
class Honest:
    """How a clean table came about."""

    seed: int
    images: tuple[int, ...]
    methods: int
    runs: int
    decimals: int
    rounds_runs_first: bool = False
    says_runs: bool = True
    with_std: bool = True

    def make(self) -> ScoreTable:
        """The table: right answers are drawn image by image around what a method can do on a dataset."""
        draw = random.Random(self.seed)
        scores: list[Score] = []
        averages: list[Average] = []
        levels = [draw.uniform(45, 99) for _ in self.images]
        for m in range(self.methods):
            skill, means = draw.gauss(0, 1.5), []
            for d, images in enumerate(self.images):
                mean, score = self._cell(draw, levels[d] + skill + draw.gauss(0, 1.0), images, m, d)
                scores.append(score)
                means.append(mean)
            spread = statistics.stdev(means) if len(means) > 1 else None
            averages.append(
                Average(
                    f"m{m}",
                    self._printed(statistics.fmean(means)),
                    None if spread is None else self._printed(spread),
                    len(means),
                )
            )
        return ScoreTable("synthetic", "this test", tuple(scores), tuple(averages))

    def _cell(self, draw: random.Random, level: float, images: int, m: int, d: int) -> tuple[float, Score]:
        chance = min(0.999, max(0.01, level / 100))
        noise = draw.choice([0.0, 0.001, 0.003])  # seeds differ by more than the draw of images
        runs = []
        for _ in range(self.runs):
            p = min(1.0, max(0.0, chance + draw.gauss(0, noise)))
            sigma = (images * p * (1 - p)) ** 0.5
            right = min(images, max(0, round(images * p + draw.gauss(0, 0.2) * sigma)))
            accuracy = 100 * right / images
            runs.append(round(accuracy, self.decimals) if self.rounds_runs_first else accuracy)
        mean = statistics.fmean(runs)
        std = self._printed(statistics.stdev(runs)) if self.with_std and self.runs > 1 else None
        stated = self.runs if self.says_runs else None
        return mean, Score(f"d{d}", f"m{m}", self._printed(mean), std, images, stated)

    def _printed(self, value: float) -> Printed:
        return Printed(round(value, self.decimals), self.decimals)


def findings_of(table: ScoreTable) -> list[Finding]:
    return run_checks(TABLE.values(), table)


def contradicted(table: ScoreTable) -> list[Finding]:
    return [finding for finding in findings_of(table) if finding.verdict == "contradicted"]
