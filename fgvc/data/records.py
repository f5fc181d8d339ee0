"""What is known of a fetched dataset: ``data/D.csv`` (one line an image) and ``data/D.json`` (the record)."""

from __future__ import annotations

import hashlib
import os
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fgvc.config.base import Model, validate
from fgvc.config.project import Project
from fgvc.config.yaml_source import YamlSource
from fgvc.data.lists import csv_rows, csv_text, path_problem
from fgvc.errors import FgvcError, first_few
from fgvc.provenance.digests import file_sha256
from fgvc.provenance.files import read_json, write_json, write_text


@dataclass(frozen=True)
class ImageEntry:
    """One image. Width and height in pixels as stored (EXIF orientation is not applied)."""

    path: str
    class_id: int
    width: int
    height: int
    bytes: int
    sha256: str


COLUMNS = tuple(field.name for field in fields(ImageEntry))


class SourceFile(Model):
    """A downloaded file that went into the dataset."""

    file: str
    place: Literal["local", "mirror", "network"]
    urls: list[str]
    sha256: str
    checked: list[str] = Field(description="stated properties that were compared, such as sha256")


class SourceRecord(Model):
    """Where the images came from. No path of a machine stands here.

    Kind ``unpacked``: from a folder of the user (``--from-local``) that held what an archive unpacks to.
    Kind ``in_place``: they lay in data/D already, and nothing says how they got there.
    """

    kind: Literal["archive", "unpacked", "generated", "folder", "in_place"]
    files: list[SourceFile] = Field(default_factory=list)
    generator: str | None = None
    fonts_sha256: str | None = None


class DataRecord(Model):
    """``data/D.json``. The same images give the same record: no time, no path of a machine."""

    dataset: str
    title: str
    licence: str
    access: str
    images: int
    classes: int
    bytes: int
    tree_sha256: str = Field(description="of images and support files together")
    reference_tree_sha256: str | None
    matches_reference: bool | None = Field(description="null: there is no reference digest")
    index_sha256: str = Field(description="of data/D.csv")
    support_files: dict[str, str] = Field(description="path: sha256")
    source: SourceRecord
    pretraining_overlap: list[str]
    unverified: list[str] = Field(description="facts of the YAML that nobody verified")
    notes: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class DataIndex:
    """A fetched dataset. ``images`` are sorted by path."""

    record: DataRecord
    images: list[ImageEntry]

    def by_path(self) -> dict[str, ImageEntry]:
        return {entry.path: entry for entry in self.images}


def index_text(images: list[ImageEntry]) -> str:
    """The text of ``data/D.csv``."""
    return csv_text(COLUMNS, (astuple(entry) for entry in images))


def text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_index(project: Project, name: str, index: DataIndex) -> None:
    """Write D.csv, then D.json; the record is last because it says that all is there."""
    drop_record(project, name)
    write_text(project.paths.data_index(name), index_text(index.images))
    write_json(project.paths.data_record(name), index.record.model_dump())


def drop_record(project: Project, name: str) -> None:
    """Remove D.json before what it speaks of changes, so that a kill in between leaves no false record."""
    project.paths.data_record(name).unlink(missing_ok=True)


def read_record(project: Project, name: str) -> DataRecord:
    """``data/D.json``. Raises FgvcError when it is missing or no such record."""
    path = project.paths.data_record(name)
    shown = project.paths.shown(path)
    data: Any = read_json(path, made_by=f"fgvc data fetch {name}")
    return validate(DataRecord, YamlSource(path, data), shown)


def read_index(project: Project, name: str) -> DataIndex:
    """Record and image list of a fetched dataset.

    Raises FgvcError when either is missing, a line cannot be read, or the list is not the one that the
    record was written with.
    """
    record = read_record(project, name)
    path = project.paths.data_index(name)
    shown = project.paths.shown(path)
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        raise FgvcError(
            "the image list does not exist or cannot be read", file=shown, cure=f"fgvc data fetch {name}"
        ) from None
    if text_sha256(text) != record.index_sha256:
        raise FgvcError(
            "the image list is not the one that its record was written with",
            file=shown,
            cure=f"delete it and run: fgvc data fetch {name}",
        )
    rows = csv_rows(text, shown)
    next(rows, None)  # the header
    return DataIndex(record, [_entry(line, values, shown) for line, values in rows])


def _entry(line: int, values: list[str], shown: str) -> ImageEntry:
    try:
        path, class_id, width, height, size, sha256 = values
        problem = path_problem(path)
        entry = ImageEntry(path, int(class_id), int(width), int(height), int(size), sha256)
    except ValueError:
        problem = f"the row is not '{','.join(COLUMNS)}'"
    if problem:
        raise FgvcError(problem, file=shown, line=line)
    return entry


# --- are the files still there? --------------------------------------------------------------------


def check_files(project: Project, name: str, index: DataIndex | None = None) -> DataIndex:
    """Look whether every image is there with its recorded size; no file is opened (10,000 files: < 1 s).

    Raises FgvcError naming the missing and changed files.
    """
    index = index or read_index(project, name)
    root = str(project.paths.data_dir(name))
    missing: list[str] = []
    changed: list[str] = []
    for entry in index.images:
        try:
            if os.stat(f"{root}/{entry.path}").st_size != entry.bytes:  # noqa: PTH116 -- Path is 5 x slower
                changed.append(entry.path)
        except OSError:
            missing.append(entry.path)
    missing += [path for path in index.record.support_files if not (Path(root) / path).is_file()]
    if missing or changed:
        raise damage(project, name, missing, changed)
    return index


def check_digests(project: Project, name: str, index: DataIndex, digests: dict[str, str]) -> None:
    """Compare freshly taken ``digests`` (path → sha256) with the recorded ones.

    Raises FgvcError naming the files that changed.
    """
    expected = {entry.path: entry.sha256 for entry in index.images} | index.record.support_files
    changed = [path for path, sha256 in expected.items() if digests.get(path) != sha256]
    if changed:
        raise damage(project, name, [], changed)


def support_digests(root: Path, paths: list[str]) -> dict[str, str]:
    """SHA-256 of the support files, by path, in order of paths."""
    return {path: file_sha256(root / path) for path in sorted(paths)}


def damage(project: Project, name: str, missing: list[str], changed: list[str]) -> FgvcError:
    """The error about files that are missing from data/D or not as they were fetched."""
    folder = project.paths.shown(project.paths.data_dir(name))
    parts = [
        f"{len(files)} {verb}: {first_few(files)}"
        for files, verb in ((missing, "missing"), (changed, "changed since they were fetched"))
        if files
    ]
    return FgvcError(
        f"files of '{name}' are not as recorded; {'; '.join(parts)}",
        file=f"{folder}/{(missing + changed)[0]}",
        cure=f"fgvc data fetch {name} --replace\nor bring these files back (if tracked: dvc pull)",
    )
