"""Getting hold of a dataset's files, each checked against its YAML, or saying what the user must do."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from fgvc.config.dataset import Dataset, Download
from fgvc.config.project import Project
from fgvc.data.archives import anchor_folders
from fgvc.data.progress import Progress
from fgvc.data.sources import Found, Sources, UnobtainableError
from fgvc.errors import FgvcError

GIB = 2**30


@dataclass(frozen=True)
class Unpacked:
    """The user's own unpacked copy of an archive, which is only read.

    Attributes:
        top: the folder that counts as the archive's top.
        within: the folder at or below ``top`` that its files are taken from.
    """

    top: Path
    within: Path


@dataclass(frozen=True)
class Obtained:
    """A download on this machine.

    Attributes:
        files: one; several for an archive in parts, in order; none for an unpacked copy.
    """

    download: Download
    files: tuple[Found, ...] = ()
    unpacked: Unpacked | None = None

    @property
    def paths(self) -> list[Path]:
        return [file.path for file in self.files]


def obtain_all(
    project: Project, name: str, mirror: Path | None, progress: Progress, local: Path | None = None
) -> list[Obtained]:
    """All files of an archive dataset, each checked against what its YAML says.

    Args:
        local: the user's folder (``--from-local``); archives that it lacks are not downloaded.

    Raises FgvcError that names every source tried and what to do. What must be fetched by hand is looked
    for first, and then the room on the disk, so that nothing is downloaded in vain.
    """
    wants = _Wants(project, name, Sources(project, mirror, local))
    copies = {download.file: wants.unpacked(download) for download in wants.source.downloads}
    to_fetch = [download for download in wants.source.downloads if copies[download.file] is None]
    files = [(download, file) for download in to_fetch for file in _files(download)]
    missing = [
        file for download, file in files if not wants.may_ask(download, file) and not wants.sources.here(file)
    ]
    if missing:
        raise wants.by_hand(missing)
    wants.need_room([file for _, file in files])
    found = {file.file: wants.obtain(download, file, progress) for download, file in files}
    return [
        Obtained(download, unpacked=copies[download.file])
        if copies[download.file]
        else Obtained(download, tuple(found[file.file] for file in _files(download)))
        for download in wants.source.downloads
    ]


def obtain_published(
    project: Project, name: str, mirror: Path | None, progress: Progress, local: Path | None = None
) -> tuple[list[Obtained], str | None]:
    """The published lists of a dataset, all or none of them; and why there are none.

    They are no must: without them the archive's own lists serve.
    """
    wants = _Wants(project, name, Sources(project, mirror, local))
    try:
        return [
            Obtained(download, (wants.obtain(download, download, progress),))
            for download in wants.dataset.published_downloads()
        ], None
    except FgvcError as error:
        return [], error.problem


def _files(download: Download) -> list[Download]:
    """The files that a download consists of: itself, or its parts."""
    if not download.parts:
        return [download]
    return [Download.model_validate(part.model_dump()) for part in download.parts]


class _Wants:
    """What one dataset needs, and what to tell a user who lacks it."""

    def __init__(self, project: Project, name: str, sources: Sources) -> None:
        self.project, self.name, self.sources = project, name, sources
        self.dataset: Dataset = project.dataset(name)
        assert self.dataset.source.kind == "archive"
        self.source = self.dataset.source
        self.yaml = project.paths.shown(project.file("dataset", name))

    def may_ask(self, download: Download, file: Download) -> bool:
        """Whether the network is asked for this file: not for archives that the user wants to bring."""
        return bool(file.urls) and not (self.sources.local is not None and download.unpack)

    def unpacked(self, download: Download) -> Unpacked | None:
        """What an archive would unpack to, when the user's folder holds that instead of the archive."""
        local = self.sources.local
        has_archive = any(self.sources.in_local(file) for file in _files(download))
        if local is None or not download.unpack or has_archive:
            return None
        if download.anchor is None:
            is_one = any(local.iterdir()) and self.sources.here(download) is None
            return Unpacked(local, local) if is_one else None
        if local.name == download.anchor:
            return Unpacked(local.parent, local)
        holders = anchor_folders(local, download.anchor)
        if len(holders) > 1:
            raise FgvcError(
                f"several folders '{download.anchor}' in what --from-local names",
                file=local,
                cure=f"name the folder that holds the right one: {holders[0]} or {holders[1]}",
            )
        return Unpacked(holders[0], holders[0]) if holders else None

    def obtain(self, download: Download, file: Download, progress: Progress) -> Found:
        online = self.may_ask(download, file)
        try:
            return self.sources.obtain(file, progress, online=online)
        except UnobtainableError as error:
            raise self._unobtainable(file, error, online) from None

    def need_room(self, files: list[Download]) -> None:
        """Raises FgvcError when downloads and unpacked images do not fit on the disk together."""
        coming = [self.sources.bytes_to_come(file) for file in files]
        to_come = sum(size or 0 for size in coming)
        if None in coming and all(coming):  # nothing is here, not all is known: what the YAML says of it all
            to_come = max(to_come, self.dataset.download_bytes or 0)
        unpacked = (self.dataset.disk_mib or 0) * 2**20 or sum(file.bytes or 0 for file in files)
        data = self.project.root / "data"
        data.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(data).free
        if to_come + unpacked > free:
            raise FgvcError(
                f"'{self.name}' needs {to_come / GIB:.1f} GiB to download and about {unpacked / GIB:.1f} GiB "
                f"unpacked; the disk has {free / GIB:.1f} GiB left",
                file=data,
                cure=f"free {(to_come + unpacked - free) / GIB:.1f} GiB and run the same command again",
            )

    # --- what the user must do ---------------------------------------------------------------------
    def by_hand(self, missing: list[Download]) -> FgvcError:
        """For files that only the user can get, or that --from-local lacks."""
        names = ", ".join(Path(file.file).name for file in missing[:4]) + (" …" if len(missing) > 4 else "")
        local, anchor = self.sources.local, next((d.anchor for d in self.source.downloads if d.anchor), None)
        if local is not None:
            unpacked = f", nor an unpacked folder '{anchor}'" if anchor else ""
            cure = " ".join((self.dataset.instructions or f"download {', '.join(missing[0].urls)}").split())
            return FgvcError(f"the folder does not hold {names}{unpacked}", file=local, cure=cure)
        how = " ".join((self.dataset.instructions or "get the file by hand").split())
        why = {"gated": "asks for an agreement", "by_hand": "has no direct download", "open": "has no URL"}
        return FgvcError(
            f"'{self.name}' {why[self.dataset.access]}, and {names} is not here",
            file=self.yaml,
            key="instructions",
            cure=f"{how}\nthen: fgvc data fetch {self.name} --from-local FOLDER_THAT_HOLDS_IT\n"
            f"or {self.sources.where_to_put(missing[0])}",
        )

    def _unobtainable(self, file: Download, error: UnobtainableError, online: bool) -> FgvcError:
        put = self.sources.where_to_put(file)
        if online:
            cure = "check the network and run the same command again (what is fetched is kept)"
            cure += f"\nor download {file.urls[0]}\nand {put}"
        else:
            cure = f"delete or replace the file; {put}"
        return FgvcError(f"{file.file} could not be fetched: {error}", file=self.yaml, cure=cure)


def copy_plain(obtained: Obtained, tree: Path) -> None:
    """Put a plain file at its place in ``tree``."""
    target = tree / obtained.download.to
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(obtained.files[0].path, target)
