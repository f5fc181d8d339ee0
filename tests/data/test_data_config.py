"""Dataset files that cannot mean anything are refused when they are read, with the key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from datakit import toy_yaml

from fgvc.config.project import Project
from fgvc.errors import FgvcError

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
