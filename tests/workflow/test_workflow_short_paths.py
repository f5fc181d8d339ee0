"""Short paths of tables and figures that the default suite does not list: of the one suite that does."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from workflowkit import SIZE, counts, fgvc, make_project, planned, snakemake, suite, write_params

from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.workflow import hooks
from fgvc.workflow.rules import Rules
from fgvc.workflow.targets import asked_of

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

TABLE = "results/tables/rows_32.csv"
OWN_FIGURE = "figures/own_32.png"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny project with a second suite, whose table and figure no other suite has; nothing was run."""
    root = make_project(tmp_path_factory.mktemp("short") / "project")
    shown = {"title": "T", "caption": "C.", "image_size": SIZE}
    rows = {"rows": "methods", "datasets": ["shapes"], "trainable_total": True}
    write_params(root, "tables/rows_32", {"kind": "accuracy", **shown, **rows})
    write_params(root, "figures/own_32", {"kind": "accuracy_vs_cost", **shown, "parameters": "log_area"})
    one = {"methods": ["vit_tiny"], "seeds": [1], "tables": ["rows_32", "acc_32"], "figures": ["own_32"]}
    write_params(root, "suites/second", suite(title="Second", **one))
    return root


def test_the_short_path_is_of_the_only_suite_that_lists_the_name(project: Path) -> None:
    rules = hooks.checked_rules(Project(project), [TABLE, f"results/{OWN_FIGURE}"])
    assert rules.table_inputs(None, "rows_32") == rules.table_inputs("second", "rows_32")
    assert rules.figure_inputs(None, "own_32") == rules.figure_inputs("second", "own_32")
    (asked,) = asked_of(Project(project), [TABLE, f"results/{OWN_FIGURE}"])
    assert (asked.suite, asked.name) == (None, "second")
    both = asked_of(Project(project), [TABLE, "results/tables/acc_32.md"])
    assert [(a.suite, a.name, a.tables) for a in both] == [
        (None, "second", ("rows_32",)),
        (None, "mini", ("acc_32",)),
    ]


def test_what_the_default_suite_lists_stays_its_own(project: Path) -> None:
    rules = Rules(Project(project))
    assert rules.table_inputs(None, "acc_32") == rules.table_inputs("mini", "acc_32")
    assert rules.table_inputs(None, "acc_32") != rules.table_inputs("second", "acc_32")


def test_a_name_that_two_other_suites_list_is_refused_with_both_paths(project: Path) -> None:
    third = project / "params/suites/third.yaml"
    write_params(project, "suites/third", suite(title="Third", tables=["acc_32"], figures=["own_32"]))
    try:
        with pytest.raises(FgvcError) as caught:
            hooks.checked_rules(Project(project), ["results/figures/own_32.pdf"])
    finally:
        third.unlink()
    text = str(caught.value)
    assert "the suite 'mini' has no figure 'own_32'" in text and len(text.splitlines()) <= 5
    assert "ask for results/second/figures/own_32.pdf or results/third/figures/own_32.pdf" in text


def test_a_table_of_a_dataset_that_its_suite_lacks_is_refused_before_any_work(project: Path) -> None:
    file = project / "params/suites/second.yaml"
    kept = file.read_text()
    images = project / "params/datasets/shapes.yaml"
    (project / "params/datasets/others.yaml").write_text(images.read_text())
    file.write_text(kept.replace("- shapes", "- others"))
    try:
        with pytest.raises(FgvcError, match="'shapes', which is no dataset of the suite 'second'"):
            hooks.checked_rules(Project(project), [TABLE])
    finally:
        file.write_text(kept)
        (project / "params/datasets/others.yaml").unlink()


def test_a_change_of_what_trains_remakes_a_table_that_shows_it(project: Path) -> None:
    before = Rules(Project(project)).shown_sha256(None, "table", "rows_32")
    file = project / "params/methods/vit_tiny.yaml"
    kept = file.read_text()
    file.write_text(kept + "train: [head.*]\n")
    try:
        assert Rules(Project(project)).shown_sha256(None, "table", "rows_32") != before
    finally:
        file.write_text(kept)


def test_it_is_made_at_the_short_path_and_read_from_there(project: Path) -> None:
    jobs = counts(planned(project, TABLE))
    assert jobs["train"] == jobs["evaluate"] == 1 and jobs["search"] == 2
    outcome = snakemake(project, TABLE).check()
    assert "Suite:  second, 1 of 1 cells complete" in outcome.text
    with (project / TABLE).open() as stream:
        (row,) = csv.DictReader(stream)
    assert row["method"] == "vit_tiny" and float(row["trainable_total_m"]) > 0.5
    assert not (project / "results/second").exists()
    assert planned(project, TABLE) == []
    shown = fgvc(project, "table", "rows_32", "--csv").check()
    assert shown.text.splitlines()[1] == (project / TABLE).read_text().splitlines()[1]
