"""The files that ship: valid, described, commented; schemas and stage versions kept up to date."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fgvc.config import stages, stages_lock
from fgvc.config.grid import rate_searches
from fgvc.config.project import FOLDERS, Kind, Project
from fgvc.config.schema import MODELS, schema_of, schema_path, stale_schemas, write_schemas
from fgvc.config.yaml_source import read_yaml
from fgvc.errors import FgvcError

ROOT = Path(__file__).resolve().parents[2]
PROJECT = Project(ROOT)
FILES = sorted((ROOT / "params").rglob("*.yaml"))
KINDS = {folder: kind for kind, folder in FOLDERS.items()}


def kind_of(path: Path) -> str:
    return "config" if path.name == "config.yaml" else KINDS[path.parent.name]


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT / "params"))


FILES = [path for path in FILES if path.name == "config.yaml" or path.parent.name in KINDS]


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_every_file_is_valid_for_its_model_and_for_its_schema(path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    kind = kind_of(path)
    schema = schema_of(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(read_yaml(path).data)
    project = Project(ROOT)
    if kind == "config":
        assert project.settings.default_suite in project.names("suite")
    else:
        read = project.variant if kind == "method" else getattr(project, kind)
        assert read(path.stem)


@pytest.mark.parametrize("kind", MODELS)
def test_a_schema_refuses_an_unknown_key_as_the_model_does(kind: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    path = next(path for path in FILES if kind_of(path) == kind)
    data = {**read_yaml(path).data, "nonsense": 1}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema_of(kind)).validate(data)


def opening(path: Path) -> str:
    """The comment lines that a file opens with."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#"))
    return "\n".join(lines)


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_every_file_opens_with_what_it_is_a_command_and_what_to_expect(path: Path) -> None:
    comment = opening(path)
    assert len(comment.splitlines()[0].strip()) > 20, "the first line says what it is"
    assert re.search(r"Command:.*\b(fgvc [a-z]|snakemake |make [a-z])", comment), "it names a command"
    assert "Expect:" in comment


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_the_command_that_a_file_opens_with_names_what_exists(path: Path) -> None:
    for verb, words in re.findall(r"\bfgvc ([a-z-]+)((?: [\w./-]+)*)", opening(path)):
        assert verb in {
            *("data", "weights", "train", "evaluate", "cost", "plan", "table", "figure"),
            *("describe", "doctor", "list", "select-lr", "schema", "stages", "audit", "pretrain", "explain"),
        }
        if verb == "train":
            dataset, method = words.split()[:2]
            assert PROJECT.dataset(PROJECT.canonical_dataset(dataset)) and PROJECT.variant(method)
        elif verb == "weights":
            assert words.split()[1] in PROJECT.names("weights")


def test_suites_agree_about_the_cells_that_they_share() -> None:
    assert rate_searches(Project(ROOT))


# --- schemas --------------------------------------------------------------------------------------


def test_the_schema_files_are_up_to_date() -> None:
    stale = [str(path.relative_to(ROOT)) for path in stale_schemas(PROJECT)]
    assert stale == [], "run: fgvc schema"


def test_a_stale_schema_is_noticed_and_written_anew(tmp_path: Path) -> None:
    (tmp_path / "params").mkdir()
    project = Project(tmp_path)
    assert len(stale_schemas(project)) == len(MODELS)
    write_schemas(project)
    assert stale_schemas(project) == []
    path = schema_path(project, "suite")
    path.write_text(path.read_text().replace("seeds", "seds"))
    assert stale_schemas(project) == [path]


def test_schemas_describe_their_keys() -> None:
    for kind in MODELS:
        assert json.loads(json.dumps(schema_of(kind)))["$schema"].endswith("2020-12/schema")


# --- stages ---------------------------------------------------------------------------------------


def test_every_change_of_a_stage_s_code_is_accounted_for() -> None:
    changed = stages_lock.unaccounted(PROJECT)
    assert changed == [], (
        "the code of these stages changed. Do the numbers change? Then raise the stage's version in "
        'fgvc/config/stages.py and run: fgvc stages STAGE --raised "why". '
        'Otherwise: fgvc stages STAGE --no-effect "why"'
    )


def test_every_source_of_a_stage_exists() -> None:
    for name, stage in stages.STAGES.items():
        for source in stage.sources:
            assert (ROOT / "fgvc" / source).exists(), f"{name}: {source}"


@pytest.fixture
def copied(tmp_path: Path) -> ModuleType:
    """The module `fgvc.config.stages` of a copy of the package, whose files may be edited."""
    shutil.copytree(ROOT / "fgvc", tmp_path / "fgvc", ignore=shutil.ignore_patterns("__pycache__"))
    spec = importlib.util.spec_from_file_location("copied_stages", tmp_path / "fgvc" / "config" / "stages.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["copied_stages"] = module
    spec.loader.exec_module(module)
    return module


def edit(module: ModuleType, file: str, old: str, new: str) -> None:
    path = Path(module.__file__ or "").parents[1] / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_comments_docstrings_and_layout_are_no_change(copied: ModuleType) -> None:
    before = copied.source_digest("split")
    assert before == stages.source_digest("split")
    edit(copied, "data/splits.py", '    """Cut every class in two', '    """Cut each class in two')
    edit(copied, "data/splits.py", "\nPARTS", "\n# a comment\nPARTS")
    edit(copied, "data/splits.py", "first += own[:count]", "first  +=  own[ : count ]  # so many")
    assert copied.source_digest("split") == before


@pytest.mark.parametrize(
    ("stage", "file", "old", "new"),
    [
        ("split", "data/splits.py", "int(len(own) * fraction)", "round(len(own) * fraction)"),
        ("train", "data/transforms.py", "(0.02, 0.4)", "(0.02, 0.5)"),
        ("train", "methods/vit.py", 'pool: str = "cls"', 'pool: str = "patches"'),
        ("evaluate", "evaluation/metrics.py", "ECE_BINS = 15", "ECE_BINS = 10"),
        ("cost", "backbones/closed_form.py", "4 * s * d**2", "3 * s * d**2"),
    ],
)
def test_a_change_of_code_is_a_change(copied: ModuleType, stage: str, file: str, old: str, new: str) -> None:
    before = copied.source_digest(stage)
    edit(copied, file, old, new)
    assert copied.source_digest(stage) != before


def test_a_new_file_in_a_stage_s_folder_is_a_change(copied: ModuleType) -> None:
    before = copied.source_digest("train")
    (Path(copied.__file__ or "").parents[1] / "methods" / "another.py").write_text("x = 1\n")
    assert copied.source_digest("train") != before


@pytest.fixture
def accounted(tmp_path: Path) -> Project:
    (tmp_path / "workflow").mkdir()
    shutil.copy(ROOT / "workflow/stages.lock.json", tmp_path / "workflow")
    return Project(tmp_path)


def test_an_account_keeps_its_history(accounted: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages_lock, "source_digest", lambda name: f"digest of {name}")
    assert "stats" in stages_lock.unaccounted(accounted)
    said = stages_lock.account(accounted, "stats", "renamed a variable", raised=False)
    assert "no" in said and "stats" not in stages_lock.unaccounted(accounted)
    entries = json.loads((accounted.root / "workflow/stages.lock.json").read_text())["stats"]["entries"]
    assert entries[-1] == {"version": 1, "effect": "none", "why": "renamed a variable"}
    assert len(entries) >= 2


@pytest.mark.parametrize(
    ("version", "raised", "says"), [(1, True, "raise it in stages.py first"), (2, False, "use --raised")]
)
def test_an_account_must_fit_the_version(
    accounted: Project, monkeypatch: pytest.MonkeyPatch, version: int, raised: bool, says: str
) -> None:
    changed: dict[str, Any] = {**stages.STAGES, "stats": stages.Stage(version, ("data/stats.py",))}
    monkeypatch.setattr(stages_lock, "STAGES", changed)
    with pytest.raises(FgvcError) as caught:
        stages_lock.account(accounted, "stats", "why", raised=raised)
    assert says in str(caught.value)


def test_every_kind_of_file_has_a_folder_and_a_schema() -> None:
    assert set(MODELS) == {"config", *FOLDERS}
    kinds: dict[Kind, str] = FOLDERS
    assert all((ROOT / "params" / folder).is_dir() for folder in kinds.values())
