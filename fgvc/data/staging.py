"""Putting a dataset's files together in a folder of their own, before they appear under their name."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fgvc.config.dataset import ArchiveSource, FolderSource, GeneratedSource
from fgvc.config.project import Project
from fgvc.data import generated
from fgvc.data.archives import Limits, unpack
from fgvc.data.downloads import Obtained, copy_plain, obtain_all, obtain_published
from fgvc.data.images import hash_files, inspect_images
from fgvc.data.layouts import Layout, layout_of
from fgvc.data.linking import follow_links, link_files, link_unpacked
from fgvc.data.progress import Progress
from fgvc.data.records import ImageEntry, SourceFile, SourceRecord, support_digests
from fgvc.errors import FgvcError
from fgvc.provenance.digests import tree_sha256

#: An archive may unpack to so many times what its dataset's YAML gives as the size on disk.
MOST_GROWTH = 10


@dataclass(frozen=True)
class Contents:
    """A folder that holds a dataset, looked through: every image decodes."""

    layout: Layout
    images: list[ImageEntry]
    support_files: dict[str, str]
    tree_sha256: str


@dataclass(frozen=True)
class Staged:
    """Files put together in ``tree``, not yet looked through.

    ``no_lists`` says why the published lists, which a fetch can do without, are not among them.
    """

    tree: Path
    source: SourceRecord
    obtained: list[Obtained] = field(default_factory=list)
    no_lists: str | None = None


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


def stage(
    project: Project,
    name: str,
    mirror: Path | None,
    staging: Path,
    progress: Progress,
    local: Path | None = None,
) -> Staged:
    """Fetch, draw or link a dataset's files into ``staging/tree``; only those that its layout uses stay.

    Args:
        local: the user's folder with archives, or with what they unpack to; nothing in it is changed.
    """
    source = project.dataset(name).source
    if local is not None and not isinstance(source, ArchiveSource):
        raise FgvcError(f"'{name}' needs no files from you", cure=f"fgvc data fetch {name}")
    tree = staging / "tree"
    tree.mkdir(parents=True)
    if isinstance(source, ArchiveSource):
        return _stage_archives(project, name, mirror, staging, progress, local)
    if isinstance(source, GeneratedSource):
        generated.draw(source, tree, progress)
        fonts = generated.fonts_sha256(source)
        return Staged(tree, SourceRecord(kind="generated", generator=source.generator, fonts_sha256=fonts))
    _link_folder(project, name, source, tree, progress)
    return Staged(tree, SourceRecord(kind="folder"))


def _stage_archives(
    project: Project, name: str, mirror: Path | None, staging: Path, progress: Progress, local: Path | None
) -> Staged:
    dataset, tree = project.dataset(name), staging / "tree"
    obtained = obtain_all(project, name, mirror, progress, local)
    published, why_not = obtain_published(project, name, mirror, progress, local)
    obtained += published
    limits = Limits() if dataset.disk_mib is None else Limits(int(MOST_GROWTH * dataset.disk_mib * 2**20))
    for number, item in enumerate(obtained):
        if item.unpacked:
            link_unpacked(item.unpacked, tree / item.download.to, staging)
        elif item.download.unpack:
            into = staging / f"archive{number}"
            top = unpack(item.paths, into, anchor=item.download.anchor, limits=limits, progress=progress)
            _merge(top, tree / item.download.to, item)
        else:
            copy_plain(item, tree)
    layout = _layout_of_brought(project, name, tree, obtained)
    _prune(tree, {*layout.class_of(), *layout.support_files})
    follow_links(tree, progress)
    files = [
        SourceFile(
            file=found.wanted.file,
            place=found.place,
            urls=list(found.wanted.urls) if found.place == "network" else [],
            sha256=found.sha256,
            checked=list(found.checked),
        )
        for item in obtained
        for found in item.files
    ]
    kind: Literal["archive", "unpacked"] = "unpacked" if any(o.unpacked for o in obtained) else "archive"
    return Staged(tree, SourceRecord(kind=kind, files=files), obtained, why_not)


def _layout_of_brought(project: Project, name: str, tree: Path, obtained: list[Obtained]) -> Layout:
    """The layout of ``tree``. A user's folder that was taken for an unpacked archive may be none."""
    dataset, shown = project.dataset(name), project.paths.shown(project.paths.data_dir(name))
    taken = next((o for o in obtained if o.unpacked and o.download.anchor is None), None)
    try:
        return layout_of(dataset, tree, shown)
    except FgvcError as error:
        if taken is None or taken.unpacked is None:
            raise
        raise FgvcError(
            f"the folder holds neither {Path(taken.download.file).name} nor what it unpacks to: "
            f"{error.problem} ({error.file})",
            file=taken.unpacked.within,
            cure=" ".join((dataset.instructions or f"fgvc describe {name}").split()),
        ) from None


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
    layout = layout_of(dataset, folder, str(folder))
    link_files(folder, tree, [*layout.class_of(), *layout.support_files], progress)


def folder_sha256(folder: Path, progress: Progress) -> str:
    """Tree digest of every file in ``folder``, whatever it is."""
    paths = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return tree_sha256(hash_files(folder, paths, progress).items())
