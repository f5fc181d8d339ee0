"""Published tables: the records as they were handed over, averages recomputed, disagreements marked."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fgvc.config.project import Project
from fgvc.config.published import PublishedCosts
from fgvc.errors import FgvcError
from fgvc.reporting.published_cells import recomputed_average
from fgvc.reporting.published_table import published_csv, published_grid, read_published
from fgvc.reporting.tables import read_table, show_table, write_table

BenchT = Any
ROOT = Path(__file__).resolve().parents[2]
PROJECT = Project(ROOT)
TABLE_4 = PROJECT.published_accuracies("glsim_table4")


# --- the shipped records against the reference -------------------------------------------------------


@pytest.fixture(scope="module")
def records(shared: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((shared / "reference/published.yaml").read_text())
    return found


def test_table_4_is_the_reference_to_every_digit(records: list[dict[str, Any]]) -> None:
    reference = [r for r in records if "Table 4 (assets/table_sota_224.png" in r["source"]]
    assert len(reference) == 66
    source, seen = TABLE_4.source, 0
    for record in reference:
        column = next(c for c in TABLE_4.columns.values() if c.method == record["method"])
        rows = {row.title: name for name, row in TABLE_4.rows.items()}
        is_average = record["dataset"] == "AVERAGE(10)"
        cell = column.average if is_average else column.cells[rows[record["dataset"]]]
        assert cell is not None
        assert (cell.value, cell.std, cell.note) == (record["value"], record["std"], record.get("note"))
        assert (cell.evidence or source.evidence) == record["evidence"]
        assert (TABLE_4.unit, TABLE_4.metric, record["metric"]) == (record["unit"], "top1_pct", "top1")
        for key in ("backbone", "pretraining", "image_size", "reported_by"):
            assert getattr(column, key) == record[key]
        told = (source.paper, source.arxiv, source.table, source.asset, f"@{source.commit}", str(source.year))
        assert all(part in record["source"] for part in told)
        seen += 1
    assert seen == sum(len(c.cells) + 1 for c in TABLE_4.columns.values())


def test_table_1_is_the_reference_to_every_digit(records: list[dict[str, Any]]) -> None:
    printed = PROJECT.published("glsim_table1")
    assert isinstance(printed, PublishedCosts)
    reference = [r for r in records if "Table 1 (assets/flops_dfsm_b16.png" in r["source"]]
    assert len(reference) == 40 == 2 * sum(len(c.cells) for c in printed.columns.values())
    for record in reference:
        column = next(c for c in printed.columns.values() if c.method == record["method"])
        cell = next(c for c in column.cells if c.image_size == record["image_size"])
        is_share = record["metric"] == "flops_pct_of_backbone"
        value, note = (
            (cell.percent_of_backbone, printed.percent_note) if is_share else (cell.flops_g, cell.note)
        )
        assert (value, note, column.reported_by) == (record["value"], record["note"], record["reported_by"])
        assert record["unit"] == ("%" if is_share else "GFLOPs")
        assert printed.source.evidence == record["evidence"] and printed.source.table in record["source"]
    script = [r for r in records if r["source"] == printed.backbone_cost_source]
    assert {str(r["image_size"]): r["value"] for r in script} == printed.backbone_cost_g
    assert {r["unit"] for r in script} == {printed.backbone_cost_unit}


def test_percentages_of_table_1_follow_from_the_exact_costs() -> None:
    """They mix FLOPs and MACs, as the file's notes say; as such they are right to the last digit printed."""
    printed = PROJECT.published("glsim_table1")
    assert isinstance(printed, PublishedCosts)
    for column in printed.columns.values():
        for cell in column.cells:
            exact = re.search(r"exact value from the script ([\d.]+) MFLOPs", cell.note or "")
            assert exact
            share = 100 * float(exact[1]) / 1e3 / printed.backbone_cost_g[str(cell.image_size)]
            shown = f"{cell.percent_of_backbone:f}".rstrip("0").partition(".")[2]
            assert share == pytest.approx(cell.percent_of_backbone, abs=0.51 * 10.0 ** -len(shown))


# --- averages ------------------------------------------------------------------------------------------


def test_averages_of_table_4() -> None:
    """Plain arithmetic on the cells, and which of the printed averages are not that."""
    wrong = {}
    for name, column in TABLE_4.columns.items():
        values = [cell.value for cell in column.cells.values()]
        mean = sum(values) / 10
        std = (sum((v - mean) ** 2 for v in values) / 9) ** 0.5
        found = recomputed_average(column, list(TABLE_4.rows), TABLE_4.decimals)
        assert found is not None and found.n == 10
        assert (found.mean, found.std) == (pytest.approx(mean), pytest.approx(std))
        if found.mean_disagrees or found.std_disagrees:
            wrong[name] = (round(mean, 3), found.mean_disagrees, found.std_disagrees)
    assert wrong == {"vit_b16": (90.821, True, False), "ffvt": (90.655, True, False)}


def rows_of(bench: BenchT) -> dict[str, list[str]]:
    contents = read_table(bench.project, "quick", "theirs", allow_missing=True)
    return {row.title: [entry.plain for entry in row.entries] for row in contents.grid.rows}


def notes_of(bench: BenchT) -> str:
    contents = read_table(bench.project, "quick", "theirs", allow_missing=True)
    return " ".join(f"[{note.letter}] {note.text}" for note in contents.grid.notes)


@pytest.fixture
def theirs(bench: BenchT) -> BenchT:
    """Two datasets, three published methods; one is here and counted."""
    for dataset in ("birds", "dogs"):
        bench.dataset(dataset)
    bench.method("mine")
    bench.cost("mine", 17.561234, 85.8)
    bench.suite(["birds", "dogs"], ["mine"], [1, 2])
    bench.published(
        {
            "a": {"birds": (80.0, 0.1), "dogs": (91.0, 0.2)},
            "b": {"birds": (85.0, 0.1), "dogs": (91.0, 0.3)},
            "c": {"birds": (84.0, 0.1), "dogs": (90.0, 0.3)},
        },
        variants={"a": "mine"},
        average={"a": (85.5, 7.78), "b": (88.01, 4.24), "c": (87.0, 4.24)},
    )
    return bench


def test_layout(theirs: BenchT) -> None:
    rows = rows_of(theirs)
    assert list(rows) == ["Birds", "Dogs", "Average, recomputed", "Average, printed", "GMACs, recounted"]
    assert rows["Birds"] == ["80.00 ± 0.10", "85.00 ± 0.10 *", "84.00 ± 0.10 +"]
    assert rows["Dogs"] == ["91.00 ± 0.20 *", "91.00 ± 0.30 *", "90.00 ± 0.30 +"]
    assert rows["Average, recomputed"] == ["85.50 ± 7.78", "88.00 ± 4.24 *", "87.00 ± 4.24 +"]
    # What rounding explains (88.00 as 88.01) is no disagreement.
    assert rows["Average, printed"] == ["85.50 ± 7.78", "88.01 ± 4.24", "87.00 ± 4.24"]
    text = notes_of(theirs)
    assert "[‡" not in text and "across datasets, not over seeds" in text
    assert "GMACs" not in read_table(theirs.project, "quick", "theirs").grid.caption


@pytest.mark.parametrize(
    ("printed", "says"),
    [
        ((85.52, 7.78), "average printed 85.52, recomputed 85.500"),
        ((85.5, 5.5), "its ± printed 5.50, recomputed 7.778"),  # as over the population
        ((85.4, 7.7), "average printed 85.40, recomputed 85.500; its ± printed 7.70, recomputed 7.778"),
    ],
)
def test_a_planted_disagreement_is_marked(theirs: BenchT, printed: tuple[float, float], says: str) -> None:
    path = theirs.root / "params/published/printed.yaml"
    data = yaml.safe_load(path.read_text())
    data["columns"]["a"]["average"] = {"value": printed[0], "std": printed[1]}
    path.write_text(yaml.safe_dump(data))
    marked = rows_of(theirs)["Average, printed"]
    assert marked[0].endswith("[‡a]") and "‡" not in "".join(marked[1:])
    assert f"[‡a] A-Net (ViT-Pico): {says}." in notes_of(theirs)
    tidy = {
        r["column"]: r["disagrees"]
        for r in csv.DictReader(io.StringIO(read_table(theirs.project, "quick", "theirs").csv))
        if r["quantity"] == "average_top1_pct"
    }
    assert tidy == {"a": "True", "b": "False", "c": "False"}


def test_a_column_that_lacks_a_cell_has_no_recomputed_average(theirs: BenchT) -> None:
    path = theirs.root / "params/published/printed.yaml"
    data = yaml.safe_load(path.read_text())
    del data["columns"]["b"]["cells"]["dogs"]
    path.write_text(yaml.safe_dump(data))
    rows = rows_of(theirs)
    assert rows["Dogs"][1] == rows["Average, recomputed"][1] == "–"
    assert rows["Average, printed"][1] == "88.01 ± 4.24"


# --- costs ---------------------------------------------------------------------------------------------


def test_only_methods_that_are_here_have_a_cost(theirs: BenchT) -> None:
    assert rows_of(theirs)["GMACs, recounted"] == ["17.56", "–", "–"]
    assert (
        "Not recounted (–), as the method is not here yet: B-Net (ViT-Pico), C-Net (ViT-Pico)."
        in notes_of(theirs)
    )
    tidy = csv.DictReader(io.StringIO(read_table(theirs.project, "quick", "theirs").csv))
    costs = [r for r in tidy if r["unit"] == "GMACs"]
    assert [(r["column"], r["value"], r["source"]) for r in costs] == [
        ("a", "17.561234", "results/cost/mine/64/8.json")
    ]


def test_a_cost_that_is_not_counted_yet(theirs: BenchT) -> None:
    theirs.project.paths.cost("mine", 64, 8).unlink()
    with pytest.raises(FgvcError, match="the cost of mine at image size 64 is not counted yet") as caught:
        write_table(theirs.project, "quick", "theirs")
    assert "results/tables/theirs.tex" in str(caught.value)
    assert rows_of(theirs)["GMACs, recounted"] == ["not counted", "–", "–"]
    files = write_table(theirs.project, "quick", "theirs", allow_missing=True)
    assert [f.name for f in files] == [f"theirs.partial.{s}" for s in ("tex", "md", "csv")]
    assert "**PARTIAL: 0 of 1 costs**" in files[1].read_text()


def test_another_variant_may_lend_its_cost(theirs: BenchT) -> None:
    """The same computation with other weights: a cost, but nothing to compare accuracies with."""
    path = theirs.root / "params/published/printed.yaml"
    data = yaml.safe_load(path.read_text())
    data["columns"]["b"]["cost_variant"] = "mine"
    path.write_text(yaml.safe_dump(data))
    assert rows_of(theirs)["GMACs, recounted"] == ["17.56", "17.56", "–"]
    printed = theirs.project.published_accuracies("printed")
    assert printed.costs(64) == [("mine", 64, 8)]


def test_no_column_at_that_size(theirs: BenchT) -> None:
    path = theirs.root / "params/tables/theirs.yaml"
    path.write_text(path.read_text().replace("image_size: 64", "image_size: 448"))
    with pytest.raises(FgvcError, match="no column at image size 448") as caught:
        read_table(theirs.project, "quick", "theirs")
    assert "its sizes: 64" in str(caught.value)


# --- the shipped table ---------------------------------------------------------------------------------


def test_the_shipped_table_without_costs(tmp_path: Path) -> None:
    """All sixty cells, as printed, with source and evidence; the two wrong averages; the notes."""
    (tmp_path / "params").symlink_to(ROOT / "params")
    project = Project(tmp_path)
    config = project.table("published_sota_224")
    assert config.kind == "published"
    shown = read_published(project, config, "x.tex", allow_missing=True)
    grid = published_grid("published_sota_224", config, shown)
    assert grid.groups == [("CNN-based", 2), ("ViT-based", 4)]
    rows = {row.title: row.entries for row in grid.rows}
    assert [e.text for e in rows["CUB"]][2:4] == ["90.11 ± 0.17", "90.49 ± 0.06"]
    marks = {h.title: e.note_letters for h, e in zip(grid.headings, rows["Average, printed"], strict=True)}
    assert {title for title, mark in marks.items() if mark.startswith("‡")} == {"ViT B-16", "FFVT"}
    # The two identical cells share a note; the ± that is fifty times the others has one of its own.
    (letter,) = {rows[d][4].note_letters for d in ("DAFB", "Dogs")}
    assert letter and rows["VegFru"][1].note_letters not in ("", letter)
    tidy = list(csv.DictReader(io.StringIO(published_csv(shown))))
    cells = [r for r in tidy if r["quantity"] == "top1_pct"]
    assert len(cells) == 60 and all(r["evidence"] == "primary_repo_asset" for r in cells)
    assert all("arXiv:2407.12891" in r["source"] and "@99cc474d" in r["source"] for r in cells)


def test_formats(theirs: BenchT) -> None:
    files = write_table(theirs.project, "quick", "theirs")
    assert [f.name for f in files] == ["theirs.tex", "theirs.md", "theirs.csv"]
    first = [f.read_bytes() for f in files]
    assert [f.read_bytes() for f in write_table(theirs.project, "quick", "theirs")] == first
    assert r"\textbf{85.00\,$\pm$\,0.10}" in files[0].read_text()
    text = show_table(read_table(theirs.project, "quick", "theirs"), "terminal", 80)
    assert max(map(len, text.splitlines())) <= 80
