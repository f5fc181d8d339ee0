"""The drawn dataset: the same pictures every time, and nothing but the letters' shape tells classes apart."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import yaml
from datakit import tree

from fgvc.config.project import Project
from fgvc.data import generated, typefaces
from fgvc.data.fetch import fetch
from fgvc.data.records import read_index
from fgvc.data.splits import PARTS, prepare_splits, read_class_names
from fgvc.errors import FgvcError

SMALL = {"train": 1, "val": 1, "test": 1}


def small(
    make: Callable[..., Project], name: str, counts: dict[str, int] = SMALL, **source: object
) -> Project:
    """The project's own typefaces dataset with few pictures."""
    project = make(copy=["datasets/typefaces"], name=name)
    path = project.file("dataset", "typefaces")
    data = yaml.safe_load(path.read_text())
    data["source"] |= {"counts": counts, "tree_sha256": None} | source
    path.write_text(yaml.safe_dump(data))
    return Project(project.root)


@pytest.fixture
def drawn(project_factory: Callable[..., Project]) -> Project:
    project = small(project_factory, "drawn")
    fetch(project, "typefaces")
    return project


def test_two_fetches_draw_the_same_bytes(drawn: Project, project_factory: Callable[..., Project]) -> None:
    other = small(project_factory, "again")
    fetch(other, "typefaces")
    assert tree(drawn.root / "data") == tree(other.root / "data")
    assert len(tree(drawn.paths.data_dir("typefaces"))) == 3 * len(typefaces.FACES)


def test_its_split_is_official_and_complete(drawn: Project) -> None:
    record = prepare_splits(drawn, "typefaces")
    assert record["provenance"] == "official"
    assert {p: record["parts"][p]["origin"] for p in PARTS}["val"] == "list"
    assert read_class_names(drawn, "typefaces") == [name for name, _ in typefaces.FACES]


def test_more_training_pictures_leave_the_others_as_they_are(drawn: Project) -> None:
    before = tree(drawn.paths.data_dir("typefaces"))
    grown = small(lambda **_: drawn, "drawn", {"train": 2, "val": 1, "test": 1})
    again = fetch(grown, "typefaces")
    assert again.outcome == "fetched"
    after = tree(grown.paths.data_dir("typefaces"))
    assert {p: after[p] for p in before} == before and len(after) == 4 * len(typefaces.FACES)


def test_no_two_parts_share_a_picture(drawn: Project) -> None:
    digests = [entry.sha256 for entry in read_index(drawn, "typefaces").images]
    assert len(set(digests)) == len(digests)
    first = sorted(generated.FIRST_INDEX.values())
    assert min(b - a for a, b in itertools.pairwise(first)) >= 1_000_000


def test_other_pictures_than_the_reference_are_noted(project_factory: Callable[..., Project]) -> None:
    project = small(project_factory, "other", tree_sha256="0" * 64)
    fetched = fetch(project, "typefaces")
    assert fetched.record.matches_reference is False
    assert "differ from the reference" in fetched.notes[0]
    right = small(lambda **_: project, "other", tree_sha256=fetched.record.tree_sha256)
    assert fetch(right, "typefaces").record.matches_reference is True


def test_something_else_under_its_name_is_not_overwritten(drawn: Project) -> None:
    picture = next(drawn.paths.data_dir("typefaces").rglob("*.jpg"))
    picture.write_bytes(b"mine")
    with pytest.raises(FgvcError, match="not as recorded"):
        fetch(drawn, "typefaces")
    grown = small(lambda **_: drawn, "drawn", {"train": 2, "val": 1, "test": 1})
    with pytest.raises(FgvcError, match="holds something else"):
        fetch(grown, "typefaces")
    assert picture.read_bytes() == b"mine"


def test_by_construction_the_class_decides_the_face_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same stream of random numbers and the same face, every class draws the same picture."""
    make, load = np.random.default_rng, typefaces._font
    monkeypatch.setattr(np.random, "default_rng", lambda seed: make([0, *seed[1:]]))
    monkeypatch.setattr(typefaces, "_font", lambda _file, size_px: load("DejaVuSans.ttf", size_px))
    pictures = {typefaces.render(c, 7).tobytes() for c in range(len(typefaces.FACES))}
    assert len(pictures) == 1


def test_the_class_and_the_index_both_count() -> None:
    pictures = [typefaces.render(c, i).tobytes() for c, i in ((0, 0), (0, 1), (1, 0))]
    assert len(set(pictures)) == 3
    assert typefaces.render(0, 0).tobytes() == pictures[0]
    with pytest.raises(IndexError):
        typefaces.render(len(typefaces.FACES), 0)
