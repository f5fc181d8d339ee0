"""The table of comparisons: every pair of methods on every dataset, with tests and a verdict."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fgvc.config.project import Project
from fgvc.config.suite import ComparisonsTable
from fgvc.errors import FgvcError
from fgvc.evaluation.comparisons import Pair, Scored, compare_methods
from fgvc.evaluation.statistics import ALPHA, RESAMPLES
from fgvc.reporting.accuracy_table import METRIC_NAMES
from fgvc.reporting.cells import CellTable, gather, require_runs, seed_averaged_scores
from fgvc.reporting.grid_table import Entry, Grid, GridRow, Heading, Note, method_headings, short_titles

_HEADINGS = (
    Heading("difference", "", "Difference"),
    Heading("interval", "", "95 % interval"),
    Heading("bootstrap", "", "Bootstrap p"),
    Heading("mcnemar", "", "McNemar p"),
    Heading("seeds", "", "Seeds p"),
    Heading("both", "", "Corrected p"),
    Heading("verdict", "", "Verdict"),
)


@dataclass(frozen=True)
class Compared:
    """The pairs of a suite by dataset, and the methods that could not be compared, each with the reason."""

    cells: CellTable
    pairs: dict[str, list[Pair]]
    left_out: tuple[tuple[str, str, str], ...]

    @property
    def is_partial(self) -> bool:
        """Whether more runs or predictions would change the table. A diverged run would not."""
        return any(why != "a run diverged" for *_, why in self.left_out)


def read_comparisons(
    project: Project, suite_name: str, config: ComparisonsTable, target: str | None
) -> Compared:
    """The comparisons of a suite at one image size; differences in percentage points.

    With a ``target``, raises FgvcError naming missing runs or predictions and what makes it.
    """
    cells = gather(project, suite_name, config.image_size, config.metric, decimals=2)
    if target is not None:
        require_runs(project, cells, target)
    pairs: dict[str, list[Pair]] = {}
    left_out: list[tuple[str, str, str]] = []
    for dataset in cells.datasets:
        scored: dict[str, Scored] = {}
        for method in cells.methods:
            found = _scored(project, cells, dataset, method)
            if isinstance(found, Scored):
                scored[method] = found
            else:
                left_out.append((dataset, method, found))
        pairs[dataset] = compare_methods(scored)
    without = [(d, m) for d, m, why in left_out if why == _NO_PREDICTIONS]
    if without and target is not None:
        raise FgvcError(
            f"the predictions of {len(without)} cells are not here: {without[0][0]}/{without[0][1]}",
            file=project.paths.shown(project.paths.root / "results" / "runs"),
            cure="fetch them with 'dvc pull', or evaluate these runs again",
        )
    return Compared(cells, pairs, tuple(left_out))


_NO_PREDICTIONS = "its predictions are not here"


def _scored(project: Project, cells: CellTable, dataset: str, method: str) -> Scored | str:
    """The scores of a cell (percent), or why there are none."""
    status = cells.cell(dataset, method)["status"]
    if status != "ok":
        return "a run diverged" if status == "diverged" else "runs are missing"
    runs = cells.runs_of(dataset, method)
    loaded = seed_averaged_scores(project, runs, cells.metric)
    if loaded is None:
        return _NO_PREDICTIONS
    return Scored(100 * loaded[1], tuple(r.value(cells.metric) for r in runs))


def comparisons_grid(project: Project, name: str, config: ComparisonsTable, compared: Compared) -> Grid:
    """The table as it is printed: one row a pair, first minus second."""
    cells = compared.cells
    titles = short_titles(method_headings(project, cells.methods))
    several = len(cells.datasets) > 1
    rows = [
        GridRow(
            (f"{project.dataset(dataset).title}: " if several else "")
            + f"{titles[pair.first]} − {titles[pair.second]}",
            _entries(pair),
            rule_above=several and position == 0 and dataset != cells.datasets[0],
        )
        for dataset, pairs in compared.pairs.items()
        for position, pair in enumerate(pairs)
    ]
    suite, left = project.suite(cells.suite), len(compared.left_out)
    lacking = f"{left} cell{'s' if left > 1 else ''}"
    where = "" if several else f" On {project.dataset(cells.datasets[0]).title}."
    return Grid(
        name=name,
        title=config.title,
        caption=f"{config.caption.strip()} Suite {cells.suite}: {suite.title}.{where}",
        row_heading="First − second",
        headings=_HEADINGS,
        rows=tuple(rows),
        notes=tuple(map(Note, _notes(project, compared, titles))),
        partial=f"PARTIAL: {lacking} not compared" if compared.is_partial else None,
    )


def _entries(pair: Pair) -> tuple[Entry, ...]:
    table = pair.mcnemar
    return (
        Entry(f"{pair.difference:+.2f}".replace("-", "−")),
        Entry(f"{pair.low:+.2f} … {pair.high:+.2f}".replace("-", "−")),
        Entry(p_text(pair.bootstrap_p)),
        Entry(p_text(table.mid_p), remark=f"{table.first_only}:{table.second_only}"),
        Entry(p_text(pair.seeds_p)),
        Entry(p_text(pair.both_holm)),
        Entry(pair.decision),
    )


def p_text(p: float) -> str:
    """``0.043``, or ``<0.001``."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _notes(project: Project, compared: Compared, titles: Mapping[str, str]) -> list[str]:
    cells = compared.cells
    seeds = ", ".join(map(str, cells.seeds))
    notes = [
        f"Difference: {METRIC_NAMES[cells.metric]} of the first minus that of the second method, in "
        f"percentage points, averaged over {len(cells.seeds)} seed{'s' if len(cells.seeds) > 1 else ''} "
        f"({seeds}); interval and bootstrap p: paired, over test images, {RESAMPLES:,} resamples.",
        "McNemar: mid-p; in brackets the images on which the first, and the second, is right more often.",
        "Seeds: Welch's t-test of the single runs.",
        "Corrected p: the larger of bootstrap and seeds p, corrected for the pairs of the dataset by Holm's "
        f"method. Below {ALPHA:g} the first method is better, or worse, than the second; else the pair is "
        "inconclusive.",
    ]
    if len(cells.seeds) < 2:
        notes.append("One seed says nothing about another training: every verdict is inconclusive.")
    by_reason: dict[str, list[str]] = {}
    for dataset, method, why in compared.left_out:
        by_reason.setdefault(why, []).append(f"{project.dataset(dataset).title} / {titles[method]}")
    notes += [f"Not compared, {why}: {'; '.join(places)}." for why, places in by_reason.items()]
    return notes


def tidy_records(compared: Compared) -> list[dict[str, Any]]:
    """One record a pair; differences in percentage points, p-values as they are and corrected (``_holm``)."""
    cells = compared.cells
    return [
        {
            "dataset": dataset,
            "first": pair.first,
            "second": pair.second,
            "size": cells.size,
            "metric": cells.metric,
            "seeds": len(cells.seeds),
            "difference": round(pair.difference, 6),
            "low": round(pair.low, 6),
            "high": round(pair.high, 6),
            "bootstrap_p": round(pair.bootstrap_p, 6),
            "bootstrap_p_holm": round(pair.bootstrap_holm, 6),
            "first_only_images": pair.mcnemar.first_only,
            "second_only_images": pair.mcnemar.second_only,
            "mcnemar_p": round(pair.mcnemar.mid_p, 6),
            "mcnemar_p_holm": round(pair.mcnemar_holm, 6),
            "seeds_p": round(pair.seeds_p, 6),
            "both_p_holm": round(pair.both_holm, 6),
            "verdict": pair.decision,
            "reason": pair.reason,
        }
        for dataset, pairs in compared.pairs.items()
        for pair in pairs
    ]


CSV_COLUMNS = (
    "dataset",
    "first",
    "second",
    "size",
    "metric",
    "seeds",
    "difference",
    "low",
    "high",
    "bootstrap_p",
    "bootstrap_p_holm",
    "first_only_images",
    "second_only_images",
    "mcnemar_p",
    "mcnemar_p_holm",
    "seeds_p",
    "both_p_holm",
    "verdict",
    "reason",
)


def comparisons_csv(compared: Compared) -> str:
    """The tidy form: one row a pair, ids instead of titles."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(tidy_records(compared))
    return stream.getvalue()
