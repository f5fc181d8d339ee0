"""Are the cost records what the models cost? Counted again, number by number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fgvc.audit.context import SuiteContext
from fgvc.audit.finding import Finding
from fgvc.audit.own_results import counted, differences, finding, read_object, suite_cells
from fgvc.audit.registry import suite_check
from fgvc.errors import FgvcError

#: What a record says about itself in words or versions, and not about the model.
WORDS = ("packages", "units", "notes", "agreement")


@suite_check("own_costs", title="Costs, counted again", inputs=("results/cost", "params/methods"))
def own_costs(context: SuiteContext) -> Iterator[Finding]:
    """Every cost record of the suite's methods is counted once more, from the model as params/ describes it
    now; no weights and no data are needed. Contradicted: a number differs, with the packages that the
    record names. Not checkable: there is no record, or it was counted with other versions of the packages
    and differs.
    """
    from fgvc.cost.record import cost_record  # it brings torch, which audits of published numbers do without

    project = context.project
    wanted = {(c.method, c.size, project.dataset(c.dataset).classes): None for c in suite_cells(context)}
    for method, size, classes in wanted:
        path = project.paths.cost(method, size, classes)
        subject, shown = f"cost of {method} at {size}, {classes} classes", project.paths.shown(path)
        recorded, wrong = read_object(path)
        if recorded is None:
            yield finding(
                "contradicted" if wrong else "not_checkable", subject, wrong or "not counted yet", shown
            )
            continue
        try:
            again = cost_record(project, method, size, classes)
        except FgvcError as error:
            yield finding("not_checkable", subject, error.problem, shown)
            continue
        yield from _compared(subject, shown, recorded, again)


def _compared(subject: str, shown: str, recorded: dict[str, Any], again: dict[str, Any]) -> Iterator[Finding]:
    numbers, counts = ({k: v for k, v in r.items() if k not in WORDS} for r in (recorded, again))
    wrong = list(differences(numbers, counts, lambda _, one, other: bool(one == other)))
    same_packages = recorded.get("packages") == again.get("packages")
    for path, one, other in wrong:
        if same_packages:
            why = "the record says otherwise than a new count"
            yield finding("contradicted", f"{subject}: {path}", why, shown, one, other)
        else:
            why = "it was counted with other versions of the packages"
            yield finding("not_checkable", f"{subject}: {path}", why, shown, one, other)
    if not wrong:
        told = f"all {counted(numbers)} values are counted again (GMACs shown)"
        yield finding("confirmed", subject, told, shown, recorded.get("macs_g"), again.get("macs_g"))
