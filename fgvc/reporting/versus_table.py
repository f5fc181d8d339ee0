"""Published, ours and the difference, one line a published number: the grid and the tidy form."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

from fgvc.config.project import Project
from fgvc.config.suite import VersusTable
from fgvc.reporting.accuracy_table import METRIC_NAMES, number
from fgvc.reporting.cells import CellTable
from fgvc.reporting.grid_table import Entry, Grid, GridRow, Heading, Note, letter, method_headings
from fgvc.reporting.versus_cells import Versus

HEADINGS = (
    Heading("published", "", "Published"),
    Heading("ours", "", "Ours"),
    Heading("difference", "", "Difference"),
    Heading("verdict", "", "Verdict"),
)
CSV_COLUMNS = (
    "dataset",
    "method",
    "size",
    "metric",
    "published_mean",
    "published_std",
    "published_n",
    "mean",
    "std",
    "n",
    "expected_n",
    "status",
    "difference",
    "difference_low",
    "difference_high",
    "p_equivalent",
    "p_different",
    "margin",
    "verdict",
    "reasons",
    "published_id",
    "published_size",
    "evidence",
    "source",
    "note",
)
_WORDS = {"missing": "not run", "failed": "FAILED", "diverged": "DIVERGED"}


def versus_grid(
    project: Project, cells: CellTable, name: str, config: VersusTable, found: Sequence[Versus]
) -> Grid:
    """The table as it is printed, without a format."""
    titles = _method_titles(project, cells)
    letters = _Letters()
    rows = []
    for i, v in enumerate(found):
        entries = (
            _published(v, letters),
            _ours(v, config.decimals),
            Entry("–" if v.difference is None else signed(v.difference, config.decimals)),
            Entry(v.verdict),
        )
        begins = i > 0 and v.dataset != found[i - 1].dataset
        title = f"{project.dataset(v.dataset).title}: {titles[v.method]}"
        rows.append(GridRow(title, entries, rule_above=begins))
    shown = {(v.dataset, v.method): v.ours["status"] in ("ok", "diverged") for v in found}
    done, total = sum(shown.values()), len(shown)
    return Grid(
        name=name,
        title=config.title,
        caption=f"{config.caption.strip()} Suite {cells.suite}: {project.suite(cells.suite).title}.",
        row_heading="Dataset: method",
        headings=HEADINGS,
        rows=tuple(rows),
        notes=(*_notes(cells, config, found), *letters.notes),
        partial=f"PARTIAL: {done} of {total} cells" if done < total else None,
    )


def signed(difference: float, decimals: int) -> str:
    """``+0.12``, ``−0.12``; zero as printed has no sign."""
    rounded = round(difference, decimals)
    if rounded == 0:
        return f"{0:.{decimals}f}"
    return f"{rounded:+.{decimals}f}".replace("-", "−")


def _method_titles(project: Project, cells: CellTable) -> dict[str, str]:
    """Short where they can be: the backbone only behind a method that the suite has on several."""
    headings = method_headings(project, cells.methods)
    short = Counter(h.title for h in headings)
    return {h.key: h.title if short[h.title] == 1 else h.one_line for h in headings}


class _Letters:
    """Sources and notes under the table, each text once, with the letters that stand at its numbers."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}

    def of(self, *texts: str | None) -> str:
        """The letters of the texts that there are: ``a,c``."""
        told = [f"{text.rstrip('.')}." for text in texts if text]
        return ",".join(self._marks.setdefault(text, letter(len(self._marks))) for text in told)

    @property
    def notes(self) -> list[Note]:
        return [Note(text, mark) for text, mark in self._marks.items()]


def _published(v: Versus, letters: _Letters) -> Entry:
    printed = v.record
    text = number(printed.value, printed.std, printed.decimals)
    seeds = printed.protocol.seeds
    return Entry(
        ("≈ " if printed.approximate else "") + text,
        remark=f"n={seeds}" if seeds and printed.std is not None else "",
        note_letters=letters.of(printed.source.full, printed.note),
    )


def _ours(v: Versus, decimals: int) -> Entry:
    cell = v.ours
    if cell["mean"] is None:
        return Entry(_WORDS[cell["status"]])
    whole = cell["n"] == cell["expected_n"]
    remark = f"n={cell['n']}" if whole else f"n={cell['n']}/{cell['expected_n']}"
    return Entry(number(cell["mean"], cell["std"], decimals), remark=remark)


def _notes(cells: CellTable, config: VersusTable, found: Sequence[Versus]) -> list[Note]:
    """How the table is to be read, and how often each verdict stands in it."""
    metric = METRIC_NAMES[config.metric].capitalize()
    counts = Counter(v.verdict.split(":")[0] for v in found)
    texts = [
        f"{metric} in percent, mean ± standard deviation over n seeds; images of {cells.size} × {cells.size} "
        "pixels. Difference: ours − published, in points. Published numbers are as printed (≈: read off a "
        "figure) and never ranked with ours.",
        f"Verdict: two one-sided tests (Welch, from mean, std and n, α = {config.alpha:g}, each by itself) "
        f"against a margin of {config.margin:g} points. equivalent: surely closer than the margin. "
        "different: not that, and surely not zero. inconclusive: neither; few seeds seldom say more.",
        "not comparable: the published number was measured otherwise. test-selected: its checkpoint was "
        "chosen on the test images; ours is the last epoch's.",
        f"{', '.join(f'{n} {verdict}' for verdict, n in counts.items())}.",
    ]
    return [Note(text) for text in texts]


def versus_csv(config: VersusTable, found: Sequence[Versus]) -> str:
    """The tidy form: one row a published number, numbers as they were computed."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(tidy_records(config, found))
    return stream.getvalue()


def tidy_records(config: VersusTable, found: Sequence[Versus]) -> list[dict[str, Any]]:
    """The rows of the CSV, rounded to 6 digits; None where there is nothing to say."""
    records = []
    for v in found:
        test, printed = v.test, v.record
        values: dict[str, Any] = {
            "dataset": v.dataset,
            "method": v.method,
            "size": config.image_size,
            "metric": config.metric,
            "published_mean": printed.value,
            "published_std": printed.std,
            "published_n": printed.protocol.seeds,
            **{key: v.ours[key] for key in ("mean", "std", "n", "expected_n", "status")},
            "difference": v.difference,
            "difference_low": test.low if test else None,
            "difference_high": test.high if test else None,
            "p_equivalent": test.p_equivalent if test else None,
            "p_different": test.p_different if test else None,
            "margin": config.margin,
            "verdict": v.verdict.split(":")[0],
            "reasons": "; ".join(v.reasons) or None,
            "published_id": printed.id,
            "published_size": printed.image_size,
            "evidence": printed.evidence,
            "source": printed.source.full,
            "note": printed.note,
        }
        records.append({k: round(x, 6) if isinstance(x, float) else x for k, x in values.items()})
    return records
