"""`fetch --from-local`: the user's own files, packed or unpacked, only read; and archives in parts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datakit import CLASSES, DATA, Handler, Server, Toy, pack, picture, sha256, toy_files, tree

from fgvc.data.fetch import Fetched, fetch
from fgvc.errors import FgvcError

MakeToy = Callable[..., Toy]


def source(**download: Any) -> dict[str, Any]:
    return {"kind": "archive", "downloads": [{"file": "toy/toy.tar", **download}]}


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    """The user's folder of downloads, with much else in it."""
    folder = tmp_path / "my downloads"
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")
    return folder


def bring(toy: Toy, folder: Path, **options: Any) -> Fetched:
    return fetch(toy.project, "toy", local=folder, **options)


def gated(make_toy: MakeToy, **download: Any) -> Toy:
    toy = make_toy(
        source=source(**download), access="gated", instructions="accept the terms at https://example.org/toy"
    )
    toy.archive.unlink()
    return toy


def state_of(folder: Path) -> list[tuple[str, int, int]]:
    return [(str(p), p.lstat().st_mtime_ns, p.lstat().st_size) for p in sorted(folder.rglob("*"))]


# --- archives -------------------------------------------------------------------------------------------


def test_the_user_s_archive_is_checked_and_used_where_it_lies(make_toy: MakeToy, downloads: Path) -> None:
    (downloads / "toy.tar").write_bytes(DATA)
    before = state_of(downloads)
    toy = gated(make_toy, sha256=sha256(DATA))
    file = bring(toy, downloads).record.source.files[0]
    assert (file.place, file.urls, file.checked) == ("local", [], ["sha256"])
    assert state_of(downloads) == before
    assert not (toy.project.root / "data/.downloads/toy").exists()
    assert str(downloads) not in toy.project.paths.data_record("toy").read_text()


def test_another_archive_of_the_same_name_is_refused(make_toy: MakeToy, downloads: Path) -> None:
    (downloads / "toy.tar").write_bytes(DATA[:-1])
    toy = gated(make_toy, sha256=sha256(DATA))
    with pytest.raises(FgvcError, match="another SHA-256") as caught:
        bring(toy, downloads)
    message = str(caught.value)
    assert str(downloads / "toy.tar") in message
    assert sha256(DATA)[:12] in message and sha256(DATA[:-1])[:12] in message
    assert len(message.splitlines()) <= 5
    assert (downloads / "toy.tar").read_bytes() == DATA[:-1]


def test_what_the_folder_lacks_is_not_downloaded(make_toy: MakeToy, downloads: Path, server: Server) -> None:
    """Who says that the archive is here does not want a download of many gigabytes."""
    toy = make_toy(source=source(urls=[server.url], anchor="img"))
    toy.archive.unlink()
    with pytest.raises(FgvcError, match=r"does not hold toy\.tar, nor an unpacked folder 'img'") as caught:
        bring(toy, downloads)
    assert server.url in str(caught.value) and server.asked == []


def test_plain_lists_still_come_from_the_network(make_toy: MakeToy, downloads: Path, server: Server) -> None:
    files = toy_files()
    listed = files.pop("lists/test.csv")
    (downloads / "toy.tar").write_bytes(pack(files))
    server.behave = lambda handler: handler.send(listed)
    entry = {"file": "x/test.csv", "unpack": False, "to": "lists/test.csv", "urls": [server.url]}
    toy = make_toy(source={"kind": "archive", "downloads": [{"file": "toy/toy.tar"}, entry]})
    toy.archive.unlink()
    places = [file.place for file in bring(toy, downloads).record.source.files]
    assert places == ["local", "network"]


def test_a_gated_dataset_says_what_to_download_and_how_to_go_on(make_toy: MakeToy, downloads: Path) -> None:
    toy = gated(make_toy, sha256=sha256(DATA))
    for options in ({}, {"local": downloads}):
        with pytest.raises(FgvcError) as caught:
            fetch(toy.project, "toy", **options)
        message = str(caught.value)
        assert "accept the terms at https://example.org/toy" in message and "toy.tar" in message
        assert ("fgvc data fetch toy --from-local" in message) == (not options)
        assert len(message.splitlines()) <= 5


# --- unpacked folders -----------------------------------------------------------------------------------


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


@pytest.mark.parametrize("inside", ["", "deeper/toy-1.0"])
def test_an_unpacked_folder_serves_and_stays_as_it_is(
    make_toy: MakeToy, downloads: Path, inside: str
) -> None:
    put(downloads / inside, toy_files())
    before = state_of(downloads)
    toy = gated(make_toy, anchor="img", sha256=sha256(DATA))
    fetched = bring(toy, downloads)
    assert (fetched.record.images, fetched.record.source.kind) == (15, "unpacked")
    assert any("no archive vouches" in note for note in fetched.notes)
    assert state_of(downloads) == before
    image = toy.folder / "img/bee/2.jpg"
    assert image.samefile(downloads / inside / "img/bee/2.jpg") and not image.is_symlink()
    assert set(tree(toy.folder)) == set(toy_files()) - {"unused.txt"}
    assert bring(toy, downloads).outcome == "present"
    assert bring(toy, downloads, replace=True).outcome == "fetched"
    assert state_of(downloads) == before


def test_the_images_folder_itself_may_be_named(make_toy: MakeToy, downloads: Path, server: Server) -> None:
    files = toy_files()
    put(downloads, files)
    lists = {name: data for name, data in files.items() if name.startswith("lists/") or name == "LICENSE"}
    server.behave = lambda handler: handler.send(lists[handler.path[1:]])
    base = server.url.removesuffix("toy.tar")
    plain = [{"file": name, "unpack": False, "to": name, "urls": [base + name]} for name in lists]
    archive = {"file": "toy/toy.tar", "anchor": "img"}
    toy = make_toy(source={"kind": "archive", "downloads": [archive, *plain]})
    assert bring(toy, downloads / "img").record.images == 15
    assert not (toy.folder / "letter.txt").exists()


def test_linked_folders_are_followed_and_loops_end(
    make_toy: MakeToy, downloads: Path, tmp_path: Path
) -> None:
    files = toy_files()
    put(tmp_path / "other disk", {name[4:]: data for name, data in files.items() if name.startswith("img/")})
    put(downloads, {name: data for name, data in files.items() if not name.startswith("img/")})
    (downloads / "img").symlink_to(tmp_path / "other disk")
    (tmp_path / "other disk" / "loop").symlink_to(tmp_path / "other disk")
    toy = gated(make_toy, anchor="img")
    assert bring(toy, downloads).record.images == 15
    assert not any(path.is_symlink() for path in toy.folder.rglob("*"))


def test_across_disks_the_files_are_copied(
    make_toy: MakeToy, downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    put(downloads, toy_files())
    monkeypatch.setattr(os, "link", no_link)
    toy = gated(make_toy, anchor="img")
    bring(toy, downloads)
    (toy.folder / "img/ant/0.jpg").write_bytes(b"changed")
    assert (downloads / "img/ant/0.jpg").read_bytes() == toy_files()["img/ant/0.jpg"]


def test_an_incomplete_folder_names_what_it_lacks(make_toy: MakeToy, downloads: Path) -> None:
    files = toy_files()
    del files["img/cow/3.jpg"]
    put(downloads, files)
    with pytest.raises(FgvcError, match=r"1 of 15 listed images are missing: img/cow/3\.jpg"):
        bring(gated(make_toy, anchor="img"), downloads)


def test_two_folders_of_the_name_are_a_question(make_toy: MakeToy, downloads: Path) -> None:
    put(downloads, {"a/img/x": b"", "b/img/x": b""})
    with pytest.raises(FgvcError, match="several folders 'img'") as caught:
        bring(gated(make_toy, anchor="img"), downloads)
    assert str(downloads / "a") in str(caught.value)


def test_a_folder_around_the_project_is_refused(make_toy: MakeToy) -> None:
    toy = gated(make_toy, anchor="img")
    put(toy.project.root, toy_files())
    with pytest.raises(FgvcError, match="holds this project"):
        bring(toy, toy.project.root)


def test_what_is_no_folder_is_said(make_toy: MakeToy, downloads: Path) -> None:
    with pytest.raises(FgvcError, match="--from-local names is not a folder"):
        bring(gated(make_toy), downloads / "letter.txt")


def test_a_dataset_that_needs_no_files_says_so(make_toy: MakeToy, downloads: Path) -> None:
    put(downloads / "mine", {f"{name}/0.jpg": picture(9) for name in CLASSES})
    toy = make_toy(
        source={"kind": "folder", "path": str(downloads / "mine")},
        layout={"kind": "class_folders"},
        licence_file=None,
    )
    with pytest.raises(FgvcError, match="'toy' needs no files from you"):
        bring(toy, downloads)


# --- in parts -------------------------------------------------------------------------------------------

CUTS = [DATA[:7000], DATA[7000:15000], DATA[15000:]]


def in_parts(make_toy: MakeToy, base: str = "http://127.0.0.1:9/") -> Toy:
    parts = [
        {
            "file": f"toy/toy.tar.a{letter}",
            "urls": [f"{base}toy.tar.a{letter}"],
            "sha256": sha256(data),
            "bytes": len(data),
        }
        for letter, data in zip("abc", CUTS, strict=True)
    ]
    toy = make_toy(source=source(parts=parts))
    toy.archive.unlink()
    return toy


def test_an_archive_in_parts_is_downloaded_and_unpacked_as_one(make_toy: MakeToy, server: Server) -> None:
    def one(handler: Handler) -> None:
        handler.send_range(CUTS["abc".index(handler.path[-1])])

    server.behave = one
    toy = in_parts(make_toy, server.url.removesuffix("toy.tar"))
    record = toy.fetch().record
    assert (record.images, [file.file for file in record.source.files]) == (
        15,
        ["toy/toy.tar.aa", "toy/toy.tar.ab", "toy/toy.tar.ac"],
    )
    assert not (toy.project.root / "data/.downloads/toy/toy.tar").exists()  # never joined on the disk


def test_each_part_has_its_own_digest(make_toy: MakeToy, server: Server) -> None:
    server.behave = lambda handler: handler.send(CUTS["abc".index(handler.path[-1])][::-1])
    with pytest.raises(FgvcError, match=r"toy\.tar\.aa could not be fetched: .* another SHA-256"):
        in_parts(make_toy, server.url.removesuffix("toy.tar")).fetch()


def test_parts_from_the_user_s_folder(make_toy: MakeToy, downloads: Path) -> None:
    toy = in_parts(make_toy)
    for letter, data in zip("ab", CUTS, strict=False):
        (downloads / f"toy.tar.a{letter}").write_bytes(data)
    with pytest.raises(FgvcError, match=r"does not hold toy\.tar\.ac"):
        bring(toy, downloads)
    (downloads / "toy.tar.ac").write_bytes(CUTS[2])
    assert bring(toy, downloads).outcome == "fetched"


# --- bombs ----------------------------------------------------------------------------------------------


def test_an_archive_may_not_unpack_to_far_more_than_declared(make_toy: MakeToy) -> None:
    files = toy_files() | {"unused.bin": os.urandom(3 << 20)}
    toy = make_toy(files, disk_mib=0.2)
    with pytest.raises(FgvcError, match="unpacks to more than 2097152 bytes"):
        toy.fetch()
    assert not toy.folder.exists() and not (toy.project.root / "data/.toy.staging").exists()
