"""Every dataset from its archive to its split lists, with small archives in the true internal layout."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from archivekit import ARCHIVES, Archive, annotations, cars_devkit, cell, mat
from datakit import list_text, picture

from fgvc.config.project import Project
from fgvc.data.fetch import fetch
from fgvc.data.records import read_index
from fgvc.data.splits import cut, prepare_splits, read_class_names, read_split
from fgvc.errors import FgvcError
from fgvc.provenance.digests import split_sha256

REPOSITORY = Path(__file__).resolve().parents[2]
MakeSmall = Callable[..., Project]


@pytest.fixture
def small(project_factory: Callable[..., Project], tmp_path: Path) -> MakeSmall:
    """``small(name, archive)``: a project with the shipped YAML scaled down, and a mirror of its archives."""

    def make(name: str, archive: Archive, **changes: Any) -> Project:
        facts = yaml.safe_load((REPOSITORY / "params/datasets" / f"{name}.yaml").read_text())
        facts["classes"] = 3
        facts["expected"] = {part: {"rows": len(rows)} for part, rows in archive.rows.items()}
        published, packed = facts.pop("published", None), archive.packed()
        facts.update(changes.pop("yaml", {}))
        for download in facts["source"]["downloads"]:
            data = packed[download["file"]]
            facts_of_file = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            download.update({k: v for k, v in facts_of_file.items() if k in download})
            download.pop("md5", None)
            place = tmp_path / "mirror" / download["file"]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        if "published" in changes and published:
            facts["published"] = {**published, "url": "http://127.0.0.1:9/{}", **changes.pop("published")}
        return project_factory(
            files={f"params/datasets/{name}.yaml": {**facts, **changes}}, settings={"network_timeout_s": 0.2}
        )

    return make


def prepared(project: Project, name: str, mirror: Path) -> dict[str, Any]:
    fetch(project, name, mirror)
    return prepare_splits(project, name)


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


# --- published lists -------------------------------------------------------------------------------


def published_expected(parts: dict[str, list[tuple[int, str]]]) -> dict[str, Any]:
    return {part: {"rows": len(rows), "sha256": split_sha256(rows)} for part, rows in parts.items()}


def relative(rows: list[tuple[int, str]], root: str) -> list[tuple[int, str]]:
    return [(c, path.removeprefix(f"{root}/")) for c, path in rows]


def put_lists(mirror: Path, folder: str, lists: dict[str, bytes]) -> None:
    (mirror / folder).mkdir(parents=True)
    for name, text in lists.items():
        (mirror / folder / f"{name}.csv").write_bytes(text)


def test_published_lists_count_where_they_can_be_had(small: MakeSmall, tmp_path: Path) -> None:
    """Moe: other ids, another test part, fewer images than the folders hold."""
    archive = ARCHIVES["moe"]()
    order = [2, 0, 1]  # their class id of each of our folders
    every = [(order[c], p) for c, p in archive.rows["train_val"] + archive.rows["test"] if "face_2" not in p]
    parts = {"train_val": sorted(every[::2]), "test": sorted(every[1::2])}
    parts = {part: relative(rows, "data") for part, rows in parts.items()}
    parts["train"], parts["val"] = cut(parts["train_val"], 0.8)
    names = [archive.names[order.index(c)] for c in range(3)]
    listed = {part: list_text(parts[part]) for part in ("train_val", "test")}
    listed["classid_classname"] = b"class_id,class_name\n" + b"".join(
        f"{c},{name}\n".encode() for c, name in enumerate(names)
    )
    mirror = tmp_path / "mirror"
    put_lists(mirror, "splits/moe", listed)
    digest = hashlib.sha256(listed["classid_classname"]).hexdigest()
    project = small("moe", archive, published={"classes_sha256": digest}, expected=published_expected(parts))
    fetched = fetch(project, "moe", mirror)
    record = prepare_splits(project, "moe")
    assert (record["provenance"], record["lists"], fetched.notes) == ("published", "published", [])
    assert read_split(project, "moe", "test") == [(c, f"data/{p}") for c, p in parts["test"]]
    assert read_class_names(project, "moe") == names
    assert {file.checked[0] for file in fetched.record.source.files[1:]} == {"list_sha256", "sha256"}
    assert fetch(project, "moe", mirror).outcome == "present"


@pytest.mark.parametrize("trouble", ["none there", "another list", "one of two"])
def test_without_the_published_lists_the_split_is_ours(
    small: MakeSmall, tmp_path: Path, trouble: str
) -> None:
    archive = ARCHIVES["moe"]()
    parts = {part: relative(rows, "data") for part, rows in archive.rows.items()}
    expected = published_expected({"train_val": parts["train_val"][1:], "test": parts["test"][1:]})
    if trouble != "none there":
        wrong = list_text(parts["test"]) if trouble == "another list" else list_text(parts["test"][1:])
        put_lists(tmp_path / "mirror", "splits/moe", {"test": wrong})
    project = small("moe", archive, published={}, expected=expected)
    fetched = fetch(project, "moe", tmp_path / "mirror")
    record = prepare_splits(project, "moe")
    assert (record["provenance"], record["lists"]) == ("ours", "own")
    assert "the split follows the archive" in " ".join(fetched.notes)
    assert any("could not be fetched" in note for note in fetched.notes)
    said = {check["check"]: check["outcome"] for check in record["checks"]}
    assert said["test has 5 images, as published"] == "differs: 6"
    assert not (project.paths.data_dir("moe") / "published_lists").exists()


def test_a_derived_split_is_published_when_every_digest_says_so(small: MakeSmall, tmp_path: Path) -> None:
    archive = ARCHIVES["cub"]()
    parts = {part: relative(rows, "CUB_200_2011/images") for part, rows in archive.rows.items()}
    parts["train"], parts["val"] = cut(parts["train_val"], 0.8)
    project = small("cub", archive, published={}, expected=published_expected(parts))
    record = prepared(project, "cub", tmp_path / "mirror")
    assert (record["provenance"], record["lists"]) == ("published", "own")


def test_an_official_split_with_counts_other_than_published_is_an_error(
    small: MakeSmall, tmp_path: Path
) -> None:
    archive = ARCHIVES["cub"]()
    project = small("cub", archive, published={}, expected={"test": {"rows": 7}})
    with pytest.raises(FgvcError, match="test has 6 images, 7 are expected"):
        prepared(project, "cub", tmp_path / "mirror")


@pytest.mark.parametrize(("swapped", "names"), [(False, "archive"), (True, "paths")])
def test_names_come_from_the_archive_where_its_classes_are_the_lists(
    small: MakeSmall, tmp_path: Path, swapped: bool, names: str
) -> None:
    archive = ARCHIVES["aircraft"]()
    root = "fgvc-aircraft-2013b/data/images"
    parts = {part: relative(rows, root) for part, rows in archive.rows.items()}
    if swapped:
        parts = {part: [(2 - c, path) for c, path in rows] for part, rows in parts.items()}
    put_lists(tmp_path / "mirror", "splits/aircraft", {p: list_text(rows) for p, rows in parts.items()})
    project = small("aircraft", archive, published={}, expected=published_expected(parts))
    assert prepared(project, "aircraft", tmp_path / "mirror")["lists"] == "published"
    expected = archive.names if names == "archive" else ["class 0", "class 1", "class 2"]
    assert read_class_names(project, "aircraft") == expected


def test_published_lists_without_a_digest_are_unverified(small: MakeSmall, tmp_path: Path) -> None:
    """DAFB: nobody could read two of its four lists."""
    archive = ARCHIVES["dafb"]()
    parts = {part: relative(rows, "fullMin256") for part, rows in archive.rows.items()}
    lists = {part: list_text(rows) for part, rows in parts.items()}
    lists["classid_classname"] = archive.files["dafb/labels.tar.gz"]["labels/classid_classname.csv"]
    put_lists(tmp_path / "mirror", "splits/daf", lists)
    expected = {part: published_expected(parts)[part] for part in ("train", "test")}
    record = prepared(small("dafb", archive, published={}, expected=expected), "dafb", tmp_path / "mirror")
    assert (record["provenance"], record["lists"]) == ("unverified", "published")
