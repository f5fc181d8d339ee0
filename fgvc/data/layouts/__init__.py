"""Reading a dataset's inside: which images it has, of which class, in which official part.

One parser a kind, each in a file of its own; this is the index. Nothing here opens an image. Where lists
that papers published lie beside the archive's own, they count (`PublishedLists`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fgvc.config import layout as kinds
from fgvc.config.dataset import Dataset, GeneratedSource
from fgvc.config.project import Project
from fgvc.data import generated
from fgvc.data.layouts import file_names, image_table, joined_tables, json_lists, lists, mat
from fgvc.data.layouts.base import Folder, Layout
from fgvc.data.layouts.folders import IMAGE_SUFFIXES, class_folders, natural_key
from fgvc.errors import FgvcError

__all__ = ["IMAGE_SUFFIXES", "Layout", "class_folders", "layout_of", "natural_key", "read_layout"]


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
            cure=f"fgvc data fetch {name}\nor, where they are tracked: dvc pull",
        )
    return layout_of(dataset, folder, project.paths.shown(folder))


def layout_of(dataset: Dataset, root: Path, shown_as: str) -> Layout:
    """The layout of ``dataset`` as it lies in ``root``, which errors call ``shown_as``."""
    folder = Folder(root, shown_as, dataset.classes)
    layout = _published(dataset, folder) or _own(dataset, folder)
    if dataset.licence_file:
        layout = replace(layout, support_files=[*layout.support_files, dataset.licence_file])
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


def _published(dataset: Dataset, folder: Folder) -> Layout | None:
    published = dataset.published
    if published is None or not lists.published_are_here(published, folder):
        return None
    own = _own(dataset, folder) if published.names_from_archive else None
    assert not isinstance(dataset.layout, kinds.GeneratedLayout)
    image_root = published.image_root or dataset.layout.image_root
    return lists.read_published(published, folder, image_root, own)


def _own(dataset: Dataset, folder: Folder) -> Layout:
    """What the dataset itself tells, without published lists."""
    match dataset.layout:
        case kinds.ListsLayout() as layout:
            return lists.read(layout, folder)
        case kinds.JoinedTablesLayout() as layout:
            return joined_tables.read(layout, folder)
        case kinds.MatListsLayout() as layout:
            return mat.read_lists(layout, folder)
        case kinds.MatNumbersLayout() as layout:
            return mat.read_numbers(layout, folder)
        case kinds.ClassJsonLayout() as layout:
            return json_lists.read_by_class(layout, folder)
        case kinds.CocoJsonLayout() as layout:
            return json_lists.read_coco(layout, folder)
        case kinds.FileNamesLayout() as layout:
            return file_names.read(layout, folder)
        case kinds.ClassFoldersLayout() as layout:
            return class_folders(folder.root, folder.shown, inner=layout.root)
        case kinds.ImageTableLayout() as layout:
            return image_table.read(layout, folder.root, folder.shown).layout
    assert isinstance(dataset.source, GeneratedSource)
    return Layout(generated.rows(dataset.source), generated.class_names(dataset.source), [])
