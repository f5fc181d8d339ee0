"""Are the runs there that the suite promises?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fgvc.audit.context import SuiteContext
from fgvc.audit.finding import Finding
from fgvc.audit.own_results import cell_name, finding, suite_cells
from fgvc.audit.registry import suite_check
from fgvc.reporting.runs import Run, read_run


@suite_check(
    "own_runs", title="Runs that the suite promises", inputs=("params/suites", "results/runs", "state")
)
def own_runs(context: SuiteContext) -> Iterator[Finding]:
    """A suite promises one run for each seed of each cell. Confirmed: all are there, finished, and of the
    recipe as it is now. Contradicted: some seeds of a cell are missing, failed or belong to an earlier
    recipe, so that its mean is of fewer runs than the suite says; or a run diverged, so that the mean of
    the others is a selection. Not checkable: a cell of which nothing was run.
    """
    source = f"params/suites/{context.suite_name}.yaml"
    for cell in suite_cells(context):
        runs = [read_run(context.project, cell, seed) for seed in context.suite.seeds]
        good = [r for r in runs if r.status == "ok"]
        told: dict[str, Any] = {
            "subject": f"{cell_name(cell)}: runs of {len(runs)} seed{'s' if len(runs) > 1 else ''}",
            "source": source,
            "published": ", ".join(str(r.seed) for r in runs),
            "recomputed": ", ".join(str(r.seed) for r in good),
        }
        if len(good) == len(runs):
            yield finding("confirmed", explanation="every seed has a finished run of this recipe", **told)
        elif all(r.status == "missing" for r in runs):
            yield finding("not_checkable", explanation=_causes(runs), **told)
        else:
            yield finding("contradicted", explanation=_causes(runs), **told)


def _causes(runs: list[Run]) -> str:
    """``seed 10 failed: out of memory; seed 100 missing: not run yet``."""
    return "; ".join(f"seed {r.seed} {r.status}: {r.cause}" for r in runs if r.status != "ok")
