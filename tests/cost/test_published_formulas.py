"""The formulas of GLSim's Table 1: the tool's own integers, every printed digit, and the two corrections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fgvc.config.project import Project
from fgvc.config.published import PublishedCosts
from fgvc.cost.published_formulas import (
    PUBLISHED,
    Geometry,
    as_printed,
    consistent_percent,
    pim,
    published_backbone,
    published_percent,
    ramstrans,
    recomputed_costs,
)

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "flops_a.json"
ROWS: list[dict[str, Any]] = json.loads(GOLDEN.read_text())["rows"]
EXACT = [row for row in ROWS if "flops_exact" in row]
PRINTED_BY_THE_TOOL = [row for rows in ROWS for row in rows.get("main_csv_rows", [])]
#: The tool's names of the table's columns.
COLUMN = {"transfg": "psm", "dcal": "attention_rollout", "ffvt": "maws", "aftrans": "sacm", "glsim": "gls"}


def _flops(method: str, image_size: int) -> tuple[int, Geometry]:
    """Operations by our transcription, and the tokens they are of."""
    plain = Geometry(image_size)
    if method in COLUMN:
        selection = PUBLISHED[COLUMN[method]]
        geometry = selection.published_geometry(image_size)
        return selection.flops(geometry), geometry
    return {"vit": published_backbone, "ramstrans": ramstrans, "pim": pim}[method](plain), plain


@pytest.mark.parametrize("row", EXACT, ids=lambda row: f"{row['method']}-{row['image_size']}")
def test_each_formula_gives_the_tools_integer(row: dict[str, Any]) -> None:
    flops, geometry = _flops(row["method"], row["image_size"])
    assert (flops, geometry.tokens) == (row["flops_exact"], row["seq_len"])


def test_the_golden_file_covers_all_methods_and_sizes() -> None:
    seen = {(row["method"], row["image_size"]) for row in EXACT}
    assert seen == {(m, s) for m in (*COLUMN, "vit", "ramstrans", "pim") for s in (224, 448, 768, 1024)}
    assert set(COLUMN.values()) == set(PUBLISHED)


@pytest.mark.parametrize("row", PRINTED_BY_THE_TOOL, ids=lambda row: f"{row['method']}-{row['image_size']}")
def test_each_percentage_is_the_tools(row: dict[str, Any]) -> None:
    if row["method"] == "vit":
        assert round(published_backbone(Geometry(row["image_size"])) / 1e6, 2) == row["flops"]
    else:
        assert published_percent(COLUMN[row["method"]], row["image_size"]) == row["percent_bb"]


def test_every_digit_of_the_printed_table_is_reproduced(repository: Project) -> None:
    cells = recomputed_costs(repository.published_selection("glsim_table1"))
    assert len(cells) == 20
    assert all(c.flops_reproduced and c.percent_reproduced for c in cells)


def test_a_wrong_digit_is_not_reproduced(repository: Project) -> None:
    facts = repository.published_selection("glsim_table1").model_dump()
    facts["columns"]["psm"]["cells"][0]["percent_of_backbone"] = 46.532
    facts["columns"]["gls"]["cells"][3]["flops_g"] = 0.0095
    printed = PublishedCosts.model_validate(facts)
    wrong = [c for c in recomputed_costs(printed) if not (c.flops_reproduced and c.percent_reproduced)]
    assert [(c.column, c.image_size, c.flops_reproduced) for c in wrong] == [
        ("psm", 224, True),
        ("gls", 1024, False),
    ]


def test_a_column_without_a_formula_is_left_out(repository: Project) -> None:
    facts = repository.published_selection("glsim_table1").model_dump()
    facts["columns"]["newer"] = facts["columns"].pop("psm")
    cells = recomputed_costs(PublishedCosts.model_validate(facts))
    assert {c.column for c in cells} == set(PUBLISHED) - {"psm"}


#: Found by hand before there was any code (finding A3): column, pixels, the same tokens, without overlap.
BY_HAND = [
    ("psm", 224, 13.8, 5.2),
    ("psm", 448, 203, 73.9),
    ("attention_rollout", 224, 0.49, 0.49),
    ("attention_rollout", 448, 6.8, 6.8),
]


@pytest.mark.parametrize(("column", "size", "same", "plain"), BY_HAND)
def test_the_consistent_percentages_are_those_found_by_hand(
    repository: Project, column: str, size: int, same: float, plain: float
) -> None:
    cells = recomputed_costs(repository.published_selection("glsim_table1"))
    cell = next(c for c in cells if (c.column, c.image_size) == (column, size))
    digits = 3 if same > 1 else 2
    assert float(f"{cell.consistent_percent:.{digits}g}") == pytest.approx(same, abs=0.05)
    assert cell.plain_percent == pytest.approx(plain, rel=0.01)
    assert not cell.is_consistent


def test_the_explanation_names_the_tokens_where_they_differ(repository: Project) -> None:
    told = {c.column: c.explanation for c in recomputed_costs(repository.published_selection("glsim_table1"))}
    assert "7226 overlapping tokens" in told["psm"] and "with 4097" in told["sacm"]
    assert all("counts MACs" in text for text in told.values())
    assert all("tokens" not in told[c] for c in ("attention_rollout", "maws", "gls"))


def test_a_consistent_percentage_divides_flops_by_flops_of_the_same_tokens() -> None:
    """ViT-B/16 at 32 pixels with one class: 5 tokens; by hand."""
    g = Geometry(32, classes=1)
    macs = 4 * 768 * 768 + 12 * (12 * 5 * 768**2 + 2 * 25 * 768) + 768
    assert g.backbone_macs == macs
    assert consistent_percent("psm", g) == pytest.approx(100 * 10 * 12 * 25 * 9 / (2 * macs))


def test_numbers_are_rounded_as_the_table_prints_them() -> None:
    assert [as_printed(x, 2) for x in (8.226, 616.9, 0.000132)] == [8.2, 620.0, 0.00013]
    assert [as_printed(x, 5, 4) for x in (46.53068, 13673.74, 0.00075)] == [46.531, 13674.0, 0.0008]


def test_held_maps_are_counted_in_float32() -> None:
    g = Geometry(224)
    assert g.map_bytes == 4 * 197 * 197
    assert PUBLISHED["psm"].bytes_held(g) == 13 * 12 * 4 * 197**2
    assert PUBLISHED["gls"].bytes_held(g) == 4 * 196 * 769
