"""The audit finds what was planted, says which parts and classes, and what becomes of each unusual file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datakit import Toy, toy_files
from PIL import Image, ImageDraw

from fgvc.config.project import Project
from fgvc.data.add import add_dataset
from fgvc.data.audit import audit_dataset
from fgvc.data.decoding import UNUSUAL
from fgvc.data.fetch import fetch
from fgvc.data.splits import prepare_splits
from fgvc.errors import FgvcError
from fgvc.reporting.data_audit import KIND_TITLES, audit_lines, audit_page, write_audit

CLASSES = ("ant", "bee", "cow")
COUNTS = {"train": 4, "val": 2, "test": 3}


def scene(seed: int) -> Image.Image:
    """Ten ellipses of any colour; no two seeds look alike."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (120, 90), tuple(map(int, rng.integers(0, 256, 3))))
    pen = ImageDraw.Draw(image)
    for _ in range(10):
        x, y, size = rng.integers(0, 100), rng.integers(0, 70), rng.integers(10, 50)
        pen.ellipse((x, y, x + size, y + size), fill=tuple(map(int, rng.integers(0, 256, 3))))
    return image


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


@dataclass
class Own:
    """A folder of one's own that becomes the dataset ``mine``."""

    project: Project
    source: Path

    def put(self, path: str, data: bytes) -> None:
        (self.source / path).parent.mkdir(parents=True, exist_ok=True)
        (self.source / path).write_bytes(data)

    def prepare(self) -> Path:
        """Add, fetch and split; the folder in data/."""
        add_dataset(self.project, "mine", self.source, "Mine")
        project = Project(self.project.root)
        fetch(project, "mine")
        prepare_splits(project, "mine")
        return project.paths.data_dir("mine")

    def audit(self) -> dict[str, Any]:
        return audit_dataset(Project(self.project.root), "mine")


@pytest.fixture
def own(project_factory: Callable[..., Project], tmp_path: Path) -> Own:
    """Three classes, every picture another one."""
    made = Own(project_factory(), tmp_path / "pictures")
    seed = 0
    for part, count in COUNTS.items():
        for name in CLASSES:
            for number in range(count):
                seed += 1
                made.put(f"{part}/{name}/{number}.png", encoded(scene(seed)))
    return made


def kinds(record: dict[str, Any]) -> dict[str, list[str]]:
    return {
        kind["kind"]: [image["path"] for image in kind["listed"]]
        for kind in record["unusual"]
        if kind["images"]
    }


def test_a_clean_dataset(own: Own) -> None:
    own.prepare()
    record = own.audit()
    assert record["parts"] == {"train": 12, "val": 6, "test": 9} and record["in_no_part"] == 0
    assert record["identical"]["groups"] == record["near_duplicates"]["pairs"] == 0
    assert record["near_duplicates"]["compared"] == record["images"] == 27
    assert record["label_order"]["ids_follow_sorted_names"] == "by_code_point"
    assert record["balance"]["train"] == {"smallest": 4, "median": 4, "largest": 4, "imbalance": 1.0}
    assert kinds(record) == {}
    assert [kind["kind"] for kind in record["unusual"]] == list(UNUSUAL) == list(KIND_TITLES)


def test_copies_within_and_across_parts(own: Own) -> None:
    first = encoded(scene(1))
    own.put("test/ant/copy.png", first)  # leaks
    own.put("train/bee/copy.png", first)  # and has another class
    own.put("val/cow/twin.png", encoded(scene(50)))
    own.put("val/cow/twin2.png", encoded(scene(50)))
    own.prepare()
    found = own.audit()["identical"]
    assert (found["groups"], found["images"]) == (2, 5)
    assert found["groups_across_train_val_and_test"] == found["groups_of_several_classes"] == 1
    leaked, harmless = found["listed"]
    assert {(i["part"], i["class"], i["path"]) for i in leaked["images"]} == {
        ("train", "ant", "train/ant/0.png"),
        ("test", "ant", "test/ant/copy.png"),
        ("train", "bee", "train/bee/copy.png"),
    }
    assert [i["path"] for i in harmless["images"]] == ["val/cow/twin.png", "val/cow/twin2.png"]


def test_near_duplicates_are_named_with_parts_classes_and_distance(own: Own) -> None:
    smaller = scene(1).resize((70, 50))
    own.put("test/bee/again.jpg", encoded(smaller, "JPEG", quality=70))
    own.put("train/cow/again.jpg", encoded(scene(60), "JPEG", quality=90))
    own.put("train/cow/again2.jpg", encoded(scene(60), "JPEG", quality=60))
    own.prepare()
    found = own.audit()["near_duplicates"]
    assert found["pairs"] == 2 and found["all_found"]
    assert found["pairs_across_train_val_and_test"] == found["pairs_of_several_classes"] == 1
    assert found["pairs_by_parts"] == {"within train": 1, "train and test": 1}
    leaked, harmless = found["listed"]
    assert {leaked["first"]["path"], leaked["second"]["path"]} == {"train/ant/0.png", "test/bee/again.jpg"}
    assert {leaked["first"]["class"], leaked["second"]["class"]} == {"ant", "bee"}
    assert 0 <= leaked["distance_bits"] <= found["max_distance_bits"]
    assert harmless["first"]["part"] == harmless["second"]["part"] == "train"


def test_identical_files_are_not_told_again_as_near_ones(own: Own) -> None:
    own.put("test/ant/copy.png", encoded(scene(1)))
    own.prepare()
    assert own.audit()["near_duplicates"]["pairs"] == 0


def test_pictures_of_one_colour_are_not_compared(own: Own) -> None:
    for number, shade in enumerate((10, 90, 200)):
        own.put(f"train/ant/flat{number}.png", encoded(Image.new("RGB", (20, 20), (shade, 0, 0))))
    own.prepare()
    found = own.audit()["near_duplicates"]
    assert found["pairs"] == 0 and found["not_compared"] == 3


def test_f08_every_unusual_picture_is_listed(own: Own) -> None:
    """Every picture that decodes in an unusual way (CMYK, 16 bits, EXIF orientation, transparency, several
    frames) is in the audit of pictures, with what the loader makes of it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    own.put("train/ant/cmyk.jpg", encoded(scene(70).convert("CMYK"), "JPEG"))
    own.put("train/ant/turned.jpg", encoded(scene(71), "JPEG", exif=exif))
    own.put(
        "train/ant/deep.png",
        encoded(Image.fromarray(np.asarray(scene(72).convert("L")).astype(np.uint16) * 257)),
    )
    own.put("train/ant/moves.gif", encoded(scene(73), "GIF", save_all=True, append_images=[scene(74)]))
    own.put("train/bee/glass.png", encoded(scene(75).convert("RGBA")))
    own.put("train/bee/grey.png", encoded(scene(76).convert("L")))
    folder = own.prepare()
    data = (folder / "test/cow/1.png").read_bytes()
    for path in ("test/cow/0.png", "test/cow/1.png", "test/cow/2.png"):
        (folder / path).unlink()  # a link to the user's own file
    (folder / "test/cow/0.png").write_bytes(encoded(scene(77)))
    (folder / "test/cow/1.png").write_bytes(data[: len(data) // 2])
    record = own.audit()
    assert kinds(record) == {
        "unreadable": ["test/cow/1.png", "test/cow/2.png"],
        "changed": ["test/cow/0.png", "test/cow/1.png"],
        "cmyk": ["train/ant/cmyk.jpg"],
        "16_bit": ["train/ant/deep.png"],
        "palette": ["train/ant/moves.gif"],
        "alpha": ["train/bee/glass.png"],
        "grey": ["train/ant/deep.png", "train/bee/grey.png"],
        "exif_rotated": ["train/ant/turned.jpg"],
        "several_frames": ["train/ant/moves.gif"],
    }
    cut, gone = record["unusual"][0]["listed"]
    assert "truncated" in cut["why"] and "No such file" in gone["why"]
    page = audit_page(record, "mine.json")
    for kind in record["unusual"]:
        assert kind["loader"] in page and KIND_TITLES[kind["kind"]] in page
    assert "test/cow/1.png (" in page


def test_ids_in_natural_order_and_classes_of_unequal_size(own: Own) -> None:
    (own.source / "val/bee/1.png").unlink()
    for part in ("train", "val", "test"):
        own.put(f"{part}/class10/x.png", encoded(scene(200 + len(part) + ord(part[0]))))
        own.put(f"{part}/class9/x.png", encoded(scene(2000 + len(part) + ord(part[0]))))
    own.prepare()
    record = own.audit()
    assert record["label_order"]["ids_follow_sorted_names"] == "natural"
    assert record["balance"]["val"]["smallest"] == 1 and record["balance"]["val"]["imbalance"] == 2.0


def test_classes_that_a_part_lacks_are_named(own: Own) -> None:
    yaml = own.project.folder("dataset") / "mine.yaml"
    add_dataset(own.project, "mine", own.source)
    declared = "  missing_classes: {val: 1}\n  provenance: ours"
    yaml.write_text(yaml.read_text().replace("  provenance: ours", declared))
    for file in (own.source / "val/bee").iterdir():
        file.unlink()
    (own.source / "val/bee").rmdir()
    fetch(Project(own.project.root), "mine")
    prepare_splits(Project(own.project.root), "mine")
    record = own.audit()
    assert record["class_sets"]["val"] == {"classes": 2, "missing": ["bee"]}
    assert record["class_sets"]["test"] == {"classes": 3, "missing": []}
    assert record["balance"]["val"] == {"smallest": 0, "median": 2, "largest": 2, "imbalance": 1.0}
    assert "val lacks 1 (bee)" in audit_lines(record, 80)


def test_ids_that_do_not_follow_the_names(make_toy: Callable[..., Toy]) -> None:
    files = toy_files()
    for part in ("train_val", "test"):
        lines = files[f"lists/{part}.csv"].decode().splitlines()
        turned = [f"{2 - int(line[0])}{line[1:]}" for line in lines[1:]]
        files[f"lists/{part}.csv"] = "\n".join([lines[0], *turned]).encode()
    toy = make_toy(files)
    toy.fetch()
    project = Project(toy.project.root)
    prepare_splits(project, "toy")
    order = audit_dataset(project, "toy")["label_order"]
    assert order["ids_follow_sorted_names"] is None and order["first_out_of_order"] == ["cow", "bee"]


def test_the_same_bytes_twice_and_both_files(own: Own) -> None:
    own.put("test/ant/copy.png", encoded(scene(1)))
    own.prepare()
    project = Project(own.project.root)
    page, data = write_audit(project, own.audit())
    assert page == project.root / "results/audit/data/mine.md" and data.suffix == ".json"
    before = page.read_bytes(), data.read_bytes()
    write_audit(project, own.audit())
    assert (page.read_bytes(), data.read_bytes()) == before
    assert json.loads(before[1])["identical"]["groups"] == 1


def test_the_summary_fits_a_terminal_and_says_leaked(own: Own) -> None:
    own.put("test/ant/copy.png", encoded(scene(1)))
    own.put("test/bee/a-very-long-name-" + "x" * 60 + ".jpg", encoded(scene(2), "JPEG"))
    own.prepare()
    text = audit_lines(own.audit(), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("LEAKED") == 2
    assert "train/ant/0.png" in text


def test_long_lists_are_cut_on_the_page_and_whole_in_the_record(own: Own) -> None:
    for number in range(60):
        own.put(f"train/ant/grey{number}.png", encoded(scene(300 + number).convert("L")))
    own.prepare()
    record = own.audit()
    assert len(kinds(record)["grey"]) == 60
    assert "… and 10 more, in mine.json." in audit_page(record, "mine.json")
    assert "grey" in audit_lines(record, 80), "counted, but such common files are not listed on a terminal"
    assert "grey0.png" not in audit_lines(record, 80)


def test_it_needs_a_fetched_and_split_dataset(own: Own) -> None:
    add_dataset(own.project, "mine", own.source)
    with pytest.raises(FgvcError) as caught:
        own.audit()
    assert caught.value.cure and "fgvc data fetch mine" in caught.value.cure
    fetch(Project(own.project.root), "mine")
    with pytest.raises(FgvcError) as caught:
        own.audit()
    assert caught.value.cure and "fgvc data split mine" in caught.value.cure


def test_progress_is_told(own: Own) -> None:
    own.prepare()
    told: list[tuple[str, int, int | None]] = []
    audit_dataset(Project(own.project.root), "mine", lambda s, d, t, _u: told.append((s, d, t)))
    assert told[0] == ("auditing images", 0, 27) and told[-1] == ("auditing images", 27, 27)
