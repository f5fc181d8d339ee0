"""Every command of the README and of docs/ runs, in page order, in a copy of the project with small data."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
#: Those that take over a minute.
LONG = {"README.md", "docs/published.md"}
PAGES = ["README.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]

#: Commands that cannot run inside a test: what runs instead, and why.
INSTEAD = {
    "make demo": ("true", "takes minutes; tests/workflow runs its rules on small data"),
    "make test": ("true", "this is it"),
    "snakemake --cores 2 -- results/grocery/tables/sota_224.tex": (
        "snakemake -n -q -- results/grocery/tables/sota_224.tex",
        "needs the photographs and half an hour",
    ),
    "snakemake --cores 2 -- track": (
        "snakemake --cores 2 -- results/splits/typefaces/split.json && fgvc track",
        "takes minutes; tests/workflow/test_workflow_dvc.py runs it",
    ),
    "cd ../another-clone && dvc pull && snakemake -n": (
        "cd ../another-clone && dvc pull && snakemake -n -- results/splits/typefaces/split.json",
        "of the default suite, only the dataset is made here",
    ),
    "snakemake --cores 2 -- results/audit/published.html": (
        "snakemake -n -q -- results/audit/published.html && fgvc audit published --write",
        "counts eight models; tests/workflow runs the rule on a smaller project",
    ),
    "snakemake --workflow-profile profiles/mine -- results/sota/tables/sota_224.tex": (
        "snakemake -n -q --workflow-profile profiles/mine -- results/sota/tables/sota_224.tex",
        "needs a cluster; tests/workflow/test_workflow_slurm.py runs such a command",
    ),
    "fgvc pretrain": ("fgvc pretrain --help", "needs Debian's font packages and half an hour"),
    "fgvc pretrain --faces-limit 10 --renders 6 --epochs 2 --output results/try": (
        "fgvc pretrain --help",
        "needs Debian's font packages; tests/pretraining runs it on pretended ones",
    ),
}

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
HEADING_WITH_FILE = re.compile(r"^#+ .*`([\w./]+\.(?:py|yaml))`\s*$", re.M)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a clone has, with few pictures and one epoch, so that commands end soon."""
    root = tmp_path_factory.mktemp("checkout") / "fgvc-bench"
    root.mkdir()
    for name in ("fgvc", "snakemake_logger_plugin_fgvc", "params", "rules", "profiles", "workflow"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    _edit(root / "params/datasets/typefaces.yaml", r"counts: \{.*?\}", "counts: {train: 2, val: 1, test: 2}")
    _edit(root / "params/datasets/typefaces.yaml", r"^  tree_sha256: .*$", "")
    _edit(root / "params/datasets/typefaces.yaml", r"^expected:\n(  .*\n)*", "")
    _edit(root / "params/recipes/quick.yaml", r"^epochs: \d+", "epochs: 1")
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, root / name)
    for name in ("config", ".gitignore", "plots"):
        source, target = ROOT / ".dvc" / name, root / ".dvc" / name
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    _run(root, "git init -q && git config user.name T && git config user.email t@t", "the fixture")
    _run(root, "git add -A && git commit -qm 'The project'", "the fixture")
    rng = np.random.default_rng(0)
    for label in ("owl", "tit", "jay"):
        for number in range(6):
            path = root / "path/to/folder" / label / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (64, 48, 3), dtype=np.uint8)).save(path)
    lines = [f"{label}/{number}.jpg,{label}" for label in ("owl", "tit", "jay") for number in range(6)]
    (root / "path/to/folder/labels.csv").write_text("\n".join(["path,label", *lines]))
    return root


def _edit(path: Path, pattern: str, replacement: str) -> None:
    path.write_text(re.sub(pattern, replacement, path.read_text(), flags=re.M))


def _environment(root: Path) -> dict[str, str]:
    """The user's environment, with the commands beside this Python and the copied package first."""
    return {
        **{k: v for k, v in os.environ.items() if k not in ("FGVC_MIRROR", "FGVC_PROJECT")},
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(root),
    }


def _run(root: Path, command: list[str] | str, page: str) -> None:
    done = subprocess.run(
        command,
        cwd=root,
        shell=isinstance(command, str),
        env=_environment(root),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{page}: {command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=pytest.mark.exhaustive) if p in LONG else p for p in PAGES]
)
def test_the_commands_of_a_page_run(checkout: Path, page: str) -> None:
    text = (ROOT / page).read_text()
    files = {m.end(): m.group(1) for m in HEADING_WITH_FILE.finditer(text)}
    for name in ("my_photos", "my_table"):
        (checkout / f"params/datasets/{name}.yaml").unlink(missing_ok=True)
    for block in BLOCK.finditer(text):
        language, body = block.groups()
        named = [path for end, path in files.items() if text[end : block.start()].strip() == ""]
        if named:
            (checkout / named[0]).write_text(body)
        elif language == "python":
            _run(checkout, [sys.executable, "-c", body], page)
        elif language == "console":
            for line in body.splitlines():
                assert line.startswith("$ "), f"{page}: a console block holds commands only: {line}"
                command = line.removeprefix("$ ")
                _run(checkout, INSTEAD.get(command, (command, ""))[0], page)


def test_links_between_pages_exist() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text()
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}, which does not exist"
