"""The table of costs: what each method of a suite takes for one image, at each of its image sizes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from math import floor, log10
from typing import Any

from fgvc.config.grid import counted
from fgvc.config.project import Project
from fgvc.config.suite import CostTable
from fgvc.errors import FgvcError
from fgvc.provenance.files import read_json
from fgvc.reporting.grid_table import Entry, Grid, GridRow, Heading, Note, letter, method_headings

#: Method, size and classes of a cost record.
Ids = tuple[str, int, int]
Records = Mapping[Ids, dict[str, Any] | None]

CSV_COLUMNS = (
    "method",
    "method_class",
    "backbone",
    "size",
    "classes",
    "params_m",
    "trainable_params_m",
    "forward_passes",
    "training_passes",
    "macs_g",
    "flops_g",
    "selection_macs_g",
    "other_ops_g",
    "activation_mib_estimate",
    "peak_activation_mib_estimate",
    "checkpoint_mib",
    "dispatch_macs_g",
    "dispatch_device",
    "fvcore_macs_g",
    "closed_form_macs_g",
    "closed_form_reason",
    "agreement_pct",
    "agreement",
    "uncounted_ops",
    "fvcore_unsupported_ops",
)
#: Key in the record, heading, factor, significant digits.
_NUMBERS = (
    ("params_m", "Params (M)", 1, 4),
    ("trainable_params_m", "Trainable (M)", 1, 4),
    ("forward_passes", "Passes", 1, 1),
    ("macs_g", "GMACs", 1, 4),
    ("flops_g", "GFLOPs", 1, 4),
    ("selection_macs_g", "Choosing (MMACs)", 1000, 3),
    ("other_ops_g", "Other (G)", 1, 3),
    ("activation_mib_estimate", "Activations (MiB)", 1, 4),
    ("peak_activation_mib_estimate", "Peak (MiB)", 1, 4),
    ("checkpoint_mib", "Checkpoint (MiB)", 1, 4),
)
_HEADINGS = (
    Heading("size", "", "Pixels"),
    *(Heading(key, "", title) for key, title, _, _ in _NUMBERS),
    Heading("agreement_pct", "", "Counts differ by (%)"),
)
_READING = (
    "One image's prediction with {classes} classes, every pass included. GMACs: convolutions, matrix "
    "products and attention, fused or not; one MAC is two FLOPs. Choosing: the part of them that chooses "
    "tokens or regions (– for none). Other: all other operations.",
    "Memory in float32, by shapes. Activations: what all operators write, about what a training step keeps "
    "an image. Peak: what lives at once in a prediction, without parameters and workspaces of kernels.",
    "Counts differ by: between torch's counter over shapes, fvcore's over a trace and the closed form; a "
    "letter where one is missing or they are more than 1 % apart.",
)


def read_costs(
    project: Project, suite_name: str, config: CostTable, target: str, *, allow_missing: bool = False
) -> Records:
    """The cost records of a table, in the order of its rows; None where there is none yet.

    Raises FgvcError naming what is missing and the command that makes ``target``, unless ``allow_missing``.
    """
    order = [h.key for h in method_headings(project, project.suite(suite_name).methods)]
    ids = sorted(counted(project, suite_name, config), key=lambda of: (of[1], order.index(of[0])))
    files = {of: project.paths.cost(*of) for of in ids}
    lacking = [of for of, file in files.items() if not file.is_file()]
    if lacking and not allow_missing:
        raise FgvcError(
            f"{len(lacking)} of {len(files)} costs are not counted yet, the first that of {lacking[0][0]} at "
            f"image size {lacking[0][1]}",
            file=project.paths.shown(files[lacking[0]]),
            cure=f"snakemake --cores all -- {target}\nor add --allow-missing to see what is there",
        )
    return {of: None if of in lacking else read_json(file) for of, file in files.items()}


def cost_grid(project: Project, suite_name: str, name: str, config: CostTable, records: Records) -> Grid:
    """The table as it is printed: one row a method and size, a rule between sizes."""
    suite = project.suite(suite_name)
    titles = {h.key: h.one_line for h in method_headings(project, suite.methods)}
    letters: dict[str, str] = {}
    rows: list[GridRow] = []
    previous: int | None = None
    for (method, size, _), record in records.items():
        begins = previous is not None and size != previous
        rows.append(GridRow(titles[method], _entries(size, record, letters), rule_above=begins))
        previous = size
    there = sum(record is not None for record in records.values())
    classes = next(iter(records))[2]
    return Grid(
        name=name,
        title=config.title,
        caption=f"{config.caption.strip()} Suite {suite_name}: {suite.title}.",
        row_heading="Method",
        headings=_HEADINGS,
        rows=tuple(rows),
        notes=(
            *(Note(text.format(classes=classes)) for text in _READING),
            *(Note(text, mark) for text, mark in letters.items()),
        ),
        partial=f"PARTIAL: {there} of {len(records)} costs" if there < len(records) else None,
    )


def _entries(size: int, record: dict[str, Any] | None, letters: dict[str, str]) -> tuple[Entry, ...]:
    if record is None:
        return (Entry(str(size)), *(Entry("not counted"),) * (len(_HEADINGS) - 1))
    marks = [letters.setdefault(text, letter(len(letters))) for text in _remarks(record)]
    numbers = (
        Entry(significant(factor * (record.get(key) or 0), digits)) for key, _, factor, digits in _NUMBERS
    )
    agreement = Entry(f"{record['agreement_pct']:.2f}", note_letters=",".join(dict.fromkeys(marks)))
    return (Entry(str(size)), *numbers, agreement)


def _remarks(record: dict[str, Any]) -> Iterator[str]:
    """What is to be said about the agreement of a record's counts."""
    if not record["agreement"].startswith("within"):
        yield f"{record['agreement'][0].upper()}{record['agreement'][1:]}."
    if record["counts"]["closed_form_reason"]:
        yield f"No closed form: {record['counts']['closed_form_reason']}."
    if record["uncounted_ops"]:
        yield f"Of unknown price to torch's counter: {_listed(record['uncounted_ops'])}."
    if record["counts"]["dispatch_device"] != "meta":
        yield "Its pass reads values, and so was run on the CPU."


def significant(value: float, digits: int) -> str:
    """Rounded to significant digits, with no exponent and no digit of the whole part lost; – for nothing."""
    if value == 0:
        return "–"
    rounded = float(f"{value:.{digits}g}")
    decimals = max(0, digits - 1 - floor(log10(abs(rounded))))
    return f"{value:,.{decimals}f}"


def cost_csv(records: Records) -> str:
    """The tidy form: one row a method and size; operators of unknown price as ``name ×calls``."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in tidy_records(records):
        lists = {key: _listed(row[key]) for key in ("uncounted_ops", "fvcore_unsupported_ops")}
        writer.writerow(row | lists)
    return stream.getvalue()


def tidy_records(records: Records) -> list[dict[str, Any]]:
    """The rows of the CSV: what the cost records say, flat."""
    rows = []
    for (_, size, _), record in records.items():
        if record is not None:
            flat = {**record, **record["counts"], "size": size}
            rows.append({key: flat.get(key) for key in CSV_COLUMNS})
    return rows


def _listed(operators: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ×{calls}" for name, calls in operators.items())
