"""Digests that mean the same everywhere, and the store that keeps finished results under them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fgvc.provenance.digests import (
    canonical_json,
    file_sha256,
    seed_from,
    split_sha256,
    tree_sha256,
    value_sha256,
)
from fgvc.provenance.durations import duration_text
from fgvc.provenance.machine import code_identity, host, package_versions, peak_memory_mib
from fgvc.provenance.store import ResultStore

# --- digests --------------------------------------------------------------------------------------


def test_a_split_digest_is_of_the_sorted_lines_whatever_their_order() -> None:
    rows = [(1, "b/2.jpg"), (0, "a/1.jpg"), (10, "c/ü.jpg")]
    by_hand = hashlib.sha256("0,a/1.jpg\n1,b/2.jpg\n10,c/ü.jpg".encode()).hexdigest()
    assert split_sha256(rows) == split_sha256(reversed(rows)) == by_hand
    assert split_sha256([(0, "b/2.jpg"), *rows[1:]]) != by_hand


@pytest.mark.parametrize("dataset", ["aircraft", "cotton", "pets"])
def test_split_digests_are_those_of_the_published_lists(shared: Path, dataset: str) -> None:
    published = yaml.safe_load((shared / "reference/split_digests.yaml").read_text())["splits"][dataset]
    assert {"train", "val", "train_val", "test"} <= published.keys()
    for part, facts in published.items():
        lines = (shared / "mirror/splits" / dataset / f"{part}.csv").read_text().splitlines()[1:]
        rows = [line.split(",")[:2] for line in lines if line]
        assert split_sha256((int(label), path) for label, path in rows) == facts["sha256"], part


def test_a_tree_digest_depends_on_names_and_contents_not_on_order() -> None:
    files = [("a/x.jpg", "11"), ("b.jpg", "22")]
    assert tree_sha256(files) == tree_sha256(reversed(files))
    assert tree_sha256(files) == hashlib.sha256(b"11  a/x.jpg\n22  b.jpg\n").hexdigest()
    others = ([("a/x.jpg", "11")], [("a/x.jpg", "22"), ("b.jpg", "11")], [("a/y.jpg", "11"), ("b.jpg", "22")])
    assert all(tree_sha256(other) != tree_sha256(files) for other in others)


def test_a_value_has_one_spelling() -> None:
    assert canonical_json({"b": [1, None], "a": "ü"}) == '{"a":"ü","b":[1,null]}'
    assert value_sha256({"b": 1, "a": 2}) == value_sha256({"a": 2, "b": 1})
    assert value_sha256([1, 2]) != value_sha256([2, 1])
    with pytest.raises(ValueError, match="JSON"):
        value_sha256(float("nan"))


def test_the_digest_of_a_file_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 10**6)
    assert file_sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 10**6).hexdigest()


def test_seeds_depend_on_every_part_and_on_nothing_else() -> None:
    seeds = [
        seed_from("order", 1, 2),
        seed_from("order", 2, 1),
        seed_from("order", 12),
        seed_from("order", 1, 2, ""),
        seed_from("augment", 1, 2),
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_are_the_same_in_every_process_and_in_every_version() -> None:
    """Changing this number changes every result that was ever made."""
    assert seed_from("order", 1, 0) == 1695780840125863179
    code = "from fgvc.provenance.digests import seed_from; print(seed_from('order', 1, 0))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "77"}, capture_output=True, text=True
    )
    assert int(done.stdout) == seed_from("order", 1, 0)


# --- the machine ----------------------------------------------------------------------------------


def test_a_record_can_say_which_code_on_which_machine() -> None:
    versions = package_versions()
    assert versions["python"] and versions["torch"] and versions["timm"]
    code = code_identity()
    assert len(code["sources_sha256"]) == 64 and set(code) == {"commit", "dirty", "sources_sha256"}
    assert host()["name"] and host()["cores"] >= 1
    assert 10 < peak_memory_mib() < 10**6


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (42, "42 s"), (59.6, "1:00"), (185, "3:05"), (7800, "2:10:00")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


# --- the store ------------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "a.json").write_text("A")
    (folder / "b.bin").write_bytes(b"B" * 1000)
    return folder


def test_what_was_kept_comes_back(results: Path, tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "state", "1" * 64)
    store.keep([results / "a.json", results / "b.bin"])
    assert (store.folder / "b.bin").samefile(results / "b.bin")  # no more disk
    for path in results.iterdir():
        path.unlink()
    assert ResultStore(tmp_path / "state", "1" * 64).restore(["a.json", "b.bin"], results)
    assert ((results / "a.json").read_text(), (results / "b.bin").read_bytes()) == ("A", b"B" * 1000)


def test_all_or_nothing(results: Path, tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "state", "1" * 64)
    store.keep([results / "a.json"])
    (results / "a.json").unlink()
    assert not store.restore(["a.json", "b.bin"], results)
    assert not (results / "a.json").exists()
    store.keep([results / "b.bin"])
    assert store.restore(["a.json", "b.bin"], results)


def test_another_identity_has_nothing(results: Path, tmp_path: Path) -> None:
    ResultStore(tmp_path / "state", "1" * 64).keep([results / "a.json"])
    assert not ResultStore(tmp_path / "state", "2" * 64).restore(["a.json"], results)
    # Nor has one that begins with the same sixteen digits.
    assert not ResultStore(tmp_path / "state", "1" * 16 + "3" * 48).restore(["a.json"], results)


def test_what_was_damaged_does_not_come_back(results: Path, tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "state", "1" * 64)
    store.keep([results / "a.json", results / "b.bin"])
    (store.folder / "b.bin").write_bytes(b"C" * 1000)
    assert not store.restore(["a.json", "b.bin"], tmp_path / "elsewhere")
    assert store.restore(["a.json"], tmp_path / "elsewhere")


def test_replacing_a_result_leaves_the_kept_one(results: Path, tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "state", "1" * 64)
    store.keep([results / "a.json"])
    (results / "new").write_text("another recipe's")
    (results / "new").replace(results / "a.json")
    assert store.restore(["a.json"], results)
    assert (results / "a.json").read_text() == "A"


def test_forgetting(results: Path, tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "state", "1" * 64)
    store.keep([results / "a.json", results / "b.bin"])
    store.forget(["b.bin", "never.there"])
    assert not (store.folder / "b.bin").exists()
    assert store.restore(["a.json"], tmp_path / "elsewhere")
    assert not store.restore(["b.bin"], tmp_path / "elsewhere")


def test_across_file_systems_files_are_copied(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", fail)
    store = ResultStore(tmp_path / "state", "1" * 64)
    store.keep([results / "a.json"])
    assert not (store.folder / "a.json").samefile(results / "a.json")
    (results / "a.json").unlink()
    assert store.restore(["a.json"], results) and (results / "a.json").read_text() == "A"
