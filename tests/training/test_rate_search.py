"""The learning-rate choice: candidates trained on train, compared on val, one chosen by a stated rule."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
from trainkit import SIZE, SUITE, Fate, run_dir, spec_of, train, variant, write_yaml

from fgvc.cli.main import main
from fgvc.config.grid import Cell, rate_search
from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.reporting.runs import read_run
from fgvc.training.search import describe_choice, run_candidate, select_learning_rate
from fgvc.training.spec import chosen_rate

CELL = Cell("tiny", "plain", SIZE)
RATES = (0.001, 0.003, 0.01)


def candidate(project: Project, rate: float, **metrics: Any) -> None:
    """A candidate's metrics, as a search leaves them."""
    folder = project.paths.sweep_dir("tiny", "plain", SIZE, rate)
    folder.mkdir(parents=True, exist_ok=True)
    found = {"status": "ok", "run_sha256": "0" * 64, "images": 6, **metrics}
    (folder / "metrics.json").write_text(json.dumps(found))


def candidates(project: Project, *scores: tuple[float, float] | None) -> None:
    """(val top-1, val NLL) of each rate; None: diverged."""
    for rate, score in zip(RATES, scores, strict=True):
        if score is None:
            candidate(project, rate, status="diverged", cause="the loss is not finite")
        else:
            candidate(project, rate, top1_pct=score[0], nll_nats=score[1])


# --- the rule -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "chosen", "at_edge"),
    [
        ([(50.0, 1.0), (60.0, 2.0), (40.0, 0.5)], 0.003, False),
        ([(50.0, 1.0), (60.0, 2.0), (60.0, 1.9)], 0.01, True),
        ([(60.0, 1.0), (60.0, 1.0), (60.0, 1.0)], 0.001, True),
        ([None, (10.0, 3.0), (10.0, 3.0)], 0.003, False),
        ([None, None, (0.0, 9.0)], 0.01, True),
    ],
    ids=["highest top-1", "then lowest NLL", "then smallest rate", "diverged ones are out", "one is left"],
)
def test_the_rule(
    project: Project, scores: list[tuple[float, float] | None], chosen: float, at_edge: bool
) -> None:
    candidates(project, *scores)
    record = select_learning_rate(project, CELL)
    assert (record["learning_rate"], record["at_edge"], record["searched"]) == (chosen, at_edge, True)
    assert record["seed"] == 1
    assert [c["learning_rate"] for c in record["candidates"]] == list(RATES)
    assert [c["status"] == "diverged" for c in record["candidates"]] == [score is None for score in scores]
    assert chosen_rate(project, "tiny", "plain", SIZE) == chosen
    sentence = describe_choice(record, rate_search(project, CELL))
    assert ("a wider one may be better" in sentence) == at_edge


def test_all_diverged_is_an_error_that_the_table_shows_until_it_is_mended(project: Project) -> None:
    candidates(project, None, None, None)
    with pytest.raises(FgvcError, match="every learning rate diverged for tiny/plain/32") as caught:
        select_learning_rate(project, CELL)
    assert "0.001, 0.003, 0.01" in str(caught.value) and "smaller learning rates" in str(caught.value)
    failure = project.paths.state_dir(project.paths.sweeps_dir("tiny", "plain", SIZE)) / "failure.json"
    assert "every learning rate diverged" in json.loads(failure.read_text())["error"]
    seen = read_run(project, CELL, 1)
    assert seen.status == "failed" and "every learning rate diverged" in (seen.cause or "")
    assert not project.paths.lr_choice("tiny", "plain", SIZE).exists()
    candidates(project, (50.0, 1.0), None, None)
    select_learning_rate(project, CELL)
    assert not failure.exists()
    assert read_run(project, CELL, 1).status == "missing"


def test_a_missing_candidate_names_the_command_that_makes_it(project: Project) -> None:
    candidate(project, 0.001, top1_pct=1.0, nll_nats=1.0)
    with pytest.raises(FgvcError, match="does not exist yet") as caught:
        select_learning_rate(project, CELL)
    assert "fgvc train tiny plain --size 32 --lr 0.003 --split train" in str(caught.value)


@pytest.mark.parametrize("listed", [True, False], ids=["one rate in the suite", "in no suite"])
def test_without_a_choice_nothing_is_trained(project: Project, listed: bool) -> None:
    method = "plain" if listed else "norms"
    write_yaml(project.root / "params/suites/quick.yaml", {**SUITE, "learning_rates": [0.02]})
    record = select_learning_rate(Project(project.root), Cell("tiny", method, SIZE))
    assert record["learning_rate"] == (0.02 if listed else 0.01)
    assert (record["searched"], record["at_edge"], record["seed"], record["candidates"]) == (
        False,
        False,
        None,
        [],
    )


def test_a_final_run_without_a_choice_says_how_one_is_made(project: Project) -> None:
    with pytest.raises(FgvcError, match="no learning rate was chosen") as caught:
        chosen_rate(project, "tiny", "plain", SIZE)
    assert "snakemake --cores 1 -- results/sweeps/tiny/plain/32/lr.json" in str(caught.value)


# --- the candidates -------------------------------------------------------------------------------


def test_a_candidate_is_trained_on_train_tested_on_val_and_keeps_no_weights(project: Project) -> None:
    spec = spec_of(project, split="train", learning_rate=0.003)
    result = run_candidate(spec)
    assert (result.how, result.record["train_images"]) == ("trained", 15)
    metrics = json.loads((spec.directory / "metrics.json").read_text())
    assert (metrics["split"], metrics["images"], metrics["learning_rate"]) == ("val", 6, 0.003)
    assert spec.directory == project.paths.sweep_dir("tiny", "plain", SIZE, 0.003)
    assert not list(project.root.rglob("model.safetensors"))
    assert run_candidate(spec_of(project, split="train", learning_rate=0.003)).how == "found"


def test_a_deleted_candidate_comes_back_without_training(project: Project) -> None:
    spec = spec_of(project, split="train", learning_rate=0.003)
    run_candidate(spec)
    before = {path.name: path.read_bytes() for path in spec.directory.iterdir()}
    for path in spec.directory.iterdir():
        path.unlink()
    assert run_candidate(spec_of(project, split="train", learning_rate=0.003)).how == "found"
    assert {path.name: path.read_bytes() for path in spec.directory.iterdir()} == before


def test_weights_of_a_search_are_kept_where_the_settings_say_so(project: Project) -> None:
    config = project.root / "params/config.yaml"
    config.write_text(config.read_text() + "keep_sweep_weights: true\n")
    spec = spec_of(project, split="train", learning_rate=0.003)
    run_candidate(spec)
    assert (spec.directory / "model.safetensors").is_file()


def test_a_candidate_killed_in_the_middle_ends_with_the_same_bytes(project: Project) -> None:
    facts = {"split": "train", "learning_rate": 0.003}
    spec = spec_of(project, **facts)
    run_candidate(spec)
    names = ("history.csv", "metrics.json", "predictions.parquet")
    before = {name: (spec.directory / name).read_bytes() for name in names}
    for folder in (spec.directory, spec.state_directory):
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    assert train(project, fate=Fate(4, "in the step"), **facts).code == -signal.SIGKILL
    assert train(project, **facts).code == 0
    assert {name: (spec.directory / name).read_bytes() for name in names} == before


def test_a_diverged_candidate_is_a_finished_one(project: Project) -> None:
    write_yaml(project.root / "params/methods/plain.yaml", variant(clip_grad_norm=None, warmup_steps=0))
    spec = spec_of(project, split="train", learning_rate=1e30)
    assert run_candidate(spec).status == "diverged"
    assert json.loads((spec.directory / "metrics.json").read_text())["status"] == "diverged"


def test_a_final_run_is_no_candidate(project: Project) -> None:
    with pytest.raises(FgvcError, match="searched with --split train"):
        run_candidate(spec_of(project))


# --- the whole way, by hand -----------------------------------------------------------------------


def test_search_choice_training_and_evaluation_by_hand(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project.root)

    def fgvc(*arguments: str) -> str:
        with pytest.raises(SystemExit) as caught:
            main([*arguments, "tiny", "plain", "--size", str(SIZE), *more])
        assert caught.value.code == 0, capsys.readouterr().err
        return capsys.readouterr().out

    for rate in RATES:
        more = ["--split", "train", "--lr", f"{rate}"]
        assert fgvc("train") == f"results/sweeps/tiny/plain/32/lr{rate:g}/run.json\n"
    more = []
    assert "of 0.001, 0.003, 0.01 on val" in fgvc("select-lr")
    assert fgvc("train") == "results/runs/tiny/plain/32/seed1/run.json\n"
    chosen = chosen_rate(project, "tiny", "plain", SIZE)
    assert json.loads((run_dir(project) / "run.json").read_text())["learning_rate"] == chosen
    more = ["--json"]
    assert json.loads(fgvc("evaluate"))["split"] == "test"
