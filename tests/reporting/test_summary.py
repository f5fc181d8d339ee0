"""The last lines on the screen, after success and after failure."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fgvc.reporting.summary import FailedJob, failure_report, summary_lines


def test_success_in_ten_lines(full_bench) -> None:
    bench = full_bench({"bad": 0.5, "good": 0.9}, datasets=["birds", "dogs"])
    lines = summary_lines(bench.project, "quick", short=True)
    assert len(lines) <= 10
    text = "\n".join(lines)
    assert "Best:   GOOD (ViT-Pico): " in text and "95 % interval" in text and "n = 2 seeds" in text
    assert "Worst:  class" in text and "Mix-up: class" in text
    assert "results/tables/acc.md" in text and "results/figures/cost.png" in text
    assert lines[-1].startswith("Next:   snakemake --report")
    assert "results/quick/tables/acc.md" in "\n".join(summary_lines(bench.project, "quick", short=False))


def test_success_names_what_was_made_and_commands_as_they_can_be_typed(full_bench) -> None:
    bench = full_bench({"a": 0.9}, seeds=[1])
    lines = summary_lines(
        bench.project, "quick", short=False, tables=["acc"], figures=[], commands=".venv/bin/"
    )
    text = "\n".join(lines)
    assert "results/quick/tables/acc.md" in text and "sizes" not in text and "Figure" not in text
    target = "results/quick/tables/acc.csv"
    assert lines[-1].startswith(f"Next:   .venv/bin/snakemake --report report.html -- {target} ")


def test_the_worst_class_and_the_mix_up_are_the_true_ones(full_bench) -> None:
    bench = full_bench({"a": 0.9}, seeds=[1, 2])
    for seed in (1, 2):
        labels = np.arange(400) % 8
        right = labels != 3  # every image of class 3 is wrong: taken for class 0
        folder = bench.run_dir("birds", "a", seed)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        bench.result("birds", "a", seed, right)
    text = "\n".join(summary_lines(bench.project, "quick", short=True))
    assert "Worst:  class class 3: 0.0 % of its 50 images right" in text
    assert "Mix-up: class 3 taken for class 0: 100 of 100 predictions" in text
    assert "Best:   A (ViT-Pico): 87.50 % top-1 accuracy on Birds, 95 % interval 84.2" in text


def test_success_without_predictions_or_with_diverged_runs(full_bench) -> None:
    bench = full_bench({"a": 0.9, "b": 0.8}, seeds=[1])
    (bench.run_dir("birds", "a", 1) / "predictions.parquet").unlink()
    bench.metrics("birds", "b", 1, status="diverged", cause="loss is nan")
    text = "\n".join(summary_lines(bench.project, "quick", short=True))
    assert "Best:   A" in text and "interval" not in text and "Mix-up" not in text
    assert "1 diverged, in no mean: birds/b/64/seed1" in text
    bench.metrics("birds", "a", 1, status="diverged", cause="loss is nan")
    assert "Best:" not in "\n".join(summary_lines(bench.project, "quick", short=True))


def test_another_suite_is_suggested(full_bench) -> None:
    bench = full_bench({"a": 0.9}, seeds=[1])
    bench.suite(["birds"], ["a"], [1], name="sota")
    assert "fgvc plan sota" in summary_lines(bench.project, "quick", short=True)[-1]


def test_flawless_results_have_no_mix_up(full_bench) -> None:
    bench = full_bench({"a": 0.9}, seeds=[1])
    file = bench.run_dir("birds", "a", 1) / "predictions.parquet"
    frame = pd.read_parquet(file)
    frame["label"] = [top[0] for top in frame["top_classes"]]
    frame.to_parquet(file)
    assert "Mix-up" not in "\n".join(summary_lines(bench.project, "quick", short=True))


def test_failures_say_error_log_and_command(bench) -> None:
    job = FailedJob(
        "train", "results/runs/d/m/64/seed1/run.json", "out of memory", "logs/x.log", "snakemake x"
    )
    lines = failure_report(bench.project, [job])
    assert lines == [
        "1 job failed:",
        "  train results/runs/d/m/64/seed1/run.json: out of memory",
        "    log:   logs/x.log",
        "    rerun: snakemake x",
    ]
    many = failure_report(bench.project, [job] * 20)
    assert many[0] == "20 jobs failed:" and "and 8 more" in many[-1]
    assert len(failure_report(bench.project, [])) == 1
