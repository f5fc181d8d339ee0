"""The table of image sizes: heights, widths and aspect ratios of each dataset, per split."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from fgvc.config.project import Project
from fgvc.config.suite import SizeTable
from fgvc.errors import FgvcError
from fgvc.provenance.files import read_json
from fgvc.reporting.grid_table import Entry, Grid, GridRow, Heading, Note

CSV_COLUMNS = ("dataset", "part", "images", "classes", "quantity", "mean", "std", "min", "max")
_PART_TITLES = {
    "all": "all",
    "train": "train",
    "val": "val",
    "train_val": "train + val",
    "test": "test",
}
#: Key in the record, group heading, decimals of its mean and std, decimals of its min and max.
_QUANTITIES = (
    ("height_px", "Height (px)", 1, 0),
    ("width_px", "Width (px)", 1, 0),
    ("aspect_ratio", "Width / height", 2, 2),
)


def read_statistics(
    project: Project, suite_name: str, config: SizeTable, target: str, *, allow_missing: bool = False
) -> dict[str, dict[str, Any] | None]:
    """``results/stats/D.json`` of each dataset of the table; None where it is not there.

    A table of the datasets that are here waits for none that came a moment ago and is not measured yet: what
    is measured is shown, and a note names the others.

    Raises FgvcError naming what is missing and the command that makes ``target``, unless ``allow_missing``.
    """
    of_all = config.datasets == "present"
    names = project.present_datasets() if of_all else project.suite(suite_name).datasets
    if not names:
        raise FgvcError("no dataset is here yet", file="data", cure="fgvc data fetch typefaces")
    files = {d: project.paths.stats(d) for d in names}
    lacking = [d for d, file in files.items() if not file.is_file()]
    if of_all and len(lacking) < len(files):
        files, lacking = {d: file for d, file in files.items() if d not in lacking}, []
    if lacking and not allow_missing:
        raise FgvcError(
            f"{len(lacking)} of {len(files)} size statistics are missing: {', '.join(lacking[:5])}",
            file=project.paths.shown(files[lacking[0]]),
            cure=f"snakemake --cores all -- {target}\nor add --allow-missing to see what is there",
        )
    return {d: read_json(file) if d not in lacking else None for d, file in files.items()}


def size_grid(
    project: Project, suite_name: str, name: str, config: SizeTable, records: dict[str, dict[str, Any] | None]
) -> Grid:
    """The table as it is printed, without a format: one row a dataset and part."""
    headings = [Heading("images", "", "Images"), Heading("classes", "", "Classes")]
    for key, title, _, _ in _QUANTITIES:
        headings += [Heading(f"{key}.mean", title, "mean ± std"), Heading(f"{key}.range", title, "min–max")]
    there = [d for d, record in records.items() if record is not None]
    partial = f"PARTIAL: {len(there)} of {len(records)} datasets" if len(there) < len(records) else None
    return Grid(
        name=name,
        title=config.title,
        caption=_caption(project, suite_name, config),
        row_heading="Dataset",
        headings=tuple(headings),
        rows=_rows(project, records, len(headings)),
        notes=tuple(map(Note, _notes(project, config, records))),
        partial=partial,
    )


def _caption(project: Project, suite_name: str, config: SizeTable) -> str:
    if config.datasets == "present":
        return config.caption.strip()
    return f"{config.caption.strip()} Suite {suite_name}: {project.suite(suite_name).title}."


def _notes(project: Project, config: SizeTable, records: dict[str, dict[str, Any] | None]) -> Iterator[str]:
    yield "Pixels as stored. ± is the standard deviation over images (population)."
    here = project.present_datasets() if config.datasets == "present" else []
    unmeasured = [project.dataset(d).title for d in here if d not in records]
    if unmeasured:
        yield f"Here, but not measured yet: {', '.join(unmeasured)}."


def size_csv(records: dict[str, dict[str, Any] | None]) -> str:
    """The tidy form: one row a dataset, part and quantity; sizes in pixels."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(tidy_records(records))
    return stream.getvalue()


def tidy_records(records: dict[str, dict[str, Any] | None]) -> list[dict[str, Any]]:
    """The rows of the CSV."""
    return [
        {
            "dataset": dataset,
            "part": part,
            "images": facts["images"],
            "classes": facts["classes"],
            "quantity": key,
            **{column: facts[key][column] for column in ("mean", "std", "min", "max")},
        }
        for dataset, record in records.items()
        if record is not None
        for part, facts in _parts(record).items()
        for key, *_ in _QUANTITIES
    ]


def _parts(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """All images together, then part by part."""
    return {"all": record["all"], **record["parts"]}


def _rows(project: Project, records: dict[str, dict[str, Any] | None], columns: int) -> tuple[GridRow, ...]:
    """One row a part; a rule between datasets."""
    rows: list[GridRow] = []
    for dataset, record in records.items():
        title = project.dataset(dataset).title
        begins = bool(rows)
        if record is None:
            rows.append(GridRow(title, (Entry("not run"),) * columns, rule_above=begins))
            continue
        for part, facts in _parts(record).items():
            name = f"{title}, {_PART_TITLES.get(part, part)}"
            rows.append(GridRow(name, _entries(facts), rule_above=begins and part == "all"))
    return tuple(rows)


def _entries(facts: dict[str, Any]) -> tuple[Entry, ...]:
    texts = [f"{facts['images']:,}", f"{facts['classes']:,}"]
    for key, _, decimals, range_decimals in _QUANTITIES:
        of = facts[key]
        texts.append(f"{of['mean']:.{decimals}f} ± {of['std']:.{decimals}f}")
        texts.append(f"{of['min']:.{range_decimals}f}–{of['max']:.{range_decimals}f}")
    return tuple(Entry(text) for text in texts)
