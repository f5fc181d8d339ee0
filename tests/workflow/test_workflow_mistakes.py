"""Mistyped targets and parameters: told in a few lines with the nearest right name, before any job."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from workflowkit import Outcome, call, copy_tree, make_project, snakemake, suite, write_params

from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.workflow import hooks

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which nothing was run."""
    return make_project(tmp_path_factory.mktemp("mistakes") / "project")


def told(outcome: Outcome) -> str:
    """The message, after a look at its form."""
    assert outcome.status == 1, outcome.text
    assert 1 <= len(outcome.lines) <= 5, outcome.text
    assert outcome.lines[0].startswith("error: ")
    for word in ("Traceback", "Exception", "WorkflowError", 'File "', "to run"):
        assert word not in outcome.text
    return "\n".join(outcome.lines)


def append(line: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        path.write_text(path.read_text() + line + "\n")

    return edit


def replace(old: str, new: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return edit


def remove(path: Path) -> None:
    path.unlink()


@contextmanager
def edited(path: Path, edit: Callable[[Path], None]) -> Iterator[None]:
    """A file that is another one for the length of the block."""
    kept = path.read_text()
    edit(path)
    try:
        yield
    finally:
        path.write_text(kept)


def refused(root: Path, *targets: str) -> str:
    """The same without a process: what the Snakefile asks before anything else."""
    with pytest.raises(FgvcError) as error:
        hooks.checked_rules(Project(root), targets)
    text = str(error.value)
    assert len(text.splitlines()) <= 5
    return text


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("results/tables/ac_32.tex", "no table is called 'ac_32'; did you mean 'acc_32'?"),
        ("results/figures/acc_vs_flop_32.png", "no figure is called 'acc_vs_flop_32'; did you mean 'acc_vs"),
        ("results/minni/tables/acc_32.tex", "no suite is called 'minni'; did you mean 'mini'?"),
        (
            "results/runs/shape/vit_tiny/32/seed1/run.json",
            "no dataset is called 'shape'; did you mean 'shapes'?",
        ),
        ("results/runs/shapes/vit_tinny/32/seed1/run.json", "no method is called 'vit_tinny'; did you mean"),
        ("results/runs/shapes/vit_tiny/32/seed1/metric.json", "did you mean 'metrics.json'?"),
        ("acc_32", "did you mean 'results/tables/acc_32.tex'?"),
    ],
    ids=["table", "figure", "suite", "dataset", "method", "file", "bare name"],
)
def test_a_mistyped_target(empty: Path, target: str, says: str) -> None:
    text = told(snakemake(empty, target))
    assert says in text and target in text
    assert text == refused(empty, target)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("./results/tables/ac_32.tex", "no table is called 'ac_32'; did you mean 'acc_32'?"),
        ("results/tables/acc_32.txe", "did you mean 'acc_32.tex'?"),
        ("results/tables/acc_32", "files there: acc_32.tex, acc_32.md, acc_32.csv"),
        ("results/tables", "name a file in it, such as tables/acc_32.tex"),
        ("results/mini/figures/", "name a file in it, such as figures/acc_vs_flops_32.pdf"),
        ("results/table/acc_32.tex", "did you mean 'results/tables/…'?"),
        ("results/mini", "nothing makes results/mini"),
        ("results/runs/shapes/vit_tiny/seed1/run.json", "results/runs/DATASET/METHOD/SIZE/seedK/run.json"),
        ("results/runs/shapes/vit_tiny/32/seedx/run.json", "results/runs/DATASET/METHOD/SIZE/seedK/run.json"),
        ("results/sweeps/shapes/vit_tiny/32/lr0.0030/run.json", "did you mean 'lr0.003'?"),
        ("results/sweeps/shapes/vit_tiny/32/lr.jsn", "results/sweeps/DATASET/METHOD/SIZE/lrX/run.json"),
        ("results/stats/shape.json", "no dataset is called 'shape'; did you mean 'shapes'?"),
        ("results/splits/shapes/trian.csv", "did you mean 'train.csv'?"),
        ("results/cost/vit_tiny/32.json", "results/cost/METHOD/SIZE/CLASSES.json"),
        ("results/cost/vit_tinny/32/4.json", "did you mean 'vit_tiny'?"),
        ("result/tables/acc_32.tex", "did you mean 'results/tables/acc_32.tex'?"),
        ("tables/acc_32.tex", "did you mean 'results/tables/acc_32.tex'?"),
        ("mini", "did you mean 'results/mini/tables/acc_32.tex'?"),
        ("data/shaps.json", "no dataset is called 'shaps'; did you mean 'shapes'?"),
        ("data/shapes", "files there: shapes.json, shapes.csv"),
        ("data/weights/tf_efficientnet_lite.json", "did you mean 'tf_efficientnet_lite0.in1k'?"),
        ("/somewhere/else.tex", "this file lies outside the project"),
    ],
)
def test_other_mistyped_targets(empty: Path, target: str, says: str) -> None:
    text = refused(empty, target)
    assert says in text and target in text


@pytest.mark.parametrize(
    "target",
    [
        "all",
        "./results/tables/acc_32.md",
        "results/mini/figures/acc_vs_flops_32.pdf",
        "results/runs/shapes/vit_tiny/32/seed7/predictions.parquet",
        "results/sweeps/shapes/vit_tiny/32/lr0.003/metrics.json",
        "results/sweeps/shapes/vit_tiny/32/lr1e-05/history.csv",
        "results/sweeps/shapes/vit_tiny/32/lr.json",
        "results/splits/shapes/train_val.csv",
        "results/stats/shapes.json",
        "results/cost/cnn_tiny/32/4.json",
        "data/shapes.csv",
        "data/weights/tf_efficientnet_lite0.in1k.safetensors",
    ],
)
def test_good_targets_pass(empty: Path, target: str) -> None:
    hooks.checked_rules(Project(empty), [target])


def test_a_target_from_the_root_of_the_file_system(empty: Path) -> None:
    assert "ask for results/tables/acc_32.tex" in told(snakemake(empty, f"{empty}/results/tables/acc_32.tex"))


def test_a_table_that_exists_but_not_in_this_suite(empty: Path) -> None:
    with edited(empty / "params/suites/mini.yaml", replace("- acc_32\n", "")):
        text = refused(empty, "results/tables/acc_32.tex")
    assert "the suite 'mini' has no table 'acc_32'" in text and "params/suites/mini.yaml" in text


SUITE, VIT, WEIGHTS = "suites/mini", "methods/vit_tiny", "weights/tf_efficientnet_lite0.in1k"


@pytest.mark.parametrize(
    ("file", "edit", "where", "says"),
    [
        (SUITE, append("titel: x"), ":21, key 'titel'", "did you mean 'title'?"),
        (SUITE, append("title: x"), ":21, key 'title'", "'title' is given twice (first on line 1)"),
        (VIT, replace("epochs: 6", "epocs: 6"), ":9, key 'recipe.epocs'", "did you mean 'epochs'?"),
        ("config", replace(": mini", ": minni"), ":1, key 'default_suite'", "did you mean 'mini'?"),
        ("recipes/tiny", remove, "methods/cnn_tiny.yaml:8", "no recipe is called 'tiny'"),
        ("config", remove, "", "there is no params/config.yaml here"),
    ],
    ids=["unknown key", "duplicate key", "in a method", "settings", "no recipe", "no settings"],
)
def test_a_mistake_in_the_parameters(
    empty: Path, file: str, edit: Callable[[Path], None], where: str, says: str
) -> None:
    with edited(empty / "params" / f"{file}.yaml", edit):
        text = told(snakemake(empty))
    assert where in text and says in text
    if where.startswith(":"):
        assert f"where: params/{file}.yaml{where}" in text


@pytest.mark.parametrize(
    ("file", "edit", "where", "says"),
    [
        (SUITE, replace("- vit_tiny", "- vit_tinny"), ":7", "did you mean 'vit_tiny'?"),
        (SUITE, replace("- shapes", "- shape"), ":4", "did you mean 'shapes'?"),
        (SUITE, replace("- acc_32", "- ac_32"), ":17", "did you mean 'acc_32'?"),
        (SUITE, remove, "params/config.yaml:1, key 'default_suite'", "no suite is called 'mini'"),
        (VIT, append("notez: x"), ":11, key 'notez'", "did you mean 'notes'?"),
        (VIT, replace("base: tiny", "base: tinny"), ":8", "did you mean 'tiny'?"),
        (VIT, replace("weights: null", "weights: tf_lite0"), ":6, key 'weights'", "no weights is called"),
        ("recipes/tiny", replace("batch_size: 8", "batch_size: many"), ":2, key 'batch_size'", "integer"),
        ("tables/acc_32", append("decimal: 1"), ":5, key 'decimal'", "did you mean 'decimals'?"),
        (
            "figures/acc_vs_flops_32",
            replace("vs_cost", "vs_costs"),
            ":1, key 'kind'",
            "'accuracy_vs_cost'",
        ),
        ("datasets/shapes", append("license: x"), ":13, key 'license'", "did you mean 'licence'?"),
        (WEIGHTS, append("note: x"), ":20, key 'note'", "did you mean 'notes'?"),
        ("config", append("devise: cpu"), ":4, key 'devise'", "did you mean 'device'?"),
    ],
)
def test_other_mistakes_in_the_parameters(
    empty: Path, file: str, edit: Callable[[Path], None], where: str, says: str
) -> None:
    with edited(empty / "params" / f"{file}.yaml", edit):
        text = refused(empty)
    assert where in text and says in text
    if where.startswith(":"):
        assert f"where: params/{file}.yaml{where}" in text


def test_a_dry_run_tells_it_as_briefly(empty: Path) -> None:
    outcome = call("snakemake", empty, "-n", "--", "results/tables/ac_32.tex")
    ours = outcome.text[outcome.text.index("error: ") :]
    assert outcome.status == 1 and len(ours.splitlines()) <= 4 and "did you mean 'acc_32'" in ours


def test_suites_that_disagree_on_a_search(empty: Path) -> None:
    other = write_params(empty, "suites/other", suite(learning_rates=[0.1, 0.2]))
    try:
        text = told(snakemake(empty))
    finally:
        other.unlink()
    assert "search different learning rates" in text and "params/suites/other.yaml" in text


def test_mistakes_are_told_where_all_results_are_there_too(module_copy: Path) -> None:
    """Snakemake would find nothing to do: it takes a rule whose input function fails for one of no use."""
    with edited(module_copy / "params/tables/acc_32.yaml", append("decimal: 1")):
        assert "did you mean 'decimals'?" in told(snakemake(module_copy))


def test_a_folder_that_is_no_project(empty: Path) -> None:
    folder = empty / "images"
    outcome = call("snakemake", folder, "--cores", "1", "-s", "../Snakefile")
    assert f"change into {empty} and run it there" in told(outcome)


def test_what_is_not_ours_is_told_in_full(tmp_path: Path, empty: Path) -> None:
    """A broken rule file is explained by Snakemake, and nothing hides it."""
    root = copy_tree(empty, tmp_path / "project")
    shutil.rmtree(root / ".snakemake", ignore_errors=True)
    path = root / "rules/cost.smk"
    path.write_text(path.read_text().replace("model=lambda w:", "model=lambda w"))
    outcome = snakemake(root)
    assert outcome.status == 1 and "SyntaxError" in outcome.text and "cost.smk" in outcome.text


def test_cores_are_asked_for(empty: Path) -> None:
    outcome = call("snakemake", empty)
    assert outcome.status == 1 and "use --cores N" in outcome.text and len(outcome.lines) == 1
