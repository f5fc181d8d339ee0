"""Are the cost records what the models cost? Counted again, number by number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fgvc.audit.context import SuiteContext
from fgvc.audit.finding import Finding, Verdict
from fgvc.audit.own_results import counted, differences, finding, read_object, suite_cells
from fgvc.audit.registry import suite_check
from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.provenance.machine import package_versions

#: What a record says about itself in words or versions, and not about the model.
WORDS = ("packages", "units", "notes", "agreement")


@suite_check("own_costs", title="Costs, counted again", inputs=("results/cost", "params/methods"))
def own_costs(context: SuiteContext) -> Iterator[Finding]:
    """The cost records of the suite's methods are counted once more, from the model as params/ describes it
    now; no weights and no data are needed. Of each method and image size one record is counted in full;
    where others differ in the number of classes only, their MACs and FLOPs are. Contradicted: a number
    differs, with the packages that the record names. Not checkable: there is no record, or it was counted
    with other versions of the packages and differs.
    """
    wanted: dict[tuple[str, int], dict[int, None]] = {}
    for cell in suite_cells(context):
        classes = context.project.dataset(cell.dataset).classes
        wanted.setdefault((cell.method, cell.size), {})[classes] = None
    for (method, size), counts in wanted.items():
        in_full = True
        for classes in counts:
            path = context.project.paths.cost(method, size, classes)
            subject, shown = (
                f"cost of {method} at {size}, {classes} classes",
                context.project.paths.shown(path),
            )
            recorded, wrong = read_object(path)
            if recorded is None:
                verdict: Verdict = "contradicted" if wrong else "not_checkable"
                yield finding(verdict, subject, wrong or "not counted yet", shown)
                continue
            try:
                again = _counted_again(context.project, method, size, classes, in_full)
            except FgvcError as error:
                yield finding("not_checkable", subject, error.problem, shown)
                continue
            in_full = False
            yield from _compared(subject, shown, recorded, again)


def _counted_again(project: Project, method: str, size: int, classes: int, in_full: bool) -> dict[str, Any]:
    """A record, or of it the headline count alone, which takes a fraction of the time."""
    from fgvc.cost.record import (
        cost_record,
        quick_macs,
    )  # torch, which audits of published numbers do without

    if in_full:
        return cost_record(project, method, size, classes)
    macs, versions = quick_macs(project, method, size, classes), package_versions()
    packages = {name: str(versions[name]).partition("+")[0] for name in ("torch", "timm", "fvcore")}
    return {"macs_g": macs / 1e9, "flops_g": 2 * macs / 1e9, "packages": packages}


def _compared(subject: str, shown: str, recorded: dict[str, Any], again: dict[str, Any]) -> Iterator[Finding]:
    """One record against the new count; of a headline count, the numbers that it has."""
    known = recorded if "counts" in again else {key: recorded.get(key) for key in again}
    numbers, counts = ({k: v for k, v in r.items() if k not in WORDS} for r in (known, again))
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
        told = f"{counted(numbers)} values are counted again (GMACs shown)"
        yield finding("confirmed", subject, told, shown, recorded.get("macs_g"), again.get("macs_g"))
