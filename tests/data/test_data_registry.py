"""The datasets of the project: their files say what the reference facts say, and the real ones work."""

from __future__ import annotations

import base64
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from datakit import Server, Toy

from fgvc.config.project import Project
from fgvc.data.archives import unpack
from fgvc.data.fetch import fetch
from fgvc.data.lists import published_rows
from fgvc.data.records import check_files
from fgvc.data.sources import check_file
from fgvc.data.splits import prepare_splits
from fgvc.data.stats import size_statistics
from fgvc.errors import FgvcError

REPOSITORY = Path(__file__).resolve().parents[2]
HERE = Project(REPOSITORY)
NAMES = HERE.names("dataset")
#: Our id of each of the reference's datasets.
TABLE = {
    "aircraft": "Aircraft",
    "cars": "Cars",
    "cotton80": "Cotton80",
    "cub": "CUB",
    "dafb": "DAFB",
    "dogs": "Dogs",
    "flowers": "Flowers",
    "food": "Food",
    "inat17": "iNat17",
    "moe": "Moe",
    "nabirds": "NABirds",
    "pets": "Pets",
    "soyageing": "SoyAgeing",
    "soyageing_r1": "SoyAgeingR1",
    "soyageing_r3": "SoyAgeingR3",
    "soyageing_r4": "SoyAgeingR4",
    "soyageing_r5": "SoyAgeingR5",
    "soyageing_r6": "SoyAgeingR6",
    "soygene": "SoyGene",
    "soyglobal": "SoyGlobal",
    "soylocal": "SoyLocal",
    "vegfru": "VegFru",
}
LISTS = {"dafb": "daf", "cotton80": "cotton", "soylocal": "soy"}
#: Folders of published lists.
PUBLISHED = sorted(name for name in TABLE if HERE.dataset(name).published)

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_opens_with_what_it_is(name: str) -> None:
    path = HERE.file("dataset", name)
    lines = path.read_text().splitlines()
    head = "\n".join(line for line in lines[: next(i for i, text in enumerate(lines) if text[:1] != "#")])
    assert f"Command: fgvc data fetch {name}" in head and "Expect:" in head
    assert HERE.dataset(name).title
    # No machine's own paths, no mirror of ours.
    assert not re.search(r"(?<![\w:/.])/(home|work|tmp|root|mnt)/", path.read_text())


def test_the_references_twenty_two_are_there_under_their_names(shared: Path) -> None:
    facts = yaml.safe_load((shared / "reference/datasets.yaml").read_text())["datasets"]
    assert sorted(TABLE.values()) == sorted(fact["dataset"] for fact in facts)
    assert {name: HERE.dataset(name).title.replace(" ", "") for name in TABLE} == TABLE
    assert set(NAMES) == {*TABLE, "typefaces", "grocery35"}


@pytest.mark.parametrize(
    ("alias", "name"),
    [("daf", "dafb"), ("food101", "food"), ("cotton", "cotton80"), ("soy", "soylocal"), ("air", "aircraft")],
)
def test_aliases_are_known(alias: str, name: str) -> None:
    assert HERE.canonical_dataset(alias) == name


@pytest.mark.parametrize("name", TABLE)
def test_facts_are_those_of_the_reference(shared: Path, name: str) -> None:
    facts = yaml.safe_load((shared / "reference/datasets.yaml").read_text())["datasets"]
    (fact,) = [f for f in facts if f["dataset"] == TABLE[name]]
    dataset = HERE.dataset(name)
    assert dataset.classes == fact["num_classes"]
    for part, key in (("train_val", "n_train"), ("test", "n_test")):
        if fact[key]:
            assert dataset.expected[part].rows == fact[key]
    for part, rows in fact.get("author_train_val_resplit", {}).items():
        if part in ("train", "val"):
            assert dataset.expected[part].rows == rows
    checksums = fact["checksums"] if isinstance(fact["checksums"], dict) else {}
    for download in dataset.source.downloads:
        known = checksums.get(Path(download.file).name, {})
        assert (download.bytes, download.sha256, download.md5) == tuple(
            known.get(k) for k in ("bytes", "sha256", "md5")
        )
        assert bool(download.urls) == (dataset.access == "open")
        if not download.has_digest:
            assert "digest" in " ".join(dataset.unverified)


@pytest.mark.parametrize("name", TABLE)
def test_digests_are_the_published_ones(shared: Path, name: str) -> None:
    dataset = HERE.dataset(name)
    published = yaml.safe_load((shared / "reference/split_digests.yaml").read_text())["splits"]
    known = published.get(LISTS.get(name, name), {})
    expected = {p: {"rows": f.rows, "sha256": f.sha256} for p, f in dataset.expected.items() if f.sha256}
    assert expected == {p: {k: f[k] for k in ("rows", "sha256")} for p, f in known.items()}
    for download in dataset.published_downloads():
        part = Path(download.file).stem
        assert download.list_sha256 == known.get(part, {}).get("sha256")
        assert download.file in (f"splits/{LISTS.get(name, name)}/{part}.csv",)
        if not download.has_digest:
            assert "list" in " ".join(dataset.unverified) or "digest" in " ".join(dataset.unverified)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_mirrors_lists_pass_their_checks(shared: Path, name: str) -> None:
    mirror = shared / "mirror"
    mirrored = [d for d in HERE.dataset(name).published_downloads() if (mirror / d.file).is_file()]
    if not mirrored:
        pytest.skip(f"the shared mirror has no lists of {name}")
    for download in mirrored:
        _, checked = check_file(mirror / download.file, download)
        assert {"list_sha256", "sha256"} & set(checked)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"typefaces", "inat17"}))
def test_without_the_archive_the_error_says_what_to_do(
    project_factory: Callable[..., Project], server: Server, name: str
) -> None:
    """Every URL answers 404 here: each dataset ends with the file that is missing and where to put it."""
    project = project_factory(copy=[f"datasets/{name}"], settings={"network_timeout_s": 0.5})
    path = project.file("dataset", name)
    path.write_text(re.sub(r"urls: \[http.*?\]", f"urls: [{server.url}]", path.read_text()))
    with pytest.raises(FgvcError) as caught:
        fetch(project, name)
    archive = project.dataset(name).source.downloads[0].file
    assert f"data/.downloads/{archive}" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 5


def test_a_published_list_becomes_a_published_split(shared: Path, make_toy: Callable[..., Toy]) -> None:
    """Cotton80 whole, with one-pixel images: the cut val part has the published digest."""
    published = yaml.safe_load((shared / "reference/split_digests.yaml").read_text())["splits"]["cotton"]
    lists = {part: shared / "mirror/splits/cotton" / f"{part}.csv" for part in ("train_val", "test")}
    rows = [row for path in lists.values() for row in published_rows(path.read_text(), path.name)]
    files = {f"img/{path}": PIXEL for _, path in rows} | {"LICENSE": b"x"}
    files |= {f"lists/{part}.csv": path.read_bytes() for part, path in lists.items()}
    expected = {part: {k: published[part][k] for k in ("rows", "sha256")} for part in published}
    rule = {"train_fraction": 0.8, "provenance": "published"}
    toy = make_toy(files, classes=80, split=rule, expected=expected)
    toy.fetch()
    record = prepare_splits(toy.project, "toy")
    assert record["provenance"] == "published"
    assert all(part["matches_expected"] for part in record["parts"].values())


# --- grocery35, from its real archive --------------------------------------------------------------


@pytest.fixture
def grocery(shared: Path, project_factory: Callable[..., Project]) -> Project:
    if not (shared / "mirror/grocery/grocery-store-35.tar").is_file():
        pytest.skip("needs mirror/grocery/grocery-store-35.tar in the shared folder")
    return project_factory(copy=["datasets/grocery35"])


def test_grocery35_from_the_mirror(shared: Path, grocery: Project) -> None:
    fetched = fetch(grocery, "grocery35", shared / "mirror")
    record = fetched.record
    assert (record.images, record.classes, record.matches_reference, fetched.notes) == (2471, 35, True, [])
    assert set(record.support_files) == {
        "LICENSE",
        *(f"dataset/{n}" for n in ("classes.csv", "train.txt", "val.txt", "test.txt")),
    }
    split = prepare_splits(grocery, "grocery35")
    assert split["provenance"] == "official"
    assert {p: (f["rows"], f["classes"]) for p, f in split["parts"].items()} == {
        "train": (1216, 35), "val": (125, 25), "train_val": (1341, 35), "test": (1130, 35),
    }  # fmt: skip
    assert size_statistics(grocery, "grocery35")["all"]["height_px"]["min"] == 348
    check_files(grocery, "grocery35")


def test_grocery35_packed_as_the_public_archive_is(shared: Path, grocery: Project, tmp_path: Path) -> None:
    """GitHub puts everything below a folder named after the commit; the tree is the same."""
    top = tmp_path / "GroceryStoreDataset-fc80ba9"
    unpack(shared / "mirror/grocery/grocery-store-35.tar", top)
    (top / "dataset/iconic-images-and-descriptions").mkdir()
    (top / "dataset/iconic-images-and-descriptions/x.txt").write_text("not asked for")
    place = grocery.root / "data/.downloads/grocery/grocery-store-35.tar"
    place.parent.mkdir(parents=True)
    with tarfile.open(place, "w:gz", compresslevel=1) as tar:
        tar.add(top, arcname=top.name)
    record = fetch(grocery, "grocery35").record
    assert record.matches_reference and record.source.files[0].place == "network"
