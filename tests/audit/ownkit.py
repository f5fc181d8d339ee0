"""A tiny suite with real results, made within one process, for the audit of own results."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from fgvc.audit.context import SuiteContext
from fgvc.audit.finding import Finding
from fgvc.audit.registry import SUITE
from fgvc.backbones.fetch_weights import fetch_weights
from fgvc.config.grid import Cell
from fgvc.config.project import Project
from fgvc.cost.record import write_cost
from fgvc.data.fetch import fetch
from fgvc.data.splits import prepare_splits
from fgvc.data.stats import size_statistics
from fgvc.evaluation.predict import evaluate_directory
from fgvc.provenance.digests import file_sha256
from fgvc.provenance.files import write_json
from fgvc.reporting.tables import write_table
from fgvc.training import run
from fgvc.training.search import run_candidate, select_learning_rate
from fgvc.training.spec import RunSpec, chosen_rate

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = ("ant", "bee", "cow")
COUNTS = {"train": 5, "val": 3, "test": 4}
SIZE, SEEDS, RATES = 32, (1, 10), (0.001, 0.003)
WEIGHTS = "vit_pico_patch16_224.debian_faces"
TABLES = ("acc", "pairs", "sizes")
#: As a run of committed code would say; the tests run wherever the tree is.
CODE = {"commit": "1" * 40, "dirty": False, "sources_sha256": "2" * 64}


def _variant(weights: str | None) -> dict[str, Any]:
    return {
        "method": "vit",
        "title": "Trained" if weights else "Scratch",
        "group": "ViT-based",
        "backbone": "vit_pico_patch16_224",
        "backbone_title": "ViT-Pico",
        "weights": weights,
        "recipe": {"epochs": 2, "batch_size": 4, "learning_rate": 0.01, "augmentation": "weak"},
        "source": "this test",
    }


def _shown(kind: str) -> dict[str, Any]:
    sized = {} if kind == "hw_stats" else {"image_size": SIZE}
    return {"kind": kind, "title": f"A table of {kind}", "caption": "Made for a test.", **sized}


PARAMS: dict[str, dict[str, Any]] = {
    "config": {"default_suite": "mini", "device": "cpu", "loader_workers": 0},
    "datasets/tiny": {
        "title": "Tiny",
        "description": "three classes of noise",
        "classes": len(CLASSES),
        "licence": "none",
        "citation": "none",
        "source": {"kind": "folder", "path": "pictures"},
        "layout": {"kind": "class_folders"},
        "split": {"provenance": "ours"},
    },
    "methods/trained": _variant(WEIGHTS),
    "methods/scratch": _variant(None),
    "suites/mini": {
        "title": "Mini",
        "description": "d",
        "datasets": ["tiny"],
        "methods": ["trained", "scratch"],
        "image_sizes": [SIZE],
        "seeds": list(SEEDS),
        "learning_rates": {"trained": list(RATES), "scratch": [0.01]},
        "tables": list(TABLES),
    },
    "tables/acc": _shown("accuracy"),
    "tables/pairs": _shown("comparisons"),
    "tables/sizes": _shown("hw_stats"),
}


def make_suite(root: Path) -> Project:
    """The suite ``mini`` with all that its workflow would make."""
    for name, content in PARAMS.items():
        path = root / "params" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    shutil.copytree(REPOSITORY / "params/weights/shipped", root / "params/weights/shipped")
    shutil.copyfile(REPOSITORY / f"params/weights/{WEIGHTS}.yaml", root / f"params/weights/{WEIGHTS}.yaml")
    draw_pictures(root / "pictures")
    project = Project(root)
    fetch(project, "tiny")
    fetch_weights(project, WEIGHTS)
    prepare_splits(project, "tiny")
    size_statistics(project, "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "code_identity", lambda: CODE)
        for method in ("trained", "scratch"):
            train_cell(project, Cell("tiny", method, SIZE))
    for table in TABLES:
        write_table(project, "mini", table)
    return project


def draw_pictures(folder: Path) -> None:
    """Noise, a little of another colour for each class."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        for part, count in COUNTS.items():
            for number in range(count):
                pixels = rng.integers(0, 120, (36, 40, 3), dtype=np.uint8)
                pixels[..., label] += 60
                path = folder / part / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)


def train_cell(project: Project, cell: Cell) -> None:
    ids = (cell.dataset, cell.method, cell.size)
    for rate in RATES if cell.method == "trained" else ():
        run_candidate(RunSpec(project, *ids, SEEDS[0], rate, "train"))
    select_learning_rate(project, cell)
    for seed in SEEDS:
        spec = RunSpec(project, *ids, seed, chosen_rate(project, *ids))
        run.train_run(spec)
        evaluate_directory(project, spec.directory, "test")
    write_cost(project, cell.method, cell.size, len(CLASSES))


# --- asking and forging ---------------------------------------------------------------------------------


def findings(root: Path, check: str) -> list[Finding]:
    """What one check says of the suite in ``root``."""
    return SUITE[check].run(SuiteContext(Project(root), "mini", short=True))


def contradicted(root: Path, check: str) -> list[Finding]:
    return [f for f in findings(root, check) if f.verdict == "contradicted"]


def verdicts(root: Path, check: str) -> Counter[str]:
    return Counter(f.verdict for f in findings(root, check))


def run_folder(root: Path, method: str = "trained", seed: int = 1) -> Path:
    return Project(root).paths.run_dir("tiny", method, SIZE, seed)


def sweep_folder(root: Path, rate: float) -> Path:
    return Project(root).paths.sweep_dir("tiny", "trained", SIZE, rate)


def edit_json(path: Path, *keys: str | int, value: Any) -> Any:
    """Set one value of a record, as with an editor, and return what was there."""
    record = json.loads(path.read_text())
    inner = record
    for key in keys[:-1]:
        inner = inner[key]
    earlier = inner[keys[-1]]
    inner[keys[-1]] = value
    write_json(path, record)
    return earlier


def edit_text(path: Path, old: str, new: str) -> int:
    """Replace the first ``old``; returns the number of its line."""
    text = path.read_text()
    assert old in text, text
    line = text[: text.index(old)].count("\n") + 1
    path.unlink()  # it may be a hard link
    path.write_text(text.replace(old, new, 1))
    return line


def flip_byte(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.unlink()
    path.write_bytes(bytes(data))


def forge_predictions(folder: Path, *, with_metrics: bool) -> None:
    """Make the first wrong image right in predictions.parquet, and the digest (and top-1) of it as well."""
    path = folder / "predictions.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    row = next(r for r in rows if r["top_classes"][0] != r["label"])
    row["top_classes"].remove(row["label"])
    row["top_classes"].insert(0, row["label"])
    path.unlink()
    pq.write_table(table.from_pylist(rows, schema=table.schema), path)
    if with_metrics:
        from fgvc.evaluation.metrics import recompute

        record = json.loads((folder / "metrics.json").read_text())
        record |= recompute(path, len(CLASSES), CLASSES)
        write_json(folder / "metrics.json", record | {"predictions_sha256": file_sha256(path)})
