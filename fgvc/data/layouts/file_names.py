"""No list at all: file names tell class and part, as in the ultra-fine-grained sets (``12_3_train.png``)."""

from __future__ import annotations

import re

from fgvc.config.layout import FileNamesLayout
from fgvc.data.layouts.base import Folder, Layout, integer
from fgvc.data.layouts.folders import files_below, is_image
from fgvc.data.lists import Row
from fgvc.errors import FgvcError


def read(layout: FileNamesLayout, folder: Folder) -> Layout:
    """The layout that file names tell, each part in the natural order of its paths.

    Raises FgvcError that names the file for an image whose name does not fit the pattern, names another
    part, or a class out of range; and where the folder or a part is missing.
    """
    root = folder.root / layout.root
    if not root.is_dir():
        raise FgvcError("the folder does not exist", file=folder.show(layout.root))
    rows: dict[str, list[Row]] = {part: [] for part in dict.fromkeys(layout.part_names.values())}
    ignored: list[str] = []
    for path in files_below(root, folder.root):
        if not is_image(path):
            ignored.append(path)
            continue
        found = re.fullmatch(layout.pattern, path.rpartition("/")[2])
        if not found or found["part"] not in layout.part_names:
            raise FgvcError(
                f"the file name does not tell class and part as '{layout.pattern}' does",
                file=folder.show(path),
                cure="remove the file, or correct 'pattern' in the dataset's YAML",
            )
        source_id = integer(found["class"], "class", folder.show(path))
        class_id = folder.class_id(source_id, layout.first_class, path)
        rows[layout.part_names[found["part"]]].append((class_id, folder.path(path, ".", path)))
    lacking = next((part for part, own in rows.items() if not own), None)
    if lacking is not None:
        raise FgvcError(f"no file name tells that an image is of '{lacking}'", file=folder.show(layout.root))
    names = [f"class {class_id + layout.first_class}" for class_id in range(folder.classes)]
    return Layout(rows, names, [], layout.root, tuple(ignored))
