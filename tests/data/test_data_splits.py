"""Splits: cut as the published lists were, byte for byte; everything that must hold is checked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from datakit import CLASSES, Toy, list_text, picture, toy_files, toy_yaml

from fgvc.config.project import Project
from fgvc.data.fetch import fetch
from fgvc.data.lists import published_rows, write_list
from fgvc.data.splits import PARTS, cut, prepare_splits, read_class_names, read_split
from fgvc.errors import FgvcError
from fgvc.provenance.digests import split_sha256

#: The published lists whose val part was cut off train_val, and the fraction that trains.
CUT = {
    **dict.fromkeys(("aircraft", "cars", "cotton", "cub", "dogs", "moe", "nabirds", "pets", "soy"), 0.8),
    "food": 0.2,
}


def rows_of(path: Path) -> list[tuple[int, str]]:
    return published_rows(path.read_text(), path.name)


# --- the cut ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.2, 0.8])
def test_golden_cut_byte_for_byte(shared: Path, tmp_path: Path, fraction: float) -> None:
    golden = shared / "golden" / f"split_a_p{fraction}"
    train, val = cut(rows_of(golden / "input.csv"), fraction)
    write_list(tmp_path / "train.csv", train)
    write_list(tmp_path / "val.csv", val)
    assert (tmp_path / "train.csv").read_bytes() == (golden / "train.csv").read_bytes()
    assert (tmp_path / "val.csv").read_bytes() == (golden / "val.csv").read_bytes()


@pytest.mark.parametrize("name", CUT)
def test_published_lists_are_reproduced_digest_for_digest(shared: Path, name: str) -> None:
    digests = yaml.safe_load((shared / "reference/split_digests.yaml").read_text())["splits"][name]
    lists = shared / "mirror/splits" / name
    train_val = rows_of(lists / "train_val.csv")
    assert split_sha256(train_val) == digests["train_val"]["sha256"]
    assert split_sha256(rows_of(lists / "test.csv")) == digests["test"]["sha256"]
    for part, rows in zip(("train", "val"), cut(train_val, CUT[name]), strict=True):
        assert split_sha256(rows) == digests[part]["sha256"]
        assert (len(rows), len({c for c, _ in rows})) == (digests[part]["rows"], digests[part]["classes"])


def test_the_cut_by_hand() -> None:
    rows = [(1, "d"), (0, "b"), (1, "c"), (0, "a"), (1, "e"), (2, "x")]
    assert cut(rows, 0.8) == ([(0, "b"), (1, "d"), (1, "c")], [(0, "a"), (1, "e"), (2, "x")])


# --- the verb --------------------------------------------------------------------------------------


def split(toy: Toy) -> dict[str, object]:
    toy.fetch()
    return prepare_splits(Project(toy.project.root), "toy")


def outcome(record: dict, check: str) -> str:
    (found,) = [c["outcome"] for c in record["checks"] if c["check"] == check]
    return found


def test_val_is_cut_and_the_rest_kept(toy: Toy) -> None:
    record = split(toy)
    train_val = read_split(toy.project, "toy", "train_val")
    assert (read_split(toy.project, "toy", "train"), read_split(toy.project, "toy", "val")) == cut(
        train_val, 0.5
    )
    assert {p: record["parts"][p]["origin"] for p in PARTS} == {
        "train": "cut", "val": "cut", "train_val": "list", "test": "list",
    }  # fmt: skip
    assert [record["parts"][p]["rows"] for p in PARTS] == [6, 6, 12, 3]
    assert (record["provenance"], record["train_fraction"], record["test_fraction"]) == (
        "official",
        0.5,
        None,
    )
    assert read_class_names(toy.project, "toy") == list(CLASSES)
    text = toy.project.paths.split_list("toy", "test").read_bytes()
    assert text == b"class_id,dir\n0,img/ant/4.jpg\n1,img/bee/4.jpg\n2,img/cow/4.jpg\n"
    assert json.loads(toy.project.paths.split_record("toy").read_text()) == record
    assert all(c["outcome"] in ("passed",) for c in record["checks"])


def test_the_same_split_gives_the_same_bytes(toy: Toy) -> None:
    split(toy)
    folder = toy.project.paths.splits_dir("toy")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert set(before) == {"train.csv", "val.csv", "train_val.csv", "test.csv", "classes.csv", "split.json"}
    split(toy)
    assert before == {p.name: p.read_bytes() for p in folder.iterdir()}


def test_digests_are_taken_in_the_published_form(make_toy: Callable[..., Toy]) -> None:
    test_rows = [(0, "ant/4.jpg"), (1, "bee/4.jpg"), (2, "cow/4.jpg")]
    train_val = [(c, f"{n}/{i}.jpg") for c, n in enumerate(CLASSES) for i in range(4)]
    published = {"test": test_rows, "train_val": train_val}
    published["train"], published["val"] = cut(train_val, 0.5)
    expected = {p: {"rows": len(r), "sha256": split_sha256(r)} for p, r in published.items()}
    rule = {"train_fraction": 0.5, "provenance": "published"}
    record = split(make_toy(split=rule, expected=expected))
    assert record["provenance"] == "published"
    for part in PARTS:
        assert record["parts"][part]["list_sha256"] == expected[part]["sha256"]
        assert record["parts"][part]["sha256"] != expected[part]["sha256"]  # paths below data/D here
        assert outcome(record, f"{part} is the published list") == "passed"


@pytest.mark.parametrize(
    ("claimed", "sha256", "found"),
    [
        ("published", "0" * 64, "ours"),
        ("official", "0" * 64, "ours"),
        ("published", None, "unverified"),
        ("official", None, "official"),
        ("ours", None, "ours"),
    ],
)
def test_whose_split_it_is(
    make_toy: Callable[..., Toy], claimed: str, sha256: str | None, found: str
) -> None:
    rule = {"train_fraction": 0.5, "provenance": claimed}
    record = split(make_toy(split=rule, expected={"test": {"rows": 3, "sha256": sha256}}))
    assert record["provenance"] == found
    if sha256:
        assert outcome(record, "test is the published list") == "differs"


def test_three_lists_make_train_val(make_toy: Callable[..., Toy]) -> None:
    files = toy_files()
    rows = [(c, f"{n}/{i}.jpg") for c, n in enumerate(CLASSES) for i in range(4)]
    files |= {"train.csv": list_text(rows[::2]), "val.csv": list_text(rows[1::2])}
    lists = {"train": "train.csv", "val": "val.csv", "test": "lists/test.csv"}
    toy = make_toy(files, layout=toy_yaml()["layout"] | {"lists": lists}, split={"provenance": "official"})
    record = split(toy)
    expected = [(c, f"img/{p}") for c, p in rows[::2] + rows[1::2]]
    assert read_split(toy.project, "toy", "train_val") == expected
    assert record["parts"]["train_val"]["origin"] == "union"


def bad_lists(**lists: list[tuple[int, str]]) -> dict[str, bytes]:
    return toy_files() | {f"lists/{name}.csv": list_text(rows) for name, rows in lists.items()}


ALL = [(c, f"{n}/{i}.jpg") for c, n in enumerate(CLASSES) for i in range(4)]
TEST = [(c, f"{n}/4.jpg") for c, n in enumerate(CLASSES)]


def test_f10_an_image_in_two_parts_is_an_error(make_toy: Callable[..., Toy]) -> None:
    """An image that is in train and in test, or in any two parts that must be apart, is an error that names
    it."""
    with pytest.raises(FgvcError, match=r"1 image\(s\) are in train_val and in test: img/ant/3\.jpg"):
        split(make_toy(bad_lists(test=[*TEST, (0, "ant/3.jpg")])))


def test_train_and_val_must_make_train_val(make_toy: Callable[..., Toy]) -> None:
    files = bad_lists(train=ALL[::2], val=ALL[1::2][:-1], train_val=ALL, test=TEST)
    lists = {part: f"lists/{part}.csv" for part in PARTS}
    toy = make_toy(files, layout=toy_yaml()["layout"] | {"lists": lists}, split={"provenance": "official"})
    with pytest.raises(FgvcError, match=r"not train_val: 1 differ, as img/cow/3\.jpg"):
        split(toy)


def test_a_class_missing_from_a_part(make_toy: Callable[..., Toy]) -> None:
    files = bad_lists(test=TEST[:2])
    with pytest.raises(FgvcError, match=r"test lacks 1 class\(es\) \(cow\)") as caught:
        split(make_toy(files))
    assert "missing_classes: {test: 1}" in str(caught.value)
    rule = {"train_fraction": 0.5, "provenance": "official", "missing_classes": {"test": 1}}
    record = split(make_toy(files, split=rule))
    assert outcome(record, "test holds every class, but 1 that the official split lacks") == "passed"
    with pytest.raises(FgvcError, match=r"test lacks 1 class\(es\) \(cow\); 2 are declared"):
        split(make_toy(files, split={**rule, "missing_classes": {"test": 2}}))


def test_a_class_too_small_to_be_cut(make_toy: Callable[..., Toy]) -> None:
    files = bad_lists(train_val=[*ALL[:8], (2, "cow/0.jpg")])
    with pytest.raises(FgvcError, match=r"train lacks 1 class\(es\) \(cow\)") as caught:
        split(make_toy(files))
    assert "too few images" in str(caught.value)


def test_counts_other_than_expected(make_toy: Callable[..., Toy]) -> None:
    with pytest.raises(FgvcError, match="test has 3 images, 4 are expected") as caught:
        split(make_toy(expected={"test": {"rows": 4}}))
    assert caught.value.key == "expected.test.rows"


def test_an_image_that_the_index_does_not_know(toy: Toy) -> None:
    toy.fetch()
    path = toy.folder / "lists/test.csv"
    path.write_bytes(list_text([*TEST, (0, "ant/9.jpg")]))
    with pytest.raises(FgvcError, match=r"not in the index so: img/ant/9\.jpg") as caught:
        prepare_splits(toy.project, "toy")
    assert caught.value.cure == "fgvc data fetch toy"


def test_identical_pictures_on_both_sides_are_reported(make_toy: Callable[..., Toy]) -> None:
    files = toy_files()
    files["img/cow/4.jpg"] = files["img/ant/0.jpg"]
    record = split(make_toy(files))
    said = outcome(record, "no test image is byte-identical to one of train_val")
    assert said == "1 test image(s) are: img/cow/4.jpg"


def test_before_the_fetch(toy: Toy) -> None:
    with pytest.raises(FgvcError, match="does not exist yet") as caught:
        prepare_splits(toy.project, "toy")
    assert "fgvc data fetch toy" in str(caught.value)


def test_f10_a_prepared_list_cannot_leave_the_dataset(toy: Toy) -> None:
    """A prepared list to which a path outside the dataset was added is refused with file and line."""
    split(toy)
    path = toy.project.paths.split_list("toy", "test")
    path.write_text(path.read_text() + "0,../../secret.jpg\n")
    with pytest.raises(FgvcError, match="leaves") as caught:
        read_split(toy.project, "toy", "test")
    assert (caught.value.file, caught.value.line) == ("results/splits/toy/test.csv", 5)


@pytest.mark.parametrize(
    "read", [lambda p: read_split(p, "toy", "val"), lambda p: read_class_names(p, "toy")]
)
def test_before_the_split(toy: Toy, read: Callable[[Project], object]) -> None:
    with pytest.raises(FgvcError) as caught:
        read(toy.project)
    assert caught.value.cure == "fgvc data split toy"


# --- class folders ---------------------------------------------------------------------------------


def folder_split(project_factory: Callable[..., Project], root: Path, **rule: float) -> tuple[Project, dict]:
    changes = {
        "source": {"kind": "folder", "path": str(root)},
        "layout": {"kind": "class_folders"},
        "split": {"provenance": "ours", **rule},
        "licence_file": None,
    }
    project = project_factory(files={"params/datasets/toy.yaml": toy_yaml(**changes)})
    fetch(project, "toy")
    return project, prepare_splits(project, "toy")


def test_all_parts_are_cut_from_a_plain_folder(
    project_factory: Callable[..., Project], class_folder: Path
) -> None:
    project, record = folder_split(project_factory, class_folder, train_fraction=0.8, test_fraction=0.2)
    assert [record["parts"][p]["rows"] for p in PARTS] == [9, 3, 12, 3]
    assert read_split(project, "toy", "test") == [(c, f"{n}/{n}4.jpg") for c, n in enumerate(CLASSES)]
    assert (record["provenance"], record["test_fraction"]) == ("ours", 0.2)


@pytest.mark.parametrize(
    ("parts", "rows", "origins"),
    [
        (("train", "test"), [9, 3, 12, 12], ["cut", "cut", "list", "list"]),
        (("train", "val"), [12, 12, 24, 3], ["cut", "list", "union", "cut"]),
        (("train", "val", "test"), [15, 15, 30, 15], ["list", "list", "union", "list"]),
    ],
)
def test_part_folders_are_kept(
    project_factory: Callable[..., Project],
    tmp_path: Path,
    parts: tuple[str, ...],
    rows: list[int],
    origins: list[str],
) -> None:
    for number, part in enumerate(parts):
        for name in CLASSES:
            (tmp_path / "in" / part / name).mkdir(parents=True)
            for i in range(5 if len(parts) == 3 or "val" in parts else 4):
                (tmp_path / "in" / part / name / f"{i}.jpg").write_bytes(picture(number * 100 + i))
    if parts == ("train", "val"):
        for name in CLASSES:
            (tmp_path / "in" / "val" / name / "4.jpg").unlink()
    _, record = folder_split(project_factory, tmp_path / "in", train_fraction=0.8, test_fraction=0.2)
    assert [record["parts"][p]["rows"] for p in PARTS] == rows
    assert [record["parts"][p]["origin"] for p in PARTS] == origins


@pytest.mark.parametrize(
    ("rule", "key"), [({"train_fraction": 0.8}, "test_fraction"), ({"test_fraction": 0.2}, "train_fraction")]
)
def test_a_part_that_no_rule_cuts(
    project_factory: Callable[..., Project], class_folder: Path, rule: dict[str, float], key: str
) -> None:
    with pytest.raises(FgvcError, match=re.escape("no rule to cut one")) as caught:
        folder_split(project_factory, class_folder, **rule)
    assert (caught.value.file, caught.value.key) == ("params/datasets/toy.yaml", f"split.{key}")
