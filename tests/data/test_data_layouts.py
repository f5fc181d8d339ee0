"""What a dataset holds: class folders, lists, names of classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from datakit import Toy, list_text, picture, toy_files, toy_yaml

from fgvc.config.project import Project
from fgvc.data.fetch import fetch
from fgvc.data.layouts import class_folders, natural_key, read_layout
from fgvc.errors import FgvcError


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


def test_natural_order() -> None:
    names = ["img10", "img2", "Img1", "b", "B", "a", "10", "9", "img2b", "²"]
    assert sorted(names, key=natural_key)[:6] == ["9", "10", "a", "B", "b", "Img1"]
    assert sorted(names, key=natural_key)[6:9] == ["img2", "img2b", "img10"]


def test_class_folders_without_parts(tmp_path: Path) -> None:
    root = touch(
        tmp_path, "class10/2.jpg", "class10/10.JPG", "class9/deep/er/1.png", "class9/.DS_Store", ".git/x.jpg",
        "class9/Thumbs.db", "readme.txt",
    )  # fmt: skip
    layout = class_folders(root, "here")
    assert layout.class_names == ["class9", "class10"]
    assert layout.rows == {"all": [(0, "class9/deep/er/1.png"), (1, "class10/2.jpg"), (1, "class10/10.JPG")]}
    assert layout.ignored == ("class9/Thumbs.db",)


def test_class_folders_below_parts(tmp_path: Path) -> None:
    root = touch(tmp_path, "Train/a/1.jpg", "Train/b/1.jpg", "valid/a/2.jpg", "test/b/3.jpg")
    layout = class_folders(root, "here")
    assert layout.class_names == ["a", "b"]
    assert layout.rows == {
        "train": [(0, "Train/a/1.jpg"), (1, "Train/b/1.jpg")],
        "val": [(0, "valid/a/2.jpg")],
        "test": [(1, "test/b/3.jpg")],
    }


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    assert class_folders(touch(tmp_path, "train/1.jpg", "car/1.jpg"), "here").class_names == ["car", "train"]


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["a/1.jpg", "b/1.txt"], "class 'b' holds no image"),
        (["1.jpg"], "no class folder"),
        (["train/a/1.jpg", "val/a/1.jpg", "valid/a/1.jpg"], "same part"),
        (["a/back\\slash.jpg", "b/1.jpg"], "backslash"),
        (["a/new\nline.jpg", "b/1.jpg"], "control character"),
    ],
)
def test_unusable_class_folders(tmp_path: Path, paths: list[str], says: str) -> None:
    with pytest.raises(FgvcError, match=says):
        class_folders(touch(tmp_path, *paths), "here")


def test_the_number_of_classes_must_be_as_declared(
    project_factory: Callable[..., Project], class_folder: Path
) -> None:
    yaml = toy_yaml(
        classes=4,
        source={"kind": "folder", "path": str(class_folder)},
        layout={"kind": "class_folders"},
        licence_file=None,
    )
    project = project_factory(files={"params/datasets/mine.yaml": yaml})
    with pytest.raises(FgvcError, match="3 classes are here, the dataset's YAML says 4"):
        fetch(project, "mine")


def test_before_the_fetch_the_cure_is_the_fetch(toy: Toy) -> None:
    with pytest.raises(FgvcError) as caught:
        read_layout(toy.project, "toy")
    assert caught.value.cure.splitlines() == [
        "fgvc data fetch toy",
        "or, where they are tracked: dvc pull",
    ]


def test_one_image_with_two_classes(make_toy: Callable[..., Toy]) -> None:
    files = toy_files()
    files["lists/test.csv"] = list_text([(1, "ant/0.jpg"), (0, "ant/4.jpg")])
    with pytest.raises(FgvcError, match=r"ant/0\.jpg.*class 0 in one list and 1"):
        make_toy(files).fetch()


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x_17/1.jpg", "y/1.jpg", "y/2.jpg"], ["x_17", "y"]),
        (["great_pyrenees_1.jpg", "pug_1.jpg", "pug_2.jpg"], ["great_pyrenees", "pug"]),
        (["image_1.jpg", "image_2.jpg", "image_3.jpg"], ["class 0", "class 1"]),
        (["same/great_dane_1.jpg", "same/pug_1.jpg", "same/pug_2.jpg"], ["great_dane", "pug"]),
    ],
)
def test_names_from_paths(make_toy: Callable[..., Toy], paths: list[str], names: list[str]) -> None:
    rows = [(0 if position == 0 else 1, path) for position, path in enumerate(paths)]
    files = {f"img/{path}": picture(i) for i, path in enumerate(paths)}
    files |= {"l.csv": list_text(rows[:2]), "t.csv": list_text(rows[2:]), "LICENSE": b"x"}
    layout = toy_yaml()["layout"] | {"lists": {"train_val": "l.csv", "test": "t.csv"}}
    toy = make_toy(files, classes=2, layout=layout)
    toy.fetch()
    assert read_layout(toy.project, "toy").class_names == names


def test_names_from_a_file(make_toy: Callable[..., Toy]) -> None:
    layout = toy_yaml()["layout"] | {"classes_file": "names.csv"}
    files = toy_files() | {
        "names.csv": b'\xef\xbb\xbfclass_id,class_name\r\n2,Cow\r\n0,"Ant, red"\r\n1,Bee\r\n'
    }
    toy = make_toy(files, layout=layout)
    toy.fetch()
    assert read_layout(toy.project, "toy").class_names == ["Ant, red", "Bee", "Cow"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"class_id,class_name\n0,Ant\n1,Bee\n", "class 2 has no name"),
        (b"0,Ant\nx,Bee\n2,Cow\n", "'x' is not an integer"),
        (b"0,Ant\n1\n", "column"),
    ],
)
def test_bad_name_files(make_toy: Callable[..., Toy], text: bytes, says: str) -> None:
    layout = toy_yaml()["layout"] | {"classes_file": "names.csv"}
    with pytest.raises(FgvcError, match=says):
        make_toy(toy_files() | {"names.csv": text}, layout=layout).fetch()
