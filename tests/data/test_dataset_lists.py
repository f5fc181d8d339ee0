"""Published lists: taken where they can be had; what a split is called with and without them."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from datakit import MakeSmall, list_text, prepared
from small_archives import ARCHIVES

from fgvc.data.fetch import fetch
from fgvc.data.splits import cut, prepare_splits, read_class_names, read_split
from fgvc.errors import FgvcError
from fgvc.provenance.digests import split_sha256


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


@pytest.mark.parametrize("packed", [True, False])
def test_published_lists_of_the_user_s_folder_count_where_their_digests_are_right(
    small: MakeSmall, tmp_path: Path, packed: bool
) -> None:
    archive = ARCHIVES["cub"]()
    parts = {part: relative(rows, "CUB_200_2011/images") for part, rows in archive.rows.items()}
    parts["train"], parts["val"] = cut(parts["train_val"], 0.8)
    lists = {"classes_file": None, "classes_sha256": None}
    project = small("cub", archive, published=lists, expected=published_expected(parts))
    mine = tmp_path / "mine"
    put_lists(mine, "splits/cub", {part: list_text(rows) for part, rows in parts.items()})
    (mine / "test.csv").write_text("class_id,dir\n0,of another kind.jpg\n")
    archive_file = tmp_path / "mirror" / next(iter(archive.packed()))
    if packed:
        archive_file.replace(mine / archive_file.name)
    else:
        shutil.unpack_archive(archive_file, mine)
        archive_file.unlink()
    fetched = fetch(project, "cub", local=mine)
    record = prepare_splits(project, "cub")
    assert (record["provenance"], record["lists"]) == ("published", "published")
    assert {file.place for file in fetched.record.source.files} == {"local"}
    assert fetched.record.source.kind == ("archive" if packed else "unpacked")


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
