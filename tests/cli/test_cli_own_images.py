"""Images of one's own: from a folder or a CSV to a split in three commands, and the mistakes on the way."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest
import yaml
from clikit import Said, fgvc, make_shipped
from PIL import Image

LABELS = ("ant", "bee", "cow")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_shipped(tmp_path / "project")


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dice = random.Random(str(path.name) + path.parent.name)
    image = Image.new("RGB", (16, 12))
    image.putdata([tuple(dice.randrange(256) for _ in range(3)) for _ in range(16 * 12)])
    image.save(path)


Lines = list[list[str]]


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Lines]:
    """A folder of pictures that tells nothing by its names, and the lines of a CSV about them."""
    folder = tmp_path / "my things"
    lines = []
    for number in range(15):
        path = f"img/{number:03d}.png"
        picture(folder / path)
        lines.append([path, LABELS[number % 3]])
    return folder, lines


def table(folder: Path, lines: Lines, header: str = "path,label", delimiter: str = ",") -> Path:
    file = folder / "labels.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        stream.write(header + "\n")
        csv.writer(stream, delimiter=delimiter).writerows(lines)
    return file


def told(said: Said) -> str:
    """The message, after a look at its form."""
    assert said.status == 2 and said.err.startswith("error: ") and not said.out
    assert len(said.err.splitlines()) <= 5 and "Traceback" not in said.err and "  to do: " in said.err
    return said.err


def add(root: Path, path: Path) -> Said:
    return fgvc(root, "data", "add", "mine", path)


def parts(root: Path) -> dict[str, int]:
    record = json.loads((root / "results/splits/mine/split.json").read_text())
    assert record["provenance"] == "ours"
    return {part: facts["rows"] for part, facts in record["parts"].items()}


def prepared(root: Path) -> None:
    for verb in ("fetch", "split"):
        fgvc(root, "data", verb, "mine").check()


def test_a_csv_becomes_a_dataset(root: Path, pictures: tuple[Path, Lines]) -> None:
    said = add(root, table(*pictures)).check()
    assert "mine: 3 classes" in said.out and "params/datasets/mine.yaml" in said.out
    text = (root / "params/datasets/mine.yaml").read_text()
    assert "named in a CSV" in text and "15 images in 3 classes" in text
    prepared(root)
    assert parts(root) == {"train": 9, "val": 3, "train_val": 12, "test": 3}
    names = (root / "results/splits/mine/classes.csv").read_text().split()
    assert names == ["class_id,class_name", "0,ant", "1,bee", "2,cow"]
    rows = (root / "data/mine.csv").read_text().splitlines()[1:]
    truth = dict(pictures[1])
    assert {row.split(",")[0]: LABELS[int(row.split(",")[1])] for row in rows} == truth
    audit = fgvc(root, "data", "audit", "mine").check().out
    assert "results/audit/data/mine.md" in audit.splitlines()


def test_a_csv_with_parts_other_columns_semicolons_and_a_byte_order_mark(
    root: Path, pictures: tuple[Path, Lines]
) -> None:
    folder, lines = pictures
    rows = [
        [f"note {n}", label, path, ("Train", "train", "valid", "test", "train")[n // 3]]
        for n, (path, label) in enumerate(lines)
    ]
    file = table(folder, rows, "\ufeffremark;Label;PATH;split", ";")
    add(root, file).check()
    layout = yaml.safe_load((root / "params/datasets/mine.yaml").read_text())["layout"]
    assert layout == {"kind": "image_table", "file": "labels.csv", "delimiter": ";"}
    prepared(root)
    assert parts(root) == {"train": 9, "val": 3, "train_val": 12, "test": 3}


def test_a_file_that_the_csv_does_not_name_stays_out(root: Path, pictures: tuple[Path, Lines]) -> None:
    folder, lines = pictures
    picture(folder / "img/other.png")
    add(root, table(folder, lines)).check()
    prepared(root)
    assert not (root / "data/mine/img/other.png").exists() and (root / "data/mine/img/000.png").is_file()


def test_a_changed_csv_is_noticed(root: Path, pictures: tuple[Path, Lines]) -> None:
    folder, lines = pictures
    add(root, table(folder, lines)).check()
    prepared(root)
    (root / "data/mine/labels.csv").unlink()
    (root / "data/mine/labels.csv").write_text("path,label\nimg/000.png,cow\n")
    assert fgvc(root, "data", "fetch", "mine", "--verify").status == 2


@pytest.mark.parametrize(
    ("line", "changed", "says"),
    [
        (4, ["img/999.png", "bee"], "there is no image 'img/999.png'"),
        (2, ["img/002.png", ""], "the label is missing"),
        (2, ["", "cow"], "the path is missing"),
        (2, ["img/002.png"], "the label is missing"),
        (7, ["../secret.png", "bee"], "leaves the dataset's folder"),
        (7, ["/etc/passwd", "bee"], "relative to the CSV's folder"),
        (7, ["C:\\img\\7.png", "bee"], "backslash"),
        (3, ["img/001.png", "bee"], "'img/001.png' stands twice (first on line 3)"),
        (3, ["img/001.png", "ant"], "stands twice as 'bee' and as 'ant'"),
        (5, ["img/005.png", "coww"], "'coww' (1 image); is it a misspelt 'cow'?"),
    ],
)
def test_a_wrong_line_is_named(
    root: Path, pictures: tuple[Path, Lines], line: int, changed: list[str], says: str
) -> None:
    folder, lines = pictures
    lines[line] = changed
    text = told(add(root, table(folder, lines)))
    assert says in text and f"labels.csv:{line + 2}\n" in text, "the header is line 1"
    assert not (root / "params/datasets/mine.yaml").exists()


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("file,label", "no column 'path'"),
        ("path,labels", "is it 'labels'?"),
        ("img/000.png,ant", "the first line must be 'path,label'"),
    ],
)
def test_a_header_that_is_none(root: Path, pictures: tuple[Path, Lines], header: str, says: str) -> None:
    assert says in told(add(root, table(*pictures, header=header)))


def test_parts_that_are_none(root: Path, pictures: tuple[Path, Lines]) -> None:
    folder, lines = pictures
    for word, says in (("training", "'training' is no part"), ("test", "no line is in the train part")):
        file = table(folder, [[*line, word] for line in lines], "path,label,split")
        assert says in told(add(root, file))


def test_one_label_no_line_and_no_csv_at_all(root: Path, pictures: tuple[Path, Lines]) -> None:
    folder, lines = pictures
    assert "same label (ant)" in told(add(root, table(folder, [[path, "ant"] for path, _ in lines])))
    assert "names no image" in told(add(root, table(folder, [])))
    assert "neither a folder nor a CSV" in told(add(root, folder / "img/000.png"))
    assert "no such folder or CSV" in told(add(root, folder / "label.csv"))


def test_an_empty_folder_and_one_class(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "there is no class folder" in told(add(root, tmp_path / "empty"))
    for number in range(5):
        picture(tmp_path / f"one/ant/{number}.png")
    assert "one class folder only (ant)" in told(add(root, tmp_path / "one"))
    (tmp_path / "one/bee").mkdir()
    assert "class 'bee' holds no image" in told(add(root, tmp_path / "one"))
    picture(tmp_path / "one/bee/1.png")
    assert "'bee' (1 image)" in told(add(root, tmp_path / "one"))
    for number in range(5):
        picture(tmp_path / f"one/aunt/{number}.png")
        picture(tmp_path / f"one/bee/{number}.png")
    picture(tmp_path / "one/antt/1.png")
    assert "'antt' (1 image); is it a misspelt 'ant'?" in told(add(root, tmp_path / "one"))


@pytest.mark.parametrize("damage", [b"no image", None])
def test_an_unreadable_picture_is_named_before_anything_trains(
    root: Path, pictures: tuple[Path, Lines], damage: bytes | None
) -> None:
    folder, lines = pictures
    broken = folder / "img/004.png"
    broken.write_bytes(damage or broken.read_bytes()[:200])
    add(root, table(folder, lines)).check()
    text = told(fgvc(root, "data", "fetch", "mine"))
    assert "1 image(s) cannot be decoded: img/004.png" in text and "never skipped" in text
    assert not (root / "data/mine.json").exists()
