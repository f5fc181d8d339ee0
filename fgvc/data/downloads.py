"""Getting hold of a dataset's files: from a mirror, earlier downloads or the network, checked."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fgvc.config.dataset import Dataset, Download
from fgvc.config.project import Project
from fgvc.data.lists import published_rows, read_list_text
from fgvc.data.progress import Progress
from fgvc.data.transfer import TransferError, transfer
from fgvc.errors import FgvcError
from fgvc.provenance.digests import file_sha256, split_sha256
from fgvc.provenance.locks import exclusive_lock

#: How long one fetch waits for another that downloads the same file.
SHARED_DOWNLOAD_WAIT_S = 24 * 3600.0


@dataclass(frozen=True)
class Obtained:
    """A checked file on this machine.

    Attributes:
        place: where it came from; files in data/.downloads count as from the network.
        checked: which of its stated properties were compared ("bytes", "sha256", "md5", "list_sha256").
    """

    download: Download
    path: Path
    place: Literal["mirror", "network"]
    sha256: str
    checked: tuple[str, ...]


def mirror_folder(project: Project, mirror: Path | None) -> Path | None:
    """The mirror in use: the argument, else ``$FGVC_MIRROR``, else the settings' ``mirror``, else None.

    Raises FgvcError when it is named but is no folder.
    """
    # What is typed is relative to where it is typed; what stands in a file, to the project.
    named_by = {
        "--mirror": (mirror, Path.cwd()),
        "FGVC_MIRROR": (os.environ.get("FGVC_MIRROR"), Path.cwd()),
        "params/config.yaml": (project.settings.mirror, project.root),
    }
    for by, (named, start) in named_by.items():
        if named:
            folder = start / Path(named).expanduser()
            if not folder.is_dir():
                problem = f"the mirror that {by} names is not a folder"
                raise FgvcError(problem, file=folder, cure="correct its path")
            return folder
    return None


def obtain_all(project: Project, name: str, mirror: Path | None, progress: Progress) -> list[Obtained]:
    """All files of an archive dataset, each checked against what its YAML says.

    Raises FgvcError that names every source tried and what to do. What must be fetched by hand is looked
    for first, so that nothing is downloaded in vain.
    """
    dataset = project.dataset(name)
    assert dataset.source.kind == "archive"
    places = _Places(project, name, mirror_folder(project, mirror))
    for download in dataset.source.downloads:
        if not download.urls and not places.has(download):
            raise places.by_hand(download, dataset)
    return [places.obtain(download, progress) for download in dataset.source.downloads]


def obtain_published(
    project: Project, name: str, mirror: Path | None, progress: Progress
) -> tuple[list[Obtained], str | None]:
    """The published lists of a dataset, all or none of them; and why there are none.

    They are no must: without them the archive's own lists serve.
    """
    places = _Places(project, name, mirror_folder(project, mirror))
    obtained: list[Obtained] = []
    for download in project.dataset(name).published_downloads():
        try:
            obtained.append(places.obtain(download, progress))
        except FgvcError as error:
            return [], error.problem
    return obtained, None


class _Places:
    """Where files of one dataset are looked for."""

    def __init__(self, project: Project, name: str, mirror: Path | None) -> None:
        self.project, self.name, self.mirror = project, name, mirror
        self.cache = project.root / "data" / ".downloads"
        self.yaml = project.paths.shown(project.file("dataset", name))

    def in_mirror(self, download: Download) -> Path | None:
        return self.mirror / download.file if self.mirror else None

    def in_cache(self, download: Download) -> Path:
        return self.cache / download.file

    def has(self, download: Download) -> bool:
        candidates = (self.in_mirror(download), self.in_cache(download))
        return any(path is not None and path.is_file() for path in candidates)

    def obtain(self, download: Download, progress: Progress) -> Obtained:
        failures: list[str] = []
        mirrored = self.in_mirror(download)
        if mirrored is not None:
            if mirrored.is_file():
                try:
                    return self._checked(download, mirrored, "mirror", progress)
                except TransferError as error:
                    failures.append(f"the mirror's file {error}")
            else:
                failures.append("the mirror does not have it")
        lock = self.project.paths.state("data", "downloads", f"{download.file}.lock")
        with exclusive_lock(lock, f"downloading {download.file}", wait_s=SHARED_DOWNLOAD_WAIT_S):
            cached = self.in_cache(download)
            if cached.is_file():
                try:
                    return self._checked(download, cached, "network", progress)
                except TransferError as error:
                    failures.append(f"{self.project.paths.shown(cached)} {error}")
            for url in download.urls:
                try:
                    return self._from_network(download, url, cached, progress)
                except TransferError as error:
                    failures.append(f"{_host(url)} {error}")
        raise self._unobtainable(download, failures)

    def _from_network(self, download: Download, url: str, target: Path, progress: Progress) -> Obtained:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        resumed = part.exists() and download.has_digest
        while True:
            transfer(
                url,
                part,
                timeout_s=self.project.settings.network_timeout_s,
                expected_bytes=download.bytes,
                may_resume=download.has_digest,
                progress=progress,
            )
            try:
                found = self._checked(download, part, "network", progress)
            except TransferError:
                part.unlink()
                if not resumed:
                    raise
                resumed = False  # perhaps two versions were joined: once more, from the beginning
            else:
                part.replace(target)
                return Obtained(download, target, "network", found.sha256, found.checked)

    def _checked(
        self, download: Download, path: Path, place: Literal["mirror", "network"], progress: Progress
    ) -> Obtained:
        progress(f"checking {download.file}", 0, None, "bytes")
        sha256, checked = check_file(path, download)
        return Obtained(download, path, place, sha256, checked)

    def _where_to_put(self, download: Download) -> str:
        if self.mirror is not None:
            return f"put it at {self.mirror / download.file}"
        cached = self.project.paths.shown(self.in_cache(download))
        return f"put it at {cached} (or at MIRROR/{download.file} and give --mirror MIRROR)"

    def by_hand(self, download: Download, dataset: Dataset) -> FgvcError:
        how = " ".join((dataset.instructions or "get the file by hand").split())
        why = {"gated": "asks for an agreement", "by_hand": "has no direct download", "open": "has no URL"}
        return FgvcError(
            f"'{self.name}' {why[dataset.access]}, and {download.file} is not here",
            file=self.yaml,
            key="instructions",
            cure=f"{how}\n{self._where_to_put(download)}",
        )

    def _unobtainable(self, download: Download, failures: list[str]) -> FgvcError:
        first = download.urls[0] if download.urls else None
        cure = "check the network and run the same command again (what is fetched is kept)"
        if first:
            cure += f"\nor download {first}\nand {self._where_to_put(download)}"
        else:
            cure = f"delete or replace the file; {self._where_to_put(download)}"
        return FgvcError(
            f"{download.file} could not be fetched: {'; '.join(failures)}", file=self.yaml, cure=cure
        )


def check_file(path: Path, download: Download) -> tuple[str, tuple[str, ...]]:
    """The file's SHA-256 and which stated properties it was compared with.

    Raises TransferError when one differs.
    """
    checked: list[str] = []
    size = path.stat().st_size
    if size == 0:
        raise TransferError("is empty")
    if download.bytes is not None:
        if size != download.bytes:
            raise TransferError(f"has {size} bytes instead of {download.bytes}")
        checked.append("bytes")
    sha256 = file_sha256(path)
    if download.sha256 is not None:
        if sha256 != download.sha256:
            raise TransferError(f"has another SHA-256 ({sha256[:12]}… instead of {download.sha256[:12]}…)")
        checked.append("sha256")
    if download.md5 is not None:
        with path.open("rb") as stream:
            md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if md5 != download.md5:
            raise TransferError(f"has another MD5 ({md5[:12]}… instead of {download.md5[:12]}…)")
        checked.append("md5")
    if download.list_sha256 is not None:
        if _list_sha256(path) != download.list_sha256:
            raise TransferError("is another list than the published one (digest of its rows)")
        checked.append("list_sha256")
    return sha256, tuple(checked)


def _list_sha256(path: Path) -> str:
    try:
        return split_sha256(published_rows(read_list_text(path, path.name), path.name))
    except FgvcError as error:
        raise TransferError(f"is no list of 'class_id,dir' ({error.problem})") from None


def _host(url: str) -> str:
    return url.split("/")[2]


def copy_plain(obtained: Obtained, tree: Path) -> None:
    """Put a plain file at its place in ``tree``."""
    target = tree / obtained.download.to
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(obtained.path, target)
