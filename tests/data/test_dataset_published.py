"""The published lists against what the layouts derive: the archive's text files are made from the real lists.

The lists tell the images, and in their paths much of the classes; what an archive's own files add to that is
fabricated here by a rule that does not look at the published ids (see `OWN_IDS`). So a digest that agrees
shows that the ids follow that rule and that the cut is the published one. The order of lines is the published
lists' own, except where `ORDER` says by what rule it is made.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from archivekit import annotations, cell, lines, mat, pack
from datakit import picture

from fgvc.config.project import Project
from fgvc.data.fetch import fetch
from fgvc.data.layouts import layout_of, natural_key
from fgvc.data.lists import published_rows
from fgvc.data.splits import cut, divide, prepare_splits, published_form
from fgvc.provenance.digests import split_sha256

HERE = Project(Path(__file__).resolve().parents[2])
FOLDERS = {"cotton80": "cotton", "soylocal": "soy"}
Row = tuple[int, str]
Lists = dict[str, list[Row]]

#: What the class ids of the fabricated files come from, other than the published ids.
OWN_IDS = {
    "cub": "the number that a class folder's name begins with",
    "nabirds": "the number that a class folder's name is; ranks, because there are gaps",
    "dogs": "the place of a class folder among all, in alphabetical order",
    "food": "the same",
    "pets": "the place of a breed among all, in alphabetical order without regard to case",
    "cotton80": "the number that a file name begins with",
    "soylocal": "the same",
}
#: By what rule the lines are put in order, where it is not the published lists' order.
ORDER = {"nabirds": "by image id", "food": "by class in reverse, then by name", "cars": "by file name"}
#: Ids are the published ones, because the lists do not tell names: only parts and the cut are shown.
IDS_TAKEN = ("aircraft", "cars", "flowers")


def lists_of(shared: Path, name: str) -> Lists:
    folder = shared / "mirror/splits" / FOLDERS.get(name, name)
    return {
        part: published_rows((folder / f"{part}.csv").read_text(), part)
        for part in ("train_val", "test", "train", "val")
    }


def each(lists: Lists) -> Iterator[tuple[str, int, str]]:
    """``(part, class id, path)`` of train_val and test, class by class and image by image."""
    for part in ("train_val", "test"):
        for class_id, path in lists[part]:
            yield part, class_id, path


def ranked(names: Iterator[str], key: Callable[[str], str] = str) -> dict[str, int]:
    return {name: place for place, name in enumerate(sorted(set(names), key=key))}


# --- the archives' own files, from the published lists ---------------------------------------------


def cub(lists: Lists) -> dict[str, bytes]:
    rows = list(each(lists))
    names = {int(path[:3]): path.split("/")[0] for _, _, path in rows}
    return {
        "images.txt": lines([f"{i} {path}" for i, (_, _, path) in enumerate(rows)]),
        "image_class_labels.txt": lines([f"{i} {int(path[:3])}" for i, (_, _, path) in enumerate(rows)]),
        "train_test_split.txt": lines(
            [f"{i} {int(part == 'train_val')}" for i, (part, _, _) in enumerate(rows)]
        ),
        "classes.txt": lines([f"{number} {name}" for number, name in names.items()]),
    }


def nabirds(lists: Lists) -> dict[str, bytes]:
    rows = sorted(each(lists), key=lambda row: row[2].split("/")[1])
    ids = [path.split("/")[1].removesuffix(".jpg") for _, _, path in rows]
    joined = list(zip(ids, rows, strict=True))
    return {
        "images.txt": lines([f"{i} {path}" for i, (_, _, path) in joined]),
        "image_class_labels.txt": lines([f"{i} {int(path.split('/')[0])}" for i, (_, _, path) in joined]),
        "train_test_split.txt": lines([f"{i} {int(part == 'train_val')}" for i, (part, _, _) in joined]),
        "classes.txt": lines([f"{number} name {number}" for number in range(1011)]),
    }


def aircraft(lists: Lists) -> dict[str, bytes]:
    """The published train_val list goes through the classes twice: the train list, then the val list."""
    rows = lists["train_val"]
    second = next(i for i in range(1, len(rows)) if rows[i][0] < rows[i - 1][0])
    assert second == 3334  # as many as the official train list has
    told = {"train": rows[:second], "val": rows[second:], "test": lists["test"]}
    files = {
        f"images_variant_{part}.txt": lines([f"{path.removesuffix('.jpg')} Variant {c}" for c, path in own])
        for part, own in told.items()
    }
    return files | {"variants.txt": lines([f"Variant {c}" for c in range(100)])}


def cars(lists: Lists) -> dict[str, bytes]:
    entries = [
        {"relative_im_path": f"car_ims/{path}", "class": c + 1, "test": int(part == "test")}
        for part, c, path in sorted(each(lists), key=lambda row: row[2])
    ]
    names = cell([f"Car {c}" for c in range(196)]).T
    return {"cars_annos.mat": mat(annotations=annotations(entries), class_names=names)}


def dogs(lists: Lists) -> dict[str, bytes]:
    place = ranked(path.split("/")[0] for _, _, path in each(lists))
    return {
        f"{file}_list.mat": mat(
            file_list=cell([path for _, path in lists[part]]),
            labels=np.array([[place[path.split("/")[0]] + 1] for _, path in lists[part]], dtype=np.uint8),
        )
        for file, part in (("train", "train_val"), ("test", "test"))
    }


def flowers(lists: Lists) -> dict[str, bytes]:
    labels = np.zeros((1, 8189), dtype=np.uint8)
    for _, class_id, path in each(lists):
        labels[0, int(path[6:11]) - 1] = class_id + 1
    numbers = {
        variable: np.array([[int(path[6:11]) for _, path in lists[part]]], dtype=np.uint16)
        for variable, part in (("trnid", "train"), ("valid", "val"), ("tstid", "test"))
    }
    return {"imagelabels.mat": mat(labels=labels), "setid.mat": mat(**numbers)}


def food(lists: Lists) -> dict[str, bytes]:
    names = list(ranked(path.split("/")[0] for _, _, path in each(lists)))
    told: dict[str, bytes] = {"classes.txt": lines(names)}
    for file, part in (("train", "train_val"), ("test", "test")):
        by_class: dict[str, list[str]] = {name: [] for name in reversed(names)}
        for _, path in sorted(lists[part], key=lambda row: row[1]):
            by_class[path.split("/")[0]].append(path.removesuffix(".jpg"))
        told[f"{file}.json"] = json.dumps(by_class).encode()
    return told


def pets(lists: Lists) -> dict[str, bytes]:
    def breed(path: str) -> str:
        return path.rpartition("_")[0]

    place = ranked((breed(path) for _, _, path in each(lists)), str.casefold)
    return {
        f"{file}.txt": lines(
            [f"{path.removesuffix('.jpg')} {place[breed(path)] + 1} 1 1" for _, path in lists[part]]
        )
        for file, part in (("trainval", "train_val"), ("test", "test"))
    }


def leaves(lists: Lists) -> dict[str, bytes]:
    return {path: b"a picture that no layout opens" for _, _, path in each(lists)}


#: The folder of the archive's own files, and what makes them.
MADE: dict[str, tuple[str, Callable[[Lists], dict[str, bytes]]]] = {
    "aircraft": ("fgvc-aircraft-2013b/data", aircraft),
    "cars": (".", cars),
    "cotton80": ("images", leaves),
    "cub": ("CUB_200_2011", cub),
    "dogs": ("lists", dogs),
    "flowers": ("flowers-102", flowers),
    "food": ("food-101/meta", food),
    "nabirds": ("nabirds", nabirds),
    "pets": ("oxford-iiit-pet/annotations", pets),
    "soylocal": ("images", leaves),
}
#: Parts that the archive does not determine: val is cut in an order that nothing in the archive tells.
UNDETERMINED = {"cotton80": {"train", "val"}, "soylocal": {"train", "val"}}


def test_every_published_list_is_accounted_for(shared: Path) -> None:
    known = {FOLDERS.get(name, name) for name in MADE} | {"moe"}
    assert {folder.name for folder in (shared / "mirror/splits").iterdir()} == known
    assert set(MADE) == {*OWN_IDS, *IDS_TAKEN} and set(ORDER) <= set(MADE)


@pytest.mark.parametrize("name", MADE)
def test_the_archives_own_files_give_the_published_digests(shared: Path, tmp_path: Path, name: str) -> None:
    lists = lists_of(shared, name)
    folder, make = MADE[name]
    for file, content in make(lists).items():
        place = tmp_path / folder / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    dataset = HERE.dataset(name)
    layout = layout_of(dataset, tmp_path, f"data/{name}")
    assert not layout.published
    parts = divide(layout, dataset.split)
    found = {part: split_sha256(published_form(own.rows, layout.image_root)) for part, own in parts.items()}
    published = yaml.safe_load((shared / "reference/split_digests.yaml").read_text())["splits"]
    expected = {part: facts["sha256"] for part, facts in published[FOLDERS.get(name, name)].items()}
    agree = {part for part in found if found[part] == expected[part]}
    assert agree == set(found) - UNDETERMINED.get(name, set())


def test_moes_published_lists_follow_no_rule_of_its_folders(shared: Path) -> None:
    """The counts are those of a cut a class, but neither ids nor the choice of images can be derived."""
    lists = lists_of(shared, "moe")
    by_class: dict[int, list[str]] = {}
    for _, class_id, path in each(lists):
        by_class.setdefault(class_id, []).append(path)
    folders = [by_class[c][0].split("/")[0] for c in range(173)]
    assert sorted(folders) != folders and sorted(folders, reverse=True) != folders
    in_order = [(c, path) for c in range(173) for path in sorted(by_class[c], key=natural_key)]
    kept, rest = cut(in_order, 0.8)
    assert (len(kept), len(rest)) == (11454, 2943)
    assert Counter(c for c, _ in kept) == Counter(c for c, _ in lists["train_val"])
    assert len(set(rest) & set(lists["test"])) < len(rest) / 2


@pytest.mark.parametrize("name", ["cotton80", "soylocal"])
def test_the_ultra_fine_sets_with_and_without_their_published_lists(
    shared: Path, project_factory: Callable[..., Project], tmp_path: Path, name: str
) -> None:
    """Whole, with one-pixel images: published with the lists; without, train_val and test still are."""
    lists = lists_of(shared, name)
    pixel = picture(0, (1, 1))
    members = {f"images/{path}": pixel for path in leaves(lists)}
    archive = tmp_path / "mirror" / name / "images.tar"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(pack(archive.name, members))
    facts = yaml.safe_load(HERE.file("dataset", name).read_text())
    facts["published"]["url"] = "http://127.0.0.1:9/{}"
    project = project_factory(
        files={f"params/datasets/{name}.yaml": facts}, settings={"network_timeout_s": 0.2}
    )
    assert len(fetch(project, name, tmp_path / "mirror").notes) == 2
    record = prepare_splits(project, name)
    same = {part for part, described in record["parts"].items() if described["matches_expected"]}
    assert (record["provenance"], same) == ("ours", {"train_val", "test"})
    folder = FOLDERS[name]
    shutil.copytree(shared / "mirror/splits" / folder, tmp_path / "mirror/splits" / folder)
    assert fetch(project, name, tmp_path / "mirror", replace=True).notes == []
    record = prepare_splits(project, name)
    assert (record["provenance"], record["lists"]) == ("published", "published")


# --- docs/datasets.md ------------------------------------------------------------------------------


def row_of(name: str) -> list[str]:
    """What docs/datasets.md must say of a dataset, column by column."""
    dataset = HERE.dataset(name)
    downloads = dataset.source.downloads if dataset.source.kind == "archive" else []
    checks = ["SHA-256" if d.sha256 else "MD5" if d.md5 else "nothing" for d in downloads]
    if dataset.source.tree_sha256:
        checks = ["tree digest"]
    counts = [f"{dataset.expected[part].rows:,}" if part in dataset.expected else "?" for part in COUNTED]
    digests = sum(facts.sha256 is not None for facts in dataset.expected.values())
    derived = "not tested"
    if name in MADE:
        derived = "train_val, test" if name in UNDETERMINED else "all four"
        derived += "" if name in OWN_IDS else "; ids taken"
    elif dataset.published and dataset.split.provenance == "ours":
        derived = "no"
    elif dataset.published is None:
        derived = "nothing to compare"
    kind = dataset.layout.kind
    return [
        f"`{name}`",
        f"{dataset.classes:,}",
        *counts,
        dataset.access.replace("_", " "),
        f"`{kind}`",
        ", ".join(dict.fromkeys(checks)) or "–",
        f"{digests} of 4",
        derived,
    ]


COUNTED = ("train_val", "test")


@pytest.mark.parametrize("name", sorted(set(HERE.names("dataset")) - {"typefaces"}))
def test_the_page_of_datasets_says_what_their_files_say(name: str) -> None:
    page = (HERE.root / "docs/datasets.md").read_text()
    rows = [[cell.strip() for cell in text.strip("|").split("|")] for text in page.splitlines()]
    assert row_of(name) in rows, " | ".join(row_of(name))
