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
def test_f09_hostile_archives_are_refused(
    box: Callable[[bytes], Path], tmp_path: Path, data: bytes, says: str
) -> None:
    """An archive with absolute paths, .., links, devices, a name given twice or a cut end is refused, and
    nothing appears outside its folder."""
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
def test_f09_growth_has_limits(
    box: Callable[[bytes], Path], tmp_path: Path, limits: Limits, says: str
) -> None:
    """An archive that unpacks to more bytes than declared, to more than a hundred times its size or to too
    many files is stopped on the way."""
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


# --- in parts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [gzip.compress(pack(FILES)), zip_of(FILES)], ids=["tgz", "zip"])
@pytest.mark.parametrize("size", [1, 100, 10_000])
def test_an_archive_in_parts_is_read_as_one(tmp_path: Path, whole: bytes, size: int) -> None:
    parts = []
    for number, start in enumerate(range(0, len(whole), size)):
        parts.append(tmp_path / f"x.{number:04}")
        parts[-1].write_bytes(whole[start : start + size])
    assert tree(unpack(parts, tmp_path / "out")) == FILES


def test_parts_in_the_wrong_order_are_refused(tmp_path: Path) -> None:
    whole = gzip.compress(pack({"a": bytes(range(256)) * 99}))
    (tmp_path / "aa").write_bytes(whole[:100])
    (tmp_path / "ab").write_bytes(whole[100:])
    with pytest.raises(FgvcError, match="neither a tar nor a zip"):
        unpack([tmp_path / "ab", tmp_path / "aa"], tmp_path / "out")


# --- names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Löwe/Äffchen.jpg", "鳥/雀.jpg", "a b/ c.jpg", "-rf", "x" * 200 + "/y.jpg"])
@pytest.mark.parametrize("wrap", [pack, zip_of], ids=["tar", "zip"])
def test_unusual_names_are_kept(
    box: Callable[[bytes], Path], tmp_path: Path, wrap: Callable[[dict[str, bytes]], bytes], name: str
) -> None:
    assert tree(unpack(box(wrap({name: b"x"})), tmp_path / "out")) == {name: b"x"}


def test_names_that_are_no_utf_8_are_refused(box: Callable[[bytes], Path], tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", encoding="latin-1", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("L\xf6we.jpg"))
    with pytest.raises(FgvcError, match="not UTF-8"):
        unpack(box(out.getvalue()), tmp_path / "out")


def test_a_name_that_no_disk_takes_is_an_error(box: Callable[[bytes], Path], tmp_path: Path) -> None:
    with pytest.raises(FgvcError, match="cannot unpack: File name too long"):
        unpack(box(pack({"x" * 300: b"x"})), tmp_path / "out")


# --- bombs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_f09_a_header_that_would_fill_the_memory(
    box: Callable[[bytes], Path], tmp_path: Path, kind: bytes
) -> None:
    """An archive with a header of gigabytes is refused before it is read into memory."""
    header = tarfile.TarInfo("long")
    header.type, header.size = kind, 8 << 30
    with pytest.raises(FgvcError, match="a header of 8589934592 bytes"):
        unpack(box(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096)), tmp_path / "out")


def test_what_a_header_says_of_its_size_does_not_count(box: Callable[[bytes], Path], tmp_path: Path) -> None:
    """A zip whose directory speaks of one byte and that holds four millions."""
    data = zip_of({"a": bytes(4 << 20)})
    lie = data.replace((4 << 20).to_bytes(4, "little"), (1).to_bytes(4, "little"))
    assert lie != data
    with pytest.raises(FgvcError):
        unpack(box(lie), tmp_path / "out", limits=Limits(total_bytes=1 << 20))
    assert sum(p.stat().st_size for p in (tmp_path / "out").rglob("*") if p.is_file()) <= 1 << 20
