"""Datasets that were made to do harm, given to the verb as a user would."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from datakit import Toy, list_text, pack, picture, toy_files, tree

FGVC = Path(sys.executable).parent / "fgvc"
MEMORY_BYTES = 2 << 30

MakeToy = Callable[..., Toy]


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def fetch(toy: Toy, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FGVC, "data", "fetch", "toy", "--mirror", toy.mirror],
        cwd=toy.project.root,
        env={**os.environ, "COLUMNS": "80", **more},
        preexec_fn=_limited,
        capture_output=True,
        text=True,
        timeout=60,
    )


def refused(toy: Toy, *says: str, **more: str) -> None:
    """The dataset is refused in a few lines, and nothing of it is there, or anywhere around."""
    before = tree(toy.mirror.parent)
    done = fetch(toy, **more)
    assert done.returncode == 2 and len(done.stderr.splitlines()) <= 5, done.stderr
    for words in says:
        assert words in done.stderr
    assert not toy.folder.exists() and not toy.folder.with_suffix(".json").exists()
    news = set(tree(toy.mirror.parent)) - set(before)
    assert all("/data/." in name or "/state/" in name for name in news), news


def png(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that says it has ``width x height`` pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1 << 16))) + chunk(b"IEND", b"")


# --- F8: pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no image by its content"),
        (picture(7)[:-2], "truncated"),
        (b"<html>not found</html>", "no image by its content"),
        (png(60_000, 60_000), "3600000000 pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "no image by its content"),
    ],
    ids=["empty", "truncated", "a web page", "a bomb", "a program"],
)
def test_f08_what_is_no_picture_is_named(
    make_toy: MakeToy, tmp_path: Path, content: bytes, says: str
) -> None:
    """A dataset with a file that is empty, cut off, a web page, a decompression bomb or a program under a
    picture's name is refused by that file's name; no program runs and no memory is filled."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path / 'canary'}\n")
    (tools / "gs").chmod(0o755)
    toy = make_toy(toy_files() | {"img/bee/2.jpg": content})
    path = os.pathsep.join([str(tools), os.environ["PATH"]])
    refused(toy, "img/bee/2.jpg", says, "images are never skipped or replaced", PATH=path)
    assert not (tmp_path / "canary").exists()


def test_f08_a_picture_under_another_suffix_is_told_by_its_content(make_toy: MakeToy) -> None:
    """A PNG that is called .jpg is the picture that it is."""
    toy = make_toy(toy_files() | {"img/bee/2.jpg": _small_png()})
    assert fetch(toy).returncode == 0
    row = next(line for line in (toy.folder.with_suffix(".csv")).read_text().splitlines() if "bee/2" in line)
    assert row.split(",")[2:4] == ["4", "3"]


def _small_png() -> bytes:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (4, 3)).save(out, "PNG")
    return out.getvalue()


# --- F9: archives -------------------------------------------------------------------------------------


def special(kind: bytes, name: str, target: str = "") -> bytes:
    """One member that is a link or a device, in front of the toy's own."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info.tobuf() + pack(toy_files())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (pack({"../../evil.jpg": b"x", **toy_files()}), "leaves"),
        (pack({"/tmp/evil.jpg": b"x", **toy_files()}), "absolute"),
        (special(tarfile.SYMTYPE, "img", "/etc"), "link"),
        (special(tarfile.LNKTYPE, "img/ant/0.jpg", "/etc/passwd"), "link"),
        (special(tarfile.CHRTYPE, "img/ant/9.jpg"), "device"),
        (special(tarfile.FIFOTYPE, "img/ant/9.jpg"), "device"),
    ],
    ids=["..", "absolute", "symlink", "hard link", "device", "pipe"],
)
def test_f09_a_hostile_archive_leaves_nothing(make_toy: MakeToy, data: bytes, says: str) -> None:
    """Of an archive with a member that is absolute, leaves its folder, is a link or a device, nothing is
    left: no dataset, and no file elsewhere."""
    toy = make_toy()
    toy.archive.write_bytes(data)
    refused(toy, "the archive is refused", says, str(toy.archive))


# --- F10: lists ---------------------------------------------------------------------------------------

ROWS = [(c, f"{n}/{i}.jpg") for c, n in enumerate(("ant", "bee", "cow")) for i in range(4)]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([*ROWS, (0, "../../../etc/passwd")], "leaves the dataset's folder"),
        ([*ROWS, (0, "ant/\0.jpg")], "control character"),
        ([*ROWS, (1, "ant/0.jpg")], "listed twice"),
        ([*ROWS, (7, "ant/4.jpg")], "outside 0..2"),
    ],
    ids=["..", "NUL", "twice", "unknown class"],
)
def test_f10_a_hostile_list_in_an_archive(make_toy: MakeToy, rows: list[tuple[int, str]], says: str) -> None:
    """A dataset whose own lists name a file outside of it, a NUL, an image twice or a class that it does not
    have is refused with the line of the list."""
    toy = make_toy(toy_files() | {"lists/train_val.csv": list_text(rows)})
    refused(toy, says, "train_val.csv:14")
