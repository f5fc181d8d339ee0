"""What choosing regions costs: as published, on one footing, and as the code here does it.

Layout after GLSim (arXiv:2407.12891), Table 1.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fgvc.config.project import Project
from fgvc.config.published import PublishedCosts
from fgvc.config.suite import SelectionTable
from fgvc.cost.published_formulas import PUBLISHED, Geometry, RecomputedCost, recomputed_costs
from fgvc.cost.selection import MeasuredChoice, geometry_of, measured_choices
from fgvc.reporting.cost_table import significant
from fgvc.reporting.grid_table import Entry, Grid, GridRow, Heading, Note

#: The forms of the table, from top to bottom, and their titles.
FORMS = {
    "as_published": "As published",
    "same_tokens": "Consistent, own tokens",
    "plain_tokens": "Consistent, no overlap",
    "measured_kept": "Here, maps kept",
    "measured_recomputed": "Here, maps made again",
}
CSV_COLUMNS = (
    "form",
    "selection",
    "method",
    "size",
    "tokens",
    "backbone_tokens",
    "flops",
    "backbone_operations",
    "percent_of_backbone",
    "extra_peak_mib",
    "printed_flops_g",
    "printed_percent",
    "reproduced",
    "explanation",
)
#: Where a formula does not give what is printed.
DISAGREES = "‡"


@dataclass(frozen=True)
class SelectionCost:
    """One cell: a way of choosing, in one form, at one image size.

    Attributes:
        flops: operations of the choice.
        backbone_operations: what the percentage divides by.
        extra_bytes: memory that the choice needs more than a pass without it; None: not stated.
        printed: the published cell that it recomputes, in the published form.
    """

    form: str
    selection: str
    image_size: int
    tokens: int
    backbone_tokens: int
    flops: int
    backbone_operations: int
    percent: float
    extra_bytes: int | None = None
    printed: RecomputedCost | None = None

    @property
    def reproduced(self) -> bool | None:
        """Whether every printed digit is; None where nothing was printed."""
        if self.printed is None:
            return None
        return self.printed.flops_reproduced and self.printed.percent_reproduced


@dataclass(frozen=True)
class Selections:
    """All cells of the table, and the published table that they belong to."""

    printed: PublishedCosts
    cells: tuple[SelectionCost, ...]

    def at(self, form: str, selection: str, image_size: int) -> SelectionCost | None:
        wanted = (form, selection, image_size)
        return next((c for c in self.cells if (c.form, c.selection, c.image_size) == wanted), None)

    @property
    def sizes(self) -> list[int]:
        return sorted({c.image_size for c in self.cells})


def read_selections(project: Project, config: SelectionTable) -> Selections:
    """Every form of every cell; those of our code are counted now, on shapes, which takes seconds.

    Raises FgvcError for a backbone that is no ViT.
    """
    printed = project.published_selection(config.published)
    cells = [*_published(printed)]
    for size in sorted({c.image_size for c in cells}):
        plain = geometry_of(config.backbone, size, Geometry.classes)
        for name in printed.columns:
            if name in PUBLISHED:
                own = plain.overlapping if PUBLISHED[name].overlapping else plain
                cells.append(_by_formula("same_tokens", name, own))
                cells.append(_by_formula("plain_tokens", name, plain))
        kept = measured_choices(config.backbone, size, "kept")
        again = measured_choices(config.backbone, size, "recomputed")
        cells += [_measured("measured_kept", name, plain, found) for name, found in kept.items()]
        cells += [_measured("measured_recomputed", name, plain, found) for name, found in again.items()]
    return Selections(printed, tuple(cells))


def _published(printed: PublishedCosts) -> Iterator[SelectionCost]:
    for found in recomputed_costs(printed):
        yield SelectionCost(
            form="as_published",
            selection=found.column,
            image_size=found.image_size,
            tokens=found.tokens,
            backbone_tokens=found.backbone_tokens,
            flops=found.flops,
            backbone_operations=found.backbone_operations,
            percent=found.percent,
            printed=found,
        )


def _by_formula(form: str, name: str, g: Geometry) -> SelectionCost:
    flops, extra = PUBLISHED[name].flops(g), PUBLISHED[name].bytes_held(g)
    return _on(g, form, name, flops, extra)


def _measured(form: str, name: str, g: Geometry, found: MeasuredChoice) -> SelectionCost:
    return _on(g, form, name, found.flops, found.extra_peak_bytes)


def _on(g: Geometry, form: str, name: str, flops: int, extra_bytes: int) -> SelectionCost:
    """A choice in percent of the FLOPs of the backbone with the same tokens, two a MAC."""
    whole = 2 * g.backbone_macs
    percent = 100 * flops / whole
    return SelectionCost(form, name, g.image_size, g.tokens, g.tokens, flops, whole, percent, extra_bytes)


# --- as printed on paper -----------------------------------------------------------------------------


def selection_grid(name: str, config: SelectionTable, found: Selections) -> Grid:
    """The table as it is printed: a block of sizes for each form."""
    columns = found.printed.columns
    headings = [
        Heading(f"{key}.{quantity}", columns[key].method, title)
        for key in columns
        for quantity, title in (("flops", "GFLOPs"), ("percent", "%"), ("memory", "MiB"))
    ]
    rows: list[GridRow] = []
    for form, title in FORMS.items():
        for size in found.sizes:
            entries = [e for key in columns for e in _entries(found.at(form, key, size))]
            rows.append(
                GridRow(f"{title}: {size}", tuple(entries), rule_above=bool(rows) and size == found.sizes[0])
            )
    return Grid(
        name=name,
        title=config.title,
        caption=f"{config.caption.strip()} {found.printed.source.place}: {found.printed.title}.",
        row_heading="Form: pixels",
        headings=tuple(headings),
        rows=tuple(rows),
        notes=tuple(map(Note, _notes(found))),
    )


def _entries(cell: SelectionCost | None) -> tuple[Entry, Entry, Entry]:
    if cell is None:
        return Entry("–"), Entry("–"), Entry("–")
    if (printed := cell.printed) is not None:
        flops, percent = _plain(printed.printed_flops_g), _plain(printed.printed_percent)
        marks = ["" if same else DISAGREES for same in (printed.flops_reproduced, printed.percent_reproduced)]
        return Entry(flops, note_letters=marks[0]), Entry(percent, note_letters=marks[1]), Entry("–")
    memory = "–" if cell.extra_bytes is None else f"{max(0.0, cell.extra_bytes / 2**20):,.1f}"
    return Entry(significant(cell.flops / 1e9, 3)), Entry(significant(cell.percent, 3)), Entry(memory)


def _plain(value: float) -> str:
    """A printed number with no exponent and no more digits than it has."""
    return f"{value:.10f}".rstrip("0").rstrip(".")


def _notes(found: Selections) -> Iterator[str]:
    cells = [c.printed for c in found.cells if c.printed is not None]
    right = sum(c.flops_reproduced + c.percent_reproduced for c in cells)
    yield (
        f"As published: {found.printed.source.full}, as printed, in GFLOPs (the table names no unit). The "
        f"tool's formulas give {right} of {2 * len(cells)} printed numbers to the last digit"
        + ("." if right == 2 * len(cells) else f"; {DISAGREES} marks the others.")
    )
    yield from _differences(found)
    yield (
        "Consistent: the same formulas, in percent of the FLOPs (two a MAC) of a backbone with the same "
        "tokens; first with the tokens that each paper has, then all without overlap."
    )
    yield (
        "Here: counted on the code of this project's methods, without overlap: a row of the product of maps "
        "as a chain of vectors, not a product of maps; softmax, similarity and ranking included. Maps kept: "
        "from the pass that is made anyway, but unfused. Maps made again: from queries and keys, a few rows "
        "at a time, with fused attention in the pass; the methods keep what fits and make the rest again. "
        "–: no code for it here."
    )
    yield (
        "MiB: memory for one image, in float32, beyond a pass without a choice and with fused attention. "
        "Consistent: of the maps and products that the formula's way of computing has at once. Here: the "
        "difference of the two passes' peaks; parameters and workspaces of kernels are in neither."
    )
    yield "Not in it: the second pass of GLSim, which costs as much as the first (see the table of costs)."


def _differences(found: Selections) -> Iterator[str]:
    """Why the printed percentages are not consistent, with the numbers of one column that mixes both."""
    size = found.sizes[0]
    first = [c for key in found.printed.columns if (c := found.at("as_published", key, size))]
    yield (
        "The published percentages divide FLOPs by MACs, which alone doubles them: the tool counts one a "
        "multiply-add in the encoder, two in the patch embedding."
    )
    mixed = [c for c in first if c.tokens != c.backbone_tokens]
    names = [found.printed.columns[c.selection].method for c in mixed]
    for cell, name in zip(mixed[:1], names[:1], strict=True):
        same = found.at("same_tokens", cell.selection, size)
        plain = found.at("plain_tokens", cell.selection, size)
        assert same is not None and plain is not None
        yield (
            f"{' and '.join(names)}: besides, counted with overlapping patches ({cell.tokens} tokens at "
            f"{size} pixels) over a backbone without ({cell.backbone_tokens}). {name} at {size} pixels: "
            f"{cell.percent:.3g} % published, {same.percent:.3g} % with the same tokens, "
            f"{plain.percent:.3g} % without overlap."
        )


# --- tidy --------------------------------------------------------------------------------------------


def selection_csv(found: Selections) -> str:
    """The tidy form: one row a form, way of choosing and size; operations exact."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(tidy_records(found))
    return stream.getvalue()


def tidy_records(found: Selections) -> list[dict[str, Any]]:
    """The rows of the CSV."""
    order = list(FORMS)
    return [
        {
            "form": c.form,
            "selection": c.selection,
            "method": found.printed.columns[c.selection].method,
            "size": c.image_size,
            "tokens": c.tokens,
            "backbone_tokens": c.backbone_tokens,
            "flops": c.flops,
            "backbone_operations": c.backbone_operations,
            "percent_of_backbone": float(f"{c.percent:.10g}"),
            "extra_peak_mib": None if c.extra_bytes is None else round(c.extra_bytes / 2**20, 3),
            "printed_flops_g": c.printed and c.printed.printed_flops_g,
            "printed_percent": c.printed and c.printed.printed_percent,
            "reproduced": c.reproduced,
            "explanation": c.printed and c.printed.explanation,
        }
        for c in sorted(found.cells, key=lambda c: (order.index(c.form), c.image_size))
    ]
