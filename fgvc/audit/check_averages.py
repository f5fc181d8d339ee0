"""Checks of printed averages and of the spread behind them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fgvc.audit.averages import fitting_ddof, mean, mean_interval, mends, std
from fgvc.audit.finding import Finding
from fgvc.audit.registry import table_check
from fgvc.audit.rounding import Printed
from fgvc.audit.tables import Average, ScoreTable

#: Cells that alone would mend an average are told where there are no more: else each of them may be meant.
FEW_CELLS = 3


@table_check("printed_average", title="Printed averages", inputs=())
def printed_average(table: ScoreTable) -> Iterator[Finding]:
    """A printed average is the mean of its cells. The cells are rounded too, so it is confirmed when some
    exact cells, all printed as they are, give an average that is printed as it is; contradicted when none do.
    Then the finding says with which single cell changed (where these are few) both the average and the std
    across the cells would hold. Not checkable: not all cells of the average are here.
    """
    for average in table.averages:
        cells = [score.value for score in table.of_method(average.method)]
        common: dict[str, Any] = {
            "subject": table.subject(average),
            "published": str(average.value),
            "source": table.source,
        }
        if len(cells) != average.cells:
            yield Finding(verdict="not_checkable", explanation=_missing(average, len(cells)), **common)
            continue
        found = mean(cells)
        common["recomputed"] = f"{float(found):.{average.value.decimals + 2}f}"
        if mean_interval(cells).meets(average.value.interval):
            why = f"the mean of the {len(cells)} cells, as far as rounding goes"
            yield Finding(verdict="confirmed", explanation=why, **common)
        else:
            off = float(average.value.exact - found)
            why = f"{off:+.3f} from the mean of the {len(cells)} cells; rounding explains at most "
            why += f"{float(average.value.half_step + cells[0].half_step):.3f}{_mending(table, average)}"
            yield Finding(verdict="contradicted", explanation=why, **common)


def _missing(average: Average, here: int) -> str:
    if average.cells is None:
        return "of what it is the average is not all here"
    return f"it is the average of {average.cells} cells, of which {here} are here"


def _mending(table: ScoreTable, average: Average) -> str:
    """Which cells would make it right."""
    scores = table.of_method(average.method)
    found = mends(average.value, average.std, [score.value for score in scores])
    both = [mend for mend in found if mend.mends_std]
    if not 0 < len(both) <= FEW_CELLS:
        return ""
    told = [
        f"{scores[m.position].dataset} {float(m.value):.{average.value.decimals}f} instead of "
        f"{scores[m.position].value}"
        for m in both
    ]
    return f"; the average and its std would hold with {' or '.join(told)}"


@table_check("printed_spread", title="Stds across datasets", inputs=())
def printed_spread(table: ScoreTable) -> Iterator[Finding]:
    """The ± of an average row is the std across its cells, of the sample (n−1) or of the population (n). It
    is confirmed when the std of some exact cells, all printed as they are, is printed so with one of the two
    divisors, contradicted when with neither. Not checkable: not all cells of the average are here.
    """
    for average in table.averages:
        if average.std is None:
            continue
        cells = [score.value for score in table.of_method(average.method)]
        common: dict[str, Any] = {
            "subject": f"{table.subject(average)}, ±",
            "published": str(average.std),
            "source": table.source,
        }
        if len(cells) != average.cells or len(cells) < 2:
            yield Finding(verdict="not_checkable", explanation=_missing(average, len(cells)), **common)
            continue
        yield Finding(**common, **_judge_spread(average.std, cells))


def _judge_spread(spread: Printed, cells: list[Printed]) -> dict[str, Any]:
    ddof = fitting_ddof(spread, cells)
    values = [cell.exact for cell in cells]
    digits = spread.decimals + 1
    if ddof is None:
        return {
            "verdict": "contradicted",
            "recomputed": f"{std(values, 1):.{digits}f}",
            "explanation": f"the std of the {len(cells)} cells is {std(values, 1):.{digits}f} (n−1) or "
            f"{std(values, 0):.{digits}f} (n)",
        }
    kind = "n−1" if ddof else "n"
    return {
        "verdict": "confirmed",
        "recomputed": f"{std(values, ddof):.{digits}f}",
        "explanation": f"the std across the {len(cells)} cells (divisor {kind}), not over seeds",
    }


def average_is_mended_by(table: ScoreTable, method: str, datasets: list[str]) -> bool:
    """Whether a wrong printed average would be right, std and all, with one of these cells changed.

    False where the average holds, or where none is printed.
    """
    scores = table.of_method(method)
    cells = [score.value for score in scores]
    for average in table.averages:
        if average.method != method or len(cells) != average.cells:
            continue
        if mean_interval(cells).meets(average.value.interval):
            return False
        found = mends(average.value, average.std, cells)
        mending = {scores[m.position].dataset for m in found if m.mends_std or average.std is None}
        return bool(mending & set(datasets))
    return False
