"""Opening every image once: it must decode, and its size and digest are noted."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

from fgvc.data.decoding import as_rgb, failure, open_image
from fgvc.data.progress import Progress
from fgvc.data.records import ImageEntry
from fgvc.data.threads import in_threads
from fgvc.errors import FgvcError, first_few
from fgvc.provenance.digests import file_sha256


def inspect_images(
    root: Path, class_of: dict[str, int], shown_as: str, progress: Progress
) -> list[ImageEntry]:
    """Decode every image of ``class_of`` (path → class id) below ``root``; entries sorted by path.

    Raises FgvcError naming images that are missing or cannot be decoded; none is skipped.
    """
    items = sorted(class_of.items())
    absent = [path for path, _ in items if not (root / path).is_file()]
    if absent:
        raise FgvcError(
            f"{len(absent)} of {len(items)} listed images are missing: {first_few(absent)}",
            file=f"{shown_as}/{absent[0]}",
            cure="the archive is incomplete or laid out otherwise than the lists say",
        )

    def one(item: tuple[str, int]) -> ImageEntry | str:
        path, class_id = item
        try:
            return _inspect(root, path, class_id)
        except Exception as error:
            # Whatever a decoder raises for broken bytes (OSError, SyntaxError, struct.error, …) is the
            # image's fault; it is reported with its name, below.
            return f"{path} ({failure(error)})"

    found = list(in_threads(one, items, "checking images", "images", progress))
    broken = [entry for entry in found if isinstance(entry, str)]
    if broken:
        raise FgvcError(
            f"{len(broken)} image(s) cannot be decoded: {first_few(broken)}",
            file=f"{shown_as}/{broken[0].split(' (')[0]}",
            cure="take the file from another copy; images are never skipped or replaced",
        )
    return [entry for entry in found if isinstance(entry, ImageEntry)]


def hash_files(root: Path, paths: Iterable[str], progress: Progress) -> dict[str, str]:
    """SHA-256 of files below ``root`` by path; a file that cannot be read has the digest ""."""

    def one(path: str) -> tuple[str, str]:
        try:
            return path, file_sha256(root / path)
        except OSError:
            return path, ""

    return dict(in_threads(one, list(paths), "hashing", "files", progress))


def _inspect(root: Path, path: str, class_id: int) -> ImageEntry:
    data = (root / path).read_bytes()
    with open_image(io.BytesIO(data)) as image:
        width, height = image.size
        as_rgb(image)
    return ImageEntry(path, class_id, width, height, len(data), hashlib.sha256(data).hexdigest())
