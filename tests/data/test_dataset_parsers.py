"""Every dataset from its archive to its split lists, with small archives in the true internal layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from archivekit import Archive, annotations, cell, mat
from datakit import MakeSmall, picture, prepared
from small_archives import ARCHIVES, cars_devkit

from fgvc.config.project import Project
from fgvc.data.fetch import fetch
from fgvc.data.records import read_index
from fgvc.data.splits import cut, read_class_names, read_split
from fgvc.errors import FgvcError

REPOSITORY = Path(__file__).resolve().parents[2]


def test_every_dataset_that_comes_from_afar_has_an_archive_here() -> None:
    assert set(ARCHIVES) == set(Project(REPOSITORY).names("dataset")) - {"typefaces", "grocery35"}


@pytest.mark.parametrize("name", ARCHIVES)
def test_from_the_archive_to_the_split_lists(small: MakeSmall, tmp_path: Path, name: str) -> None:
    archive = ARCHIVES[name]()
    project = small(name, archive)
    record = prepared(project, name, tmp_path / "mirror")
    rows = {part: read_split(project, name, part) for part in ("train", "val", "train_val", "test")}
    for part, expected in archive.rows.items():
        assert rows[part] == expected
    if "train" not in archive.rows:
        fraction = project.dataset(name).split.train_fraction
        assert (rows["train"], rows["val"]) == cut(archive.rows["train_val"], fraction)
    assert (record["provenance"], record["lists"]) == (archive.provenance, "own")
    assert read_class_names(project, name) == archive.names
    index = read_index(project, name)
    assert {(e.class_id, e.path) for e in index.images} == {*archive.rows["train_val"], *archive.rows["test"]}
    # What the layout does not use is not kept.
    kept = {
        p.relative_to(project.paths.data_dir(name)).as_posix()
        for p in project.paths.data_dir(name).rglob("*")
        if p.is_file()
    }
    assert kept == {entry.path for entry in index.images} | set(index.record.support_files)


def test_cars_from_the_devkit(small: MakeSmall, tmp_path: Path) -> None:
    """The other form of Stanford Cars, as docs/adding-a-dataset.md shows it: a file a part."""
    page = (REPOSITORY / "docs/adding-a-dataset.md").read_text()
    block = next(text for text in page.split("```yaml\n")[1:] if "cars_train_annos.mat" in text)
    changes = yaml.safe_load(block.split("```")[0])
    archive = cars_devkit()
    project = small("cars", archive, yaml=changes)
    assert prepared(project, "cars", tmp_path / "mirror")["provenance"] == "official"
    assert read_split(project, "cars", "train_val") == archive.rows["train_val"]
    assert read_split(project, "cars", "test") == archive.rows["test"]
    assert read_class_names(project, "cars") == archive.names


# --- bad lists -------------------------------------------------------------------------------------


def edited(file: str, change: Callable[[str], str]) -> Callable[[Archive], str]:
    """Changes the text of a member; returns where an error must say that it is."""

    def edit(archive: Archive) -> str:
        for members in archive.files.values():
            for name in members:
                if name.endswith(file):
                    members[name] = change(members[name].decode()).encode()
                    return name
        raise AssertionError(file)

    return edit


def without(file: str) -> Callable[[Archive], str]:
    def remove(archive: Archive) -> str:
        for members in archive.files.values():
            for name in list(members):
                if name.endswith(file):
                    del members[name]
                    return name
        raise AssertionError(file)

    return remove


def line(number: int, text: str) -> Callable[[str], str]:
    """Replaces a line."""

    def change(whole: str) -> str:
        found = whole.split("\n")
        found[number - 1] = text
        return "\n".join(found)

    return change


def dropped(number: int) -> Callable[[str], str]:
    return lambda whole: "\n".join(t for i, t in enumerate(whole.split("\n"), 1) if i != number)


def swapped(old: str, new: str) -> Callable[[str], str]:
    return lambda whole: whole.replace(old, new)


def more(text: str) -> Callable[[str], str]:
    return lambda whole: whole + text


@pytest.mark.parametrize(
    ("name", "damage", "says", "at_line"),
    [
        ("cub", without("images.txt"), "does not exist", None),
        ("cub", edited("/images.txt", line(4, "4")), "not 'id value'", 4),
        ("cub", edited("/images.txt", line(4, "3 a/b.jpg")), "there twice", 4),
        ("cub", edited("/images.txt", line(4, "4 ../../b.jpg")), "leaves the dataset", 4),
        ("cub", edited("/images.txt", lambda _: "\n"), "empty", None),
        ("cub", edited("image_class_labels.txt", line(2, "x y")), "no image has the id x", 2),
        ("cub", edited("image_class_labels.txt", line(2, "20 y")), "'y' is not an integer", 2),
        ("cub", edited("image_class_labels.txt", dropped(2)), "id 20 is missing", None),
        (
            "cub",
            edited("image_class_labels.txt", line(2, "20 4")),
            "4 classes, the dataset's YAML says 3",
            None,
        ),
        ("cub", edited("train_test_split.txt", line(5, "5 2")), "part '2' is not 0 or 1", 5),
        ("cub", edited("train_test_split.txt", more("99 1\n")), "no image has the id 99", 22),
        ("cub", edited("classes.txt", dropped(3)), "class 3 has no name", 1),
        ("nabirds", edited("classes.txt", line(1, "nothing")), "not 'id value'", 1),
        ("aircraft", without("images_variant_val.txt"), "does not exist", None),
        ("aircraft", edited("images_variant_test.txt", line(2, "0000007 Boing")), "no class 'Boing'", 2),
        ("aircraft", edited("images_variant_test.txt", line(2, "0000007")), "1 column", 2),
        ("aircraft", edited("variants.txt", more("A380\n")), "4 class names", None),
        ("aircraft", edited("variants.txt", line(2, "707-320")), "there twice", None),
        ("aircraft", edited("images_variant_val.txt", line(1, "0000003 707-320")), "listed twice", None),
        ("pets", edited("test.txt", line(3, "Bengal_7 0 1 1")), "class 0 is outside 1..3", 3),
        ("pets", edited("test.txt", line(3, "Bengal_7 4 1 1")), "class 4 is outside 1..3", 3),
        ("pets", edited("test.txt", line(3, "Bengal_7 one 1 1")), "not an integer", 3),
        ("pets", edited("test.txt", line(3, "Bengal_99 3 1 1")), "Bengal_99", None),
        ("vegfru", edited("vegfru_test.txt", line(1, "a/../b.jpg 1")), "leaves the dataset", 1),
        ("dafb", edited("labels/val.csv", line(1, "0,a/b.jpg")), "no header", 1),
        ("food", without("meta/test.json"), "does not exist", None),
        ("food", edited("meta/train.json", lambda _: "{\n'a'"), "no JSON", 2),
        ("food", edited("meta/train.json", lambda _: "[]"), "no JSON object", None),
        (
            "food",
            edited("meta/train.json", lambda _: '{"soup": []}'),
            "not in food-101/meta/classes.txt",
            None,
        ),
        ("food", edited("meta/train.json", lambda _: '{"samosa": ["/etc/x"]}'), "absolute", None),
        ("food", edited("meta/train.json", lambda _: '{"samosa": 3}'), "no list", None),
        ("food", edited("meta/classes.txt", more("churros\n")), "there twice", None),
        (
            "inat17",
            edited("train2017.json", swapped('"category_id": 2}', '"category_id": 3}')),
            "no category has the id 3",
            None,
        ),
        (
            "inat17",
            edited("train2017.json", swapped('"image_id": 4,', '"image_id": 99,')),
            "no image has the id 99",
            None,
        ),
        (
            "inat17",
            edited("train2017.json", swapped('"image_id": 4,', '"image_id": 3,')),
            "has a class already",
            None,
        ),
        (
            "inat17",
            edited("train2017.json", swapped('"image_id": 4,', '"picture": 4,')),
            "lacks 'image_id",
            None,
        ),
        (
            "inat17",
            edited("val2017.json", swapped('"id": 40', '"id": 41')),
            "not those of the other list",
            None,
        ),
        ("inat17", edited("val2017.json", swapped('"id": 40', '"id": "40"')), "not an integer", None),
    ],
)
def test_bad_lists_are_one_clear_error(
    small: MakeSmall,
    tmp_path: Path,
    name: str,
    damage: Callable[[Archive], str],
    says: str,
    at_line: int | None,
) -> None:
    archive = ARCHIVES[name]()
    file = damage(archive)
    with pytest.raises(FgvcError) as caught:
        fetch(small(name, archive), name, tmp_path / "mirror")
    assert says in str(caught.value) and caught.value.line == at_line
    assert len(str(caught.value).splitlines()) <= 5 and "Traceback" not in str(caught.value)
    assert Path(file).name in str(caught.value) or "Bengal" in says


@pytest.mark.parametrize(
    ("name", "file", "content", "says", "key"),
    [
        ("dogs", "train_list.mat", b"no matlab", "no MATLAB file", None),
        ("dogs", "test_list.mat", mat(labels=[1]), "no such variable", "file_list"),
        (
            "dogs",
            "test_list.mat",
            mat(file_list=cell(["a/b.jpg"]), labels=[1, 2]),
            "1 paths have 2",
            "labels",
        ),
        (
            "dogs",
            "test_list.mat",
            mat(file_list=cell(["a.jpg", "b.jpg"]), labels=[1, 4]),
            "4 is outside 1..3",
            "labels(2)",
        ),
        ("dogs", "test_list.mat", mat(file_list=cell(["../b.jpg"]), labels=[1]), "leaves", "labels(1)"),
        (
            "dogs",
            "test_list.mat",
            mat(file_list=cell(["a.jpg"]), labels=cell(["x"])),
            "not an integer",
            "labels(1)",
        ),
        (
            "cars",
            "cars_annos.mat",
            mat(annotations=annotations([{"fname": "a", "test": 0}])),
            "no such variable",
            "annotations.relative_im_path",
        ),
        ("flowers", "imagelabels.mat", mat(labels=[[0] * 21]), "0 is outside 1..3", "labels(3)"),
        (
            "flowers",
            "setid.mat",
            mat(trnid=[[1]], valid=[[2]], tstid=[[3, 22]]),
            "image 22 has no label; there are 21",
            "tstid(2)",
        ),
        ("flowers", "setid.mat", mat(trnid=[[1]], valid=[[1, 1]], tstid=[[3]]), "listed twice", None),
    ],
)
def test_bad_matlab_files_are_one_clear_error(
    small: MakeSmall, tmp_path: Path, name: str, file: str, content: bytes, says: str, key: str | None
) -> None:
    archive = ARCHIVES[name]()
    (members,) = [own for own in archive.files.values() if file in own]
    members[file] = content
    with pytest.raises(FgvcError) as caught:
        fetch(small(name, archive), name, tmp_path / "mirror")
    assert says in str(caught.value) and caught.value.key == key
    assert caught.value.file is not None and caught.value.file.endswith(file)


@pytest.mark.parametrize(
    ("member", "says"),
    [
        ("images/leaf.png", "does not tell class and part"),
        ("images/1_9_val.png", "does not tell class and part"),
        ("images/4_9_test.png", "4 is outside 1..3"),
        ("images/0_9_test.png", "0 is outside 1..3"),
    ],
)
def test_a_file_name_that_tells_nothing(small: MakeSmall, tmp_path: Path, member: str, says: str) -> None:
    archive = ARCHIVES["cotton80"]()
    archive.files["cotton80/images.tar"][member] = picture(0)
    with pytest.raises(FgvcError, match=says) as caught:
        fetch(small("cotton80", archive), "cotton80", tmp_path / "mirror")
    assert caught.value.file == f"data/cotton80/{member}"


def test_a_stage_without_test_pictures(small: MakeSmall, tmp_path: Path) -> None:
    archive = ARCHIVES["soyageing_r3"]()
    members = archive.files["soyageing/images.tar"]
    for name in [name for name in members if "R3" in name and "test" in name]:
        del members[name]
    with pytest.raises(FgvcError, match="of 'test'") as caught:
        fetch(small("soyageing_r3", archive), "soyageing_r3", tmp_path / "mirror")
    assert caught.value.file == "data/soyageing_r3/images/R3"
