"""What every layout parser gives back and uses: the layout itself, text tables, paths, ids."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fgvc.data.lists import Row, path_problem, read_list_text
from fgvc.errors import FgvcError

_INTEGER = re.compile(r"[0-9]+")
_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class Layout:
    """What a dataset holds.

    Attributes:
        rows: list name (train, val, train_val, test; or ``all`` where there are no parts) → rows in list
            order; paths are relative to data/D.
        class_names: by class id.
        support_files: lists, class names and licence below data/D, kept beside the images.
        image_root: folder below data/D that published lists' paths are relative to; "." for data/D itself.
        ignored: files in class folders that are no images by their suffix.
        published: whether the rows are those of published lists rather than of the archive's own.
    """

    rows: dict[str, list[Row]]
    class_names: list[str]
    support_files: list[str]
    image_root: str = "."
    ignored: tuple[str, ...] = ()
    published: bool = False

    def class_of(self) -> dict[str, int]:
        """Every image's class by path. Raises FgvcError for an image with two classes."""
        found: dict[str, int] = {}
        for name, rows in self.rows.items():
            for class_id, path in rows:
                if found.setdefault(path, class_id) != class_id:
                    raise FgvcError(
                        f"the image '{path}' has class {found[path]} in one list and {class_id} in '{name}'",
                        cure="the lists contradict one another; take both from the same source",
                    )
        return found


@dataclass(frozen=True)
class Folder:
    """A dataset's folder, and what errors call it.

    Attributes:
        root: the folder itself (data/D, or where it is being put together).
        shown: its name in errors.
        classes: K, as the dataset's YAML says.
    """

    root: Path
    shown: str
    classes: int

    def show(self, file: str) -> str:
        return f"{self.shown}/{file}"

    def text(self, file: str) -> str:
        """The text of a file. Raises FgvcError when it is missing or not UTF-8."""
        return read_list_text(self.root / file, self.show(file))

    def lines(self, file: str) -> Iterator[tuple[int, str]]:
        """``(line number, text)`` of every line that is not blank."""
        for number, line in enumerate(_LINE_END.split(self.text(file)), 1):
            if line.strip():
                yield number, line.strip()

    def class_id(self, source_id: int, first: int, file: str, line: int | None = None) -> int:
        """0..K-1 for a list's own id. Raises FgvcError with file and line outside of that."""
        if not 0 <= source_id - first < self.classes:
            raise FgvcError(
                f"the class {source_id} is outside {first}..{first + self.classes - 1}",
                file=self.show(file),
                line=line,
                cure="'classes' in the dataset's YAML says how many there are",
            )
        return source_id - first

    def path(self, path: str, image_root: str, file: str, line: int | None = None) -> str:
        """A listed path below data/D. Raises FgvcError with file and line where it leaves the folder."""
        problem = path_problem(path)
        if problem:
            raise FgvcError(f"{problem}: {path[:80]!r}", file=self.show(file), line=line)
        return below(image_root, path)


def below(image_root: str, path: str) -> str:
    """``path`` below ``image_root``, which may be '.'."""
    return path if image_root == "." else f"{PurePosixPath(image_root)}/{path}"


def integer(text: str, what: str, shown: str, line: int | None = None) -> int:
    """A number of a list. Raises FgvcError with file and line for anything else."""
    if not _INTEGER.fullmatch(text):
        raise FgvcError(f"the {what} '{text[:40]}' is not an integer", file=shown, line=line)
    return int(text)


def listed_once(rows: list[Row], shown: str) -> list[Row]:
    """``rows``, when they name an image and none twice. Raises FgvcError otherwise."""
    if not rows:
        raise FgvcError("the list names no image", file=shown)
    seen: set[str] = set()
    for _, path in rows:
        if path in seen:
            raise FgvcError(f"'{path}' is listed twice", file=shown, cure="keep one of the two")
        seen.add(path)
    return rows


def names_from_paths(rows: Iterable[Row], classes: int) -> list[str]:
    """Names for a dataset without a list of them: folder or file stem, where that tells classes apart.

    ``001.Laysan_Albatross/x.jpg`` gives the folder, ``great_pyrenees_17.jpg`` the stem before the number;
    otherwise the class is called ``class 17``.
    """
    stems: list[set[str]] = [set() for _ in range(classes)]
    folders: list[set[str]] = [set() for _ in range(classes)]
    for class_id, path in rows:
        pure = PurePosixPath(path)
        folders[class_id].add(pure.parent.name)
        stems[class_id].add(re.sub(r"[_-][0-9]+$", "", pure.stem))
    for candidates in (folders, stems):
        names = [next(iter(names)) for names in candidates if len(names) == 1]
        if len(set(names)) == classes:
            return names
    return [f"class {class_id}" for class_id in range(classes)]


def all_rows(rows: dict[str, list[Row]]) -> Iterator[Row]:
    """The rows of all parts."""
    return (row for part in rows.values() for row in part)
