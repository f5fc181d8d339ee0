"""The weights that the project carries: what the registry, the file and the card say, and that they help."""

from __future__ import annotations

import re
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from fgvc.backbones.fetch_weights import fetch_weights
from fgvc.backbones.tokens import TokenBackbone
from fgvc.backbones.weights import expected_tensors, load_into
from fgvc.config.method import ShippedSource
from fgvc.config.project import Project
from fgvc.data import typefaces
from fgvc.errors import FgvcError
from fgvc.pretraining.card import card_text
from fgvc.pretraining.faces import excluded_family
from fgvc.pretraining.packages import PACKAGES
from fgvc.pretraining.recipe import WEIGHTS, FaceRecipe
from fgvc.pretraining.selection import LIKE_A_TEST_FACE
from fgvc.provenance.digests import file_sha256
from fgvc.provenance.files import read_json

REPOSITORY = Path(__file__).resolve().parents[2]
ARCHITECTURE = "vit_pico_patch16_224"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with the registry's entry and what it ships."""
    (tmp_path / "params").mkdir()
    (tmp_path / "params/config.yaml").write_text("{}\n")
    shutil.copytree(REPOSITORY / "params/weights", tmp_path / "params/weights")
    return Project(tmp_path)


@pytest.fixture
def shipped(project: Project) -> Path:
    source = project.weights(WEIGHTS).source
    assert isinstance(source, ShippedSource)
    return project.folder("weights") / source.file


# --- the file --------------------------------------------------------------------------------------


def test_the_file_is_the_one_that_the_registry_names(project: Project, shipped: Path) -> None:
    source = project.weights(WEIGHTS).source
    assert isinstance(source, ShippedSource)
    assert (file_sha256(shipped), shipped.stat().st_size) == (source.sha256, source.bytes)
    assert source.bytes <= 2_000_000


def test_it_is_fetched_without_a_network_and_loads_strictly(project: Project, shipped: Path) -> None:
    record, cached = fetch_weights(project, WEIGHTS)
    assert (record["source"], cached) == ("this project", False)
    assert record["source_sha256"] == file_sha256(shipped)
    wanted = expected_tensors(ARCHITECTURE)
    assert set(safetensors.torch.load_file(shipped)) == set(wanted) and record["tensors"] == len(wanted)
    for size in (224, 112):
        backbone = TokenBackbone(ARCHITECTURE, size)
        load_into(backbone, project, WEIGHTS)
        assert all(bool(parameter.isfinite().all()) for parameter in backbone.parameters())
    assert fetch_weights(project, WEIGHTS)[1]


def test_a_damaged_or_missing_file_is_refused_with_the_cure(project: Project, shipped: Path) -> None:
    good = shipped.read_bytes()
    shipped.write_bytes(good[:-4] + b"\0\0\0\0")
    with pytest.raises(FgvcError, match="another SHA-256") as caught:
        fetch_weights(project, WEIGHTS)
    assert "git checkout -- params/weights" in str(caught.value)
    shipped.unlink()
    with pytest.raises(FgvcError, match="is missing") as caught:
        fetch_weights(project, WEIGHTS)
    assert "git checkout -- params/weights" in str(caught.value)
    assert not project.paths.weights(WEIGHTS).exists()


def test_a_new_file_in_the_registry_replaces_the_fetched_one(project: Project, shipped: Path) -> None:
    fetch_weights(project, WEIGHTS)
    tensors = safetensors.torch.load_file(shipped)
    tensors["norm.bias"] += 1
    old, size = file_sha256(shipped), shipped.stat().st_size
    safetensors.torch.save_file(tensors, shipped, metadata={"weights": WEIGHTS})
    registry = project.file("weights", WEIGHTS)
    text = registry.read_text().replace(old, file_sha256(shipped))
    registry.write_text(text.replace(f"bytes: {size}", f"bytes: {shipped.stat().st_size}"))
    record, cached = fetch_weights(Project(project.root), WEIGHTS)
    assert not cached and record["source_sha256"] == file_sha256(shipped)


@pytest.mark.parametrize("file", ["../outside.safetensors", "/etc/passwd", "a/../../b", "a//b"])
def test_a_shipped_file_cannot_lie_outside_the_registry(project: Project, file: str) -> None:
    registry = project.file("weights", WEIGHTS)
    registry.write_text(re.sub(r"file: .*", f"file: {file}", registry.read_text()))
    with pytest.raises(FgvcError, match="match pattern"):
        Project(project.root).weights(WEIGHTS)


# --- the card --------------------------------------------------------------------------------------


def rows(card: str, heading: str) -> list[list[str]]:
    """The table rows below a heading, without the two lines of its head."""
    section = card.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.fixture
def card(shipped: Path) -> str:
    return shipped.with_suffix(".md").read_text(encoding="utf-8")


def test_the_card_is_what_the_record_of_the_run_makes_of_itself(card: str, shipped: Path) -> None:
    """Nothing in it was typed by hand; and the recipe of the run is the recipe of `fgvc pretrain`."""
    record = read_json(shipped.with_suffix(".json"))
    assert card == card_text(record)
    assert record["sha256"] == file_sha256(shipped)
    assert record["recipe"] == asdict(FaceRecipe())


def test_the_card_is_of_this_file(card: str, shipped: Path) -> None:
    assert f"`{file_sha256(shipped)}`" in card
    assert f"{shipped.stat().st_size:,} bytes" in card


def test_the_card_lists_the_faces_with_versions_and_licences(card: str) -> None:
    found = rows(card, "Faces")
    names = [name for row in found for name in row[4].split(", ")]
    assert len(names) == len(set(names)) == sum(int(row[3]) for row in found) >= 200
    assert f"{len(names)} typefaces" in card
    assert {row[0] for row in found} <= set(PACKAGES)
    for package, version, licences, _, _ in found:
        assert re.fullmatch(r"[0-9][\w.+~:-]*", version), (package, version)
        assert licences, package
    assert [name for name in names if excluded_family(name)] == []
    assert not {name for name, _ in typefaces.FACES} & set(names)


def test_the_card_says_which_face_is_nearest_to_each_test_face(card: str) -> None:
    found = rows(card, "Similarity to the test faces")
    names = {name for row in rows(card, "Faces") for name in row[4].split(", ")}
    assert [row[0] for row in found] == [name for name, _ in typefaces.FACES]
    for _, nearest, package, similarity in found:
        assert nearest in names and package in PACKAGES
        assert 0.5 < float(similarity) < LIKE_A_TEST_FACE


def test_the_card_says_what_was_refused(card: str) -> None:
    found = rows(card, "Refused")
    assert "Nimbus Roman" in {row[0] for row in found}, "a relative of STIX"
    assert all(float(row[3]) >= LIKE_A_TEST_FACE and "test face" in row[2] for row in found)


# --- what they are good for ------------------------------------------------------------------------


def nearest_mean_accuracy(backbone: TokenBackbone) -> float:
    """Share of pictures of the 21 test faces whose nearest class mean, of three pictures, is their own."""
    known, asked = 3, 2

    def features(class_id: int, index: int) -> Tensor:
        image = typefaces.render(class_id, 7_000_000 + index).resize((300, 300)).crop((38, 38, 262, 262))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 127.5 - 1

    images = torch.stack([features(c, i) for c in range(21) for i in range(known + asked)])
    with torch.inference_mode():
        cls = nn.functional.normalize(backbone.cls(backbone(images)), dim=1).reshape(21, known + asked, -1)
    means = cls[:, :known].mean(dim=1)
    guessed = (cls[:, known:] @ means.T).argmax(dim=2)
    return float((guessed == torch.arange(21)[:, None]).float().mean())


def test_they_tell_the_unseen_test_faces_apart(project: Project) -> None:
    """Without any training on them, far better than random weights; chance is 0.05."""
    torch.manual_seed(0)
    backbone = TokenBackbone(ARCHITECTURE, 224).eval()
    from_scratch = nearest_mean_accuracy(backbone)
    fetch_weights(project, WEIGHTS)
    load_into(backbone, project, WEIGHTS)
    pretrained = nearest_mean_accuracy(backbone)
    assert pretrained > 0.5 > 0.3 > from_scratch
