"""A dataset (``params/datasets/D.yaml``): where it comes from, how it is laid out, how it is split."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fgvc.config.base import Model
from fgvc.config.layout import LISTED, AnyLayout, InnerPath, ListsLayout, SplitName, check_parts

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


# --- where it comes from ---------------------------------------------------------------------------


class Part(Model):
    """One of the files that an archive was cut into (``x.tar.gz.aa``, ``x.tar.gz.ab`` …)."""

    file: InnerPath = Field(description="name below a mirror, and in messages")
    urls: list[Annotated[str, Field(pattern=r"^https?://")]] = Field(default_factory=list)
    bytes: int | None = Field(None, gt=0)
    sha256: Sha256 | None = None
    md5: str | None = Field(None, pattern=r"^[0-9a-f]{32}$")


class Download(Model):
    """One file to fetch: an archive that is unpacked, or a plain file such as a split list."""

    file: InnerPath = Field(description="name below a mirror, and in messages")
    urls: list[Annotated[str, Field(pattern=r"^https?://")]] = Field(
        default_factory=list, description="in order of preference; empty: by hand only"
    )
    bytes: int | None = Field(None, gt=0)
    sha256: Sha256 | None = Field(
        None, description="leave it out where a mirror and the network pack the same files differently"
    )
    md5: str | None = Field(None, pattern=r"^[0-9a-f]{32}$")
    list_sha256: Sha256 | None = Field(
        None, description="for split lists: digest of the sorted 'class_id,dir' lines"
    )
    parts: list[Part] = Field(
        default_factory=list, description="the files that the archive was cut into, in order"
    )
    unpack: bool = True
    to: InnerPath = Field(".", description="folder (archive) or path (plain file) below data/D")
    anchor: str | None = Field(
        None,
        pattern=r"^[^/\\]+$",
        description="a folder in the archive; the folders above the highest one of that name are cut off "
        "all paths, and what lies elsewhere is left out",
    )

    @model_validator(mode="after")
    def _usable(self) -> Download:
        if self.unpack and self.list_sha256:
            raise ValueError("list_sha256 is for plain files (unpack: false)")
        if not self.unpack and self.to == ".":
            raise ValueError("'to' must say where the plain file goes")
        if self.parts and (not self.unpack or self.urls or self.bytes or self.sha256 or self.md5):
            raise ValueError("with 'parts', each part has its own urls, bytes and digests, and is unpacked")
        return self

    @property
    def sizes(self) -> list[int | None]:
        """Bytes of the file, or of each part."""
        return [part.bytes for part in self.parts] or [self.bytes]

    @property
    def has_digest(self) -> bool:
        """Whether the file itself, or each of its parts, can be checked before anything is done with it."""
        if self.parts:
            return all(part.sha256 or part.md5 for part in self.parts)
        return bool(self.sha256 or self.md5 or self.list_sha256)


class ArchiveSource(Model):
    kind: Literal["archive"]
    downloads: list[Download] = Field(min_length=1)
    tree_sha256: Sha256 | None = Field(None, description="digest of the tree after unpacking")


class GeneratedSource(Model):
    kind: Literal["generated"]
    generator: Literal["typefaces"]
    counts: dict[Literal["train", "val", "test"], int] = Field(description="pictures a class")
    tree_sha256: Sha256 | None = Field(
        None, description="of the pinned environment; another one may differ, which is noted"
    )

    @model_validator(mode="after")
    def _has_train(self) -> GeneratedSource:
        if "train" not in self.counts or min(self.counts.values()) < 1:
            raise ValueError("'counts' needs 'train', and numbers above 0")
        return self


class FolderSource(Model):
    """Images that the user has already: a folder, linked or copied into data/D."""

    kind: Literal["folder"]
    path: str = Field(description="absolute, or relative to the project")
    tree_sha256: Sha256 | None = None


# --- how it is split -------------------------------------------------------------------------------


class SplitRule(Model):
    train_fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="where no validation part exists: first int(n_c * p) rows of each class train",
    )
    test_fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="where no test part exists: the rows after the first int(n_c * (1 - p)) of each class",
    )
    provenance: Literal["official", "published", "ours"] = Field(
        description="whose split it is that the layout tells, where no digest tells; tables say so"
    )
    missing_classes: dict[SplitName, int] = Field(
        default_factory=dict, description="how many classes the official split lacks in a part"
    )


class SplitFacts(Model):
    rows: int = Field(gt=0)
    sha256: Sha256 | None = None


#: Where published lists lie below data/D; no archive has a folder of this name.
PUBLISHED_FOLDER = "published_lists"


class PublishedLists(Model):
    """The split lists that papers used: taken where they can be had, else the archive's own lists serve.

    A list's digest is that of ``expected`` for its part.
    """

    said_by: str = Field(description="whose lists they are, and of which commit")
    url: str = Field(pattern=r"^https?://[^{}]*\{\}[^{}]*$", description="of a list, {} for its file name")
    mirror_folder: InnerPath = Field(description="of the lists, below a mirror")
    lists: list[SplitName] = Field(min_length=1)
    image_root: InnerPath | None = Field(None, description="where it is not the layout's")
    classes_file: str | None = Field(
        None, pattern=r"^[^/\\]+$", description="a list 'class_id,class_name' beside the others"
    )
    classes_sha256: Sha256 | None = None
    names_from_archive: bool = Field(
        False, description="class names are those of the layout, where its classes are the lists' too"
    )

    @model_validator(mode="after")
    def _complete(self) -> PublishedLists:
        check_parts(set(self.lists), "lists")
        if "test" not in self.lists:
            raise ValueError("'lists' does not name 'test'")
        if self.classes_file and self.names_from_archive:
            raise ValueError("'classes_file' and 'names_from_archive' contradict one another")
        return self

    def files(self) -> list[str]:
        """File names of all lists."""
        return [f"{part}.csv" for part in self.lists] + ([self.classes_file] if self.classes_file else [])


class Dataset(Model):
    """One dataset of the benchmark; facts that nobody verified are named in ``unverified``."""

    title: str
    description: str
    classes: int = Field(gt=1)
    licence: str
    citation: str
    url: str | None = None
    licence_file: InnerPath | None = Field(
        None, description="the licence's text below data/D, kept beside the images"
    )
    download_mib: float | None = Field(
        None, gt=0, description="about; to be fetched, where the downloads do not give their bytes"
    )
    disk_mib: float | None = Field(None, gt=0, description="about; of the images when unpacked")
    access: Literal["open", "gated", "by_hand"] = "open"
    instructions: str | None = Field(
        None, description="gated or by hand: what to download and where to put it"
    )
    aliases: list[str] = Field(default_factory=list)
    source: Annotated[ArchiveSource | GeneratedSource | FolderSource, Field(discriminator="kind")]
    layout: AnyLayout
    published: PublishedLists | None = None
    split: SplitRule
    expected: dict[SplitName, SplitFacts] = Field(default_factory=dict)
    horizontal_flip: bool = Field(True, description="false where a mirrored image is another thing")
    resize_ratio: float | None = Field(None, ge=1, description="overrides the recipe's, as in Cars")
    pretraining_overlap: list[str] = Field(
        default_factory=list, description="pre-training sets that share images with it"
    )
    unverified: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _consistent(self) -> Dataset:
        if (self.source.kind == "generated") != (self.layout.kind == "generated"):
            raise ValueError("a generated source goes with a generated layout, and only with it")
        if self.access != "open" and not self.instructions:
            raise ValueError("'instructions' must say what to download and where to put it")
        layout = self.layout
        keep = layout.keep_classes if isinstance(layout, ListsLayout) else None
        if keep and len(keep) != self.classes:
            raise ValueError(f"'keep_classes' names {len(keep)} classes")
        if isinstance(layout, LISTED):
            if "val" not in layout.parts and self.split.train_fraction is None:
                raise ValueError("the layout names no val part, so 'split' needs a train_fraction")
            if "test" not in layout.parts and self.split.test_fraction is None:
                raise ValueError("the layout names no test part, so 'split' needs a test_fraction")
        if self.published and self.source.kind != "archive":
            raise ValueError("'published' goes with an archive source")
        return self

    def published_downloads(self) -> list[Download]:
        """The published lists as files to fetch, each with the digest that is known of it."""
        lists = self.published
        if lists is None:
            return []
        digests = {f"{part}.csv": facts.sha256 for part, facts in self.expected.items()}
        return [
            Download(
                file=f"{lists.mirror_folder}/{file}",
                urls=[lists.url.format(file)],
                unpack=False,
                to=f"{PUBLISHED_FOLDER}/{file}",
                list_sha256=digests.get(file),
                sha256=lists.classes_sha256 if file == lists.classes_file else None,
            )
            for file in lists.files()
        ]

    @property
    def download_bytes(self) -> int | None:
        """What a fetch transfers; None where nobody knows. Exact when every download gives its bytes."""
        if not isinstance(self.source, ArchiveSource):
            return 0
        archives = [download for download in self.source.downloads if download.unpack]
        sizes = [size for download in archives for size in download.sizes]
        known = sum(size or 0 for size in sizes) if all(sizes) else None
        return int(self.download_mib * 2**20) if known is None and self.download_mib else known

    def numeric_facts(self) -> dict[str, Any]:
        """What of this file may change a model's numbers beyond the pictures and lists themselves."""
        return {"horizontal_flip": self.horizontal_flip, "resize_ratio": self.resize_ratio}
