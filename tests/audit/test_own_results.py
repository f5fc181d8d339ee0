"""The audit of own results: clean ones stand, and each forged number, file or run is found and named."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import ownkit as kit
import pytest

from fgvc.audit.registry import SUITE
from fgvc.config.project import Project
from fgvc.cost.record import write_cost
from fgvc.data.fetch import fetch
from fgvc.data.splits import prepare_splits

OWN = [name for name in SUITE if name.startswith("own_")]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite and all its results; not to be changed."""
    root = tmp_path_factory.mktemp("suite") / "clean"
    kit.make_suite(root)
    return root


@pytest.fixture
def copy(clean: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy to forge in."""
    subprocess.run(["cp", "-a", clean, tmp_path / "copy"], check=True)
    yield tmp_path / "copy"
    shutil.rmtree(tmp_path / "copy")


def only(root: Path, check: str) -> tuple[str, object, object]:
    """The one contradiction that a check finds: subject, recorded and recomputed."""
    (found,) = kit.contradicted(root, check)
    assert found.explanation and found.source and found.check == check
    return found.subject, found.published, found.recomputed


# --- clean results ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", OWN)
def test_clean_results_are_confirmed_and_nothing_is_contradicted(clean: Path, check: str) -> None:
    counts = kit.verdicts(clean, check)
    assert counts["confirmed"] > 0 and set(counts) == {"confirmed"}, kit.findings(clean, check)


@pytest.mark.parametrize("check", OWN)
def test_what_is_not_here_is_not_checkable_and_nothing_is_contradicted(copy: Path, check: str) -> None:
    """As in a fresh clone, where git has the small records and DVC holds the rest."""
    for pattern in ("**/*.parquet", "**/*.safetensors", "splits/*/*.csv"):
        for path in (copy / "results").glob(pattern):
            path.unlink()
    for path in (copy / "state", copy / "data/tiny", copy / "data/weights"):
        shutil.rmtree(path)
    (copy / "data/tiny.csv").unlink()
    found = kit.findings(copy, check)
    assert [f for f in found if f.verdict == "contradicted"] == []
    if check in ("own_metrics", "own_data", "own_splits", "own_weights", "own_store", "own_checkpoints"):
        assert "not_checkable" in {f.verdict for f in found}


@pytest.mark.parametrize("check", OWN)
def test_a_suite_of_which_nothing_was_run_is_not_contradicted(copy: Path, check: str) -> None:
    for folder in ("results", "state", "data"):
        shutil.rmtree(copy / folder)
    assert kit.contradicted(copy, check) == []


def test_every_check_explains_itself() -> None:
    for name in OWN:
        assert len(SUITE[name].explanation.split()) > 12 and SUITE[name].inputs, name


# --- metrics and predictions -----------------------------------------------------------------------------


def test_an_edited_metric_is_named(copy: Path) -> None:
    before = kit.edit_json(kit.run_folder(copy) / "metrics.json", "top1_pct", value=99.0)
    assert only(copy, "own_metrics") == ("tiny/trained/32 seed 1: top1_pct", 99.0, before)


@pytest.mark.parametrize("keys", [("nll_nats",), ("per_class", 1, "accuracy_pct"), ("images",), ("ece_pct",)])
def test_each_number_of_the_metrics_is_recomputed(copy: Path, keys: tuple[str | int, ...]) -> None:
    path = kit.run_folder(copy) / "metrics.json"
    before = kit.edit_json(path, *keys, value=0.00001)
    kit.edit_json(path, *keys, value=before + 0.00001 if isinstance(before, float) else before + 1)
    subject, _, again = only(copy, "own_metrics")
    assert again == before and str(keys[-1]) in subject and ("[1]" in subject) == (len(keys) > 1)


def test_the_metrics_of_a_search_are_recomputed_too(copy: Path) -> None:
    kit.edit_json(kit.sweep_folder(copy, 0.003) / "metrics.json", "top1_pct", value=99.0)
    assert only(copy, "own_metrics")[0] == "tiny/trained/32 lr 0.003: top1_pct"


def test_an_edited_prediction_breaks_its_digest_and_its_metrics(copy: Path) -> None:
    kit.forge_predictions(kit.run_folder(copy), with_metrics=False)
    subject, recorded, found = only(copy, "own_predictions")
    assert subject.endswith("seed1/predictions.parquet: SHA-256 in metrics.json") and recorded != found
    assert "tiny/trained/32 seed 1: top1_pct" in [f.subject for f in kit.contradicted(copy, "own_metrics")]


def test_a_forgery_that_agrees_with_itself_is_found_by_the_store(copy: Path) -> None:
    kit.forge_predictions(kit.run_folder(copy), with_metrics=True)
    assert kit.contradicted(copy, "own_metrics") == [] and kit.contradicted(copy, "own_predictions") == []
    subjects = [f.subject for f in kit.contradicted(copy, "own_store")]
    assert [s.split("/")[-1].split(":")[0] for s in subjects] == ["metrics.json", "predictions.parquet"]


def test_predictions_of_other_images_are_found(copy: Path) -> None:
    """The predictions of a search on val, put in the place of those on test."""
    for name in ("predictions.parquet", "metrics.json"):
        shutil.copyfile(kit.sweep_folder(copy, 0.003) / name, copy / name)
        (kit.run_folder(copy) / name).unlink()
        shutil.move(copy / name, kit.run_folder(copy) / name)
    subjects = [f.subject for f in kit.contradicted(copy, "own_predictions")]
    assert "tiny/trained/32 seed 1: images of the predictions are those of 'test'" in subjects
    assert any("run_sha256 of the predictions" in s for s in subjects)


# --- tables ------------------------------------------------------------------------------------------------


def cell_of(root: Path, table: str, row: int, column: str) -> str:
    with (root / f"results/tables/{table}.csv").open() as stream:
        return list(csv.DictReader(stream))[row][column]


def test_an_edited_cell_of_a_csv_is_named(copy: Path) -> None:
    before = cell_of(copy, "acc", 1, "mean")
    line = kit.edit_text(
        copy / "results/tables/acc.csv", f"scratch,32,top1_pct,{before}", "scratch,32,top1_pct,77.7"
    )
    subject, written, again = only(copy, "own_tables")
    assert subject == f"results/tables/acc.csv: line {line}, row 'tiny/scratch', column mean"
    assert (written, again) == ("77.7", before)


@pytest.mark.parametrize(("suffix", "sign"), [(".md", "±"), (".tex", r"$\pm$")])
def test_an_edited_cell_of_a_printed_table_is_named(copy: Path, suffix: str, sign: str) -> None:
    path = copy / f"results/tables/acc{suffix}"
    row = next(line for line in path.read_text().splitlines() if "Tiny" in line and sign in line)
    number = row.rpartition(sign)[0].split()[-1].strip(r"\,*{}").split("{")[-1]
    line = kit.edit_text(path, row, row[::-1].replace(number[::-1], "98.76"[::-1], 1)[::-1])
    subject, written, again = only(copy, "own_tables")
    assert subject.startswith(f"results/tables/acc{suffix}: line {line}, row 'Tiny', column Scratch")
    assert "98.76" in str(written) and number in str(again)


def test_an_edited_verdict_and_an_edited_note_are_named(copy: Path) -> None:
    kit.edit_text(copy / "results/tables/pairs.csv", ",inconclusive,", ",better,")
    kit.edit_text(copy / "results/tables/acc.md", "(1, 10)", "(1, 10, 100)")
    subjects = [f.subject for f in kit.contradicted(copy, "own_tables")]
    assert len(subjects) == 2 and "acc.md: line" in subjects[0] and subjects[0].endswith("text")
    assert subjects[1].endswith("row 'tiny/trained/scratch', column verdict")


def test_a_row_that_was_taken_out_is_found(copy: Path) -> None:
    path = copy / "results/tables/acc.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], *lines[2:]]))
    subject, written, again = only(copy, "own_tables")
    assert "row 'tiny/trained'" in subject and written is None and str(again).startswith("tiny,trained")


def test_tables_follow_the_metrics(copy: Path) -> None:
    """A metric that was edited makes the written tables wrong, also where its predictions are not here."""
    folder = kit.run_folder(copy, "scratch", 10)
    kit.edit_json(folder / "metrics.json", "top1_pct", value=99.0)
    (folder / "predictions.parquet").unlink()
    columns = {f.subject.rpartition("column ")[2] for f in kit.contradicted(copy, "own_tables")}
    assert {"mean", "std"} <= columns


# --- data, splits, weights ---------------------------------------------------------------------------------


def test_an_edited_picture_is_named(copy: Path) -> None:
    kit.flip_byte(copy / "data/tiny/test/bee/2.png")
    (found,) = kit.contradicted(copy, "own_data")
    assert found.subject == "data tiny: images" and "test/bee/2.png" in found.explanation


def test_an_edited_list_of_images_is_found(copy: Path) -> None:
    kit.edit_text(copy / "data/tiny.csv", "ant", "cow")
    assert only(copy, "own_data")[0] == "data tiny: list"


def test_an_edited_digest_of_the_tree_is_found(copy: Path) -> None:
    before = kit.edit_json(copy / "data/tiny.json", "tree_sha256", value="0" * 64)
    assert only(copy, "own_data") == ("data tiny: digest of the tree", "0" * 64, before)


def test_a_test_image_among_the_training_images_is_found(copy: Path) -> None:
    """By path, when lists are edited; by its bytes, when the data were made so."""
    test = copy / "results/splits/tiny/test.csv"
    moved = test.read_text().splitlines()[1]
    with (copy / "results/splits/tiny/train_val.csv").open("a") as stream:
        stream.write(f"{moved}\n")
    edited = [f.subject for f in kit.contradicted(copy, "own_splits")]
    assert edited[0] == "results/splits/tiny/train_val.csv: SHA-256 in split.json"
    project = Project(copy)
    shutil.copyfile(copy / "pictures/train/ant/0.png", copy / "pictures/test/ant/0.png")
    fetch(project, "tiny", replace=True)
    prepare_splits(project, "tiny")
    (found,) = kit.contradicted(copy, "own_splits")
    assert found.subject == "split of tiny: train_val and test share no image"
    assert "test/ant/0.png" in found.explanation
    assert len(kit.contradicted(copy, "own_inputs")) == 6, "every training was of the earlier images"


def test_an_edited_record_of_a_split_is_found(copy: Path) -> None:
    kit.edit_json(copy / "results/splits/tiny/split.json", "parts", "val", "rows", value=99)
    assert only(copy, "own_splits") == ("results/splits/tiny/val.csv: rows", 99, 9)
    kit.edit_text(copy / "results/splits/tiny/classes.csv", "bee", "wasp")
    subjects = [f.subject for f in kit.contradicted(copy, "own_splits")]
    assert "split of tiny: lists and class names together" in subjects


def test_edited_weights_are_found(copy: Path) -> None:
    kit.flip_byte(copy / f"data/weights/{kit.WEIGHTS}.safetensors")
    assert only(copy, "own_weights")[0].startswith(f"data/weights/{kit.WEIGHTS}.safetensors")
    kit.edit_json(copy / f"data/weights/{kit.WEIGHTS}.json", "sha256", value="0" * 64)
    assert len(kit.contradicted(copy, "own_inputs")) == 4, "two searches and two runs of one method"


# --- run cards and checkpoints -----------------------------------------------------------------------------


def test_an_edited_checkpoint_is_found(copy: Path) -> None:
    kit.flip_byte(kit.run_folder(copy) / "model.safetensors")
    assert only(copy, "own_checkpoints")[0].endswith("seed1/model.safetensors: SHA-256 in run.json")


def test_metrics_of_another_checkpoint_are_found(copy: Path) -> None:
    kit.edit_json(kit.run_folder(copy) / "metrics.json", "model_sha256", value="0" * 64)
    assert only(copy, "own_checkpoints")[0] == "tiny/trained/32 seed 1: model_sha256 of metrics.json"


@pytest.mark.parametrize(
    ("keys", "value", "named"),
    [
        (("seed",), 2, {"seed", "identity.seed"}),
        (("learning_rate",), 0.5, {"identity.learning_rate"}),
        (("identity", "recipe", "epochs"), 200, {"run_sha256", "identity.recipe", "recipe_sha256"}),
        (("identity", "split_sha256"), "0" * 64, {"run_sha256"}),
        (("train_loss",), 0.001, {"train_loss"}),
    ],
    ids=["the seed", "the learning rate", "the recipe", "the split", "the last loss"],
)
def test_an_edited_run_card_is_named(
    copy: Path, keys: tuple[str, ...], value: object, named: set[str]
) -> None:
    kit.edit_json(kit.run_folder(copy) / "run.json", *keys, value=value)
    found = kit.contradicted(copy, "own_cards")
    assert {f.subject.partition(": ")[2] for f in found} == named
    assert "run.json" in kit.contradicted(copy, "own_store")[0].subject


def test_a_run_of_an_earlier_recipe_is_found(copy: Path) -> None:
    kit.edit_text(copy / "params/methods/scratch.yaml", "epochs: 2", "epochs: 3")
    assert {f.subject for f in kit.contradicted(copy, "own_cards")} == {
        f"tiny/scratch/32 seed {seed}: identity.recipe" for seed in kit.SEEDS
    }
    assert (
        len(kit.contradicted(copy, "own_runs")) == 0 and kit.verdicts(copy, "own_runs")["not_checkable"] == 1
    )


def test_an_unreadable_record_is_a_finding_and_no_crash(copy: Path) -> None:
    (kit.run_folder(copy) / "run.json").write_text("{")
    (kit.run_folder(copy) / "metrics.json").write_text("[]")
    assert "run.json cannot be read" in kit.contradicted(copy, "own_cards")[0].explanation
    assert "holds no record" in kit.contradicted(copy, "own_metrics")[0].explanation


def test_results_of_an_earlier_stage_are_found(copy: Path) -> None:
    kit.edit_json(kit.run_folder(copy) / "metrics.json", "stage_version", value=0)
    assert only(copy, "own_stages")[0] == "tiny/trained/32 seed 1: versions of training and evaluation"


# --- runs that are promised --------------------------------------------------------------------------------


def test_a_missing_seed_is_named(copy: Path) -> None:
    shutil.rmtree(kit.run_folder(copy, "scratch", 10))
    subject, promised, there = only(copy, "own_runs")
    assert subject == "tiny/scratch/32: runs of 2 seeds" and (promised, there) == ("1, 10", "1")


def test_a_diverged_run_is_named(copy: Path) -> None:
    path = kit.run_folder(copy, "scratch", 10) / "metrics.json"
    record = json.loads(path.read_text())
    kit.edit_json(path.with_name("run.json"), "status", value="diverged")
    path.write_text(
        json.dumps({"run_sha256": record["run_sha256"], "status": "diverged", "cause": "loss is nan"})
    )
    (found,) = kit.contradicted(copy, "own_runs")
    assert "seed 10 diverged: loss is nan" in found.explanation


# --- selection ---------------------------------------------------------------------------------------------


def test_another_learning_rate_than_the_best_on_val_is_found(copy: Path) -> None:
    path = copy / "results/sweeps/tiny/trained/32/lr.json"
    chosen = json.loads(path.read_text())["learning_rate"]
    other = next(rate for rate in kit.RATES if rate != chosen)
    kit.edit_json(path, "learning_rate", value=other)
    found = kit.contradicted(copy, "own_rates")
    assert (found[0].subject, found[0].published, found[0].recomputed) == (
        "tiny/trained/32: learning rate",
        other,
        chosen,
    )
    assert len(found) == 3, "and both runs used the right one"


def test_an_edited_candidate_is_found(copy: Path) -> None:
    path = copy / "results/sweeps/tiny/trained/32/lr.json"
    before = kit.edit_json(path, "candidates", 0, "val_top1_pct", value=100.0)
    assert only(copy, "own_rates") == (
        "tiny/trained/32: val_top1_pct of learning rate 0.001",
        100.0,
        before,
    )


@pytest.mark.parametrize(
    ("file", "key", "value", "named"),
    [
        ("metrics.json", "split", "test", "evaluated on"),
        ("run.json", "split", "train_val", "trained on"),
        ("run.json", "epochs", 1, "epochs"),
    ],
)
def test_a_search_that_saw_test_or_stopped_early_is_found(
    copy: Path, file: str, key: str, value: object, named: str
) -> None:
    kit.edit_json(kit.sweep_folder(copy, 0.001) / file, key, value=value)
    assert only(copy, "own_selection")[0] == f"tiny/trained/32 lr 0.001: {named}"


# --- equal terms -------------------------------------------------------------------------------------------


def card_edits(*keys: str, value: object) -> Callable[[Path], object]:
    return lambda root: kit.edit_json(kit.run_folder(root) / "run.json", *keys, value=value)


@pytest.mark.parametrize(
    ("check", "edit", "verdict", "told"),
    [
        ("own_dirty", card_edits("code", "dirty", value=True), "contradicted", "tiny/trained/32 seed 1"),
        ("own_dirty", card_edits("code", "dirty", value=None), "not_checkable", "no git checkout"),
        ("own_code", card_edits("code", "sources_sha256", value="3"), "not_checkable", "one version"),
        ("own_packages", card_edits("packages", "torch", value="1.0"), "contradicted", "1.0"),
        ("own_machines", card_edits("device", "kind", value="cuda"), "contradicted", "cuda"),
        ("own_machines", card_edits("host", "processor", value="Z80"), "not_checkable", "Z80"),
    ],
    ids=["dirty tree", "no git", "two codes", "two torches", "two kinds of device", "two processors"],
)
def test_runs_on_unequal_terms_are_told(
    copy: Path, check: str, edit: Callable[[Path], object], verdict: str, told: str
) -> None:
    edit(copy)
    (found,) = [f for f in kit.findings(copy, check) if f.verdict != "confirmed"]
    assert found.verdict == verdict and told in found.explanation


def test_two_codes_under_two_versions_are_a_contradiction(copy: Path) -> None:
    card_edits("code", "sources_sha256", value="3")(copy)
    card_edits("identity", "stage_version", value=1)(copy)
    assert only(copy, "own_code")[0] == "size 32: sources of 4 runs"


def test_builds_of_one_version_count_as_one(copy: Path) -> None:
    path = kit.run_folder(copy) / "run.json"
    version = json.loads(path.read_text())["packages"]["torch"].partition("+")[0]
    kit.edit_json(path, "packages", "torch", value=f"{version}+cu130")
    assert kit.contradicted(copy, "own_packages") == []


# --- costs -------------------------------------------------------------------------------------------------


def test_an_edited_cost_is_named(copy: Path) -> None:
    path = copy / f"results/cost/scratch/32/{len(kit.CLASSES)}.json"
    before = kit.edit_json(path, "macs_g", value=0.001)
    kit.edit_json(path, "other_ops_by_kind_g", "softmax", value=7.0)
    found = kit.contradicted(copy, "own_costs")
    assert [f.subject.rpartition(": ")[2] for f in found] == ["macs_g", "other_ops_by_kind_g.softmax"]
    assert (found[0].published, found[0].recomputed) == (0.001, before)


def test_of_records_that_differ_in_classes_only_the_headline_count_is_compared(copy: Path) -> None:
    tiny = kit.PARAMS["datasets/tiny"]
    (copy / "params/datasets/wide.yaml").write_text(json.dumps({**tiny, "classes": 5}))
    suite = {**kit.PARAMS["suites/mini"], "datasets": ["tiny", "wide"]}
    (copy / "params/suites/mini.yaml").write_text(json.dumps(suite))
    write_cost(Project(copy), "scratch", kit.SIZE, 5)
    assert kit.verdicts(copy, "own_costs") == {"confirmed": 3, "not_checkable": 1}
    path = copy / "results/cost/scratch/32/5.json"
    kit.edit_json(path, "params_m", value=1.0)
    before = kit.edit_json(path, "flops_g", value=1.0)
    assert only(copy, "own_costs") == ("cost of scratch at 32, 5 classes: flops_g", 1.0, before)


def test_a_cost_of_other_packages_that_differs_is_not_checkable(copy: Path) -> None:
    path = copy / f"results/cost/scratch/32/{len(kit.CLASSES)}.json"
    kit.edit_json(path, "macs_g", value=0.001)
    kit.edit_json(path, "packages", "timm", value="0.1")
    assert kit.contradicted(copy, "own_costs") == []
    assert kit.verdicts(copy, "own_costs")["not_checkable"] == 1
