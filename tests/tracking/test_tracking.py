"""What counts as finished, what git lets through, and the files that are made for DVC."""

from __future__ import annotations

import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from fgvc.config.grid import Cell
from fgvc.config.project import Project
from fgvc.provenance.digests import file_sha256
from fgvc.provenance.files import read_json, write_json
from fgvc.provenance.locks import exclusive_lock
from fgvc.reporting.runs import Run
from fgvc.tracking import job_records
from fgvc.tracking.dvc_yaml import PARAM_KINDS, dvc_yaml_text
from fgvc.tracking.summaries import metrics_of
from fgvc.tracking.units import SPLIT_LISTS, Unit, all_units, chosen, obstacle

ROOT = Path(__file__).resolve().parents[2]


# --- the repository's own files ----------------------------------------------------------------------


def test_the_committed_dvc_yaml_is_in_step_with_params() -> None:
    assert (ROOT / "dvc.yaml").read_text() == dvc_yaml_text(Project(ROOT)), "fgvc track --dvc-yaml"


def test_dvc_yaml_names_every_file_that_decides_a_number_and_has_no_stage() -> None:
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    assert set(content) == {"params", "metrics", "plots", "artifacts"}
    there = {
        str(p.relative_to(ROOT))
        for folder in ("datasets", "methods", "recipes", "suites", "weights")
        for p in (ROOT / "params" / folder).glob("*.yaml")
    }
    assert set(content["params"]) == there and len(PARAM_KINDS) == 5
    assert content["metrics"] == ["results/metrics.json"]
    assert content["artifacts"]["typefaces-vit-pico-224-seed1"]["path"] == (
        "results/runs/typefaces/vit_pico/224/seed1/model.safetensors"
    )


def _ignored(paths: list[str]) -> set[str]:
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        cwd=ROOT,
        input="\n".join(paths),
        capture_output=True,
        text=True,
    )
    if done.returncode == 128:
        pytest.skip("needs git, and a clone")
    return set(done.stdout.split())


def test_git_takes_the_small_files_and_pointers_and_leaves_the_large_ones() -> None:
    run = "results/runs/cub/vit_b16/448/seed10"
    lists = [f"results/splits/cub/{name}" for name in SPLIT_LISTS]
    large = ["data/cub/a/b.jpg", "data/cub.csv", "data/weights/vit_b16.safetensors", *lists]
    large += [f"{run}/{name}" for name in ("model.safetensors", "predictions.parquet", "heads.parquet")]
    small = ["data/cub.json", "data/weights/vit_b16.json", "results/splits/cub/split.json"]
    small += [f"{run}/{name}" for name in ("run.json", "metrics.json", "history.csv")]
    small += [
        "results/metrics.json",
        "results/tables/a.csv",
        "results/sota/tables/a.tex",
        "results/figures/a.png",
    ]
    pointers = ["data/cub.dvc", *(f"{path}.dvc" for path in large[1:])]
    never = ["data/.downloads/x.tgz", "data/.cub.staging/x", f"{run}/.run.json.x1", "state/x", "logs/x"]
    never += ["results/tables/a.partial.md"]
    assert _ignored([*small, *pointers]) == set()
    assert _ignored([*large, *never]) == {*large, *never}


# --- is it finished? ---------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> tuple[Project, Unit]:
    """A run whose records vouch for its files."""
    (tmp_path / "params").mkdir()
    (tmp_path / "params/config.yaml").write_text("{}\n")
    folder = tmp_path / "results/runs/cub/vit/224/seed1"
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "predictions.parquet", "history.csv"):
        (folder / name).write_text(name)
    digests = {n: file_sha256(folder / n) for n in ("model.safetensors", "predictions.parquet")}
    write_json(folder / "run.json", {"run_sha256": "a", "model_sha256": digests["model.safetensors"]})
    metrics = {"run_sha256": "a", "predictions_sha256": digests["predictions.parquet"]}
    write_json(folder / "metrics.json", metrics)
    project = Project(tmp_path)
    (unit,) = all_units(project)
    return project, unit


def test_a_finished_run_is_tracked(run: tuple[Project, Unit]) -> None:
    assert obstacle(*run) is None
    assert [path.name for path in run[1].large] == ["model.safetensors", "predictions.parquet"]


def test_the_heads_of_a_run_are_tracked_where_it_has_some(run: tuple[Project, Unit]) -> None:
    project, folder = run[0], run[1].record.parent
    heads = folder / "heads.parquet"
    heads.write_text("heads")
    metrics = read_json(folder / "metrics.json")
    write_json(folder / "metrics.json", {**metrics, "heads_sha256": file_sha256(heads)})
    (unit,) = all_units(project)
    assert heads in unit.large and obstacle(project, unit) is None
    heads.write_text("others")
    assert "heads.parquet is not the one that metrics.json vouches for" in str(obstacle(project, unit))
    heads.rename(folder / "heads.parquet.dvc")
    (unit,) = all_units(project)
    assert "dvc pull brings it" in str(obstacle(project, unit)), "in a clone, its pointer is there alone"


def test_a_run_that_is_being_trained_is_left_alone(run: tuple[Project, Unit]) -> None:
    project, unit = run
    with exclusive_lock(project.paths.state_dir(unit.record.parent) / "lock", "training"):
        assert obstacle(project, unit) == "it is being trained"
    assert obstacle(project, unit) is None


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("metrics.json", None, "not evaluated yet"),
        ("metrics.json", '{"run_sha256": "b"}', "of another run"),
        ("metrics.json", "{", "of another run"),
        ("model.safetensors", "other", "not the one that run.json vouches for"),
        ("predictions.parquet", "other", "not the one that metrics.json vouches for"),
        ("model.safetensors", None, "is not there"),
    ],
)
def test_a_run_that_is_not_whole_is_left_out(
    run: tuple[Project, Unit], name: str, text: str | None, why: str
) -> None:
    path = run[1].record.with_name(name)
    path.unlink() if text is None else path.write_text(text)
    assert why in str(obstacle(*run))


def test_targets_choose_what_lies_below_them(run: tuple[Project, Unit]) -> None:
    project, unit = run
    for target in ("results", "results/runs/cub", "results/runs/cub/vit/224/seed1/run.json"):
        assert chosen([unit], [project.root / target]) == [unit]
    assert chosen([unit], [project.root / "results/runs/cu"]) == [] != chosen([unit], [])


# --- for DVC -----------------------------------------------------------------------------------------


def _ok(seed: int, top1: float, top5: float | None = None) -> Run:
    metrics = {"top1_pct": top1, "top5_pct": top5, "macro_accuracy_pct": top1 - 1}
    return Run(Cell("cub", "vit", 224), seed, "ok", metrics)


def test_the_metrics_are_mean_std_n_and_each_seed() -> None:
    runs = [_ok(1, 80.5), _ok(10, 82.0), _ok(100, 81.25), Run(Cell("cub", "vit", 224), 7, "diverged")]
    found: dict[str, Any] = metrics_of(runs)["cub"]["vit"]["224"]
    assert found["diverged"] == 1 and "top5_pct" not in found
    values = [80.5, 82.0, 81.25]
    assert found["top1_pct"]["mean"] == pytest.approx(statistics.mean(values))
    assert found["top1_pct"]["std"] == pytest.approx(statistics.stdev(values), abs=1e-6)
    assert (found["top1_pct"]["n"], found["top1_pct"]["seed100"]) == (3, 81.25)
    assert "std" not in metrics_of([_ok(1, 80.5)])["cub"]["vit"]["224"]["top1_pct"]


def test_snakemake_compares_the_contents_of_the_same_files() -> None:
    profile = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
    assert profile["max-checksum-file-size"] == job_records.HASHED_BYTES


# --- notes of finished jobs --------------------------------------------------------------------------


def _entry(output: Path, **changes: Any) -> dict[str, Any]:
    facts = {"bytes": output.stat().st_size, "sha256": file_sha256(output)}
    note = {"rule": "cost", "params": ["'x'"], "input": [], "input_checksums": {}, "shellcmd": "true"}
    note |= {"starttime": 1.0, "endtime": 2.0, "version": 6}
    return {"format": 1, "jobs": [{"outputs": {"results/cost.json": facts}, **note, **changes}]}


def _note(project: Project) -> Any:
    files = [p for p in (project.root / ".snakemake/metadata").rglob("*") if p.is_file()]
    return json.loads(files[0].read_text()) if files else None


@pytest.fixture
def output(tmp_path: Path) -> tuple[Project, Path]:
    path = tmp_path / "results/cost.json"
    path.parent.mkdir()
    path.write_text("{}")
    return Project(tmp_path), path


def test_a_note_is_restored_for_the_very_same_file_only(output: tuple[Project, Path]) -> None:
    project, path = output
    write_json(job_records.path_of(project), _entry(path))
    path.write_text("[]")
    assert job_records.restore(project) == 0 and _note(project) is None
    path.write_text("{}")
    assert job_records.restore(project) == 1
    assert _note(project)["params"] == ["'x'"] and _note(project)["rule"] == "cost"


def test_a_note_of_this_machine_gives_way_to_a_changed_entry_only(output: tuple[Project, Path]) -> None:
    project, path = output
    write_json(job_records.path_of(project), _entry(path))
    job_records.restore(project)
    (file,) = [p for p in (project.root / ".snakemake/metadata").rglob("*") if p.is_file()]
    file.write_text(json.dumps({**_note(project), "params": ["'own'"]}))  # the job ran again here
    assert job_records.restore(project) == 0 and _note(project)["params"] == ["'own'"]
    write_json(job_records.path_of(project), _entry(path, params=["'y'"]))  # as git pull brings it
    assert job_records.restore(project) == 1 and _note(project)["params"] == ["'y'"]


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2, "jobs": []}', '{"format": 1}'])
def test_a_broken_file_of_notes_counts_as_none(output: tuple[Project, Path], text: str) -> None:
    project, _ = output
    job_records.path_of(project).write_text(text)
    assert job_records.restore(project) == 0


def test_notes_of_another_snakemake_are_left_alone(output: tuple[Project, Path]) -> None:
    project, path = output
    write_json(job_records.path_of(project), _entry(path, version=5))
    assert job_records.restore(project) == 0 and _note(project) is None


def test_exported_notes_are_those_that_were_there(output: tuple[Project, Path]) -> None:
    project, path = output
    write_json(job_records.path_of(project), _entry(path))
    job_records.restore(project)
    before = job_records.path_of(project).read_bytes()
    job_records.path_of(project).unlink()
    job_records.export(project, [path])
    assert job_records.path_of(project).read_bytes() == before
    path.unlink()
    job_records.export(project, [])
    assert json.loads(job_records.path_of(project).read_text())["jobs"] == []
