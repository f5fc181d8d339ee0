"""Dataset files that cannot mean anything are refused when they are read, with the key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from datakit import toy_yaml

from fgvc.config.project import Project
from fgvc.errors import FgvcError

NAMES = {
    "kind": "file_names",
    "pattern": "(?P<class>[0-9]+)_(?P<part>[a-z]+)[.]png",
    "part_names": {"a": "train_val", "b": "test"},
}
NUMBERS = {
    "kind": "mat_numbers",
    "labels": "l.mat",
    "split": "s.mat",
    "variables": {"train_val": "a", "test": "b"},
    "path": "{:05d}.jpg",
}
PUBLISHED = {
    "said_by": "x",
    "url": "https://x/{}",
    "mirror_folder": "splits/x",
    "lists": ["train_val", "test"],
}
LISTS = {"kind": "lists", "lists": {"train_val": "a", "test": "b"}}


def archive(**download: object) -> dict[str, Any]:
    return {"kind": "archive", "downloads": [{"file": "toy.tar", **download}]}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layout": LISTS | {"lists": {"test": "b"}}}, "neither 'train' nor 'train_val'"),
        ({"layout": LISTS | {"lists": {"train_val": "a", "val": "b"}}}, "'val' but not 'train'"),
        ({"layout": LISTS | {"lists": {"train_val": "a", "train": "b"}}}, "but not 'val'"),
        ({"layout": LISTS | {"lists": {"train_val": "../a", "test": "b"}}}, "stay inside"),
        ({"layout": LISTS | {"keep_classes": [1, 1, 2]}}, "names a class twice"),
        ({"layout": LISTS | {"keep_classes": [1, 2]}}, "names 2 classes"),
        ({"split": {"provenance": "ours"}}, "needs a train_fraction"),
        ({"layout": LISTS | {"lists": {"train_val": "a"}}}, "needs a test_fraction"),
        ({"access": "gated"}, "'instructions' must say"),
        ({"source": archive(unpack=False)}, "where the plain file goes"),
        ({"source": archive(list_sha256="0" * 64)}, "list_sha256 is for plain files"),
        ({"source": archive(anchor="a/b")}, "anchor"),
        ({"source": archive(urls=["ftp://x"])}, "urls"),
        ({"source": {"kind": "generated", "generator": "typefaces", "counts": {"test": 1}}}, "needs 'train'"),
        ({"layout": {"kind": "generated"}}, "generated source goes with"),
        ({"layout": LISTS | {"lists": {"train_val": [], "test": "b"}}}, "a part without a file"),
        ({"layout": LISTS | {"classes_by_name": True}}, "needs a classes_file"),
        ({"layout": NAMES | {"pattern": "(?P<class>"}}, "no regular expression"),
        ({"layout": NAMES | {"pattern": "(?P<class>x)"}}, "needs the groups"),
        ({"layout": NAMES | {"part_names": {"a": "val"}}}, "neither 'train' nor 'train_val'"),
        ({"layout": NUMBERS | {"path": "image.jpg"}}, "must hold one number"),
        ({"layout": NUMBERS | {"path": "{:05d}{0.real}"}}, "must hold one number"),
        ({"layout": NUMBERS, "split": {"provenance": "ours"}}, "needs a train_fraction"),
        ({"published": PUBLISHED | {"lists": ["train_val"]}}, "does not name 'test'"),
        ({"published": PUBLISHED | {"url": "https://x/lists"}}, "url"),
        ({"published": PUBLISHED | {"classes_file": "../c.csv"}}, "classes_file"),
        ({"published": PUBLISHED, "source": {"kind": "folder", "path": "x"}}, "goes with an archive source"),
    ],
)
def test_impossible(project_factory: Callable[..., Project], changes: dict[str, Any], says: str) -> None:
    project = project_factory(files={"params/datasets/toy.yaml": toy_yaml(**changes)})
    with pytest.raises(FgvcError, match=says) as caught:
        project.dataset("toy")
    assert caught.value.file == "params/datasets/toy.yaml" and caught.value.line


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"source": archive(bytes=5)}, 5),
        ({"source": archive(), "download_mib": 2}, 2 << 20),
        ({"source": archive()}, None),
        ({"source": {"kind": "folder", "path": "x"}}, 0),
    ],
)
def test_what_a_fetch_transfers(
    project_factory: Callable[..., Project], changes: dict[str, Any], size: int | None
) -> None:
    project = project_factory(files={"params/datasets/toy.yaml": toy_yaml(**changes)})
    assert project.dataset("toy").download_bytes == size
