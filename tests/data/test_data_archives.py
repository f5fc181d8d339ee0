"""Archives: only folders and regular files below the given folder are ever made."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from datakit import pack, tree

from fgvc.data.archives import Limits, unpack
from fgvc.errors import FgvcError

FILES = {"top/a.txt": b"a", "top/dataset/b.txt": b"bb", "other.txt": b"ccc"}


def zip_of(files: dict[str, bytes], attributes: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = attributes << 16
            zipped.writestr(info, data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def tar_of(kind: bytes, name: str = "x", target: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        tar.addfile(info)
    return out.getvalue()


@pytest.fixture
def box(tmp_path: Path) -> Callable[[bytes], Path]:
    def put(data: bytes) -> Path:
        path = tmp_path / "box" / "some.file"
        path.parent.mkdir()
        path.write_bytes(data)
        return path

    return put


@pytest.mark.parametrize(
    "data",
    [pack(FILES), gzip.compress(pack(FILES)), zip_of(FILES), pack({f"./{n}": d for n, d in FILES.items()})],
    ids=["tar", "tgz", "zip", "dotted"],
)
def test_the_kind_is_told_by_the_content(box: Callable[[bytes], Path], tmp_path: Path, data: bytes) -> None:
    assert tree(unpack(box(data), tmp_path / "out")) == FILES


def test_the_anchor_cuts_what_is_above_it(box: Callable[[bytes], Path], tmp_path: Path) -> None:
    top = unpack(box(pack(FILES)), tmp_path / "out", anchor="dataset")
    assert tree(top) == {"a.txt": b"a", "dataset/b.txt": b"bb"}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (FILES, "no folder 'nowhere'"),
        ({"a/nowhere/1": b"", "b/nowhere/1": b""}, "several folders 'nowhere'"),
    ],
)
def test_a_missing_or_double_anchor(
    box: Callable[[bytes], Path], tmp_path: Path, files: dict[str, bytes], says: str
) -> None:
    with pytest.raises(FgvcError, match=says):
        unpack(box(pack(files)), tmp_path / "out", anchor="nowhere")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (pack({"/etc/evil": b"x"}), "absolute"),
        (pack({"../evil": b"x"}), "leaves"),
        (pack({"a/../../evil": b"x"}), "leaves"),
        (pack({"a\\..\\evil": b"x"}), "backslash"),
        (pack({"a\nb": b"x"}), "control character"),
        (pack({"a/b": b"x", "a": b"x"}), "twice"),
        (pack({"a": b"x", "a/b": b"x"}), "twice"),
        (pack({"a": b"x"})[: -1024 * 9] + pack({"a": b"y"}), "twice"),
        (tar_of(tarfile.SYMTYPE, target="/etc"), "link"),
        (tar_of(tarfile.LNKTYPE, target="other"), "link"),
        (tar_of(tarfile.CHRTYPE), "device"),
        (tar_of(tarfile.FIFOTYPE), "device"),
        (zip_of({"/etc/evil": b"x"}), "absolute"),
        (zip_of({"../evil": b"x"}), "leaves"),
        (zip_of({"a\\..\\evil": b"x"}), "backslash"),
        (zip_of({"evil_.txt": b"x"}).replace(b"evil_", b"evil\0"), "control character|damaged"),
        (zip_of({"link": b"/etc"}, stat.S_IFLNK | 0o777), "link"),
        (zip_of({"pipe": b""}, stat.S_IFIFO | 0o777), "device"),
        (pack(FILES)[:700], "damaged|incomplete"),
        (gzip.compress(pack({"a": bytes(range(256)) * 99}))[:200], "damaged|incomplete"),
        (zip_of(FILES)[:-30], "damaged|incomplete"),
        (b"<html>not here</html>", "neither a tar nor a zip"),
        (b"", "neither a tar nor a zip"),
    ],
)
def test_hostile_and_broken_archives_are_refused(
    box: Callable[[bytes], Path], tmp_path: Path, data: bytes, says: str
) -> None:
    archive = box(data)
    with pytest.raises(FgvcError, match=says) as caught:
        unpack(archive, tmp_path / "into" / "out")
    assert caught.value.file == str(archive)
    # Nothing appeared beside the folder, and nothing in it is a link.
    assert {p.name for p in tmp_path.iterdir()} == {"box", "into"}
    assert {p.name for p in (tmp_path / "into").iterdir()} == {"out"}
    assert not any(p.is_symlink() for p in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(total_bytes=1_000_000), "more than 1000000 bytes"),
        (Limits(ratio_from_bytes=100_000), "more than 100 times"),
        (Limits(members=1), "more than 1 members"),
    ],
)
def test_growth_has_limits(box: Callable[[bytes], Path], tmp_path: Path, limits: Limits, says: str) -> None:
    bomb = zip_of({"a": bytes(4 << 20), "b": b"x"})
    with pytest.raises(FgvcError, match=says):
        unpack(box(bomb), tmp_path / "out", limits=limits)
    assert sum(p.stat().st_size for p in (tmp_path / "out").rglob("*") if p.is_file()) <= (4 << 20) + 1


def test_an_encrypted_zip_says_so(box: Callable[[bytes], Path], tmp_path: Path) -> None:
    data = bytearray(zip_of({"a": b"secret"}))
    data[data.index(b"PK\x03\x04") + 6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(FgvcError, match="encrypted"):
        unpack(box(bytes(data)), tmp_path / "out")
