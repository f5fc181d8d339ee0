"""A table of accuracies as the checks see it: a published one, or a user's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from fgvc.audit.rounding import Printed


@dataclass(frozen=True)
class Score:
    """A printed accuracy in percent.

    Attributes:
        dataset, method: as printed, the table's row and column.
        std: as printed behind ±, over runs.
        images: test images, where known.
        runs: behind the printed mean, where known.
        processes: that evaluated together, where known.
        parts: equal parts of the test images, where the accuracy may be a mean over them.
        group: cells of one group were measured alike: by whom, and how they were trained.
        label: how findings call the cell.
    """

    dataset: str
    method: str
    value: Printed
    std: Printed | None = None
    images: int | None = None
    runs: int | None = None
    processes: int | None = None
    parts: int = 1
    group: str = ""
    label: str = ""

    @property
    def text(self) -> str:
        """``91.49 ± 0.01``, as printed."""
        return f"{self.value} ± {self.std}" if self.std else str(self.value)


@dataclass(frozen=True)
class Average:
    """A printed average over a method's cells; its ± is across datasets. ``cells``: of how many, or None."""

    method: str
    value: Printed
    std: Printed | None = None
    cells: int | None = None
    label: str = ""


@dataclass(frozen=True)
class ScoreTable:
    """Datasets × methods. ``place`` names it shortly, ``source`` in full."""

    place: str
    source: str
    scores: tuple[Score, ...]
    averages: tuple[Average, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @cached_property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(score.method for score in self.scores))

    @cached_property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(score.dataset for score in self.scores))

    @cached_property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(score.group for score in self.scores))

    def of_group(self, group: str) -> list[Score]:
        return [score for score in self.scores if score.group == group]

    def of_method(self, method: str) -> list[Score]:
        return [score for score in self.scores if score.method == method]

    def of_dataset(self, dataset: str) -> list[Score]:
        return [score for score in self.scores if score.dataset == dataset]

    def cell(self, dataset: str, method: str) -> Score | None:
        return self._cells.get((dataset, method))

    @cached_property
    def _cells(self) -> dict[tuple[str, str], Score]:
        return {(score.dataset, score.method): score for score in self.scores}

    def subject(self, score: Score | Average) -> str:
        """``GLSim, Table 4: FFVT, Dogs``."""
        if score.label:
            return score.label
        row = score.dataset if isinstance(score, Score) else "average"
        return f"{self.place}: {score.method}, {row}"


def listed(names: Iterable[str], most: int = 6) -> str:
    """Names joined by commas, the last by and; many are cut."""
    all_names = list(names)
    if len(all_names) > most:
        return ", ".join(all_names[:most]) + f" and {len(all_names) - most} more"
    return " and ".join(filter(None, [", ".join(all_names[:-1]), *all_names[-1:]]))
