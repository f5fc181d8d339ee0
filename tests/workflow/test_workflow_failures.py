"""One run fails: the rest finishes, the table shows it, the screen ends with what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from workflowkit import SIZE, fgvc, identities, result_files, snakemake, suite, variant, write_params

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

TABLE = "results/mixed/tables/acc_32"
RUN = f"results/runs/shapes/vit_gpu/{SIZE}/seed1/run.json"
CAUSE = "this recipe trains in fp16, which needs a GPU"


def make_mixed(root: Path) -> None:
    """A suite of one good method, one that cannot run here, and one that diverges."""
    write_params(root, "methods/vit_gpu", variant(title="Half", recipe={"precision": "fp16"}))
    wild = {"optimizer": "sgd", "clip_grad_norm": None, "warmup_steps": 0, "epochs": 1}
    write_params(root, "methods/vit_wild", variant(title="Wild", recipe=wild))
    rates = {"vit_tiny": [0.001, 0.003], "vit_gpu": [0.001], "vit_wild": [100]}
    methods = ["vit_tiny", "vit_gpu", "vit_wild"]
    mixed = suite(methods=methods, seeds=[1], learning_rates=rates, tables=["acc_32"], figures=[])
    write_params(root, "suites/mixed", mixed)


def test_one_fails_one_diverges_and_the_rest_is_shown(copy: Path) -> None:
    make_mixed(copy)
    before = identities(result_files(copy, "**/*"))
    outcome = snakemake(copy, f"{TABLE}.tex")

    # The others finished, the exit status is not zero, and the last lines say what to do.
    assert outcome.status == 1 and "Traceback" not in outcome.text
    assert f"train shapes/vit_wild/{SIZE} seed 1" in outcome.done
    assert f"evaluate shapes/vit_wild/{SIZE} seed 1" in outcome.done
    head, failed, log, rerun = outcome.lines[-4:]
    assert head == "1 job failed:"
    assert failed == f"  train {RUN}: {CAUSE}"
    assert log == f"    log:   logs/train/shapes/vit_gpu/{SIZE}/seed1.log"
    command = re.fullmatch(r"    rerun: (\S*snakemake) --cores 1 -- (\S+)", rerun)
    assert command and command[2] == RUN and (copy / command[1]).is_file()
    assert f"what is there so far: {TABLE}.partial.md" in outcome.lines

    # The partial table stands beside the real one's path, which stays free.
    partial = (copy / f"{TABLE}.partial.md").read_text()
    assert "PARTIAL: 2 of 3 cells" in partial and f"FAILED ({CAUSE}): Shapes / Half" in partial
    row = next(line for line in partial.splitlines() if line.startswith("| Shapes"))
    assert [cell.strip() for cell in row.split("|")[3:5]] == ["FAILED", "DIVERGED"]
    made = {p.name for p in (copy / TABLE).parent.iterdir()}
    assert made == {f"acc_32.partial.{suffix}" for suffix in ("tex", "md", "csv")}
    assert identities(before) == before

    # The verb says the same of the half-done suite.
    shown = fgvc(copy, "table", "acc_32", "--suite", "mixed", "--allow-missing").check().text
    assert "FAILED" in shown and "DIVERGED" in shown and CAUSE in " ".join(shown.split())

    # Mended, the same command makes what is missing and removes the partial table.
    path = copy / "params/methods/vit_gpu.yaml"
    path.write_text(path.read_text().replace("fp16", "fp32"))
    outcome = snakemake(copy, f"{TABLE}.tex").check()
    assert outcome.done == [
        f"train shapes/vit_gpu/{SIZE} seed 1",
        f"evaluate shapes/vit_gpu/{SIZE} seed 1",
        "table mixed/acc_32",
    ]
    made = {p.name for p in (copy / TABLE).parent.iterdir()}
    assert made == {f"acc_32.{suffix}" for suffix in ("tex", "md", "csv")}
    whole = (copy / f"{TABLE}.md").read_text()
    assert "DIVERGED (the loss is not finite at step" in whole and "FAILED" not in whole
    assert f"Note:   1 diverged, in no mean: shapes/vit_wild/{SIZE}/seed1" in outcome.lines
    assert identities(before) == before


def test_results_of_an_earlier_recipe_never_stand_for_a_failed_one(copy: Path) -> None:
    """The metrics of an earlier recipe are still there when the search of the new one fails."""
    path = copy / "params/methods/vit_tiny.yaml"
    path.write_text(path.read_text().replace("vit_pico_patch16_224", "vit_picco_patch16_224"))
    real = identities(result_files(copy, "tables/acc_32.*"))
    outcome = snakemake(copy, "results/tables/acc_32.tex")
    assert outcome.status == 1 and outcome.text.count("did you mean 'vit_pico_patch16_224'?") == 2
    partial = (copy / "results/tables/acc_32.partial.md").read_text()
    assert "PARTIAL: 1 of 2 cells" in partial and "FAILED (learning-rate search: no backbone" in partial
    assert identities(real) == real, "the real table is not written"
