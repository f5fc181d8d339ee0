"""``dvc.yaml``: what ``dvc params``, ``metrics``, ``plots``, ``exp`` and ``artifacts`` show of this project.

It has no stages (a stage with plain outputs deletes results before it runs; Snakemake makes the results) and
names its files one by one (DVC takes no patterns here), so it is generated from ``params/``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fgvc.config.grid import cells
from fgvc.config.project import FOLDERS, Kind, Project
from fgvc.provenance.files import write_text

#: Files whose values decide numbers; captions and printed tables do not.
PARAM_KINDS: tuple[Kind, ...] = ("dataset", "method", "recipe", "suite", "weights")

METRICS, ACCURACY, HISTORY = "results/metrics.json", "results/accuracy.csv", "results/history.csv"

HEADER = """\
# Made from params/ by: fgvc track --dvc-yaml
# Snakemake makes the results, DVC shows them. No stages: DVC deletes what a stage makes before it runs it.
"""


def path_of(project: Project) -> Path:
    return project.root / "dvc.yaml"


def dvc_yaml_text(project: Project) -> str:
    """The file as it should be. Raises FgvcError for a suite that names what does not exist."""
    content = {
        "params": _params(project),
        "metrics": [METRICS],
        "plots": _plots(project),
        "artifacts": _artifacts(project),
    }
    return HEADER + yaml.safe_dump(content, sort_keys=False, width=100)


def is_current(project: Project) -> bool:
    path = path_of(project)
    return path.is_file() and path.read_text(encoding="utf-8") == dvc_yaml_text(project)


def write_dvc_yaml(project: Project) -> bool:
    """Write the file where it differs; whether it did."""
    if is_current(project):
        return False
    write_text(path_of(project), dvc_yaml_text(project))
    return True


def _params(project: Project) -> list[str]:
    return [f"params/{FOLDERS[kind]}/{name}.yaml" for kind in PARAM_KINDS for name in project.names(kind)]


def _plots(project: Project) -> list[Any]:
    """Accuracies as bars, histories as lines, and the figures of every suite as pictures."""
    figures = []
    for name, suite in project.suites():
        folder = None if name == project.settings.default_suite else name
        figures += [f"{project.paths.shown(project.paths.figure(folder, f))}.png" for f in suite.figures]
    return [
        {ACCURACY: {"template": "bar_horizontal", "x": "top1_pct", "y": "run"}},
        {HISTORY: {"template": "lines_by_run", "x": "epoch", "y": "train_loss"}},
        *figures,
    ]


def _artifacts(project: Project) -> dict[str, dict[str, str]]:
    """Datasets, weights, and of each cell of a suite the model of its first seed.

    DVC tracks the models of all seeds; an artifact is a name for sharing one.
    """
    paths, found = project.paths, {}
    for name in project.names("dataset"):
        found[_artifact(name)] = {"path": paths.shown(paths.data_dir(name)), "type": "dataset"}
    for name in project.names("weights"):
        found[_artifact("weights", name)] = {"path": paths.shown(paths.weights(name)), "type": "weights"}
    for suite_name, suite in project.suites():
        for cell in cells(project, suite_name):
            folder = paths.run_dir(cell.dataset, cell.method, cell.size, suite.seeds[0])
            name = _artifact(cell.dataset, cell.method, str(cell.size), f"seed{suite.seeds[0]}")
            found[name] = {"path": paths.shown(folder / "model.safetensors"), "type": "model"}
    return dict(sorted(found.items()))


def _artifact(*ids: str) -> str:
    """A name as DVC allows it: lower-case letters, digits and hyphens."""
    text = "-".join(ids).lower()
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text).strip("-")
