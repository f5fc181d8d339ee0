"""Reading a dataset's inside: which images it has, of which class, in which official part.

Three kinds: text lists, a folder a class, and generated. Nothing here opens an image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fgvc.config.dataset import ClassFoldersLayout, Dataset, GeneratedSource, ImageTableLayout, ListsLayout
from fgvc.config.project import Project
from fgvc.data import generated
from fgvc.data.image_table import PART_FOLDERS, natural_key, read_image_table
from fgvc.data.lists import ListFormat, Row, csv_rows, path_problem, read_list, read_list_text
from fgvc.errors import FgvcError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})


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
    """

    rows: dict[str, list[Row]]
    class_names: list[str]
    support_files: list[str]
    image_root: str = "."
    ignored: tuple[str, ...] = ()

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


def read_layout(project: Project, name: str) -> Layout:
    """The layout of the dataset as it lies in data/D.

    Raises FgvcError for a missing folder or list, a hostile or contradictory list (with its line), and a
    number of classes other than the dataset's YAML says.
    """
    dataset, folder = project.dataset(name), project.paths.data_dir(name)
    if dataset.layout.kind != "generated" and not folder.is_dir():
        raise FgvcError(
            f"the images of '{name}' are not here",
            file=project.paths.shown(folder),
            cure=f"fgvc data fetch {name}",
        )
    return layout_of(dataset, folder, project.paths.shown(folder))


def layout_of(dataset: Dataset, root: Path, shown_as: str) -> Layout:
    """The layout of ``dataset`` as it lies in ``root``, which errors call ``shown_as``."""
    support = [dataset.licence_file] if dataset.licence_file else []
    if isinstance(dataset.source, GeneratedSource):
        layout = Layout(generated.rows(dataset.source), generated.class_names(dataset.source), support)
    elif isinstance(dataset.layout, ListsLayout):
        layout = _from_lists(dataset, dataset.layout, root, shown_as, support)
    elif isinstance(dataset.layout, ImageTableLayout):
        table = read_image_table(dataset.layout, root, shown_as)
        layout = Layout(table.rows, table.class_names, [dataset.layout.file, *support])
    else:
        assert isinstance(dataset.layout, ClassFoldersLayout)
        layout = class_folders(root, shown_as, support)
    if len(layout.class_names) != dataset.classes:
        raise FgvcError(
            f"{len(layout.class_names)} classes are here, the dataset's YAML says {dataset.classes}",
            file=shown_as,
            cure="correct 'classes' in the YAML, or complete the folder",
        )
    for path in layout.support_files:
        if not (root / path).is_file():
            raise FgvcError("the file is missing", file=f"{shown_as}/{path}")
    return layout


# --- lists -----------------------------------------------------------------------------------------


def _from_lists(
    dataset: Dataset, layout: ListsLayout, root: Path, shown_as: str, support: list[str]
) -> Layout:
    image_root = str(PurePosixPath(layout.image_root))
    keep = layout.keep_classes
    how = ListFormat(
        delimiter=layout.delimiter,
        header=layout.header,
        path_column=layout.path_column,
        class_column=layout.class_column,
        prefix="" if image_root == "." else f"{image_root}/",
        renumber={source: ours for ours, source in enumerate(keep)} if keep is not None else None,
    )
    rows: dict[str, list[Row]] = {
        part: read_list(root / file, f"{shown_as}/{file}", dataset.classes, how)
        for part, file in layout.lists.items()
    }
    classes_files = [layout.classes_file] if layout.classes_file else []
    names = (
        _names_from_file(layout, root, shown_as, dataset.classes)
        if layout.classes_file
        else _names_from_paths((row for part in rows.values() for row in part), dataset.classes)
    )
    support = [*dict.fromkeys([*layout.lists.values(), *classes_files, *support])]
    return Layout(rows, names, support, image_root)


def _names_from_file(layout: ListsLayout, root: Path, shown_as: str, classes: int) -> list[str]:
    assert layout.classes_file is not None
    shown = f"{shown_as}/{layout.classes_file}"
    ids = layout.keep_classes if layout.keep_classes is not None else range(classes)
    width = max(layout.classes_id_column, layout.classes_name_column) + 1
    found: dict[int, str] = {}
    for line, fields in csv_rows(read_list_text(root / layout.classes_file, shown), shown):
        if len(fields) < width:
            raise FgvcError(f"the row has {len(fields)} column(s), {width} are needed", file=shown, line=line)
        text = fields[layout.classes_id_column].strip()
        if not re.fullmatch(r"[0-9]+", text):
            if line == 1:
                continue  # the header
            raise FgvcError(f"the class '{text[:40]}' is not an integer", file=shown, line=line)
        found[int(text)] = fields[layout.classes_name_column].strip()
    lacking = [class_id for class_id in ids if not found.get(class_id)]
    if lacking:
        raise FgvcError(f"the class {lacking[0]} has no name here", file=shown)
    return [found[class_id] for class_id in ids]


def _names_from_paths(rows: Iterable[Row], classes: int) -> list[str]:
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


# --- a folder a class ------------------------------------------------------------------------------


def class_folders(root: Path, shown_as: str, support: list[str] | None = None) -> Layout:
    """The layout of a folder of class folders, with or without train/val/test folders above them.

    Class ids follow the natural order of the names; images below a class folder may lie at any depth.
    Raises FgvcError for no class folder, an empty class, or a file name that cannot stand in a list.
    """
    folders = _subfolders(root)
    names = [folder.name.casefold() for folder in folders]
    has_parts = "train" in names and set(names) <= set(PART_FOLDERS)
    groups = {PART_FOLDERS[f.name.casefold()]: f for f in folders} if has_parts else {"all": root}
    if has_parts and len(groups) < len(folders):
        raise FgvcError("two folders stand for the same part", file=shown_as, cure="keep one")
    class_names = sorted({f.name for g in groups.values() for f in _subfolders(g)}, key=natural_key)
    if not class_names:
        raise FgvcError("there is no class folder", file=shown_as, cure="make a folder of images a class")
    rows: dict[str, list[Row]] = {}
    ignored: list[str] = []
    for part in ("all", "train", "val", "test"):
        if part in groups:
            rows[part] = _class_rows(groups[part], root, class_names, shown_as, ignored)
    return Layout(rows, class_names, support or [], ".", tuple(ignored))


def _class_rows(
    group: Path, root: Path, class_names: list[str], shown_as: str, ignored: list[str]
) -> list[Row]:
    rows: list[Row] = []
    for class_id, name in enumerate(class_names):
        folder = group / name
        if not folder.is_dir():
            continue  # a class that one part lacks is judged where parts are made
        before = len(rows)
        for path in _files_below(folder, root):
            problem = path_problem(path)
            if PurePosixPath(path).suffix.lower() not in IMAGE_SUFFIXES:
                ignored.append(path)
            elif problem:
                raise FgvcError(f"{problem}: {path!r}", file=shown_as, cure="rename the file")
            else:
                rows.append((class_id, path))
        if len(rows) == before:
            raise FgvcError(
                f"the class '{name}' holds no image",
                file=f"{shown_as}/{folder.relative_to(root)}",
                cure=f"add images ({', '.join(sorted(IMAGE_SUFFIXES))}) or remove the folder",
            )
    return rows


def _subfolders(folder: Path) -> list[Path]:
    return sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=str)


def _files_below(folder: Path, root: Path) -> list[str]:
    """Paths relative to ``root`` in natural order; hidden files are left out."""
    found = [
        os.path.relpath(os.path.join(at, name), root)  # noqa: PTH118 -- os.walk gives strings
        for at, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
    ]
    return sorted(found, key=natural_key)
