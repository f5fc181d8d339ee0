"""A file is the old one or the whole new one, whatever happens to the process that writes it."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fgvc.errors import FgvcError
from fgvc.provenance.files import atomic_path, read_json, write_json, write_text

#: Fill a file with one letter, 400,000 times, then with the next one, for ever.
WRITER = """
import itertools, sys
from pathlib import Path
from fgvc.provenance.files import write_text
print("ready", flush=True)
for letter in itertools.cycle("abc"):
    write_text(Path(sys.argv[1]), letter * 400_000)
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    seen = set()
    for attempt in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(0.003 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if target.exists():
            text = target.read_text()
            assert len(text) == 400_000 and len(set(text)) == 1
            seen.add(text[0])
    assert seen


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half of the new o")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_bytes_are_on_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(handle: int) -> None:
        happened.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def noted_replace(self: Path, target: Path) -> Path:
        happened.append("name")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    write_text(tmp_path / "file.txt", "x")
    assert happened == ["file", "name", "folder"]


def test_folders_are_made_and_permissions_are_the_user_s(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "a" / "b" / "record.json", {"ä": 1})
    finally:
        os.umask(before)
    path = tmp_path / "a" / "b" / "record.json"
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.read_text(encoding="utf-8") == '{\n  "ä": 1\n}\n'
    assert read_json(path) == {"ä": 1}


def test_newlines_are_written_as_they_stand(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "a\nb\r\n")
    assert (tmp_path / "x").read_bytes() == b"a\nb\r\n"


def test_a_record_has_no_nan(tmp_path: Path) -> None:
    """JSON knows none; a reader in another language would fail on it."""
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


# --- what cannot be written -----------------------------------------------------------------------


def refused(target: Path, size: int = 1 << 20) -> FgvcError:
    with pytest.raises(FgvcError, match="cannot write") as caught:
        write_text(target, "x" * size)
    assert caught.value.file == str(target)
    assert len(str(caught.value).splitlines()) <= 5
    return caught.value


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    refused(tmp_path / "plain" / "x.txt")


def test_a_file_that_grows_too_large_leaves_the_old_one(tmp_path: Path) -> None:
    """The same error as a full disk, half-way through a real write: the limit is this process's own."""
    target = tmp_path / "file.txt"
    write_text(target, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        refused(target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB; skips where this process may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_old_file_and_says_what_to_do(small_disk: Path) -> None:
    target = small_disk / "file.txt"
    write_text(target, "old")
    assert "free some space and run the same command again" in (refused(target).cure or "")
    assert target.read_text() == "old"
    assert [path.name for path in small_disk.iterdir()] == ["file.txt"]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "the quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "check the permissions"),
    ],
)
def test_what_the_system_says_becomes_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    def fail(_handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    assert said in (refused(tmp_path / "x").cure or "")
    assert list(tmp_path.iterdir()) == []


def _write_as_nobody(target: Path, answers: Any) -> None:
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    try:
        write_text(target, "x")
        answers.put("written")
    except FgvcError as error:
        answers.put(str(error))


def test_a_folder_without_write_permission() -> None:
    folder = Path(tempfile.mkdtemp())
    (folder / "sub").mkdir()
    folder.chmod(0o755)
    (folder / "sub").chmod(0o555)
    try:
        fork = multiprocessing.get_context("fork")
        answers = fork.SimpleQueue()
        process = fork.Process(target=_write_as_nobody, args=(folder / "sub" / "x.txt", answers))
        process.start()
        process.join(30)
        said = answers.get()
        assert "cannot write" in said and "check the permissions of the folder" in said
        assert list((folder / "sub").iterdir()) == []
    finally:
        shutil.rmtree(folder)


# --- reading --------------------------------------------------------------------------------------


def test_a_missing_record_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(FgvcError, match="does not exist yet") as caught:
        read_json(tmp_path / "x.json", made_by="fgvc data split cub")
    assert caught.value.cure == "make it with: fgvc data split cub"


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe", b"[1, 2"])
def test_a_torn_record_is_an_error_not_a_value(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(FgvcError, match="cannot be read") as caught:
        read_json(tmp_path / "x.json")
    assert caught.value.cure == "delete it and make it again"


def test_reading_gives_what_was_written(tmp_path: Path) -> None:
    record = {"z": [1, 2.5, None], "a": {"b": "ü"}, "t": True}
    write_json(tmp_path / "x.json", record)
    assert read_json(tmp_path / "x.json") == record
    assert list(json.loads((tmp_path / "x.json").read_text())) == ["z", "a", "t"]
