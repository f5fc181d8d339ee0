"""The table of all datasets: counts, access, licence, and what of them can be checked and how.

Everything comes from ``params/datasets``: it is the same on every machine, with or without the images.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from fgvc.config.counts import stated_rows
from fgvc.config.dataset import ArchiveSource, Dataset
from fgvc.config.layout import SplitName
from fgvc.config.project import Project
from fgvc.config.suite import DatasetsTable
from fgvc.reporting.grid_table import Entry, Grid, GridRow, Heading, Note, letter

PARTS: tuple[SplitName, ...] = ("train", "val", "train_val", "test")
CSV_COLUMNS = (
    "dataset",
    "title",
    "classes",
    *PARTS,
    "access",
    "licence",
    "split",
    "archive_digests",
    "tree_digest",
    "split_digests",
    "unverified",
)
_LICENCE_CHARACTERS = 40
_HEADINGS = (
    Heading("classes", "", "Classes"),
    Heading("train", "Images", "Train"),
    Heading("val", "Images", "Val"),
    Heading("train_val", "Images", "Train + val"),
    Heading("test", "Images", "Test"),
    Heading("access", "", "Access"),
    Heading("licence", "", "Licence"),
    Heading("split", "", "Split"),
    Heading("verified", "", "Checked by"),
)
_READING = (
    "Counts as the files in params/datasets state them (–: not stated); preparing a split checks them.",
    "Split: whose it is as the dataset's own files tell; where all that was prepared has the digests of the "
    "published lists, results/splits/D/split.json calls it published.",
    "Checked by: digests that a fetch or a split is compared with. Archive: of the downloads; pictures: of "
    "all files when unpacked; split: of how many of its four parts.",
    "A letter marks what nobody verified.",
)


def datasets_grid(project: Project, name: str, config: DatasetsTable) -> Grid:
    """The table as it is printed, one row a dataset, in order of ids."""
    statements: dict[str, str] = {}
    rows = []
    for dataset in project.names("dataset"):
        facts = project.dataset(dataset)
        for statement in facts.unverified:
            statements.setdefault(_one_line(statement), letter(len(statements)))
        letters = ",".join(statements[_one_line(statement)] for statement in facts.unverified)
        rows.append(GridRow(facts.title, tuple(map(Entry, _texts(facts))), letters))
    return Grid(
        name=name,
        title=config.title,
        caption=config.caption.strip(),
        row_heading="Dataset",
        headings=_HEADINGS,
        rows=tuple(rows),
        notes=(*map(Note, _READING), *(Note(text, mark) for text, mark in statements.items())),
    )


def tidy_records(project: Project) -> list[dict[str, Any]]:
    """The rows of the CSV; None where a count or a digest is not stated."""
    return [_record(name, project.dataset(name)) for name in project.names("dataset")]


def datasets_csv(project: Project) -> str:
    """The tidy form: one row a dataset; what nobody verified is joined by semicolons."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record in tidy_records(project):
        writer.writerow(record | {"unverified": "; ".join(record["unverified"])})
    return stream.getvalue()


def _record(name: str, facts: Dataset) -> dict[str, Any]:
    return {
        "dataset": name,
        "title": facts.title,
        "classes": facts.classes,
        **{part: stated_rows(facts, part) for part in PARTS},
        "access": facts.access,
        "licence": _one_line(facts.licence),
        "split": facts.split.provenance,
        "archive_digests": _archive_digests(facts),
        "tree_digest": facts.source.tree_sha256 is not None,
        "split_digests": sum(part.sha256 is not None for part in facts.expected.values()),
        "unverified": [_one_line(statement) for statement in facts.unverified],
    }


def _archive_digests(facts: Dataset) -> str | None:
    """``2/2``: how many of the archives have a digest; None where nothing is downloaded."""
    if not isinstance(facts.source, ArchiveSource):
        return None
    archives = [download for download in facts.source.downloads if download.unpack]
    return f"{sum(download.has_digest for download in archives)}/{len(archives)}"


def _texts(facts: Dataset) -> list[str]:
    counts = [stated_rows(facts, part) for part in PARTS]
    return [
        f"{facts.classes:,}",
        *("–" if count is None else f"{count:,}" for count in counts),
        facts.access.replace("_", " "),
        _short_licence(facts.licence),
        facts.split.provenance,
        _checked_by(facts),
    ]


def _checked_by(facts: Dataset) -> str:
    digests = _archive_digests(facts)
    split = sum(part.sha256 is not None for part in facts.expected.values())
    checks = [f"archive {digests}"] if digests and not digests.startswith("0/") else []
    checks += ["pictures"] if facts.source.tree_sha256 else []
    checks += [f"split {split}/4"] if split else []
    return ", ".join(checks) or ("counts only" if facts.expected else "nothing")


def _short_licence(licence: str) -> str:
    """The first clause, cut between words; the CSV has it whole."""
    clause = _one_line(licence).split(";")[0].split(" (")[0]
    if len(clause) <= _LICENCE_CHARACTERS:
        return clause
    return clause[:_LICENCE_CHARACTERS].rsplit(" ", 1)[0].rstrip(",:") + " …"


def _one_line(text: str) -> str:
    return " ".join(text.split())
