"""What was published for a suite's cells, how it was measured, and how far ours are from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fgvc.config.project import Project
from fgvc.config.published_records import Protocol, Record, records_of
from fgvc.config.suite import VersusTable
from fgvc.errors import FgvcError
from fgvc.evaluation.equivalence import Equivalence, can_be_tested, equivalence
from fgvc.evaluation.statistics import Spread
from fgvc.provenance.files import read_json
from fgvc.reporting.cells import CellTable
from fgvc.reporting.split_label import published_parts

#: Splits by which our own runs train and test, as far as the split's record shows it.
OUR_SPLITS = ("official", "glsim_lists")
_SELECTIONS = {"best_on_test": "test-selected", "best_on_val": "selected on other validation images"}


@dataclass(frozen=True)
class Versus:
    """A published number beside our cell.

    Args:
        ours: the row of our cell (`CellTable.cell`).
        reasons: why the two cannot be compared; empty where they can.
        test: None where it cannot be made.
        verdict: equivalent, different, inconclusive; or not run, diverged, not comparable: REASONS,
            no test: REASON.
    """

    record: Record
    dataset: str
    method: str
    ours: dict[str, Any]
    reasons: tuple[str, ...]
    test: Equivalence | None
    verdict: str

    @property
    def difference(self) -> float | None:
        """Ours − published, in points; None where not every seed of ours is finished."""
        return self.ours["mean"] - self.record.value if self.ours["status"] == "ok" else None


def versus(project: Project, cells: CellTable, name: str, config: VersusTable) -> list[Versus]:
    """What the published tables of ``config`` say of the cells of a suite, in the order of the cells.

    Of a file's numbers for a cell those at the table's image size are taken, where there are none the others.
    Numbers that were only remembered are never taken.

    Raises FgvcError where nothing was published for any cell.
    """
    found = [
        _beside(project, cells, config, record, dataset, method)
        for dataset in cells.datasets
        for method in cells.methods
        for record in _published_for(project, config, dataset, method)
    ]
    if not found:
        raise FgvcError(
            f"nothing in {', '.join(config.published)} was published for a cell of suite '{cells.suite}'",
            file=project.paths.shown(project.file("table", name)),
            key="published",
            cure=f"ask for it in another suite: fgvc table {name} --suite SUITE",
        )
    return found


def _published_for(project: Project, config: VersusTable, dataset: str, method: str) -> Iterator[Record]:
    metric = config.metric.removesuffix("_pct")
    for table in config.published:
        of_cell = [
            r
            for r in records_of(table, project.published(table))
            if r.is_reference and (r.variant, r.dataset_id, r.metric) == (method, dataset, metric)
        ]
        yield from [r for r in of_cell if r.image_size == config.image_size] or of_cell


def _beside(
    project: Project, cells: CellTable, config: VersusTable, record: Record, dataset: str, method: str
) -> Versus:
    ours = cells.cell(dataset, method)
    reasons = (*protocol_reasons(record.protocol), *_reasons(project, config, record, dataset, method))
    test = None
    if ours["status"] == "ok" and not reasons:
        sides = (
            Spread(record.value, record.std, record.protocol.seeds or 0),
            Spread(ours["mean"], ours["std"], ours["n"]),
        )
        if can_be_tested(*sides):
            test = equivalence(*sides, config.margin, alpha=config.alpha)
    verdict = test.verdict if test else _untested(record, ours, reasons)
    return Versus(record, dataset, method, ours, reasons, test, verdict)


def protocol_reasons(protocol: Protocol) -> list[str]:
    """Why numbers of a protocol cannot be set against ours: last epoch, on the test images of the lists."""
    reasons = []
    if protocol.selection != "last_epoch":
        reasons.append(_SELECTIONS.get(protocol.selection or "", "unknown selection"))
    if protocol.split not in OUR_SPLITS:
        reasons.append("other split" if protocol.split else "unknown split")
    return reasons


def _reasons(
    project: Project, config: VersusTable, record: Record, dataset: str, method: str
) -> Iterator[str]:
    """Reasons that lie in the cell: image size, what was trained, our own split."""
    if record.image_size is None:
        yield "unknown image size"
    elif record.image_size != config.image_size:
        yield f"image size {record.image_size}"
    ours = "full" if project.variant(method).train == "all" else "frozen"
    if record.protocol.training not in (ours, None):
        yield f"{record.protocol.training} backbone"
    path = project.paths.split_record(dataset)
    if path.is_file():
        split = read_json(path)
        if split["provenance"] == "ours" and not {"train_val", "test"} <= set(published_parts(split)):
            yield "our split"


def _untested(record: Record, ours: dict[str, Any], reasons: tuple[str, ...]) -> str:
    """The verdict where there is no test."""
    if reasons:
        return f"not comparable: {', '.join(reasons)}"
    if ours["status"] == "diverged":
        return "diverged"
    if ours["status"] != "ok":
        return "not run"
    if record.std is None:
        return "no test: published without ±"
    if record.protocol.seeds is None:
        return "no test: published seeds unknown"
    if ours["n"] < 2 or record.protocol.seeds < 2:
        return "no test: one seed"
    return "no test: no spread"
