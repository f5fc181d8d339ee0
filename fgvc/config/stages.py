"""Stage versions: integers raised by hand when a change of code changes a stage's numbers.

Snakemake does not see edits inside the package, so each rule carries the version of its stage among its
``params`` and runs again when it is raised. ``workflow/stages.lock.json`` keeps a digest of each stage's
sources; a test fails when they change without a raise or a "no numeric effect" entry (`fgvc stages`).
"""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Stage:
    """A step of the workflow.

    Attributes:
        version: raised when the stage's numbers change.
        sources: files and folders inside the package whose code makes those numbers.
    """

    version: int
    sources: tuple[str, ...]


_MODEL = ("backbones", "methods")
_PICTURES = ("data/decoding.py", "data/loading.py", "data/transforms.py")

STAGES: dict[str, Stage] = {
    "data": Stage(
        1,
        (
            "data/archives.py",
            "data/decoding.py",
            "data/fetch.py",
            "data/generated.py",
            "data/images.py",
            "data/layouts",
            "data/linking.py",
            "data/lists.py",
            "data/records.py",
            "data/staging.py",
            "data/typefaces.py",
        ),
    ),
    "split": Stage(2, ("data/layouts", "data/lists.py", "data/splits.py")),
    "stats": Stage(1, ("data/splits.py", "data/stats.py")),
    "audit": Stage(
        1, ("data/audit.py", "data/decoding.py", "data/near_duplicates.py", "reporting/data_audit.py")
    ),
    "weights": Stage(1, ("backbones/convert.py", "backbones/weights.py")),
    "train": Stage(4, ("training", "data/class_batches.py", *_PICTURES, "provenance/digests.py", *_MODEL)),
    "evaluate": Stage(
        2, ("evaluation/heads.py", "evaluation/metrics.py", "evaluation/predict.py", *_PICTURES, *_MODEL)
    ),
    "cost": Stage(4, ("cost", *_MODEL)),
    "explain": Stage(1, ("explain", "evaluation/predict.py", *_PICTURES, *_MODEL)),
    "table": Stage(
        3,
        (
            "reporting",
            "evaluation/comparisons.py",
            "evaluation/equivalence.py",
            "evaluation/pareto.py",
            "evaluation/ranking.py",
            "evaluation/statistics.py",
        ),
    ),
    "findings": Stage(1, ("audit", "evaluation/pareto.py", "cost/published_formulas.py")),
}


def version(stage: str) -> int:
    """The version of a stage."""
    return STAGES[stage].version


def source_digest(stage: str) -> str:
    """Digest of a stage's code: what Python executes, without comments, docstrings and layout."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for entry in sorted(STAGES[stage].sources):
        path = package / entry
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(package)}\n{_executed(file)}\n".encode())
    return digest.hexdigest()


def _executed(file: Path) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            del body[0]
    return ast.dump(tree)


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
