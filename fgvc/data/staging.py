"""Putting a dataset's files together in a folder of their own, before they appear under their name."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from fgvc.config.dataset import ArchiveSource, FolderSource, GeneratedSource
from fgvc.config.project import Project
from fgvc.data import generated
from fgvc.data.archives import unpack
from fgvc.data.downloads import Obtained, copy_plain, obtain_all
from fgvc.data.images import hash_files, inspect_images
from fgvc.data.layouts import Layout, class_folders, layout_of
from fgvc.data.progress import Progress
from fgvc.data.records import ImageEntry, SourceFile, SourceRecord, support_digests
from fgvc.data.threads import in_threads
from fgvc.errors import FgvcError
from fgvc.provenance.digests import tree_sha256


@dataclass(frozen=True)
class Contents:
    """A folder that holds a dataset, looked through: every image decodes."""

    layout: Layout
    images: list[ImageEntry]
    support_files: dict[str, str]
    tree_sha256: str


@dataclass(frozen=True)
class Staged:
    """Files put together in ``tree``, not yet looked through."""

    tree: Path
    source: SourceRecord
    obtained: list[Obtained] = field(default_factory=list)


def inspect(project: Project, name: str, folder: Path, progress: Progress) -> Contents:
    """Read the layout of ``folder``, decode every image and take digests.

    Raises FgvcError for a bad list, a missing image or one that cannot be decoded.
    """
    shown = project.paths.shown(project.paths.data_dir(name))
    layout = layout_of(project.dataset(name), folder, shown)
    images = inspect_images(folder, layout.class_of(), shown, progress)
    support = support_digests(folder, layout.support_files)
    pairs = [*support.items(), *((entry.path, entry.sha256) for entry in images)]
    return Contents(layout, images, support, tree_sha256(pairs))


def stage(project: Project, name: str, mirror: Path | None, staging: Path, progress: Progress) -> Staged:
    """Fetch, draw or link a dataset's files into ``staging/tree``; only those that its layout uses stay."""
    source = project.dataset(name).source
    tree = staging / "tree"
    tree.mkdir(parents=True)
    if isinstance(source, ArchiveSource):
        return _stage_archives(project, name, mirror, staging, tree, progress)
    if isinstance(source, GeneratedSource):
        generated.draw(source, tree, progress)
        fonts = generated.fonts_sha256(source)
        return Staged(tree, SourceRecord(kind="generated", generator=source.generator, fonts_sha256=fonts))
    _link_folder(project, name, source, tree, progress)
    return Staged(tree, SourceRecord(kind="folder"))


def _stage_archives(
    project: Project, name: str, mirror: Path | None, staging: Path, tree: Path, progress: Progress
) -> Staged:
    obtained = obtain_all(project, name, mirror, progress)
    for number, item in enumerate(obtained):
        if item.download.unpack:
            into = staging / f"archive{number}"
            top = unpack(item.path, into, anchor=item.download.anchor, progress=progress)
            _merge(top, tree / item.download.to, item)
        else:
            copy_plain(item, tree)
    shown = project.paths.shown(project.paths.data_dir(name))
    layout = layout_of(project.dataset(name), tree, shown)
    _prune(tree, {*layout.class_of(), *layout.support_files})
    files = [
        SourceFile(
            file=item.download.file,
            place=item.place,
            urls=item.download.urls if item.place == "network" else [],
            sha256=item.sha256,
            checked=list(item.checked),
        )
        for item in obtained
    ]
    return Staged(tree, SourceRecord(kind="archive", files=files), obtained)


def _merge(source: Path, target: Path, item: Obtained) -> None:
    """Move the contents of ``source`` into ``target``; folders of the same name grow together."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        place = target / entry.name
        if not place.exists():
            entry.replace(place)
        elif entry.is_dir() and place.is_dir():
            _merge(entry, place, item)
        else:
            raise FgvcError(f"two downloads hold '{entry.name}', the second is {item.download.file}")


def _prune(tree: Path, used: set[str]) -> None:
    """Remove every file that is not ``used``, and the folders left empty."""
    for at, folders, names in os.walk(tree, topdown=False):
        here = Path(at)
        for name in names:
            if (here / name).relative_to(tree).as_posix() not in used:
                (here / name).unlink()
        for folder in folders:
            if not any((here / folder).iterdir()):
                (here / folder).rmdir()


def _link_folder(project: Project, name: str, source: FolderSource, tree: Path, progress: Progress) -> None:
    folder = project.root / Path(source.path).expanduser()
    if not folder.is_dir():
        raise FgvcError(
            f"the folder of images does not exist: {folder}",
            file=project.paths.shown(project.file("dataset", name)),
            key="source.path",
            cure="correct the path",
        )
    dataset = project.dataset(name)
    is_folders = dataset.layout.kind == "class_folders"
    layout = class_folders(folder, str(folder)) if is_folders else layout_of(dataset, folder, str(folder))
    paths = [*layout.class_of(), *layout.support_files]
    for place in sorted({(tree / path).parent for path in paths}):
        place.mkdir(parents=True, exist_ok=True)

    def one(path: str) -> None:
        _link_or_copy(folder / path, tree / path)

    for _ in in_threads(one, paths, "linking", "files", progress):
        pass


def _link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system can, so that nothing takes space twice; else a copy."""
    real = source.resolve()
    try:
        os.link(real, target)
    except OSError:
        try:
            shutil.copyfile(real, target)
        except OSError as error:
            raise FgvcError(f"cannot copy: {error.strerror or error}", file=source) from None


def folder_sha256(folder: Path, progress: Progress) -> str:
    """Tree digest of every file in ``folder``, whatever it is."""
    paths = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return tree_sha256(hash_files(folder, paths, progress).items())
