"""Results that cannot be written, were edited, or were being written when the power went."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from faultkit import CELL, RUN, TABLES, fgvc, strike, unprivileged
from workflowkit import call, contents, identities, read, result_files, snakemake

pytestmark = pytest.mark.workflow


# --- F7: nothing can be written ---------------------------------------------------------------------


@pytest.fixture
def read_only(small: Path) -> Path:
    for path in [*(small / "results").rglob("*"), small / "results"]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return small


def test_f07_finished_results_are_used_where_they_are_read_only(read_only: Path) -> None:
    """Finished results serve from a read-only folder: the workflow finds nothing to do, a table is shown, and
    no file changes."""
    made = identities(result_files(read_only, "**/*"))
    assert (
        unprivileged(read_only, "snakemake", "--cores", "1").check().lines[0].startswith("nothing to be done")
    )
    accuracy = read(read_only / RUN / "metrics.json")["top1_pct"]
    assert f"{accuracy:.2f} *" in unprivileged(read_only, "fgvc", "table", "acc_32").check().text
    assert identities(made) == made


@pytest.mark.parametrize(
    ("verb", "named"),
    [
        (("table", "acc_32", "--write"), TABLES[0]),
        (("evaluate", *CELL), f"{RUN}/predictions.parquet"),
        (("train", *CELL[:-1], "2", "--lr", "0.001"), "results/runs/shapes/vit_tiny/32/seed2"),
    ],
    ids=["table", "evaluate", "train"],
)
def test_f07_what_cannot_be_written_is_named(read_only: Path, verb: tuple[str, ...], named: str) -> None:
    """A verb that cannot write its results names the file and the cure in at most five lines and leaves all
    as it was; training finds out before its first epoch."""
    made = identities(result_files(read_only, "**/*"))
    outcome = unprivileged(read_only, "fgvc", *verb)
    said = [line for line in outcome.lines if " images of 'test' on " not in line]
    assert outcome.status == 2 and len(said) <= 5 and "epoch" not in outcome.text
    assert said[0] == "error: cannot write: Permission denied"
    assert said[1].endswith(named) and said[2] == "  to do: check the permissions of the folder"
    assert identities(made) == made


# --- F12: edited results ----------------------------------------------------------------------------


def _edit(path: Path, **changes: Any) -> None:
    record = json.loads(path.read_text())
    path.unlink()  # a new file, as an editor leaves it; the store has the old one
    path.write_text(json.dumps(record | changes, indent=2))


def _other_predictions(path: Path) -> None:
    frame = pd.read_parquet(path)
    frame["top_classes"] = [[label] * 4 for label in frame["label"]]
    path.unlink()
    frame.to_parquet(path)


EDITS: dict[str, tuple[Callable[[Path], None], str]] = {
    "accuracy": (
        lambda run: _edit(run / "metrics.json", top1_pct=99.0),
        "metrics.json says top1_pct 99, its predictions give ",
    ),
    "status": (
        lambda run: _edit(run / "metrics.json", status="diverged", cause="bad luck"),
        "metrics.json says 'diverged', run.json does not",
    ),
    "predictions": (
        lambda run: _other_predictions(run / "predictions.parquet"),
        "predictions.parquet is not the file that metrics.json was made from",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_f12_an_edited_metric_is_in_no_table(small: Path, edit: str) -> None:
    """Metrics that contradict the run or the predictions beside them stand in no table and no figure: the
    error names the run, what disagrees and the command that makes them again; then all is as before."""
    change, cause = EDITS[edit]
    made = contents(small, "tables/*", "runs/*/*/*/*/metrics.json", "runs/*/*/*/*/predictions.parquet")
    change(small / RUN)
    for verb in (("table", "acc_32", "--write"), ("table", "acc_32"), ("figure", "acc_vs_flops_32")):
        refused = fgvc(small, *verb)
        assert refused.status == 2 and cause in refused.err and "shapes/vit_tiny/32/seed1" in refused.err
        assert f"fgvc evaluate {' '.join(CELL)}" in refused.err and len(refused.err.splitlines()) <= 5
    shown = " ".join(fgvc(small, "table", "acc_32", "--allow-missing").check().out.split())
    assert f"FAILED ({cause}" in shown and "99" not in shown.replace("top1_pct 99", "")
    fgvc(small, "evaluate", *CELL).check()
    fgvc(small, "table", "acc_32", "--write").check()
    assert {name: data for name, data in contents(small, "**/*").items() if name in made} == made


def test_f12_the_workflow_stops_at_an_edited_metric(small: Path) -> None:
    """The workflow makes no table from an edited metric: the job fails with the cause, and the partial table
    shows the cell as FAILED."""
    table = (small / TABLES[1]).read_bytes()
    time.sleep(0.01)
    EDITS["accuracy"][0](small / RUN)
    outcome = snakemake(small, TABLES[0])
    assert outcome.status == 1 and EDITS["accuracy"][1] in outcome.text and "Traceback" not in outcome.text
    assert "FAILED" in (small / "results/tables/acc_32.partial.md").read_text()
    assert not (small / TABLES[1]).exists() or (small / TABLES[1]).read_bytes() == table


# --- F24: killed while a table or a figure is written -------------------------------------------------

FIGURES = ("results/figures/acc_vs_flops_32.pdf", "results/figures/acc_vs_flops_32.png")


@pytest.mark.parametrize(("call_to", "number"), [("fsync", 1), ("replace", 1), ("replace", 2)])
@pytest.mark.parametrize(
    ("verb", "files"),
    [(("table", "acc_32", "--write"), TABLES), (("figure", "acc_vs_flops_32"), FIGURES)],
    ids=["table", "figure"],
)
def test_f24_a_kill_while_a_table_or_figure_is_written(
    small: Path, tmp_path: Path, verb: tuple[str, ...], files: tuple[str, ...], call_to: str, number: int
) -> None:
    """Each file of a table or figure whose writer is killed is there whole or not at all; the same command
    again writes the same bytes as if nothing had happened."""
    expected = {name: (small / name).read_bytes() for name in files}
    for name in files:
        (small / name).unlink()
    killed = call("fgvc", small, *verb, **strike(tmp_path / "strike", verb[0], call_to, number))
    assert killed.status == -9
    there = {name: (small / name).read_bytes() for name in files if (small / name).exists()}
    assert there == {name: expected[name] for name in there} and len(there) == number - 1
    fgvc(small, *verb).check()
    assert {name: (small / name).read_bytes() for name in files} == expected


def test_f24_the_workflow_makes_a_killed_table_again(small: Path, tmp_path: Path) -> None:
    """A job that is killed between two files of a table is told with the command that reruns it; the next run
    of the workflow makes the whole table again, and nothing else."""
    expected = {name: (small / name).read_bytes() for name in TABLES}
    for name in TABLES:
        (small / name).unlink()
    killed = snakemake(small, TABLES[0], **strike(tmp_path / "strike", "table", "replace", 2))
    assert killed.status == 1 and "killed, or out of memory?" in killed.text
    assert not (small / TABLES[2]).exists()
    assert snakemake(small).check().done == ["table acc_32"]
    assert {name: (small / name).read_bytes() for name in TABLES} == expected
