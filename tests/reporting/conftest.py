"""Synthetic projects: parameters and results as the workflow leaves them, without any training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from fgvc.config.project import Project

CLASSES = 8


class Bench:
    """Builds a project in a temporary folder, piece by piece."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("config.yaml", {"default_suite": "quick"})
        self.write("tables/acc.yaml", self._table("accuracy", image_size=64))
        self.write("tables/sizes.yaml", self._table("hw_stats"))
        self.write("figures/cost.yaml", self._table("accuracy_vs_cost", image_size=64))

    @staticmethod
    def _table(kind: str, **more: Any) -> dict[str, Any]:
        return {"kind": kind, "title": f"A {kind} result", "caption": "Made for a test.", **more}

    def write(self, name: str, data: dict[str, Any]) -> None:
        path = self.root / "params" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")

    def dataset(self, name: str, title: str | None = None, **more: Any) -> None:
        data = {
            "title": title or name.capitalize(),
            "description": "made up",
            "classes": CLASSES,
            "licence": "none",
            "citation": "none",
            "source": {"kind": "generated", "generator": "typefaces", "counts": {"train": 1, "test": 1}},
            "layout": {"kind": "generated"},
            "split": {"provenance": "official"},
        }
        self.write(f"datasets/{name}.yaml", data | more)

    def method(self, name: str, title: str | None = None, group: str = "ViT-based", **more: Any) -> None:
        data = {
            "method": "vit",
            "title": title or name.upper(),
            "group": group,
            "backbone": "vit_pico",
            "backbone_title": "ViT-Pico",
            "weights": None,
            "recipe": {"epochs": 1, "batch_size": 1, "learning_rate": 0.01},
            "source": "made up",
        }
        self.write(f"methods/{name}.yaml", data | more)

    def weights(self, name: str, pretraining: list[str]) -> None:
        source = {"kind": "url", "url": "https://example.org/w", "file": "w", "md5": "0" * 32}
        data = {"title": name, "architecture": "vit_pico", "source": source, "format": "timm"}
        norm = {"mean": [0.5] * 3, "std": [0.5] * 3}
        self.write(
            f"weights/{name}.yaml",
            {**data, **norm, "pretraining": pretraining, "licence": "none", "citation": "none"},
        )

    def suite(
        self, datasets: Sequence[str], methods: Sequence[str], seeds: Sequence[int], name: str = "quick"
    ) -> None:
        data = {
            "title": f"The {name} suite",
            "description": "made up",
            "datasets": list(datasets),
            "methods": list(methods),
            "image_sizes": [64],
            "seeds": list(seeds),
            "learning_rates": [0.01],
            "tables": ["acc", "sizes"],
            "figures": ["cost"],
        }
        self.write(f"suites/{name}.yaml", data)

    @property
    def project(self) -> Project:
        """A fresh view of the files as they are now."""
        return Project(self.root)

    def run_dir(self, dataset: str, method: str, seed: int) -> Path:
        return self.project.paths.run_dir(dataset, method, 64, seed)

    def result(self, dataset: str, method: str, seed: int, correct: Sequence[bool]) -> None:
        """A finished run whose images are right or wrong as said."""
        predictions = make_predictions(np.asarray(correct, dtype=bool), seed)
        folder = self.run_dir(dataset, method, seed)
        folder.mkdir(parents=True)
        predictions.to_parquet(folder / "predictions.parquet")
        self.metrics(dataset, method, seed, status="ok", **quick_metrics(predictions))

    @staticmethod
    def hits(share: float, images: int = 400, seed: int = 0) -> np.ndarray:
        """``round(share * images)`` right images at random places."""
        right = np.zeros(images, dtype=bool)
        right[np.random.default_rng(seed).permutation(images)[: round(share * images)]] = True
        return right

    def metrics(self, dataset: str, method: str, seed: int, **metrics: Any) -> None:
        folder = self.run_dir(dataset, method, seed)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(metrics))

    def failure(self, *parts: str, **record: Any) -> None:
        folder = self.root.joinpath("state", *parts)
        folder.mkdir(parents=True)
        (folder / "failure.json").write_text(json.dumps(record))

    def cost(self, method: str, macs_g: float, trainable_params_m: float) -> None:
        file = self.project.paths.cost(method, 64, CLASSES)
        file.parent.mkdir(parents=True)
        record = {"macs_g": macs_g, "flops_g": 2 * macs_g, "trainable_params_m": trainable_params_m}
        file.write_text(json.dumps(record))

    def published(
        self,
        columns: dict[str, dict[str, tuple[float, float]]],
        variants: dict[str, str] | None = None,
        average: dict[str, tuple[float, float]] | None = None,
        **more: Any,
    ) -> None:
        """A published table ``printed``: cells by column and row (= dataset id), and its table and figure."""
        rows = list(dict.fromkeys(row for cells in columns.values() for row in cells))
        source = {"paper": "A paper", "short": "AP", "year": 2024, "table": "Table 1"}
        data = {
            "kind": "accuracy",
            "title": "A table of theirs",
            "source": {**source, "evidence": "primary_repo_asset"},
            "metric": "top1_pct",
            "unit": "%",
            "decimals": 2,
            "spread": "standard deviation over seeds",
            "cost_classes": CLASSES,
            "rows": {row: {"title": row.capitalize(), "dataset": row} for row in rows},
            "columns": {
                name: {
                    "method": f"{name.upper()}-Net",
                    "group": "ViT-based",
                    "backbone": "vit_pico",
                    "backbone_title": "ViT-Pico",
                    "pretraining": "none",
                    "image_size": 64,
                    "reported_by": "own paper",
                    "variant": (variants or {}).get(name),
                    "cells": {row: dict(zip(("value", "std"), c, strict=True)) for row, c in cells.items()},
                    "average": dict(zip(("value", "std"), average[name], strict=True))
                    if name in (average or {})
                    else None,
                }
                for name, cells in columns.items()
            },
        }
        self.write("published/printed.yaml", data | more)
        self.write("tables/theirs.yaml", self._table("published", image_size=64, published="printed"))
        self.write("figures/field.yaml", self._table("published_vs_cost", image_size=64, published="printed"))

    def stats(self, dataset: str) -> None:
        sizes = {"mean": 260.25, "std": 12.5, "min": 240, "max": 300}
        part = {
            "images": 1200,
            "classes": CLASSES,
            "height_px": sizes,
            "width_px": sizes,
            "aspect_ratio": {"mean": 1.0, "std": 0.125, "min": 0.5, "max": 2.0},
        }
        file = self.project.paths.stats(dataset)
        file.parent.mkdir(parents=True, exist_ok=True)
        record = {"dataset": dataset, "title": dataset, "parts": {"train": part, "test": part}, "all": part}
        file.write_text(json.dumps(record))


def make_predictions(correct: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """Predictions whose top class is the label exactly where ``correct`` says so."""
    rng = np.random.default_rng(seed)
    labels = np.arange(len(correct)) % CLASSES
    rows = []
    for i, (label, right) in enumerate(zip(labels, correct, strict=True)):
        others = [c for c in range(CLASSES) if c != label]
        order = [label, *others] if right else [others[0], label, *others[1:]]
        top = np.sort(rng.dirichlet(np.ones(CLASSES)).astype(np.float32))[::-1]
        rows.append((f"{i:05d}.png", label, np.log(top[0 if right else 1]), order, top))
    frame = pd.DataFrame(
        rows, columns=["sample_id", "label", "label_logprob", "top_classes", "top_probabilities"]
    )
    return frame.astype({"label": np.int32, "label_logprob": np.float32})


def quick_metrics(predictions: pd.DataFrame) -> dict[str, Any]:
    """What tables and summaries need of ``metrics.json``, without torch."""
    labels = predictions["label"].to_numpy()
    right = np.array([top[0] for top in predictions["top_classes"]]) == labels
    per_class = [
        {
            "class_id": c,
            "name": f"class {c}",
            "images": int((labels == c).sum()),
            "accuracy_pct": 100.0 * float(right[labels == c].mean()),
        }
        for c in range(CLASSES)
    ]
    top1 = 100.0 * float(right.mean())
    return {
        "images": len(labels),
        "classes": CLASSES,
        "top1_pct": top1,
        "top5_pct": 100.0,
        "macro_accuracy_pct": float(np.mean([r["accuracy_pct"] for r in per_class])),
        "per_class": per_class,
        "worst_class": min(per_class, key=lambda r: r["accuracy_pct"]),
    }


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """An empty synthetic project."""
    return Bench(tmp_path)


@pytest.fixture
def full_bench(bench: Bench) -> Callable[..., Bench]:
    """A project with finished runs: ``full_bench({"m": 0.8}, datasets=["d"], seeds=[1, 2])``."""

    def build(
        methods: dict[str, float], datasets: Sequence[str] = ("birds",), seeds: Sequence[int] = (1, 2)
    ) -> Bench:
        for dataset in datasets:
            bench.dataset(dataset)
            for m, (method, share) in enumerate(methods.items()):
                for seed in seeds:
                    # Seeds of one method agree on most images, as real ones do.
                    right = bench.hits(share, seed=m)
                    flipped = np.random.default_rng([seed, m]).integers(0, len(right), 4)
                    right[flipped] = ~right[flipped]
                    bench.result(dataset, method, seed, right)
        for m, method in enumerate(methods):
            bench.method(method, group="CNN-based" if m % 2 else "ViT-based")
            bench.cost(method, 4.0 * 1.5**m, 20.0 + 10 * m)
        bench.suite(datasets, list(methods), seeds)
        return bench

    return build
