"""The table of selection costs: as published to the digit, and consistent, with its memory."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from fgvc.config.project import Project
from fgvc.config.published import PublishedCosts
from fgvc.config.suite import SelectionTable
from fgvc.cost.published_formulas import recomputed_costs
from fgvc.reporting.selection_table import FORMS, Selections, read_selections, selection_csv, selection_grid

PROJECT = Project(Path(__file__).resolve().parents[2])
SIZES = [224, 448, 768, 1024]
COLUMNS = ["psm", "attention_rollout", "maws", "sacm", "gls"]


def _config() -> SelectionTable:
    config = PROJECT.table("dfsm_flops")
    assert isinstance(config, SelectionTable)
    return config


@pytest.fixture(scope="module")
def found() -> Selections:
    return read_selections(PROJECT, _config())


def test_it_has_the_layout_of_the_published_table_once_a_form(found: Selections) -> None:
    grid = selection_grid("dfsm_flops", _config(), found)
    assert [row.title for row in grid.rows] == [f"{t}: {s}" for t in FORMS.values() for s in SIZES]
    assert [h.key for h in grid.headings] == [
        f"{c}.{q}" for c in COLUMNS for q in ("flops", "percent", "memory")
    ]
    assert [span for _, span in grid.groups] == [3] * 5
    assert [i for i, row in enumerate(grid.rows) if row.rule_above] == [4, 8, 12, 16]


def test_the_published_form_reads_as_printed(found: Selections) -> None:
    grid = selection_grid("dfsm_flops", _config(), found)
    texts = {row.title: [e.text for e in row.entries] for row in grid.rows}
    assert texts["As published: 224"] == [
        *("8.2", "46.531", "–", "0.17", "0.9833", "–", "0.00013", "0.0007", "–"),
        *("0.014", "0.0795", "–", "0.00045", "0.0026", "–"),
    ]
    assert texts["As published: 1024"][:2] == ["91000", "13674"]
    assert not any(e.note_letters for row in grid.rows for e in row.entries)
    assert "give 40 of 40 printed numbers to the last digit." in grid.notes[0].text


def test_the_consistent_forms_are_what_was_found_by_hand(found: Selections) -> None:
    """Finding A3."""
    grid = selection_grid("dfsm_flops", _config(), found)
    texts = {row.title: [e.text for e in row.entries] for row in grid.rows}
    assert texts["Consistent, own tokens: 224"][1] == "13.8"
    assert texts["Consistent, own tokens: 448"][1] == "203"
    assert texts["Consistent, no overlap: 224"][1::3][:2] == ["5.21", "0.495"]
    assert texts["Consistent, no overlap: 448"][1::3][:2] == ["73.9", "6.84"]
    notes = " ".join(n.text for n in grid.notes)
    assert "325 tokens at 224 pixels) over a backbone without (197)" in notes
    assert "46.5 % published, 13.8 % with the same tokens, 5.21 % without overlap" in notes


def test_our_form_is_counted_where_there_is_code(found: Selections) -> None:
    for size in SIZES:
        for form in ("measured_kept", "measured_recomputed"):
            assert found.at(form, "sacm", size) is None
            assert all(found.at(form, c, size) for c in COLUMNS if c != "sacm")
        chain, product = found.at("measured_kept", "psm", size), found.at("plain_tokens", "psm", size)
        assert chain is not None and product is not None
        assert chain.flops < product.flops / 100 and chain.percent < 0.5


def test_memory_stands_beside_every_consistent_number(found: Selections) -> None:
    """GLS needs next to none, as the paper has it; a chain over kept maps as much as the maps are."""
    for cell in found.cells:
        assert (cell.extra_bytes is None) == (cell.form == "as_published")
    kept, gls = found.at("measured_kept", "psm", 1024), found.at("measured_kept", "gls", 1024)
    assert (
        kept is not None and gls is not None and kept.extra_bytes is not None and gls.extra_bytes is not None
    )
    assert kept.extra_bytes > 2**32 and gls.extra_bytes < 2**20


def test_the_csv_is_exact_and_explains(found: Selections) -> None:
    rows = list(csv.DictReader(io.StringIO(selection_csv(found))))
    assert len(rows) == 4 * (3 * 5 + 2 * 4)
    first = rows[0]
    assert (first["selection"], first["size"], first["flops"]) == ("psm", "224", "8226075000")
    assert first["backbone_operations"] == "17678819328" and first["reproduced"] == "True"
    assert "325 overlapping tokens" in first["explanation"] and first["extra_peak_mib"] == ""
    assert all(row["extra_peak_mib"] for row in rows if row["form"] != "as_published")


def test_a_number_that_the_formula_does_not_give_is_marked(found: Selections) -> None:
    facts = found.printed.model_dump()
    facts["columns"]["maws"]["cells"][1]["percent_of_backbone"] = 0.0008
    wrong = PublishedCosts.model_validate(facts)
    cells = [c for c in found.cells if c.printed is None]
    for old, new in zip((c for c in found.cells if c.printed), recomputed_costs(wrong), strict=True):
        cells.append(type(old)(**{**vars(old), "printed": new}))
    grid = selection_grid("dfsm_flops", _config(), Selections(wrong, tuple(cells)))
    marked = [
        (r.title, h.key)
        for r in grid.rows
        for h, e in zip(grid.headings, r.entries, strict=True)
        if e.note_letters
    ]
    assert marked == [("As published: 448", "maws.percent")]
    assert "39 of 40 printed numbers to the last digit; ‡ marks the others." in grid.notes[0].text
