"""How a dataset is laid out inside: one model a kind; `fgvc.data.layouts` has a parser for each.

Every kind says which files of data/D name the images, their classes and their official parts. Where parts
lack, `SplitRule` says how they are cut.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from fgvc.config.base import Model

SplitName = Literal["train", "val", "train_val", "test"]


def _inside(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\x00" in path or "\\" in path:
        raise ValueError("the path must stay inside the dataset's folder")
    return path


#: A relative path with forward slashes that cannot leave its folder.
InnerPath = Annotated[str, AfterValidator(_inside)]


def check_parts(parts: set[SplitName], key: str) -> None:
    """Raise ValueError unless ``parts`` are enough, and not too many, to make all four."""
    if not {"train", "train_val"} & parts:
        raise ValueError(f"'{key}' names neither 'train' nor 'train_val'")
    if "val" in parts and "train" not in parts:
        raise ValueError(f"'{key}' names 'val' but not 'train'")
    if {"train", "train_val"} <= parts and "val" not in parts:
        raise ValueError(f"'{key}' names 'train' and 'train_val' but not 'val'")


class ListsLayout(Model):
    """Text lists of images, one or more a part; a line names an image and its class."""

    kind: Literal["lists"]
    lists: dict[SplitName, InnerPath | list[InnerPath]] = Field(
        description="several files of one part are read one after the other"
    )
    image_root: InnerPath = "."
    delimiter: str = ","
    header: bool = True
    path_column: int = 1
    path_suffix: str = Field("", description="what the lists leave out, as in '.jpg'")
    path_parts: int | None = Field(
        None, gt=0, description="how many of a path's last parts count; the folders above are cut off"
    )
    class_column: int = 0
    first_class: int = Field(0, ge=0, description="the id that the lists give to the first class")
    classes_by_name: bool = Field(
        False, description="the lists give class names (the rest of the line), not ids"
    )
    classes_file: InnerPath | None = Field(None, description="class names")
    classes_name_column: int = 1
    classes_id_column: int | None = Field(0, description="null: a name a line, in the order of ids")
    keep_classes: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, description="source ids to keep; they are renumbered 0..K-1 in this order"
    )

    @model_validator(mode="after")
    def _complete(self) -> ListsLayout:
        check_parts(self.parts, "lists")
        if [] in self.lists.values():
            raise ValueError("'lists' names a part without a file")
        if len(set(self.keep_classes or [])) != len(self.keep_classes or []):
            raise ValueError("'keep_classes' names a class twice")
        if self.classes_by_name and (self.classes_file is None or self.keep_classes):
            raise ValueError("'classes_by_name' needs a classes_file, and no keep_classes")
        return self

    @property
    def parts(self) -> set[SplitName]:
        return set(self.lists)

    def files(self, part: SplitName) -> list[str]:
        """The files that list a part."""
        named = self.lists[part]
        return [named] if isinstance(named, str) else list(named)


class JoinedTablesLayout(Model):
    """Text tables joined by an image id, as in CUB-200-2011 and NABirds: 'id value' lines.

    Class ids are the ranks of the ids that images have; official parts are train_val and test.
    """

    kind: Literal["joined_tables"]
    images: InnerPath = Field(description="id, path below image_root")
    labels: InnerPath = Field(description="id, class id")
    split: InnerPath = Field(description="id, 1 for training or 0 for the test")
    classes: InnerPath = Field(description="class id, name; ids that no image has may stand there too")
    image_root: InnerPath

    @property
    def parts(self) -> set[SplitName]:
        return {"train_val", "test"}


class MatList(Model):
    """Images of one part in a MATLAB file: two variables of equal length.

    A field of a struct array is written ``annotations.class``.
    """

    file: InnerPath
    folder: InnerPath = Field(".", description="below image_root; what the paths are relative to")
    paths: str = Field(description="variable of paths")
    classes: str = Field(description="variable of class ids, from 1")
    where: str | None = Field(None, description="variable of 0 and 1 that tells which images are meant")
    equals: Literal[0, 1] = Field(1, description="the value of 'where' that means this part")


class MatListsLayout(Model):
    """MATLAB files (version 4 or 5) with paths and class ids, as in Stanford Dogs and Stanford Cars."""

    kind: Literal["mat_lists"]
    lists: dict[SplitName, MatList]
    image_root: InnerPath = "."
    path_parts: int | None = Field(None, gt=0, description="as in lists")
    class_names: InnerPath | None = Field(None, description="file with a variable 'class_names'")

    @model_validator(mode="after")
    def _complete(self) -> MatListsLayout:
        check_parts(self.parts, "lists")
        return self

    @property
    def parts(self) -> set[SplitName]:
        return set(self.lists)


class MatNumbersLayout(Model):
    """MATLAB files that number the images from 1, as in Oxford Flowers: labels by number, numbers by part."""

    kind: Literal["mat_numbers"]
    labels: InnerPath = Field(description="file with a variable 'labels': class ids from 1 by image number")
    split: InnerPath = Field(description="file with the variables that 'parts' names")
    variables: dict[SplitName, str]
    path: str = Field(description="an image's path below image_root, such as image_{:05d}.jpg")
    image_root: InnerPath = "."

    @model_validator(mode="after")
    def _complete(self) -> MatNumbersLayout:
        check_parts(self.parts, "variables")
        if not re.fullmatch(r"[^{}]*\{:0\d+d\}[^{}]*", self.path):
            raise ValueError("'path' must hold one number, such as {:05d}")
        return self

    @property
    def parts(self) -> set[SplitName]:
        return set(self.variables)


class ClassJsonLayout(Model):
    """JSON lists by class name, as in Food-101: ``{"apple_pie": ["apple_pie/1005649", …], …}``.

    Class ids are the lines of ``classes``.
    """

    kind: Literal["class_json"]
    lists: dict[SplitName, InnerPath]
    classes: InnerPath = Field(description="a class name a line")
    path_suffix: str = ""
    image_root: InnerPath = "."

    @model_validator(mode="after")
    def _complete(self) -> ClassJsonLayout:
        check_parts(self.parts, "lists")
        return self

    @property
    def parts(self) -> set[SplitName]:
        return set(self.lists)


class CocoJsonLayout(Model):
    """JSON in the form of COCO, as in iNaturalist: images, annotations (one an image) and categories.

    Class ids are the ranks of the categories' ids.
    """

    kind: Literal["coco_json"]
    lists: dict[SplitName, InnerPath]
    image_root: InnerPath = "."

    @model_validator(mode="after")
    def _complete(self) -> CocoJsonLayout:
        check_parts(self.parts, "lists")
        return self

    @property
    def parts(self) -> set[SplitName]:
        return set(self.lists)


class FileNamesLayout(Model):
    """No list: file names tell class and part, as in the ultra-fine-grained sets (``12_3_train.png``)."""

    kind: Literal["file_names"]
    root: InnerPath = "."
    pattern: str = Field(description="regular expression of a file's whole name, with groups class and part")
    part_names: dict[str, SplitName] = Field(description="what 'part' says, and the part that it means")
    first_class: int = Field(1, ge=0, description="the id that file names give to the first class")

    @model_validator(mode="after")
    def _usable(self) -> FileNamesLayout:
        try:
            groups = set(re.compile(self.pattern).groupindex)
        except re.error as error:
            raise ValueError(f"'pattern' is no regular expression: {error}") from None
        if not {"class", "part"} <= groups:
            raise ValueError("'pattern' needs the groups (?P<class>…) and (?P<part>…)")
        check_parts(self.parts, "part_names")
        return self

    @property
    def parts(self) -> set[SplitName]:
        return set(self.part_names.values())

    @property
    def image_root(self) -> str:
        return self.root


class ClassFoldersLayout(Model):
    """A folder a class, with or without train/val/test folders above them."""

    kind: Literal["class_folders"]
    root: InnerPath = Field(".", description="the folder that holds them")

    @property
    def image_root(self) -> str:
        return self.root


class ImageTableLayout(Model):
    """A CSV with a header and a line an image: its path below data/D, its class by name, perhaps its part."""

    kind: Literal["image_table"]
    file: InnerPath
    delimiter: Literal[",", ";", "\t"] = ","

    @property
    def image_root(self) -> str:
        return "."


class GeneratedLayout(Model):
    kind: Literal["generated"]


AnyLayout = Annotated[
    ListsLayout
    | JoinedTablesLayout
    | MatListsLayout
    | MatNumbersLayout
    | ClassJsonLayout
    | CocoJsonLayout
    | FileNamesLayout
    | ClassFoldersLayout
    | ImageTableLayout
    | GeneratedLayout,
    Field(discriminator="kind"),
]
#: Layouts whose official parts are known from the YAML alone.
LISTED = (
    ListsLayout
    | JoinedTablesLayout
    | MatListsLayout
    | MatNumbersLayout
    | ClassJsonLayout
    | CocoJsonLayout
    | FileNamesLayout
)
