"""The table of costs: every method and size of a suite, what its letters say, and what it answers to gaps."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from fgvc.errors import FgvcError
from fgvc.reporting.cost_table import CSV_COLUMNS, significant
from fgvc.reporting.tables import Contents, read_table, show_table, write_table
from fgvc.workflow.jobs import suite_jobs
from fgvc.workflow.rules import Rules

#: Of the datasets that `bench` makes.
CLASSES = 8


def record(bench: Any, method: str, size: int = 64, classes: int = CLASSES, **changes: Any) -> None:
    """A cost record as `fgvc cost --write` leaves it; ``counts`` are merged."""
    counts = {
        "dispatch_macs_g": 17.5,
        "dispatch_device": "meta",
        "fvcore_macs_g": 17.5,
        "closed_form_macs_g": 17.5,
        "closed_form_reason": None,
        **changes.pop("counts", {}),
    }
    whole = {
        "method": method,
        "method_class": "vit",
        "backbone": "vit_pico",
        "image_size": size,
        "classes": classes,
        "macs_g": 17.5,
        "flops_g": 35.0,
        "params_m": 86.4,
        "trainable_params_m": 0.0123,
        "forward_passes": 2,
        "training_passes": 3,
        "selection_macs_g": 0.0048,
        "other_ops_g": 0.25,
        "activation_mib_estimate": 1126.4,
        "peak_activation_mib_estimate": 6.93,
        "checkpoint_mib": 330.1,
        "counts": counts,
        "agreement_pct": 0.0,
        "agreement": "within 1 %",
        "uncounted_ops": {},
        "fvcore_unsupported_ops": {"aten::gelu": 12, "aten::add": 25},
        **changes,
    }
    file = bench.project.paths.cost(method, size, classes)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(whole))


@pytest.fixture
def costs(bench: Any) -> Any:
    bench.dataset("birds")
    bench.dataset("cars", classes=99)
    bench.method("plain")
    bench.method("net", group="CNN-based")
    bench.method("twice", title="Twice")
    bench.suite(["birds", "cars"], ["plain", "net", "twice"], [1])
    bench.write("tables/costs.yaml", bench._table("costs"))
    file = bench.root / "params/suites/quick.yaml"
    file.write_text(file.read_text().replace("- 64", "- 64\n- 128").replace("- sizes", "- sizes\n- costs"))
    return bench


def full(bench: Any) -> Any:
    for method in ("plain", "net", "twice"):
        for size in (64, 128):
            record(bench, method, size)
    return bench


def read(bench: Any, **options: Any) -> Contents:
    return read_table(bench.project, "quick", "costs", **options)


def test_a_row_is_a_method_and_a_size(costs: Any) -> None:
    grid = read(full(costs)).grid
    assert [row.title for row in grid.rows] == ["PLAIN (ViT-Pico)", "Twice (ViT-Pico)", "NET (ViT-Pico)"] * 2
    assert [row.entries[0].text for row in grid.rows] == ["64"] * 3 + ["128"] * 3
    assert [row.rule_above for row in grid.rows] == [False, False, False, True, False, False]
    assert grid.partial is None
    told = dict(zip(grid.column_titles, (e.text for e in grid.rows[0].entries), strict=True))
    assert told == {
        "Pixels": "64",
        "Params (M)": "86.40",
        "Trainable (M)": "0.01230",
        "Passes": "2",
        "GMACs": "17.50",
        "GFLOPs": "35.00",
        "Choosing (MMACs)": "4.80",
        "Other (G)": "0.250",
        "Activations (MiB)": "1,126",
        "Peak (MiB)": "6.930",
        "Checkpoint (MiB)": "330.1",
        "Counts differ by (%)": "0.00",
    }


def test_classes_are_those_of_the_first_dataset_or_of_the_file(costs: Any) -> None:
    assert f"with {CLASSES} classes" in read(full(costs)).grid.notes[0].text
    costs.write("tables/costs.yaml", costs._table("costs", classes=99))
    with pytest.raises(FgvcError, match="6 of 6 costs are not counted yet"):
        read(costs)
    record(costs, "plain", 64, 99)
    assert "with 99 classes" in read(costs, allow_missing=True).grid.notes[0].text


def test_what_the_counts_do_not_agree_on_has_a_letter(costs: Any) -> None:
    full(costs)
    record(costs, "net", counts={"closed_form_macs_g": None, "closed_form_reason": "no geometry"})
    record(
        costs,
        "twice",
        agreement_pct=2.5,
        agreement="the counts differ by 2.50 %: …",
        uncounted_ops={"odd": 3},
    )
    contents = read(costs)
    cells = {row.title: row.entries[-1] for row in contents.grid.rows[:3]}
    assert cells["PLAIN (ViT-Pico)"].note_letters == ""
    assert (cells["Twice (ViT-Pico)"].text, cells["Twice (ViT-Pico)"].note_letters) == ("2.50", "a,b")
    assert {n.letter: n.text for n in contents.grid.notes if n.letter} == {
        "a": "The counts differ by 2.50 %: ….",
        "b": "Of unknown price to torch's counter: odd ×3.",
        "c": "No closed form: no geometry.",
    }


def test_the_csv_has_all_three_counts_and_every_unknown_operator(costs: Any) -> None:
    full(costs)
    record(costs, "net", 128, counts={"fvcore_macs_g": 17.4, "dispatch_device": "cpu"})
    contents = read(costs)
    rows = list(csv.DictReader(io.StringIO(contents.csv)))
    assert list(rows[0]) == list(CSV_COLUMNS) and len(rows) == 6
    last = rows[-1]
    assert (last["method"], last["size"], last["classes"]) == ("net", "128", str(CLASSES))
    assert (last["dispatch_macs_g"], last["fvcore_macs_g"], last["closed_form_macs_g"]) == (
        "17.5",
        "17.4",
        "17.5",
    )
    assert last["fvcore_unsupported_ops"] == "aten::gelu ×12, aten::add ×25"
    assert last["uncounted_ops"] == "" and last["dispatch_device"] == "cpu"
    assert json.loads(show_table(contents, "json", None))[0]["fvcore_unsupported_ops"] == {
        "aten::gelu": 12,
        "aten::add": 25,
    }


def test_a_missing_cost_is_named_with_the_command(costs: Any) -> None:
    record(full(costs), "plain")
    missing = costs.project.paths.cost("twice", 128, CLASSES)
    missing.unlink()
    with pytest.raises(FgvcError) as caught:
        read(costs)
    assert "1 of 6 costs are not counted yet, the first that of twice at image size 128" in str(caught.value)
    assert f"results/cost/twice/128/{CLASSES}.json" in str(caught.value)
    assert "snakemake --cores all -- results/tables/costs.tex" in str(caught.value)
    grid = read(costs, allow_missing=True).grid
    assert grid.partial == "PARTIAL: 5 of 6 costs"
    assert [e.text for e in grid.rows[4].entries[:3]] == ["128", "not counted", "not counted"]


def test_the_workflow_counts_what_the_table_shows(costs: Any) -> None:
    wanted = {f"results/cost/{m}/{s}/{CLASSES}.json" for m in ("plain", "net", "twice") for s in (64, 128)}
    assert set(Rules(costs.project).table_inputs(None, "costs")) == wanted
    costs.write("tables/costs.yaml", costs._table("costs", classes=50))
    jobs = suite_jobs(costs.project, "quick", short=True)
    listed = {str(job.record.relative_to(costs.root)) for job in jobs if job.kind == "cost"}
    others = {w.replace(f"/{CLASSES}.", "/99.") for w in wanted}  # the second dataset's, for the figure
    assert listed == wanted | others | {w.replace(f"/{CLASSES}.", "/50.") for w in wanted}


def test_it_is_written_in_three_forms(costs: Any) -> None:
    files = write_table(full(costs).project, "quick", "costs")
    assert [f.name for f in files] == ["costs.tex", "costs.md", "costs.csv"]
    assert "PLAIN (ViT-Pico)" in files[0].read_text() and "| 17.50 |" in files[1].read_text()


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0, 3, "–"),
        (0.12, 3, "0.120"),
        (0.0099996, 3, "0.0100"),
        (13.8291, 3, "13.8"),
        (1250.6, 3, "1,251"),
        (99.96, 3, "100"),
        (0.00038, 3, "0.000380"),
        (2, 1, "2"),
    ],
)
def test_significant_digits_are_kept_and_no_more(value: float, digits: int, text: str) -> None:
    assert significant(value, digits) == text
