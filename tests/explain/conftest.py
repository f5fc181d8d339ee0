"""A tiny project with runs of one epoch, made when a test first asks for one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from fgvc.config.project import Project
from fgvc.data.fetch import fetch
from fgvc.data.splits import prepare_splits
from fgvc.training.run import train_run
from fgvc.training.spec import RunSpec

SIZE, RATE = 64, 0.01
#: Test images of a class, of three.
DATASETS = {"tiny": 4, "few": 1}


def variant(**changes: Any) -> dict[str, Any]:
    return {
        "method": "vit",
        "title": "T",
        "group": "ViT-based",
        "backbone": "vit_pico_patch16_224",
        "backbone_title": "B",
        "weights": None,
        "recipe": {"epochs": 1, "batch_size": 8, "learning_rate": RATE, "warmup_steps": 1},
        "source": "made up",
        **changes,
    }


VARIANTS = {
    "plain": variant(),
    "ila": variant(method="ila", options={"ds_blocks": [1]}),
    "cnn": variant(method="cnn", backbone="test_resnet", backbone_title="ResNet"),
}


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two datasets, fetched and split."""
    root = tmp_path_factory.mktemp("explain") / "project"
    write(root / "params/config.yaml", {"device": "cpu", "loader_workers": 0})
    for name, content in VARIANTS.items():
        write(root / f"params/methods/{name}.yaml", content)
    rng = np.random.default_rng(0)
    for dataset, count in DATASETS.items():
        for part, images in (("train", 3), ("val", 2), ("test", count)):
            for label, of_class in enumerate(("ant", "bee", "cow")):
                for number in range(images):
                    pixels = rng.integers(0, 120, (70, 80, 3), dtype=np.uint8)
                    pixels[..., label] += 100
                    path = root / "pictures" / dataset / part / of_class / f"{number}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(path)
        facts = {
            "title": dataset,
            "description": "noise",
            "classes": 3,
            "licence": "none",
            "citation": "none",
            "source": {"kind": "folder", "path": f"pictures/{dataset}"},
            "layout": {"kind": "class_folders"},
            "split": {"provenance": "ours"},
        }
        write(root / f"params/datasets/{dataset}.yaml", facts)
        fetch(Project(root), dataset)
        prepare_splits(Project(root), dataset)
    return Project(root)


@pytest.fixture(scope="session")
def trained(tiny: Project) -> Callable[..., Path]:
    """``trained(method)``: the folder of its run."""

    def one(method: str, dataset: str = "tiny") -> Path:
        spec = RunSpec(tiny, dataset, method, SIZE, seed=1, learning_rate=RATE)
        train_run(spec)
        return spec.directory

    return one
