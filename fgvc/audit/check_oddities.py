"""Checks that go by odds, not by arithmetic: cells too alike, stds out of line, cells exchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from fgvc.audit.check_averages import average_is_mended_by
from fgvc.audit.finding import Finding
from fgvc.audit.registry import table_check
from fgvc.audit.tables import Score, ScoreTable, listed

#: Identical cells contradict by themselves where fewer than this many pairs are to be expected by chance.
FEW_PAIRS = 1e-3
#: Two accuracies that are no further apart than this could have come out alike (points).
NEAR = 0.5
#: A std is out of line when it is this many times the median of its row and of its column ...
STD_FACTOR = 20
#: ... and is at least so large (points).
STD_FLOOR = 1.0
#: Cells in a row or column that a median needs.
LEAST_OTHERS = 4
#: Two cells look exchanged when one of them is this many robust stds off and both, exchanged, are at most ...
FAR, CLOSE = 5.0, 2.0
#: ... and the two come closer to what is expected by this many points.
GAIN = 5.0


@table_check("identical_cells", title="Identical cells", inputs=())
def identical_cells(table: ScoreTable) -> Iterator[Finding]:
    """Two cells of one row or one column with the same mean (and the same std, where there is one) may be a
    slip of copying, or chance. How many such pairs chance would make is estimated from the table itself: the
    pairs within half a point of each other, times the distance between two possible numbers, times how often
    two stds of the table are alike. Contradicted: chance would make less than one in 1000 tables; or the
    printed average of the column is wrong and would be right, std and all, with one of the two changed. Not
    checkable: identical cells that may be chance. Confirmed: no two cells are identical.
    """
    if len(table.scores) < 2:
        return
    pairs = list(_pairs(table))
    twins = [(a, b) for a, b in pairs if a.text == b.text]
    expected = _expected_twins(table.scores, pairs)
    odds = f"chance would make about {expected:.2g} such pair(s) in this table"
    strong = [twin for twin in twins if expected < FEW_PAIRS or _average_is_mended(table, twin)]
    for a, b in strong:
        why = f"{b.method}, {b.dataset} is the same; {odds}"
        if _average_is_mended(table, (a, b)):
            why += ", and the printed average would hold with one of the two changed: one cell is not its own"
        yield Finding(
            subject=table.subject(a),
            verdict="contradicted",
            published=a.text,
            recomputed=f"{b.text} ({b.method}, {b.dataset})",
            explanation=why,
            source=table.source,
        )
    weak = [twin for twin in twins if twin not in strong]
    if strong and not weak:
        return
    told = listed((f"{_names(a, b)} ({a.text})" for a, b in weak), most=4)
    yield Finding(
        subject=f"{table.place}: identical cells",
        verdict="not_checkable" if weak else "confirmed",
        published=f"{len(weak)} pair(s)" if weak else None,
        recomputed=f"{expected:.2g} expected",
        explanation=f"{told}: {odds}" if weak else f"no two cells of a row or column are identical; {odds}",
        source=table.source,
    )


def _names(a: Score, b: Score) -> str:
    if a.method == b.method:
        return f"{a.method}: {a.dataset} = {b.dataset}"
    return f"{a.dataset}: {a.method} = {b.method}"


def _pairs(table: ScoreTable) -> Iterator[tuple[Score, Score]]:
    for a, b in combinations(table.scores, 2):
        if a.method == b.method or a.dataset == b.dataset:
            yield a, b


def _expected_twins(scores: Sequence[Score], pairs: Sequence[tuple[Score, Score]]) -> float:
    """How many pairs chance would make alike, with at least one near pair taken for granted."""
    alike = 0.0
    for a, b in pairs:
        if abs(a.value.value - b.value.value) <= NEAR:
            alike += min(1.0, max(_distance(a), _distance(b)) / (2 * NEAR))
    stds = Counter(str(score.std) for score in scores)
    same_std = sum((count / len(scores)) ** 2 for count in stds.values())
    return alike * same_std


def _distance(score: Score) -> float:
    """Between two numbers that the cell could show, in points."""
    printable = 10.0**-score.value.decimals
    return max(printable, 100 / (score.images * (score.runs or 1))) if score.images else printable


def _average_is_mended(table: ScoreTable, twin: tuple[Score, Score]) -> bool:
    a, b = twin
    return (
        a.method == b.method
        and a.std is not None
        and average_is_mended_by(table, a.method, [a.dataset, b.dataset])
    )


@table_check("std_outlier", title="Stds out of line", inputs=())
def std_outlier(table: ScoreTable) -> Iterator[Finding]:
    """Stds over seeds differ by small factors between the cells of one row or column. One that is at least 20
    times the median of its row and 20 times that of its column, and at least one point, is not the spread
    of runs that all went well: a run diverged, or the cell is wrong, and its mean does not tell what the
    method gives. It goes by odds: for three normal runs the factor 20 comes up less than once in 10^100. One
    finding for each such cell (contradicted), or one for the table (confirmed).
    """
    with_std = [score for score in table.scores if score.std is not None]
    judged, odd = 0, 0
    for score in with_std:
        row = [s.std.value for s in with_std if s.dataset == score.dataset and s is not score and s.std]
        column = [s.std.value for s in with_std if s.method == score.method and s is not score and s.std]
        if min(len(row), len(column)) < LEAST_OTHERS or score.std is None:
            continue
        judged += 1
        floor = 10.0**-score.std.decimals
        middle_row, middle_column = max(median(row), floor), max(median(column), floor)
        if score.std.value < max(STD_FLOOR, STD_FACTOR * middle_row, STD_FACTOR * middle_column):
            continue
        odd += 1
        yield Finding(
            subject=table.subject(score),
            verdict="contradicted",
            published=score.text,
            recomputed=f"± {middle_row:.2f} (row), ± {middle_column:.2f} (column)",
            explanation=f"the std is {score.std.value / middle_column:.0f} times the median of its column, "
            f"{score.std.value / middle_row:.0f} times that of its row: a run diverged, or the cell is wrong",
            source=table.source,
        )
    if judged and not odd:
        why = f"none of {judged} stds is {STD_FACTOR} times the medians of its row and column"
        yield Finding(
            subject=f"{table.place}: stds", verdict="confirmed", explanation=why, source=table.source
        )


@dataclass(frozen=True)
class _Swap:
    """Two cells of a method. Distances from what is expected: in robust stds, and their sum in points."""

    a: Score
    b: Score
    worst: float
    worst_exchanged: float
    points: float
    points_exchanged: float

    @property
    def is_likely(self) -> bool:
        gain = self.points - self.points_exchanged
        return self.worst >= FAR and self.worst_exchanged <= CLOSE and gain >= GAIN

    @property
    def is_suspicious(self) -> bool:
        gain = self.points - self.points_exchanged
        return self.worst >= FAR / 2 and self.worst_exchanged <= CLOSE / 2 and gain >= GAIN


@table_check("exchanged_cells", title="Exchanged cells", inputs=())
def exchanged_cells(table: ScoreTable) -> Iterator[Finding]:
    """Two numbers of one method may stand in each other's place. What a cell should be near to is taken from
    the rest of the table: the median of the dataset over the other methods, moved by the method's own median
    distance on its other datasets; scales are robust stds (1.4826 × the median absolute deviation), at least
    one point. Contradicted: a cell is 5 scales off, with the two exchanged both are within 2, and together
    they come at least 5 points closer. Half of these distances are told as not checkable. Needs five methods
    and four datasets. It goes by odds, and only the authors can tell.
    """
    if len(table.methods) < 5 or len(table.datasets) < 4:
        return
    swaps = [swap for method in table.methods for swap in _swaps_of(table, method)]
    told = [swap for swap in swaps if swap.is_likely or swap.is_suspicious]
    for swap in told:
        a, b = swap.a, swap.b
        words = "look exchanged" if swap.is_likely else "may be exchanged"
        yield Finding(
            subject=f"{table.subject(a)} and {b.dataset}",
            verdict="contradicted" if swap.is_likely else "not_checkable",
            published=f"{a.text}, {b.text}",
            recomputed=f"{b.text}, {a.text}",
            explanation=f"the two {words}: up to {swap.worst:.1f} robust stds from what the others let "
            f"expect, up to {swap.worst_exchanged:.1f} when exchanged",
            source=table.source,
        )
    if not told:
        yield Finding(
            subject=f"{table.place}: order of the cells",
            verdict="confirmed",
            explanation=f"no two cells of a method among {len(table.scores)} look exchanged",
            source=table.source,
        )


def _swaps_of(table: ScoreTable, method: str) -> Iterator[_Swap]:
    own = table.of_method(method)
    middles = {s.dataset: _others(table, s) for s in own}
    usable = [s for s in own if middles[s.dataset] is not None]
    for a, b in combinations(usable, 2):
        rest = [s.value.value - _middle(middles, s) for s in usable if s not in (a, b)]
        if len(rest) < 2:
            continue
        level = median(rest)
        (mid_a, scale_a), (mid_b, scale_b) = middles[a.dataset], middles[b.dataset]  # type: ignore[misc]
        x_a, x_b, want_a, want_b = a.value.value, b.value.value, mid_a + level, mid_b + level
        yield _Swap(
            a,
            b,
            worst=max(abs(x_a - want_a) / scale_a, abs(x_b - want_b) / scale_b),
            worst_exchanged=max(abs(x_b - want_a) / scale_a, abs(x_a - want_b) / scale_b),
            points=abs(x_a - want_a) + abs(x_b - want_b),
            points_exchanged=abs(x_b - want_a) + abs(x_a - want_b),
        )


def _middle(middles: dict[str, tuple[float, float] | None], score: Score) -> float:
    found = middles[score.dataset]
    return found[0] if found else 0.0


def _others(table: ScoreTable, score: Score) -> tuple[float, float] | None:
    """Median and robust scale (points) of the other methods on a dataset; None with fewer than four."""
    values = [s.value.value for s in table.of_dataset(score.dataset) if s.method != score.method]
    if len(values) < LEAST_OTHERS:
        return None
    middle = median(values)
    return middle, max(1.0, 1.4826 * median(abs(v - middle) for v in values))
