"""Lists of images: nothing in them is trusted."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgvc.data.lists import ListFormat, read_list, write_list
from fgvc.errors import FgvcError

GOOD = "class_id,dir\n0,a/1.jpg\n1,b/2.jpg\n"


def read(tmp_path: Path, text: str | bytes, classes: int = 2, how: ListFormat | None = None):
    path = tmp_path / "list.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_list(path, "data/toy/list.csv", classes, how)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.rstrip("\n"),
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\r"),
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\n\n"),
        GOOD.replace("0,", " 0 ,"),
        GOOD.replace("dir\n", "dir,more\n").replace("jpg\n", "jpg,x\n"),
    ],
)
def test_f10_byte_order_marks_and_line_ends_do_no_harm(tmp_path: Path, text: str) -> None:
    """A list with a byte-order mark, CRLF or CR line ends, blank lines or further columns means the same."""
    assert read(tmp_path, text) == [(0, "a/1.jpg"), (1, "b/2.jpg")]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("0,/etc/passwd", "absolute"),
        ("0,C:/x.jpg", "absolute"),
        ("0,../x.jpg", "'..'"),
        ("0,a/../../x.jpg", "'..'"),
        ("0,a\\x.jpg", "backslash"),
        ("0,a/\0.jpg", "control character"),
        ('0,"a/\n.jpg"', "control character"),
        ("0,a//x.jpg", "empty"),
        ("0,./x.jpg", "'.' part"),
        ("0,", "empty"),
        ("0,a/1.jpg", "listed twice (first on line 2)"),
        ("1,a/1.jpg", "listed twice (first on line 2)"),
        ("x,c.jpg", "not an integer"),
        ("1.0,c.jpg", "not an integer"),
        ("1_0,c.jpg", "not an integer"),
        (",c.jpg", "not an integer"),
        ("2,c.jpg", "outside 0..1"),
        ("-1,c.jpg", "outside 0..1"),
        ("0", "column"),
    ],
)
def test_f10_hostile_rows_are_errors_with_their_line(tmp_path: Path, row: str, says: str) -> None:
    """A list with an absolute path, .., a NUL, an image given twice or a class that does not exist is refused
    with file and line."""
    with pytest.raises(FgvcError) as caught:
        read(tmp_path, f"{GOOD}{row}\n")
    assert says in str(caught.value)
    # A quoted newline ends on the next line, which is the one the reader knows.
    assert "data/toy/list.csv:4" in str(caught.value) or "data/toy/list.csv:5" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 5


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "names no image"),
        (b"class_id,dir\n", "names no image"),
        (b"0,a/1.jpg\n", "no header"),
        (b"class_id,dir\n0,\xff\xfe.jpg\n", "not UTF-8"),
        (GOOD.encode("utf-16"), "not UTF-8"),
        (b'class_id,dir\n0,"' + b"x" * 200_000, "no CSV"),
    ],
)
def test_files_that_are_no_lists(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(FgvcError, match=says):
        read(tmp_path, content)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(FgvcError, match="does not exist") as caught:
        read_list(tmp_path / "no.csv", "data/toy/no.csv", 2)
    assert caught.value.file == "data/toy/no.csv"


def test_lines_of_path_and_classes_are_renumbered_and_filtered(tmp_path: Path) -> None:
    how = ListFormat(header=False, path_column=0, class_column=1, prefix="dataset/", renumber={7: 0, 3: 1})
    text = "train/a.jpg, 7, 1\ntrain/b.jpg, 5, 1\ntrain/c.jpg, 3, 0\n"
    assert read(tmp_path, text, 2, how) == [(0, "dataset/train/a.jpg"), (1, "dataset/train/c.jpg")]


def test_a_path_in_a_class_that_is_left_out_is_looked_at_all_the_same(tmp_path: Path) -> None:
    how = ListFormat(header=False, path_column=0, class_column=1, renumber={7: 0})
    with pytest.raises(FgvcError, match="absolute"):
        read(tmp_path, "a.jpg, 7\n/etc/passwd, 5\n", 1, how)


def test_names_with_commas_quotes_and_spaces_survive(tmp_path: Path) -> None:
    rows = [(0, "a, b/1.jpg"), (1, 'say "x"/2.jpg'), (1, " led /3.jpg "), (0, "Jew's-ear/ä.jpg")]
    write_list(tmp_path / "out.csv", rows)
    assert read_list(tmp_path / "out.csv", "out.csv", 2) == rows
