"""How the package is built: imports point downward, light things stay light, files stay short.

The rule: each folder of ``fgvc/`` stands in one layer, and a file imports from its own folder and from the
layers below; wherever the import stands, also inside a function. Within a layer only what `SIDEWAYS` names.
No two modules import one another, directly or in a circle, when they are loaded.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fgvc"

#: From top to bottom.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("workflow",),
    ("tracking",),
    ("reporting", "audit"),
    ("training", "evaluation", "explain", "cost", "pretraining"),
    ("checkpoints",),
    ("methods",),
    ("backbones",),
    ("data",),
    ("device_lease",),
    ("config", "provenance"),
    ("device", "torchvision_ops"),
    ("errors",),
)
#: Who may import from whom at its own level.
SIDEWAYS = {
    ("cost", "evaluation"),  # end-to-end throughput is the time of an evaluation
    ("cost", "training"),  # the time of a training step
    ("explain", "evaluation"),  # the model and the images of a run, as its evaluation takes them
    ("training", "evaluation"),  # a search evaluates its candidates
    ("pretraining", "training"),  # the same resume states and the same progress line
    ("audit", "reporting"),  # tables are made again and compared; an audit's own report is printed alike
    ("config", "provenance"),
}
#: ``import fgvc`` offers names from everywhere, but only when they are asked for.
FACADE = "__init__"

MAX_LINES = 400


@dataclass(frozen=True)
class Import:
    """One import of a module of ours. ``at_once``: it happens when the importing module is loaded."""

    source: str
    target: str
    line: int
    at_once: bool


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


MODULES = {module_name(path): path for path in sources()}


def imports_of(path: Path) -> Iterator[Import]:
    source = module_name(path)

    def visit(node: ast.AST, at_once: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ImportFrom) and (child.module or "").split(".")[0] == "fgvc":
                for alias in child.names:
                    whole = f"{child.module}.{alias.name}"
                    target = whole if whole in MODULES else str(child.module)
                    yield Import(source, target, child.lineno, at_once)
            elif isinstance(child, ast.Import):
                for alias in child.names:
                    if alias.name.split(".")[0] == "fgvc":
                        yield Import(source, alias.name, child.lineno, at_once)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            only_for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from visit(child, at_once and not inside and not only_for_types)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), True)


ALL_IMPORTS = [found for path in sources() for found in imports_of(path)]


def folder(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else FACADE


def layer(name: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if name in names)


def test_every_folder_stands_in_a_layer() -> None:
    known = {name for names in LAYERS for name in names} | {FACADE}
    assert {folder(module) for module in MODULES} <= known, "say in LAYERS where the new folder stands"


def test_imports_point_downward() -> None:
    wrong = []
    for found in ALL_IMPORTS:
        source, target = folder(found.source), folder(found.target)
        if FACADE in (source, target) or source == target or (source, target) in SIDEWAYS:
            continue
        if layer(target) <= layer(source):
            wrong.append(f"{found.source}:{found.line} imports {found.target}")
    assert wrong == []


def test_the_facade_imports_nothing_of_ours_at_once_and_is_used_by_nobody() -> None:
    assert [i for i in ALL_IMPORTS if folder(i.source) == FACADE and i.at_once] == []
    users = [i for i in ALL_IMPORTS if folder(i.target) == FACADE]
    assert users == [], "import from the module that defines the name"


def test_no_modules_import_one_another_in_a_circle() -> None:
    edges: dict[str, set[str]] = {}
    for found in ALL_IMPORTS:
        if found.at_once and found.source != found.target:
            edges.setdefault(found.source, set()).add(found.target)
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        if module in trail:
            # A package that imports its own modules (to register them, say) is no circle by itself.
            circle = trail[trail.index(module) :]
            assert any(m.startswith(f"{module}.") for m in circle), " → ".join([*circle, module])
            return
        if module not in done:
            for target in sorted(edges.get(module, ())):
                walk(target, (*trail, module))
            done.add(module)

    for module in MODULES:
        walk(module, ())


# --- light things stay light -----------------------------------------------------------------------

HEAVY = ("torch", "torchvision", "timm", "pandas", "matplotlib", "scipy", "snakemake")


def loaded_by(code: str) -> set[str]:
    """The heavy packages that a fresh process in the checkout holds after ``code``."""
    report = f"import sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_package_is_light() -> None:
    assert loaded_by("import fgvc; fgvc.__version__") == set()


def test_what_the_snakefile_does_is_light() -> None:
    """Each job of a cluster parses it again."""
    code = """
from pathlib import Path
from fgvc.config.project import Project
from fgvc.config.stages import version
from fgvc.errors import FgvcError
from fgvc.workflow import hooks, targets
from fgvc.workflow.rules import Rules
rules = Rules(Project(Path.cwd()))
for suite in [None, *rules.project.names("suite")]:
    targets.check(rules, rules.targets(suite))
    for name in rules.project.suite(rules.suite(suite)).tables:
        rules.table_inputs(suite, name), rules.shown_sha256(suite, "table", name)
    for name in rules.project.suite(rules.suite(suite)).figures:
        rules.figure_inputs(suite, name), rules.shown_sha256(suite, "figure", name)
for method in rules.project.names("method"):
    rules.training_inputs("typefaces", method), rules.recipe_sha256("typefaces", method)
    rules.cost_sha256(method), rules.threads("typefaces", method)
"""
    assert loaded_by(code) == set()


@pytest.mark.parametrize(
    "code",
    [
        "import fgvc.cli.main",
        "from fgvc.config.project import Project; list(Project.find().suites())",
        "import fgvc.provenance.store, fgvc.provenance.locks, fgvc.provenance.machine, fgvc.provenance.files",
    ],
    ids=["the command line", "the parameters", "provenance"],
)
def test_other_things_that_must_be_light(code: str) -> None:
    assert loaded_by(code) == set()


def test_modules_that_need_timm_can_be_imported_first() -> None:
    """Whichever module is the first: torchvision's missing operators are declared before timm is imported."""
    first = []
    for path in sources():
        text = path.read_text(encoding="utf-8")
        if any(
            line.startswith(("from timm", "import timm", "from torchvision")) for line in text.splitlines()
        ):
            first.append(module_name(path))
    assert len(first) > 5
    for module in first:
        package = PACKAGE / module.split(".")[1] / "__init__.py"
        cured_by_package = "ensure_torchvision_ops()" in package.read_text(encoding="utf-8")
        text = MODULES[module].read_text(encoding="utf-8")
        cured_itself = 0 < text.find("\nensure_torchvision_ops()\n") < text.find("from torchvision")
        assert cured_by_package or cured_itself, f"{module} fails where torchvision's binary does not load"


# --- files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short_and_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    assert path.stem not in ("utils", "util", "helpers", "misc", "common"), "name it after what it does"
    assert not text or ast.get_docstring(ast.parse(text)), "say in a docstring what it is for"


def test_the_linter_sees_every_file() -> None:
    """The project's own data/ and results/ are left out, those of the package and the tests are not."""
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--show-files"], capture_output=True, text=True, cwd=ROOT
    )
    if "No module named ruff" in done.stderr:
        pytest.skip("needs ruff")
    seen = {Path(line) for line in done.stdout.splitlines()}
    written = [*sources(), *(ROOT / "tests").rglob("*.py")]
    assert [str(path) for path in written if path not in seen and "__pycache__" not in path.parts] == []
