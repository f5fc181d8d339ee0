"""What one command leaves: tables, figures, records and logs, and how it ends."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from statistics import mean, stdev

import pandas as pd
import pytest
from workflowkit import (
    CLASSES,
    FINAL,
    JOBS,
    METHODS,
    PER_CLASS,
    RATES,
    SEEDS,
    SIZE,
    Outcome,
    contents,
    fgvc,
    identities,
    read,
    result_files,
    snakemake,
    suite,
    write_params,
)

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

IMAGES = PER_CLASS["test"] * len(CLASSES)


def run_dir(root: Path, method: str, seed: int) -> Path:
    return root / f"results/runs/shapes/{method}/{SIZE}/seed{seed}"


# --- the files ---------------------------------------------------------------------------------------


def test_no_target_makes_every_table_and_figure_of_the_default_suite(finished: Path) -> None:
    made = {str(p.relative_to(finished / "results")) for p in result_files(finished, "tables/*", "figures/*")}
    tables = {f"tables/{name}.{suffix}" for name in ("acc_32", "hw_stats") for suffix in ("tex", "md", "csv")}
    assert made == tables | {"figures/acc_vs_flops_32.pdf", "figures/acc_vs_flops_32.png"}
    assert not (finished / "results" / "mini").exists(), "the default suite owns the short path"


def test_each_job_has_a_log_and_a_benchmark(finished: Path, first_run: Outcome) -> None:
    assert len(first_run.done) == JOBS
    logs = {p.relative_to(finished / "logs").with_suffix("") for p in (finished / "logs").rglob("*.log")}
    folder = finished / "benchmarks" / "jobs"
    timed = {p.relative_to(folder).with_suffix("") for p in folder.rglob("*.tsv")}
    assert logs == timed and len(logs) == JOBS
    expected = {Path(f"train/shapes/{m}/{SIZE}/seed{k}") for m in METHODS for k in SEEDS}
    expected |= {Path(f"search/shapes/{m}/{SIZE}/lr{rate}") for m in METHODS for rate in RATES}
    assert expected <= logs


def test_numbers_of_the_table_are_those_of_the_predictions(finished: Path) -> None:
    with (finished / "results/tables/acc_32.csv").open() as stream:
        rows = {row["method"]: row for row in csv.DictReader(stream)}
    assert set(rows) == set(METHODS)
    markdown = (finished / "results/tables/acc_32.md").read_text()
    for method, row in rows.items():
        accuracies = []
        for seed in SEEDS:
            frame = pd.read_parquet(run_dir(finished, method, seed) / "predictions.parquet")
            assert len(frame) == IMAGES and frame["sample_id"].is_unique
            right = [
                int(top[0] == label) for top, label in zip(frame["top_classes"], frame["label"], strict=True)
            ]
            accuracies.append(100 * mean(right))
            assert read(run_dir(finished, method, seed) / "metrics.json")["top1_pct"] == pytest.approx(
                accuracies[-1]
            )
        assert float(row["mean"]) == pytest.approx(mean(accuracies), abs=1e-6)
        assert float(row["std"]) == pytest.approx(stdev(accuracies), abs=1e-6)
        assert (row["n"], row["expected_n"], row["status"]) == ("2", "2", "ok")
        assert f"{mean(accuracies):.2f} ± {stdev(accuracies):.2f}" in markdown


def test_test_pictures_play_no_part_in_training(finished: Path) -> None:
    """The learning rate was chosen on val, and the final runs saw train and val."""
    for method in METHODS:
        choice = read(finished / f"results/sweeps/shapes/{method}/{SIZE}/lr.json")
        assert choice["searched"] and len(choice["candidates"]) == len(RATES)
        assert {c["val_images"] for c in choice["candidates"]} == {PER_CLASS["val"] * len(CLASSES)}
        for seed in SEEDS:
            card = read(run_dir(finished, method, seed) / "run.json")
            assert card["split"] == "train_val"
            assert card["train_images"] == (PER_CLASS["train"] + PER_CLASS["val"]) * len(CLASSES)
            assert card["learning_rate"] == choice["learning_rate"]


def test_run_card_says_from_what_by_which_code_where_and_how_long(finished: Path) -> None:
    card = read(run_dir(finished, "vit_tiny", 10) / "run.json")
    assert card["status"] == "ok" and card["seed"] == card["identity"]["seed"] == 10
    identity = card["identity"]
    assert identity["recipe"]["epochs"] == 6 and identity["backbone"] == "vit_pico_patch16_224"
    digests = [card[f"{what}_sha256"] for what in ("run", "recipe", "model")]
    digests += [card["code"]["sources_sha256"], identity["tree_sha256"], identity["split_sha256"]]
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in digests)
    assert set(card["code"]) == {"commit", "dirty", "sources_sha256"}
    assert card["packages"]["torch"] and card["packages"]["timm"] and card["packages"]["python"]
    assert card["host"]["name"] and card["host"]["cores"] and card["device"]["kind"] == "cpu"
    assert card["threads"] == 1 and card["duration_s"] >= 0 and card["peak_memory_mib"] > 10
    assert identity["tree_sha256"] == read(finished / "data/shapes.json")["tree_sha256"]
    pretrained = read(run_dir(finished, "cnn_tiny", 1) / "run.json")["identity"]["weights_sha256"]
    assert pretrained == read(finished / "data/weights/tf_efficientnet_lite0.in1k.json")["sha256"]


def test_cost_records(finished: Path) -> None:
    for method in METHODS:
        cost = read(finished / f"results/cost/{method}/{SIZE}/{len(CLASSES)}.json")
        assert cost["macs_g"] > 0 and cost["flops_g"] == pytest.approx(2 * cost["macs_g"])
        assert 0 < cost["trainable_params_m"] <= cost["params_m"] and cost["forward_passes"] == 1


# --- the screen and the logs -------------------------------------------------------------------------


def test_a_run_ends_in_at_most_ten_lines(first_run: Outcome) -> None:
    lines = first_run.lines
    last_job = max(n for n, line in enumerate(lines) if line.startswith("["))
    closing = lines[last_job + 1 :]
    assert 5 <= len(closing) <= 10
    text = "\n".join(closing)
    assert "Best:" in text and "95 % interval" in text and "Worst:  class" in text
    assert "results/tables/acc_32.md" in text and "results/figures/acc_vs_flops_32.png" in text
    assert closing[-1].startswith("Next:")


def test_commands_to_copy_work_where_the_environment_is_not_activated(
    finished: Path, first_run: Outcome
) -> None:
    command = re.search(r"^Next: +(\S+) --report", first_run.text, flags=re.M)
    assert command and (finished / command[1]).is_file()


def test_outside_a_terminal_there_are_no_control_characters(finished: Path, first_run: Outcome) -> None:
    for text in (first_run.text, *(p.read_text() for p in (finished / "logs").rglob("*.log"))):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text)


def test_a_log_has_at_most_a_line_an_epoch(finished: Path, first_run: Outcome) -> None:
    log = (finished / f"logs/train/shapes/vit_tiny/{SIZE}/seed1.log").read_text().splitlines()
    epochs = [line for line in log if "epoch " in line]
    assert [re.search(r"epoch (\d+)/6", line)[1] for line in epochs] == list("123456")  # type: ignore[index]
    assert sum("cpu" in line for line in log) == 1, "the device is said once"
    # The screen: what there is to run, a line a job, the end.
    assert len(first_run.lines) <= JOBS + 12


# --- another suite -----------------------------------------------------------------------------------


def test_another_suite_shares_the_runs_and_has_tables_of_its_own(copy: Path) -> None:
    title = "The other suite"
    write_params(copy, "suites/other", suite(title=title, methods=["vit_tiny"], tables=["acc_32"]))
    runs = identities(result_files(copy, "runs/*/*/*/*/*", "sweeps/*/*/*/*/*", "tables/*"))
    first, second = "results/other/tables/acc_32.tex", "results/other/figures/acc_vs_flops_32.png"
    outcome = snakemake(copy, first, second).check()
    assert outcome.done == ["table other/acc_32", "figure other/acc_vs_flops_32"]
    assert outcome.reused == 11
    assert identities(runs) == runs
    assert title in (copy / "results/other/tables/acc_32.md").read_text()
    assert "CNN" not in (copy / "results/other/tables/acc_32.md").read_text()
    ending = outcome.lines[-6:]
    assert "Table:  results/other/tables/acc_32.md (and .tex, .csv)" in ending
    # Only what was made is named.
    assert "hw_stats" not in "\n".join(ending)


def test_several_targets_of_different_kinds(copy: Path) -> None:
    for name in ("tables/hw_stats.tex", f"runs/shapes/vit_tiny/{SIZE}/seed1/metrics.json"):
        (copy / "results" / name).unlink()
    run = f"results/runs/shapes/vit_tiny/{SIZE}/seed1/metrics.json"
    outcome = snakemake(copy, "./results/tables/hw_stats.tex", run).check()
    assert sorted(outcome.done) == [f"evaluate shapes/vit_tiny/{SIZE} seed 1", "table hw_stats"]
    assert "Table:  results/tables/hw_stats.md (and .tex, .csv)" in outcome.lines
    top1 = read(copy / run)["top1_pct"]
    assert outcome.lines[-1] == f"Made:   {run}: top-1 {top1:.2f} % of {IMAGES} images"


def test_called_from_elsewhere_with_another_project_in_the_environment(copy: Path, tmp_path: Path) -> None:
    from workflowkit import call

    (copy / "results/tables/hw_stats.md").unlink()
    other = tmp_path / "elsewhere"
    other.mkdir()
    arguments = ("-s", copy / "Snakefile", "-d", copy, "--cores", "1", "--", "results/tables/hw_stats.md")
    call("snakemake", other, *arguments, FGVC_PROJECT=str(other)).check()
    assert (copy / "results/tables/hw_stats.md").is_file() and not list(other.iterdir())


# --- tables by hand ----------------------------------------------------------------------------------


def test_table_of_a_half_done_project(copy: Path) -> None:
    from workflowkit import forget_method

    forget_method(copy, "vit_tiny")
    refused = fgvc(copy, "table", "acc_32")
    assert refused.status == 2 and len(refused.lines) <= 5
    assert "2 of 4 runs are missing: shapes/vit_tiny/32/seed1" in refused.text
    assert "snakemake --cores all -- results/tables/acc_32.tex" in refused.text
    shown = fgvc(copy, "table", "acc_32", "--allow-missing").check().text
    assert "PARTIAL: 1 of 2 cells" in shown and "not run" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert not (copy / "results/tables").exists(), "showing writes nothing"
    fgvc(copy, "table", "acc_32", "--allow-missing", "--write").check()
    written = sorted(p.name for p in (copy / "results/tables").iterdir())
    assert written == ["acc_32.partial.csv", "acc_32.partial.md", "acc_32.partial.tex"]


def test_a_table_of_old_results_after_a_new_recipe_is_partial(copy: Path) -> None:
    before = contents(copy, *FINAL)
    path = copy / "params/methods/vit_tiny.yaml"
    path.write_text(path.read_text().replace("epochs: 6", "epochs: 7"))
    shown = fgvc(copy, "table", "acc_32", "--allow-missing").check().text
    assert "PARTIAL: 1 of 2 cells" in shown
    assert contents(copy, *FINAL) == before
