"""PIM on images of one's own, laid out as its repository wants: train/CLASS/img.jpg, test/CLASS/img.jpg."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from clikit import fgvc, make_shipped
from PIL import Image

LABELS = ("ant", "bee", "cow")
SIZE = 64
RUN = f"results/runs/mine/pim_tiny/{SIZE}/seed1"
VARIANT = {
    "method": "pim",
    "title": "PIM",
    "group": "ViT-based",
    "backbone": "vit_pico_patch16_224",
    "backbone_title": "ViT-Pico/16",
    "weights": None,
    "options": {"fpn_size": 16, "num_selects": [12, 10, 8, 6]},
    "recipe": {"epochs": 2, "batch_size": 4, "learning_rate": 0.003, "augmentation": "weak", "threads": 1},
    "source": "this test",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which such a folder was added, and PIM trained and evaluated on it, verb by verb."""
    folder = tmp_path_factory.mktemp("pictures")
    dice = random.Random(0)
    for part, count in (("train", 6), ("test", 3)):
        for label in LABELS:
            (folder / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = [tuple(dice.randrange(256) for _ in range(3)) for _ in range(40 * 36)]
                image = Image.new("RGB", (40, 36))
                image.putdata(pixels)
                image.save(folder / part / label / f"{number}.jpg")
    root = make_shipped(tmp_path_factory.mktemp("own") / "project")
    settings = yaml.safe_load((root / "params/config.yaml").read_text())
    text = yaml.safe_dump({**settings, "device": "cpu", "loader_workers": 0})
    (root / "params/config.yaml").write_text(text)
    (root / "params/methods/pim_tiny.yaml").write_text(yaml.safe_dump(VARIANT))
    cell = ("mine", "pim_tiny", "--size", SIZE)
    for verb in (
        ("data", "add", "mine", folder),
        ("data", "fetch", "mine"),
        ("data", "split", "mine"),
        ("train", *cell, "--seed", 1, "--lr", 0.003),
        ("evaluate", *cell, "--seed", 1),
    ):
        fgvc(root, *map(str, verb)).check()
    return root


def test_classes_are_the_folders_in_alphabetical_order_and_parts_are_kept(trained: Path) -> None:
    names = (trained / "results/splits/mine/classes.csv").read_text().split()[1:]
    assert names == ["0,ant", "1,bee", "2,cow"]
    frame = pd.read_parquet(trained / RUN / "predictions.parquet")
    expected = {(f"test/{label}/{n}.jpg", c) for c, label in enumerate(LABELS) for n in range(3)}
    assert set(zip(frame["sample_id"], frame["label"], strict=True)) == expected
    listed = (trained / "results/splits/mine/train_val.csv").read_text()
    assert listed.count("train/") == 18 and "test/" not in listed


def test_the_single_heads_stand_beside_the_headline_and_their_accuracies_follow(trained: Path) -> None:
    predictions = pd.read_parquet(trained / RUN / "predictions.parquet")
    assert [c for c in predictions.columns if "head" in c] == []
    heads = pd.read_parquet(trained / RUN / "heads.parquet")
    metrics = json.loads((trained / RUN / "metrics.json").read_text())
    told = metrics["heads_top1_pct"]
    assert list(told) == list(heads.columns[2:]) and {"layer1", "combiner", "sum", "top_1"} < set(told)
    for name, value in told.items():
        assert value == pytest.approx(100 * np.mean(heads[name] == heads["label"]), abs=1e-6)
    headline = [top[0] for top in predictions["top_classes"]]
    assert heads["sum"].tolist() == headline and told["sum"] == metrics["top1_pct"]
    assert heads["sample_id"].tolist() == predictions["sample_id"].tolist()


def test_a_run_that_comes_back_from_the_store_brings_its_heads(trained: Path, tmp_path: Path) -> None:
    root = shutil.copytree(trained, tmp_path / "copy", symlinks=True)
    before = {file.name: file.read_bytes() for file in (root / RUN).iterdir()}
    assert "heads.parquet" in before
    shutil.rmtree(root / RUN)
    fgvc(root, "train", "mine", "pim_tiny", "--size", str(SIZE), "--seed", "1", "--lr", "0.003").check()
    assert {file.name: file.read_bytes() for file in (root / RUN).iterdir()} == before


def test_the_verb_draws_a_map_that_depends_on_the_class(trained: Path) -> None:
    asked = ("explain", "heatmap", RUN, "test/ant/0.jpg")
    maps = {
        label: np.array(json.loads(fgvc(trained, *asked, "--class", label, "--json").check().out)["heat"])
        for label in LABELS
    }
    assert maps["ant"].shape == (4, 4)
    assert abs(maps["ant"] - maps["bee"]).max() > 1e-4
    np.testing.assert_allclose(sum(maps.values()), np.ones((4, 4)), atol=1e-5)
    said = fgvc(trained, *asked, "--class", "bee", "--output", "bee.png").check()
    assert said.out.startswith("bee: bee.png (predicted: ")
    with Image.open(trained / "bee.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 300
    again = json.loads(fgvc(trained, *asked, "--json").check().out)
    assert again["class"] == again["predicted"], "without --class it is the predicted one"
    by_file = fgvc(trained, "explain", "heatmap", RUN, str(trained / "data/mine/test/ant/0.jpg"), "--json")
    assert json.loads(by_file.check().out) == again


@pytest.mark.parametrize(
    ("run", "image", "name", "says"),
    [
        (RUN, "test/ant/0.jpg", "bees", "no class is called 'bees'; did you mean 'bee'?"),
        (RUN, "test/ant/9.jpg", "bee", "there is no such image"),
        ("results/runs/mine", "test/ant/0.jpg", "bee", "run.json"),
    ],
)
def test_mistakes_are_named(trained: Path, run: str, image: str, name: str, says: str) -> None:
    said = fgvc(trained, "explain", "heatmap", run, image, "--class", name)
    assert said.status == 2 and says in said.err and "Traceback" not in said.err
