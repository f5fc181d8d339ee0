"""`fetch`: whole or not at all, checked, repeatable, and never over what a user has."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from datakit import CLASSES, Toy, pack, picture, toy_files, toy_yaml, tree

from fgvc.config.project import Project
from fgvc.data import fetch as fetch_module
from fgvc.data import records as records_module
from fgvc.data.fetch import fetch
from fgvc.data.records import check_files, read_index, read_record
from fgvc.errors import FgvcError
from fgvc.provenance.digests import file_sha256, tree_sha256
from fgvc.provenance.locks import LockHeldError, exclusive_lock

USED = set(toy_files()) - {"unused.txt"}


def edit_yaml(toy: Toy, **changes: object) -> None:
    path = toy.project.file("dataset", "toy")
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def everything(toy: Toy) -> dict[str, bytes]:
    return tree(toy.project.root / "data")


# --- the ordinary course ---------------------------------------------------------------------------


def test_what_a_fetch_leaves(toy: Toy) -> None:
    fetched = toy.fetch()
    assert fetched.outcome == "fetched"
    assert set(tree(toy.folder)) == USED
    assert {p.name for p in (toy.project.root / "data").iterdir()} == {"toy", "toy.csv", "toy.json"}
    record = fetched.record
    assert (record.images, record.classes) == (15, 3)
    assert record.tree_sha256 == tree_sha256((p, file_sha256(toy.folder / p)) for p in USED)
    assert record == read_record(toy.project, "toy")
    first = read_index(toy.project, "toy").images[0]
    assert (first.path, first.class_id, first.width, first.height) == ("img/ant/0.jpg", 0, 12, 9)
    assert first.bytes == (toy.folder / first.path).stat().st_size
    assert first.sha256 == file_sha256(toy.folder / first.path)


def test_records_name_no_time_and_no_machine(
    make_toy: Callable[..., Toy], project_factory: Callable[..., Project]
) -> None:
    toy = make_toy()
    toy.fetch()
    texts = [
        toy.project.paths.data_record("toy").read_bytes(),
        toy.project.paths.data_index("toy").read_bytes(),
    ]
    assert str(toy.project.root).encode() not in texts[0] and str(toy.mirror).encode() not in texts[0]
    other = project_factory(files={"params/datasets/toy.yaml": toy_yaml()}, name="elsewhere")
    fetch(other, "toy", toy.mirror)
    assert texts == [other.paths.data_record("toy").read_bytes(), other.paths.data_index("toy").read_bytes()]


def test_the_second_time_nothing_is_done(toy: Toy) -> None:
    toy.fetch()
    before = {p: p.stat().st_mtime_ns for p in (toy.project.root / "data").rglob("*")}
    stages: list[str] = []
    again = toy.fetch(progress=lambda stage, *_: stages.append(stage))
    assert (again.outcome, stages) == ("present", [])
    assert before == {p: p.stat().st_mtime_ns for p in (toy.project.root / "data").rglob("*")}


@pytest.mark.parametrize("how", ["argument", "environment", "settings"])
def test_the_mirror_is_named_in_three_ways(
    make_toy: Callable[..., Toy], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    toy = make_toy(settings={"mirror": str(tmp_path / "mirror")} if how == "settings" else None)
    if how == "environment":
        monkeypatch.setenv("FGVC_MIRROR", str(toy.mirror))
    fetched = fetch(toy.project, "toy", toy.mirror if how == "argument" else None)
    assert fetched.record.source.files[0].place == "mirror"


def test_a_mirror_typed_as_a_relative_path(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy.mirror.parent)
    assert fetch(toy.project, "toy", Path("mirror")).outcome == "fetched"


def test_a_mirror_that_is_no_folder(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(FgvcError, match="mirror that --mirror names is not a folder"):
        fetch(toy.project, "toy", tmp_path / "nowhere")


def test_progress_tells_stages_and_counts(toy: Toy) -> None:
    calls: list[tuple[str, int, int | None, str]] = []
    toy.fetch(progress=lambda *call: calls.append(call))
    assert ("checking images", 15, 15, "images") in calls
    assert any(stage.startswith("unpacking") for stage, *_ in calls)


def test_an_alias_is_as_good_as_the_name(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(aliases=["plaything"])
    assert fetch(toy.project, "plaything", toy.mirror).record.dataset == "toy"


# --- what is not as it should be -------------------------------------------------------------------


def test_a_wrong_tree_never_appears(make_toy: Callable[..., Toy]) -> None:
    source = toy_yaml()["source"]
    toy = make_toy(source=source | {"tree_sha256": "0" * 64})
    with pytest.raises(FgvcError, match="not 'toy' as published") as caught:
        toy.fetch()
    assert str(toy.archive) in str(caught.value)
    assert everything(toy) == {}
    edit_yaml(toy, source=source)
    digest = toy.fetch().record.tree_sha256
    edit_yaml(toy, source=source | {"tree_sha256": digest})
    again = toy.fetch()
    assert (again.outcome, again.record.matches_reference) == ("recorded", True)


def test_a_corrupt_image_is_named(make_toy: Callable[..., Toy]) -> None:
    files = toy_files()
    files["img/bee/2.jpg"] = files["img/bee/2.jpg"][:-30]
    files["img/cow/1.jpg"] = b"<html>"
    toy = make_toy(files)
    with pytest.raises(FgvcError, match=r"2 image\(s\) cannot be decoded") as caught:
        toy.fetch()
    assert "img/bee/2.jpg" in str(caught.value) and "img/cow/1.jpg (no image" in str(caught.value)
    assert caught.value.file == "data/toy/img/bee/2.jpg"
    assert everything(toy) == {}


def test_a_listed_image_that_the_archive_lacks(make_toy: Callable[..., Toy]) -> None:
    files = toy_files()
    del files["img/cow/3.jpg"]
    with pytest.raises(FgvcError, match=r"1 of 15 listed images are missing: img/cow/3\.jpg"):
        make_toy(files).fetch()


def test_a_hostile_list_in_an_archive(make_toy: Callable[..., Toy]) -> None:
    files = toy_files()
    files["lists/test.csv"] = b"class_id,dir\n0,../../../etc/passwd\n"
    toy = make_toy(files)
    with pytest.raises(FgvcError, match="leaves") as caught:
        toy.fetch()
    assert (caught.value.file, caught.value.line) == ("data/toy/lists/test.csv", 2)
    assert everything(toy) == {}


def test_one_changed_byte_is_found(toy: Toy) -> None:
    toy.fetch()
    assert toy.fetch(verify=True).outcome == "verified"
    for name in ("img/bee/1.jpg", "LICENSE"):
        path = toy.folder / name
        good = path.read_bytes()
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        assert toy.fetch().outcome == "present"  # the size is as recorded
        with pytest.raises(FgvcError, match=f"1 changed since they were fetched: {name}"):
            toy.fetch(verify=True)
        path.write_bytes(good)


def test_missing_and_resized_files_are_named(toy: Toy) -> None:
    toy.fetch()
    (toy.folder / "img/ant/1.jpg").unlink()
    (toy.folder / "img/cow/1.jpg").write_bytes(b"short")
    for act in (toy.fetch, lambda: check_files(toy.project, "toy")):
        with pytest.raises(
            FgvcError, match=r"1 missing: img/ant/1\.jpg; 1 changed .*: img/cow/1\.jpg"
        ) as caught:
            act()
        assert "--replace" in str(caught.value)
    assert toy.fetch(replace=True).outcome == "fetched"
    assert toy.fetch(verify=True).outcome == "verified"


def test_a_tampered_index_is_not_believed(toy: Toy) -> None:
    toy.fetch()
    path = toy.project.paths.data_index("toy")
    path.write_text(path.read_text().replace(",0,12,9,", ",1,12,9,", 1))
    with pytest.raises(FgvcError, match="not the one that its record was written with"):
        check_files(toy.project, "toy")


def test_a_missing_support_file_is_noticed(toy: Toy) -> None:
    toy.fetch()
    (toy.folder / "lists/test.csv").unlink()
    with pytest.raises(FgvcError, match=r"1 missing: lists/test\.csv"):
        toy.fetch()


# --- what is there already -------------------------------------------------------------------------


def test_a_strangers_folder_is_not_overwritten(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy()
    digest = toy.fetch().record.tree_sha256
    edit_yaml(toy, source=toy_yaml()["source"] | {"tree_sha256": digest})
    for record in (toy.project.paths.data_record("toy"), toy.project.paths.data_index("toy")):
        record.unlink()
    (toy.folder / "img/ant/0.jpg").write_bytes(picture(999))
    mine = tree(toy.folder)
    with pytest.raises(FgvcError, match="not 'toy' as published"):
        toy.fetch()
    assert tree(toy.folder) == mine
    assert toy.fetch(replace=True).record.matches_reference


def test_a_folder_put_there_by_hand_is_taken(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy()
    for path, data in toy_files().items():
        (toy.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (toy.folder / path).write_bytes(data)
    toy.archive.unlink()
    fetched = toy.fetch()
    assert (fetched.outcome, fetched.record.source.kind) == ("recorded", "in_place")
    assert (toy.folder / "unused.txt").exists()  # what lies there is the user's


def test_records_that_a_workflow_deleted_come_back_the_same(toy: Toy) -> None:
    toy.fetch()
    before = everything(toy)
    toy.project.paths.data_record("toy").unlink()
    toy.project.paths.data_index("toy").unlink()
    toy.archive.unlink()
    assert toy.fetch().outcome == "recorded"
    assert everything(toy) == before


def test_new_words_in_the_yaml_reach_the_record(toy: Toy) -> None:
    toy.fetch()
    edit_yaml(toy, licence="CC0", unverified=["something"])
    assert toy.fetch().outcome == "present"
    assert (read_record(toy.project, "toy").licence, toy.fetch().record.unverified) == ("CC0", ["something"])


def test_other_classes_in_the_yaml_make_a_new_index(toy: Toy) -> None:
    toy.fetch()
    layout = toy_yaml()["layout"] | {"keep_classes": [2, 0]}
    edit_yaml(toy, layout=layout, classes=2)
    assert toy.fetch(replace=True).record.images == 10
    assert {e.class_id for e in read_index(toy.project, "toy").images if "/cow/" in e.path} == {0}


def test_f20_one_fetch_of_a_dataset_at_a_time(toy: Toy) -> None:
    """A second fetch of the same dataset is refused with pid and host of the first."""
    lock = exclusive_lock(toy.project.paths.state("data", "toy.lock"), "fetching 'toy'")
    with lock, pytest.raises(LockHeldError, match=f"process {os.getpid()}"):
        toy.fetch()
    assert toy.fetch().outcome == "fetched"


# --- gated and by hand -----------------------------------------------------------------------------


def test_by_hand_says_what_to_do(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(access="gated", instructions="accept the terms at\nexample.org")
    toy.archive.unlink()
    with pytest.raises(FgvcError) as caught:
        toy.fetch()
    assert "accept the terms at example.org" in str(caught.value)
    assert str(toy.archive) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 5
    with pytest.raises(FgvcError, match=r"data/\.downloads/toy/toy\.tar"):
        fetch(toy.project, "toy")
    cached = toy.project.root / "data/.downloads/toy/toy.tar"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(pack(toy_files()))
    assert fetch(toy.project, "toy").outcome == "fetched"


# --- folders ---------------------------------------------------------------------------------------


def folder_project(project_factory: Callable[..., Project], path: Path) -> Project:
    yaml_ = toy_yaml(
        source={"kind": "folder", "path": str(path)}, layout={"kind": "class_folders"}, licence_file=None
    )
    return project_factory(files={"params/datasets/mine.yaml": yaml_})


def test_a_folder_of_images_is_linked(project_factory: Callable[..., Project], class_folder: Path) -> None:
    (class_folder / "ant" / "notes.txt").write_text("not an image")
    project = folder_project(project_factory, class_folder)
    fetched = fetch(project, "mine")
    assert (fetched.record.images, fetched.record.source.kind) == (15, "folder")
    copied = project.paths.data_dir("mine") / "bee" / "bee2.jpg"
    assert copied.samefile(class_folder / "bee" / "bee2.jpg")
    assert str(class_folder) not in project.paths.data_record("mine").read_text()
    assert fetch(project, "mine").outcome == "present"


def test_a_folder_across_disks_is_copied(
    project_factory: Callable[..., Project], class_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    project = folder_project(project_factory, class_folder)
    fetch(project, "mine")
    assert tree(project.paths.data_dir("mine")) == tree(class_folder)


def test_a_folder_that_is_gone(project_factory: Callable[..., Project], tmp_path: Path) -> None:
    project = folder_project(project_factory, tmp_path / "gone")
    with pytest.raises(FgvcError, match="folder of images does not exist") as caught:
        fetch(project, "mine")
    assert caught.value.file == "params/datasets/mine.yaml"


# --- kills -----------------------------------------------------------------------------------------

CHILD = """
import sys, time
from pathlib import Path
from fgvc.config.project import Project
from fgvc.data import fetch as module

root, mirror, where = sys.argv[1:]

def hang():
    print("here", flush=True)
    time.sleep(60)

def progress(stage, done, total, unit):
    if stage.startswith(where) and done >= 3:
        hang()

if where == "between rename and record":
    module.write_index = lambda *_: hang()
module.fetch(Project(Path(root)), "toy", Path(mirror), progress)
"""


@pytest.mark.parametrize("where", ["unpacking", "checking images", "between rename and record"])
def test_kill_9_and_again(toy: Toy, tmp_path: Path, where: str) -> None:
    arguments = [sys.executable, "-c", CHILD, str(toy.project.root), str(toy.mirror), where]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "here\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    is_renamed = where == "between rename and record"
    left = {p.name for p in (toy.project.root / "data").iterdir()}
    assert left == ({"toy", ".toy.staging"} if is_renamed else {".toy.staging"})
    fetched = toy.fetch()
    assert fetched.outcome == ("recorded" if is_renamed else "fetched")
    killed = everything(toy)
    untouched = Toy(Project(tmp_path / "calm"), toy.mirror)
    (untouched.project.root / "params").parent.mkdir()
    (toy.project.root / "params").rename(untouched.project.root / "params")
    untouched.fetch()
    assert killed == everything(untouched)


@pytest.mark.parametrize("step", ["write_index", "write_text", "write_json"])
def test_a_stop_while_a_copy_is_replaced(toy: Toy, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """The old record must not outlive the old images."""
    toy.fetch()
    toy.archive.write_bytes(pack(toy_files() | {"img/ant/0.jpg": picture(500, (30, 30))}))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fetch_module if step == "write_index" else records_module, step, interrupted)
        toy.fetch(replace=True)
    assert toy.fetch().outcome == "recorded"
    assert toy.fetch(verify=True).record.images == 15
    assert read_index(toy.project, "toy").by_path()["img/ant/0.jpg"].width == 30


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_record_is_readable_by_others(toy: Toy) -> None:
    toy.fetch()
    record = json.loads(toy.project.paths.data_record("toy").read_text())
    assert list(record)[:2] == ["dataset", "title"] and record["images"] == 5 * len(CLASSES)
