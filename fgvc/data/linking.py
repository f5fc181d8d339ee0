"""Taking files from a user's folder without moving or changing anything there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from fgvc.data.downloads import Unpacked
from fgvc.data.progress import Progress
from fgvc.data.threads import in_threads
from fgvc.errors import FgvcError


def link_files(folder: Path, tree: Path, paths: list[str], progress: Progress) -> None:
    """Put ``paths`` of ``folder`` into ``tree``: hard links where the file system can, else copies."""
    for place in sorted({(tree / path).parent for path in paths}):
        place.mkdir(parents=True, exist_ok=True)

    def one(path: str) -> None:
        _link_or_copy(folder / path, tree / path)

    for _ in in_threads(one, paths, "linking", "files", progress):
        pass


def link_unpacked(copy: Unpacked, tree: Path, staging: Path) -> None:
    """Put symbolic links to the files of an unpacked archive into ``tree``.

    `follow_links` makes files of those that are left when it is known which ones are used: a folder of
    downloads may hold much else. Raises FgvcError when ``staging`` lies in the user's folder.
    """
    if staging.resolve().is_relative_to(copy.within.resolve()):
        raise FgvcError(
            "what --from-local names holds this project", file=copy.within, cure="name the dataset's folder"
        )
    for path in _files_below(copy.within):
        target = tree / path.relative_to(copy.top)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_symlink():  # two archives of one dataset may be unpacked in the same folder
            target.symlink_to(path.resolve())


def _files_below(folder: Path) -> Iterator[Path]:
    """Every file below ``folder``, through linked folders too, but into none of them twice."""
    seen: set[Path] = set()
    for at, folders, names in os.walk(folder, followlinks=True):
        here = Path(at)
        seen.add(here.resolve())
        folders[:] = sorted(name for name in folders if (here / name).resolve() not in seen)
        yield from (here / name for name in sorted(names) if (here / name).is_file())


def follow_links(tree: Path, progress: Progress) -> None:
    """Put files in the place of the symbolic links in ``tree``: hard links, else copies."""
    links = [path for path in tree.rglob("*") if path.is_symlink()]

    def one(link: Path) -> None:
        source = link.readlink()
        link.unlink()
        _link_or_copy(source, link)

    for _ in in_threads(one, links, "linking", "files", progress):
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
