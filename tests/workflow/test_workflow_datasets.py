"""What the workflow tells of datasets: the audit of their pictures, and the tables of all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from workflowkit import counts, fgvc, identities, planned, read, result_files, snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
AUDIT = "results/audit/data/shapes"


def test_the_audit_runs_once_and_again_when_a_picture_changes(copy: Path) -> None:
    outcome = snakemake(copy, f"{AUDIT}.md").check()
    assert outcome.done == ["audit shapes"], "fetched and split already"
    record = read(copy / f"{AUDIT}.json")
    split = read(copy / "results/splits/shapes/split.json")
    assert record["parts"]["test"] == split["parts"]["test"]["rows"]
    assert record["tree_sha256"] == split["tree_sha256"]
    page = (copy / f"{AUDIT}.md").read_text()
    assert page.startswith("# Shapes: audit of the pictures") and "## Near-duplicates" in page
    files = result_files(copy, "audit/data/*")
    before = identities(files)
    assert "othing to be done" in snakemake(copy, f"{AUDIT}.json").check().text
    assert identities(files) == before
    (copy / f"{AUDIT}.md").unlink()
    snakemake(copy, f"{AUDIT}.md").check()
    assert (copy / f"{AUDIT}.md").read_text() == page


def test_the_table_of_all_datasets_fetches_none(copy: Path) -> None:
    for name in ("more", "yet_more"):
        text = (copy / "params/datasets/shapes.yaml").read_text()
        (copy / f"params/datasets/{name}.yaml").write_text(text.replace("title: ", f"title: {name} "))
    for name in ("datasets", "hw_stats_all"):
        source = Path(__file__).resolve().parents[2] / f"params/tables/{name}.yaml"
        (copy / f"params/tables/{name}.yaml").write_text(source.read_text())
    targets = ("results/tables/datasets.md", "results/tables/hw_stats_all.csv")
    assert counts(planned(copy, *targets)) == {"table": 2}
    outcome = snakemake(copy, *targets).check()
    assert sorted(outcome.done) == ["table datasets", "table hw_stats_all"]
    page = (copy / targets[0]).read_text()
    assert all(f"| {title}" in page for title in ("Shapes", "more Shapes", "yet\\_more Shapes"))
    assert "shapes,all," in (copy / targets[1]).read_text() and "more" not in (copy / targets[1]).read_text()
    assert fgvc(copy, "table", "datasets").check().text.startswith("Datasets")
    assert "othing to be done" in snakemake(copy, *targets).check().text
    yaml = copy / "params/datasets/more.yaml"
    yaml.write_text(yaml.read_text().replace("licence: ", "licence: another "))
    assert counts(planned(copy, *targets)) == {"table": 1}


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("results/audit/data/shaped.md", "did you mean 'shapes'"),
        ("results/audit/data/shapes.html", "files there: shapes.md, shapes.json"),
        ("results/audit/data/x/shapes.md", "files there: results/audit/data/DATASET.md"),
    ],
)
def test_a_mistyped_audit_is_answered(module_copy: Path, target: str, says: str) -> None:
    outcome = snakemake(module_copy, target)
    assert outcome.status == 1 and says in outcome.text and len(outcome.lines) <= 5
