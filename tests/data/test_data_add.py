"""A folder of one's own: one call, no split made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from datakit import CLASSES, picture

from fgvc.config.project import Project
from fgvc.data.add import add_dataset
from fgvc.data.fetch import fetch
from fgvc.data.splits import prepare_splits
from fgvc.data.stats import size_statistics
from fgvc.errors import FgvcError


@pytest.fixture
def project(project_factory: Callable[..., Project]) -> Project:
    return project_factory(copy=["datasets/typefaces", "datasets/cub"])


def test_from_a_folder_to_statistics(project: Project, class_folder: Path) -> None:
    dataset = add_dataset(project, "mine", class_folder, 'Mine: "best" of 2026')
    assert (dataset.title, dataset.classes) == ('Mine: "best" of 2026', 3)
    text = project.file("dataset", "mine").read_text()
    assert text.startswith("# Mine: ") and "fgvc data fetch mine" in text and "15 images in 3 classes" in text
    project = Project(project.root)
    assert fetch(project, "mine").record.images == 15
    assert prepare_splits(project, "mine")["provenance"] == "ours"
    assert size_statistics(project, "mine")["all"]["images"] == 15


def test_a_folder_inside_the_project_is_kept_relative(project: Project, class_folder: Path) -> None:
    inside = project.root / "pictures"
    class_folder.rename(inside)
    assert add_dataset(project, "mine", inside).source.path == "pictures"
    assert fetch(Project(project.root), "mine").record.images == 15


def test_the_title_is_the_folders_name_by_default(project: Project, class_folder: Path) -> None:
    assert add_dataset(project, "mine", class_folder).title == "my pictures"


def test_images_that_lie_in_data_already(project: Project, class_folder: Path) -> None:
    place = project.root / "data" / "mine"
    place.parent.mkdir()
    class_folder.rename(place)
    add_dataset(project, "mine", place)
    assert fetch(Project(project.root), "mine").outcome == "recorded"


@pytest.mark.parametrize("name", ["Mine", "my pictures", "../x", "9lives", "", "a/b", "ünï", "x" * 41])
def test_names_that_cannot_be(project: Project, class_folder: Path, name: str) -> None:
    with pytest.raises(FgvcError, match="cannot be a dataset's name"):
        add_dataset(project, name, class_folder)


@pytest.mark.parametrize("name", ["typefaces", "cub200"])
def test_names_that_are_taken(project: Project, class_folder: Path, name: str) -> None:
    before = project.file("dataset", "typefaces").read_bytes()
    with pytest.raises(FgvcError, match=f"called '{name}' already"):
        add_dataset(project, name, class_folder)
    assert project.file("dataset", "typefaces").read_bytes() == before


def files(root: Path, *paths: str) -> Path:
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(picture(number))
    root.mkdir(exist_ok=True)
    return root


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        ([], "no class folder"),
        (["1.jpg", "2.jpg"], "no class folder"),
        (["a/1.jpg", "a/2.jpg", "a/3.jpg"], "one class folder only"),
        (["all/ant/1.jpg", "all/bee/1.jpg"], "the classes may lie in .*all"),
        (["a/1.jpg", "b/1.txt"], "class 'b' holds no image"),
        ([f"{c}/{i}.jpg" for c in "ab" for i in range(2)], "train part would lack 2 class"),
        (
            ["train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg", "train/b/2.jpg", "test/a/3.jpg"],
            "test part would lack 1",
        ),
    ],
)
def test_folders_that_are_no_dataset(project: Project, tmp_path: Path, paths: list[str], says: str) -> None:
    with pytest.raises(FgvcError, match=says) as caught:
        add_dataset(project, "mine", files(tmp_path / "in", *paths))
    assert len(str(caught.value).splitlines()) <= 5 and caught.value.cure
    assert "mine" not in project.names("dataset")


def test_three_images_a_class_are_enough(project: Project, tmp_path: Path) -> None:
    root = files(tmp_path / "in", *(f"{c}/{i}.jpg" for c in CLASSES for i in range(3)))
    add_dataset(project, "mine", root)
    project = Project(project.root)
    fetch(project, "mine")
    assert prepare_splits(project, "mine")["parts"]["train"]["rows"] == 3


def test_a_folder_that_is_not_there(project: Project, tmp_path: Path) -> None:
    with pytest.raises(FgvcError, match="no such folder"):
        add_dataset(project, "mine", tmp_path / "nowhere")
