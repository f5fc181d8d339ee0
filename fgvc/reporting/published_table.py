"""A published table from its records: averages recomputed, disagreements marked, costs recounted.

Layout after GLSim (arXiv:2407.12891), Table 4.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

from fgvc.config.project import Project
from fgvc.config.published import PublishedAccuracies, PublishedCell, PublishedColumn
from fgvc.config.suite import PublishedFigure, PublishedTable
from fgvc.errors import FgvcError
from fgvc.provenance.files import read_json
from fgvc.reporting.accuracy_table import METRIC_NAMES, number
from fgvc.reporting.cells import rank
from fgvc.reporting.grid_table import Entry, Grid, GridRow, Heading, Note, heading_lines, letter
from fgvc.reporting.published_cells import Average, recomputed_average

CSV_COLUMNS = (
    "quantity",
    "row",
    "dataset",
    "column",
    "method",
    "variant",
    "size",
    "value",
    "std",
    "std_over",
    "unit",
    "disagrees",
    "reported_by",
    "evidence",
    "source",
    "note",
)
#: Where a printed number is not what its own cells give.
DISAGREES = "‡"


@dataclass(frozen=True)
class Recount:
    """The cost of a column as counted by us: variant, record (None: not counted), and where it lies."""

    variant: str
    record: dict[str, Any] | None
    file: str


@dataclass(frozen=True)
class Shown:
    """The columns of one image size, their averages, and their costs (none without a variant)."""

    printed: PublishedAccuracies
    columns: dict[str, PublishedColumn]
    averages: dict[str, Average | None]
    recounts: dict[str, Recount]

    @property
    def uncounted(self) -> list[str]:
        """Columns whose cost can be counted and is not yet."""
        return [key for key, recount in self.recounts.items() if recount.record is None]

    def cost(self, column: str) -> dict[str, Any] | None:
        """The cost record of a column, or None."""
        recount = self.recounts.get(column)
        return recount.record if recount else None


def read_published(
    project: Project, config: PublishedTable | PublishedFigure, target: str, *, allow_missing: bool = False
) -> Shown:
    """A published table and the cost records of its methods.

    Raises FgvcError when it has no column of the image size, and naming a cost record that is missing and the
    command that makes ``target``, unless ``allow_missing``.
    """
    printed = project.published_accuracies(config.published)
    columns = printed.at_size(config.image_size)
    if not columns:
        sizes = sorted({c.image_size for c in printed.columns.values()})
        raise FgvcError(
            f"the published table '{config.published}' has no column at image size {config.image_size}",
            file=project.paths.shown(project.file("published", config.published)),
            cure="its sizes: " + ", ".join(map(str, sizes)),
        )
    files = {v: project.paths.cost(v, s, c) for v, s, c in printed.costs(config.image_size)}
    lacking = [v for v, file in files.items() if not file.is_file()]
    if lacking and not allow_missing:
        raise FgvcError(
            f"the cost of {lacking[0]} at image size {config.image_size} is not counted yet",
            file=project.paths.shown(files[lacking[0]]),
            cure=f"snakemake --cores all -- {target}\nor add --allow-missing to see what is there",
        )
    records = {v: None if v in lacking else read_json(file) for v, file in files.items()}
    recounts = {
        key: Recount(c.counted, records[c.counted], project.paths.shown(files[c.counted]))
        for key, c in columns.items()
        if c.counted is not None
    }
    averages = {k: recomputed_average(c, list(printed.rows), printed.decimals) for k, c in columns.items()}
    return Shown(printed, columns, averages, recounts)


def column_headings(shown: Shown) -> tuple[Heading, ...]:
    """Headings of the columns, groups together in order of first appearance."""
    groups = list(dict.fromkeys(c.group for c in shown.columns.values()))
    ordered = sorted(shown.columns.items(), key=lambda item: groups.index(item[1].group))
    return tuple(Heading(k, c.group, *heading_lines(c.method, c.backbone_title)) for k, c in ordered)


# --- as printed on paper -----------------------------------------------------------------------------


class _Letters:
    """Notes under the table, each text once, with the letters that stand at its cells."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}

    def of(self, text: str | None, sign: str = "") -> str:
        """The letter of a note; "" for none."""
        if not text:
            return ""
        return self.notes.setdefault(text, sign + letter(len(self.notes)))


def published_grid(name: str, config: PublishedTable, shown: Shown) -> Grid:
    """The table as it is printed, without a format."""
    headings, letters = column_headings(shown), _Letters()
    cells = [_cells_row(shown, row, headings, letters) for row in shown.printed.rows]
    averages = _average_rows(shown, headings, letters)
    costs = GridRow("GMACs, recounted", tuple(_cost(shown, h.key) for h in headings), rule_above=True)
    lacking, total = len(shown.uncounted), len(shown.recounts)
    return Grid(
        name=name,
        title=config.title,
        caption=f"{config.caption.strip()} {shown.printed.source.place}: {shown.printed.title}.",
        row_heading="Dataset",
        headings=headings,
        rows=(*cells, *averages, costs),
        notes=(*_reading_notes(shown, headings), *(Note(text, mark) for text, mark in letters.notes.items())),
        partial=f"PARTIAL: {total - lacking} of {total} costs" if lacking else None,
    )


def _cells_row(shown: Shown, row: str, headings: tuple[Heading, ...], letters: _Letters) -> GridRow:
    decimals, found = shown.printed.decimals, [shown.columns[h.key].cells.get(row) for h in headings]
    places = rank([c.value if c else None for c in found], decimals)
    entries = [
        Entry(
            number(c.value, c.std, decimals),
            bold=place == 1,
            underlined=place == 2,
            note_letters=letters.of(_sentence(c.note)),
        )
        if c
        else Entry("–")
        for c, place in zip(found, places, strict=True)
    ]
    return GridRow(shown.printed.rows[row].title, tuple(entries))


def _sentence(note: str | None) -> str | None:
    return f"{note.rstrip('.')}." if note else None


def _average_rows(shown: Shown, headings: tuple[Heading, ...], letters: _Letters) -> list[GridRow]:
    """The averages as the cells give them, ranked, and as printed, with a mark where they differ."""
    decimals = shown.printed.decimals
    averages = [shown.averages[h.key] for h in headings]
    places = rank([a.mean if a else None for a in averages], decimals)
    recomputed = [
        Entry(number(a.mean, a.std, decimals), bold=place == 1, underlined=place == 2) if a else Entry("–")
        for a, place in zip(averages, places, strict=True)
    ]
    printed = []
    for heading, found in zip(headings, averages, strict=True):
        there = shown.columns[heading.key].average
        mark = letters.of(disagreement(heading.one_line, found, decimals), DISAGREES)
        text = number(there.value, there.std, decimals) if there else "–"
        printed.append(Entry(text, note_letters=mark))
    return [
        GridRow("Average, recomputed", tuple(recomputed), rule_above=True),
        GridRow("Average, printed", tuple(printed)),
    ]


def disagreement(name: str, average: Average | None, decimals: int) -> str | None:
    """What a printed average says and what its cells give, where rounding does not explain the difference."""
    if average is None or average.printed is None:
        return None
    told, printed, finer = [], average.printed, decimals + 1
    if average.mean_disagrees:
        told.append(f"average printed {printed.value:.{decimals}f}, recomputed {average.mean:.{finer}f}")
    if average.std_disagrees and printed.std is not None and average.std is not None:
        told.append(f"its ± printed {printed.std:.{decimals}f}, recomputed {average.std:.{finer}f}")
    return f"{name}: {'; '.join(told)}." if told else None


def _cost(shown: Shown, column: str) -> Entry:
    record = shown.cost(column)
    if record is not None:
        return Entry(f"{record['macs_g']:.2f}")
    return Entry("not counted" if column in shown.recounts else "–")


def _reading_notes(shown: Shown, headings: tuple[Heading, ...]) -> list[Note]:
    """How the numbers are to be read, and whose they are."""
    printed, names = shown.printed, {h.key: h.one_line for h in headings}
    size = next(iter(shown.columns.values())).image_size
    texts = [
        f"{METRIC_NAMES[printed.metric].capitalize()} in percent, images of {size} × {size} pixels, as "
        f"printed in {printed.source.full}. ± of a cell: {printed.spread}. Bold: best of the row, "
        "underlined: second, as the printed numbers have it.",
        f"Average, recomputed: mean of the column's {len(printed.rows)} printed cells ± sample standard "
        "deviation (n−1) across datasets, not over seeds. Average, printed: as in the paper; "
        f"{DISAGREES} where it differs from the recomputed one by more than rounding explains.",
        f"GMACs, recounted: one image's inference as we count it, with {printed.cost_classes} classes; "
        "one MAC is two FLOPs.",
    ]
    missing = [names[key] for key in names if key not in shown.recounts]
    if missing:
        texts[-1] += f" Not recounted (–), as the method is not here yet: {', '.join(missing)}."
    texts += [
        f"Pre-training: {_by(names, {k: c.pretraining for k, c in shown.columns.items()})}.",
        f"Reported by: {_by(names, {k: c.reported_by for k, c in shown.columns.items()})}.",
    ]
    return [Note(text) for text in texts]


def _by(names: dict[str, str], values: dict[str, str]) -> str:
    """``own paper: GLSim; a reimplementation: CAL, FFVT``."""
    grouped: dict[str, list[str]] = {}
    for key, name in names.items():
        grouped.setdefault(values[key], []).append(name)
    return "; ".join(f"{value}: {', '.join(of)}" for value, of in grouped.items())


# --- tidy --------------------------------------------------------------------------------------------


def published_csv(shown: Shown) -> str:
    """The tidy form: one row a number, with its source and evidence."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(tidy_records(shown))
    return stream.getvalue()


def tidy_records(shown: Shown) -> list[dict[str, Any]]:
    """The rows of the CSV: cells and averages as printed, averages recomputed, costs recounted."""
    printed, records = shown.printed, []
    for key, column in shown.columns.items():
        for row, cell in column.cells.items():
            about = {"row": row, "dataset": printed.rows[row].dataset}
            records.append(_record(shown, key, printed.metric, about | _printed(shown, cell, "seeds")))
        average = shown.averages[key]
        if column.average is not None:
            flag = bool(average and (average.mean_disagrees or average.std_disagrees))
            quoted = _printed(shown, column.average, "datasets") | {"disagrees": flag}
            records.append(_record(shown, key, f"average_{printed.metric}", {"row": "average", **quoted}))
        if average is not None:
            values = {
                "value": round(average.mean, 6),
                "std": round(average.std, 6) if average.std is not None else None,
                "std_over": "datasets",
                "unit": printed.unit,
            }
            ours = {"row": "average", "evidence": "recomputed_here", "source": "the cells above"}
            records.append(_record(shown, key, f"recomputed_average_{printed.metric}", ours | values))
        record = shown.cost(key)
        if record is not None:
            cost = {"value": record["macs_g"], "unit": "GMACs", "evidence": "recomputed_here"}
            records.append(_record(shown, key, "macs_g", {"source": shown.recounts[key].file, **cost}))
    return records


def _printed(shown: Shown, cell: PublishedCell, std_over: str) -> dict[str, Any]:
    source = shown.printed.source
    return {
        "value": cell.value,
        "std": cell.std,
        "std_over": std_over,
        "unit": shown.printed.unit,
        "evidence": cell.evidence or source.evidence,
        "source": source.full,
        "note": cell.note,
    }


def _record(shown: Shown, key: str, quantity: str, values: dict[str, Any]) -> dict[str, Any]:
    column = shown.columns[key]
    facts = {
        "quantity": quantity,
        "column": key,
        "method": column.method,
        "variant": column.variant,
        "size": column.image_size,
        "reported_by": "this project" if values.get("evidence") == "recomputed_here" else column.reported_by,
    }
    return {name: (facts | values).get(name) for name in CSV_COLUMNS}
