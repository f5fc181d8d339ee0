"""A run from its ids to its files: checked before it begins, found again, kept, never mixed up."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from trainkit import (
    CLASSES,
    EXACT,
    RATE,
    SIZE,
    Fate,
    exact_files,
    made,
    run_dir,
    spec_of,
    train,
    variant,
    write_yaml,
)

from fgvc.cli.main import main
from fgvc.config.grid import Cell
from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.evaluation.predict import evaluate_directory
from fgvc.reporting.runs import read_run
from fgvc.training.run import train_run
from fgvc.training.spec import RunSpec

Fresh = Callable[..., Project]


# --- what a run leaves ----------------------------------------------------------------------------


def test_the_run_card_says_what_ran_from_what_and_where(project: Project) -> None:
    result = made(project)
    record = json.loads((run_dir(project) / "run.json").read_text())
    assert record == result.record
    assert (result.how, result.status) == ("trained", "ok")
    wanted = {"run_sha256", "recipe_sha256", "model_sha256", "identity", "code", "packages", "host", "device"}
    assert wanted <= record.keys()
    assert (record["dataset"], record["method"], record["seed"], record["split"]) == (
        "tiny",
        "plain",
        1,
        "train_val",
    )
    assert record["train_images"] == 21 and record["steps"] == 10 and record["threads"] == 1
    assert record["peak_memory_mib"] > 0 and record["duration_s"] >= 0
    assert record["packages"]["torch"] and record["code"]["sources_sha256"]
    identity = record["identity"]
    assert (identity["seed"], identity["learning_rate"], identity["image_size"]) == (1, RATE, SIZE)
    assert identity["recipe"]["label_smoothing"] == 0.1  # presets are written out


def test_the_history_has_a_line_an_epoch_and_no_times(project: Project) -> None:
    made(project)
    history = pd.read_csv(run_dir(project) / "history.csv")
    assert history["epoch"].tolist() == [1, 2]
    assert {"learning_rate", "train_loss", "train_top1_pct"} <= set(history.columns)
    assert not [c for c in history.columns if "time" in c or c.endswith("_s")]


def test_the_same_command_elsewhere_gives_the_same_bytes(fresh: Fresh) -> None:
    one, other = fresh(), fresh(device="auto", image_cache_gib=0.5)
    made(one)
    made(other)
    assert exact_files(run_dir(one)) == exact_files(run_dir(other))


def test_seeds_rates_and_recipes_are_other_runs(project: Project) -> None:
    identities = {
        spec_of(project).sha256,
        spec_of(project, seed=2).sha256,
        spec_of(project, learning_rate=0.02).sha256,
        spec_of(project, image_size=64).sha256,
        spec_of(project, "everything").sha256,
        spec_of(project, split="train").sha256,
    }
    assert len(identities) == 6


def test_words_and_machine_settings_are_no_part_of_the_identity(project: Project) -> None:
    before = spec_of(project).sha256
    file = project.file("method", "plain")
    file.write_text(file.read_text().replace("title: T", "title: Another"))
    config = project.root / "params/config.yaml"
    config.write_text(config.read_text().replace("loader_workers: 0", "loader_workers: 3"))
    assert spec_of(project).sha256 == before


# --- found again ----------------------------------------------------------------------------------


def test_a_finished_run_is_found_and_nothing_is_written(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    made(project)
    files = {path: path.stat().st_mtime_ns for path in run_dir(project).iterdir()}
    assert train_run(spec_of(project)).how == "found"
    assert "(cached) tiny/plain/32 seed 1 is there already" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in run_dir(project).iterdir()} == files


def test_deleted_results_come_back_from_the_store(project: Project) -> None:
    made(project)
    before = exact_files(run_dir(project))
    for path in run_dir(project).iterdir():
        path.unlink()
    assert train_run(spec_of(project)).how == "restored"
    assert exact_files(run_dir(project)) == before


def test_a_damaged_checkpoint_is_not_taken_for_the_result(project: Project) -> None:
    """Damaged in place: the store holds the same file, and it is trained again."""
    made(project)
    before = exact_files(run_dir(project))
    model = run_dir(project) / "model.safetensors"
    with model.open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"\xff" * 16)
    with pytest.raises(FgvcError, match="checkpoint"):
        evaluate_directory(Project(project.root), run_dir(project), "test")
    assert made(project).how == "trained"
    assert exact_files(run_dir(project)) == before


def test_a_checkpoint_of_another_origin_gives_way_to_the_stored_one(project: Project) -> None:
    made(project)
    before = exact_files(run_dir(project))
    model = run_dir(project) / "model.safetensors"
    model.unlink()
    model.write_bytes(b"not the model")
    assert train_run(spec_of(project)).how == "restored"
    assert exact_files(run_dir(project)) == before


# --- another recipe on the same path --------------------------------------------------------------


def test_another_recipe_takes_the_path_and_the_earlier_result_comes_back_with_its_recipe(
    project: Project,
) -> None:
    file = project.file("method", "plain")
    text = file.read_text()
    made(project)
    first = exact_files(run_dir(project))
    file.write_text(text.replace("warmup_steps: 3", "warmup_steps: 1"))
    assert made(project).how == "trained"
    second = exact_files(run_dir(project))
    assert all(first[name] != second[name] for name in EXACT)
    file.write_text(text)
    assert train_run(spec_of(project)).how == "restored"
    assert exact_files(run_dir(project)) == first
    file.write_text(text.replace("warmup_steps: 3", "warmup_steps: 1"))
    assert train_run(spec_of(project)).how == "restored"
    assert exact_files(run_dir(project)) == second


def test_metrics_never_stand_beside_the_run_of_another_recipe(project: Project) -> None:
    """A table made in between would show them as this run's."""
    made(project)
    file = project.file("method", "plain")
    file.write_text(file.read_text().replace("warmup_steps: 3", "warmup_steps: 1"))
    train_run(spec_of(project))
    assert not (run_dir(project) / "metrics.json").exists()
    assert not (run_dir(project) / "predictions.parquet").exists()


def test_a_run_is_not_evaluated_with_another_recipe_than_its_own(project: Project) -> None:
    made(project)
    file = project.file("method", "plain")
    file.write_text(file.read_text().replace("warmup_steps: 3", "normalisation: imagenet\n  warmup_steps: 3"))
    with pytest.raises(FgvcError, match="no longer the one that this run was trained with"):
        evaluate_directory(Project(project.root), run_dir(project), "test")


def test_unfinished_state_of_one_recipe_survives_another(project: Project) -> None:
    file = project.file("method", "plain")
    text = file.read_text()
    train(project, fate=Fate(6, "in the step", (signal.SIGTERM,)))
    file.write_text(text.replace("warmup_steps: 3", "warmup_steps: 1"))
    made(project)
    file.write_text(text)
    assert made(project).record["resumed_from_step"] == 6


# --- diverged -------------------------------------------------------------------------------------


def test_a_diverged_run_is_a_finished_job_that_says_so_and_is_not_retried(project: Project) -> None:
    write_yaml(
        project.root / "params/methods/hot.yaml", variant(clip_grad_norm=None, warmup_steps=0, epochs=3)
    )
    result = made(project, "hot", learning_rate=1e30)
    assert (result.how, result.status) == ("trained", "diverged")
    record = json.loads((run_dir(project, "hot") / "run.json").read_text())
    assert record["status"] == "diverged" and "not finite" in record["cause"]
    metrics = json.loads((run_dir(project, "hot") / "metrics.json").read_text())
    assert (metrics["status"], metrics["cause"]) == ("diverged", record["cause"])
    assert "top1_pct" not in metrics
    assert len(pd.read_parquet(run_dir(project, "hot") / "predictions.parquet")) == 0
    again = made(project, "hot", learning_rate=1e30)
    assert (again.how, again.status) == ("found", "diverged")
    seen = read_run(Project(project.root), Cell("tiny", "hot", SIZE), 1)
    assert (seen.status, seen.cause) == ("diverged", record["cause"])


# --- the test split -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "split", ["test", "TEST", "val", "Test", "test.csv", "train_val,test", "../test", ""]
)
def test_no_option_value_makes_the_training_verb_take_the_test_split(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    monkeypatch.chdir(project.root)
    arguments = ["train", "tiny", "plain", "--size", str(SIZE), "--lr", str(RATE), "--split", split]
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "train_val (final runs) or train (learning-rate search)" in capsys.readouterr().err
    with pytest.raises(FgvcError, match="nothing is trained on the split"):
        spec_of(project, split=split)
    assert not (project.root / "results/runs").exists()


def test_training_opens_no_test_image_and_no_test_list(project: Project) -> None:
    """Seen from below: every file that the process opens."""
    opened: set[str] = set()
    watching = [True]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching[0] and event == "open" and isinstance(arguments[0], str | os.PathLike):
            opened.add(os.fspath(arguments[0]))

    sys.addaudithook(hook)  # it cannot be removed; it is switched off instead
    try:
        train_run(spec_of(project, "everything"))
        train_run(spec_of(project, "plain"))
    finally:
        watching[0] = False
    inside = {str(Path(name).relative_to(project.root)) for name in opened if str(project.root) in name}
    assert "results/splits/tiny/train_val.csv" in inside and "data/tiny/train/ant/0.png" in inside
    assert not {name for name in inside if "/test" in name}


@pytest.mark.parametrize(
    ("trained_on", "asked"), [("train_val", "val"), ("train_val", "train"), ("train", "test")]
)
def test_a_run_is_evaluated_on_what_it_did_not_see_and_on_nothing_else(
    project: Project, trained_on: str, asked: str
) -> None:
    spec = spec_of(project, split=trained_on)
    train_run(spec)
    with pytest.raises(FgvcError, match=f"trained on '{trained_on}' is not evaluated on '{asked}'"):
        evaluate_directory(spec.project, spec.directory, asked)
    assert not (spec.directory / "metrics.json").exists()


# --- evaluation -----------------------------------------------------------------------------------


def test_predictions_hold_everything_that_the_metrics_need(project: Project) -> None:
    made(project)
    frame = pd.read_parquet(run_dir(project) / "predictions.parquet")
    assert frame["sample_id"].tolist() == [f"test/{name}/{i}.png" for name in CLASSES for i in range(2)]
    assert frame["label"].tolist() == [0, 0, 1, 1, 2, 2]
    assert all(sorted(row) == [0, 1, 2] for row in frame["top_classes"])
    assert all(
        abs(sum(row) - 1) < 1e-5 and list(row) == sorted(row)[::-1] for row in frame["top_probabilities"]
    )
    metrics = json.loads((run_dir(project) / "metrics.json").read_text())
    hits = [row.top_classes[0] == row.label for row in frame.itertuples()]
    assert metrics["top1_pct"] == pytest.approx(100 * sum(hits) / 6, abs=1e-4)
    assert metrics["split"] == "test" and metrics["images"] == 6


def test_one_image_at_a_time_predicts_the_same(project: Project) -> None:
    made(project)
    whole = pd.read_parquet(run_dir(project) / "predictions.parquet")
    evaluate_directory(Project(project.root), run_dir(project), "test", batch_size=1)
    alone = pd.read_parquet(run_dir(project) / "predictions.parquet")
    assert whole["sample_id"].tolist() == alone["sample_id"].tolist()
    assert whole["label_logprob"].to_numpy() == pytest.approx(alone["label_logprob"].to_numpy(), abs=1e-4)


def test_a_run_that_does_not_exist_names_the_command_that_makes_it(project: Project) -> None:
    with pytest.raises(FgvcError) as caught:
        evaluate_directory(project, run_dir(project, seed=7), "test")
    assert "snakemake --cores 1 -- results/runs/tiny/plain/32/seed7/run.json" in str(caught.value)


@pytest.mark.parametrize("rate", [0.0, -0.1, float("nan"), float("inf")])
def test_impossible_learning_rates(project: Project, rate: float) -> None:
    with pytest.raises(FgvcError, match="is not possible"):
        RunSpec(project, "tiny", "plain", SIZE, 1, rate)
