"""Check of how many runs stand behind the cells of a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fgvc.audit.finding import Finding
from fgvc.audit.registry import table_check
from fgvc.audit.run_inference import accident, chance, fits, informative, runs_behind
from fgvc.audit.tables import Score, ScoreTable, listed

#: Means of several runs are taken for means of fewer, by accident, this rarely.
ACCIDENT = 1e-3


@table_check("runs_behind", title="Runs behind the rows of a table", inputs=("test images of each dataset",))
def runs_behind_rows(table: ScoreTable) -> Iterator[Finding]:
    """A mean of three runs lies on a grid three times as fine as a single run's. Where the test set is small
    this tells how many runs stand behind a group of cells that were measured alike: the smallest number that
    all cells fit, if numbers printed blindly would fit less than once in 1000. Contradicted: the cells are
    means of fewer runs than stated, or than the rest of the table, which would look so less than once in
    1000. Confirmed: nothing of this. Not checkable: the test sets are too large for so few decimals, or the
    cells fit no number of runs.
    """
    found = {group: runs_behind(table.of_group(group)) for group in table.groups}
    most = max((runs for runs in found.values() if runs), default=None)
    for group, runs in found.items():
        scores = table.of_group(group)
        methods = listed(dict.fromkeys(score.method for score in scores))
        stated = {score.runs for score in scores}
        said = next(iter(stated)) if len(stated) == 1 else None
        yield Finding(
            subject=f"{table.place}: runs behind {methods}",
            published=None if said is None else f"{said} run(s)",
            recomputed=None if runs is None else f"{runs} run(s)",
            source=table.source,
            **_judge(scores, runs, said, most),
        )


def _judge(scores: list[Score], runs: int | None, said: int | None, most: int | None) -> dict[str, Any]:
    if runs is None:
        why = "the test sets are too large, or the cells too few, to tell"
        return {"verdict": "not_checkable", "explanation": why}
    told = informative(scores, runs)
    why = f"all {len(told)} telling cells fit {runs} run(s), by chance {chance(scores, runs):.1g}"
    for other, who in ((said, "stated are"), (most, "the rest of the table fits")):
        if other is None or other <= runs:
            continue
        odds = accident(scores, runs, other)
        if odds < ACCIDENT:
            why += f"; {who} {other}, and means of {other} would look so in {odds:.1g} of cases"
            return {"verdict": "contradicted", "explanation": why}
    if said is not None and not all(fits(score, said) for score in informative(scores, said)):
        return {"verdict": "not_checkable", "explanation": f"{why}; not all of them fit the stated {said}"}
    return {"verdict": "confirmed", "explanation": why}
