"""``fgvc data fetch``: a dataset's images, checked, under ``data/D``, with its index and record beside them.

Everything is put together and checked in a staging folder; ``data/D`` appears whole, by one rename. Then
come ``data/D.csv`` and, last, ``data/D.json``. A kill at any moment leaves either nothing under the name or
a whole folder that the next fetch finishes; stale staging folders are removed under the lock.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fgvc.config.dataset import GeneratedSource
from fgvc.config.project import Project
from fgvc.data import generated
from fgvc.data.images import hash_files
from fgvc.data.layouts import read_layout
from fgvc.data.progress import Progress, quiet
from fgvc.data.records import (
    DataIndex,
    DataRecord,
    SourceRecord,
    check_digests,
    check_files,
    drop_record,
    index_text,
    text_sha256,
    write_index,
)
from fgvc.data.staging import Contents, Staged, folder_sha256, inspect, stage
from fgvc.errors import FgvcError
from fgvc.provenance.files import read_json, write_json
from fgvc.provenance.locks import exclusive_lock

Outcome = Literal["present", "verified", "fetched", "recorded"]


@dataclass(frozen=True)
class Fetched:
    """What a fetch did.

    Attributes:
        outcome: ``present``: all was there, nothing done; ``verified``: all was there and every file was
            hashed again; ``fetched``: data/D is new; ``recorded``: data/D was there and its index and record
            were written.
        notes: what a user should know (a digest that differs from the reference, files left out).
    """

    record: DataRecord
    outcome: Outcome
    notes: list[str] = field(default_factory=list)


def fetch(
    project: Project,
    name: str,
    mirror: Path | None = None,
    progress: Progress = quiet,
    *,
    verify: bool = False,
    replace: bool = False,
    local: Path | None = None,
) -> Fetched:
    """Bring a dataset to data/D and write data/D.csv and data/D.json; do nothing when all is there.

    Args:
        name: id or alias.
        mirror: folder looked in before the network; else ``$FGVC_MIRROR``, else the settings' ``mirror``.
        verify: hash every file again, also when all seems to be there.
        replace: put a fresh copy in the place of what lies in data/D.
        local: folder in which the user put the archives, or what they unpack to; nothing there is changed.

    Raises FgvcError: no source gives a file (with what to do); a digest, a list or an archive is not what it
    should be; an image cannot be decoded; files in data/D are missing or changed; data/D is something else.
    Raises LockHeldError when another process fetches the same dataset.
    """
    name = project.canonical_dataset(name)
    job = _Job(project, name, mirror, local, progress)
    with exclusive_lock(project.paths.state("data", f"{name}.lock"), f"fetching '{name}'"):
        job.clear_staging()
        try:
            return (None if replace else job.keep(verify)) or job.build()
        except OSError as error:
            raise FgvcError(
                f"cannot fetch '{name}': {error.strerror or error}",
                file=error.filename or job.shown,
                cure="check the disk's free space and permissions and run the same command again",
            ) from error
        finally:
            job.clear_staging()


class _Job:
    """One fetch of one dataset, under its lock."""

    def __init__(
        self, project: Project, name: str, mirror: Path | None, local: Path | None, progress: Progress
    ) -> None:
        self.project, self.name, self.progress = project, name, progress
        self.mirror, self.local = mirror, local
        self.dataset = project.dataset(name)
        self.folder = project.paths.data_dir(name)
        self.shown = project.paths.shown(self.folder)
        self.staging = self.folder.with_name(f".{name}.staging")
        #: What this machine's last fetch put into data/D; survives where a workflow deletes the record.
        self.memory = project.paths.state("data", f"{name}.json")

    def clear_staging(self) -> None:
        if self.staging.exists():
            shutil.rmtree(self.staging)

    # --- what is there already ---------------------------------------------------------------------
    def keep(self, verify: bool) -> Fetched | None:
        """Use what lies in data/D; None: it must be built. Raises FgvcError: it is damaged or foreign."""
        if not self.folder.is_dir() or not any(self.folder.iterdir()):
            return None
        if isinstance(self.dataset.source, GeneratedSource) and not self._drawn_as_now(self.dataset.source):
            self._refuse_foreign_pictures()
            return None
        index = self._recorded()
        if index is None:
            return self._record_in_place()
        if verify:
            paths = [entry.path for entry in index.images] + list(index.record.support_files)
            check_digests(self.project, self.name, index, hash_files(self.folder, paths, self.progress))
        record = index.record.model_copy(update=self._described())
        if record != index.record:  # the YAML's words changed, the images did not
            write_index(self.project, self.name, DataIndex(record, index.images))
        return Fetched(record, "verified" if verify else "present", record.notes)

    def _recorded(self) -> DataIndex | None:
        """The index, when it is of the dataset as the YAML has it now; None when it must be written anew."""
        paths = self.project.paths
        if not (paths.data_record(self.name).is_file() and paths.data_index(self.name).is_file()):
            return None
        index = check_files(self.project, self.name)
        if index.record.reference_tree_sha256 != self.dataset.source.tree_sha256:
            return None
        classes = {entry.path: entry.class_id for entry in index.images}
        return index if read_layout(self.project, self.name).class_of() == classes else None

    def _record_in_place(self) -> Fetched:
        contents = inspect(self.project, self.name, self.folder, self.progress)
        remembered = self._remembered()
        source = SourceRecord.model_validate(remembered.get("source", {"kind": "in_place"}))
        expected = {"as published": self._reference(), "as it was fetched": remembered.get("tree_sha256")}
        for what, digest in expected.items():
            if digest not in (None, contents.tree_sha256):
                raise FgvcError(
                    f"what lies in {self.shown} is not '{self.name}' {what}: its tree digest is "
                    f"{contents.tree_sha256[:12]}…, not {digest[:12]}…",
                    file=self.shown,
                    cure=f"move it away, or replace it: fgvc data fetch {self.name} --replace",
                )
        return self._write_records(contents, source, "recorded")

    def _reference(self) -> str | None:
        """The digest that data/D must have; only drawn pictures may differ from theirs."""
        source = self.dataset.source
        return None if source.kind == "generated" else source.tree_sha256

    def _remembered(self) -> dict[str, Any]:
        if not self.memory.is_file():
            return {}
        found: dict[str, Any] = read_json(self.memory)
        return found

    def _drawn_as_now(self, source: GeneratedSource) -> bool:
        """Whether data/D was drawn by this very code, with these fonts and counts."""
        return self._remembered().get("inputs_sha256") == generated.inputs_sha256(source)

    def _refuse_foreign_pictures(self) -> None:
        """Pictures that an earlier version of the drawing code left may be drawn anew; others may not."""
        tree = folder_sha256(self.folder, self.progress)
        if tree not in (self._remembered().get("tree_sha256"), self.dataset.source.tree_sha256):
            raise FgvcError(
                f"{self.shown} holds something else than the pictures that were drawn for '{self.name}'",
                file=self.shown,
                cure=f"move it away, or replace it: fgvc data fetch {self.name} --replace",
            )

    # --- a new folder ------------------------------------------------------------------------------
    def build(self) -> Fetched:
        staged = stage(self.project, self.name, self.mirror, self.staging, self.progress, self.local)
        contents = inspect(self.project, self.name, staged.tree, self.progress)
        reference = self._reference()
        if reference is not None and contents.tree_sha256 != reference:
            raise self._wrong_tree(contents, staged, reference)
        memory = {"tree_sha256": contents.tree_sha256, "source": staged.source.model_dump()}
        if isinstance(self.dataset.source, GeneratedSource):
            memory["inputs_sha256"] = generated.inputs_sha256(self.dataset.source)
        # Before the rename, so that a kill after it finds out what the folder is.
        write_json(self.memory, memory)
        drop_record(self.project, self.name)
        if self.folder.exists():
            # Out of the way by a rename; it goes with the staging folder.
            self.folder.replace(self.staging / "old")
        staged.tree.replace(self.folder)
        fetched = self._write_records(contents, staged.source, "fetched")
        if staged.no_lists:
            fetched.notes.append(f"why the published lists are not here: {staged.no_lists}")
        return fetched

    def _wrong_tree(self, contents: Contents, staged: Staged, reference: str) -> FgvcError:
        unchecked = [file for item in staged.obtained for file in item.files if not file.checked]
        blamed = unchecked[0].path if unchecked else None
        return FgvcError(
            f"what was fetched is not '{self.name}' as published: {len(contents.images)} images with tree "
            f"digest {contents.tree_sha256[:12]}…, not {reference[:12]}…; nothing was put in {self.shown}",
            file=blamed or self.project.paths.shown(self.project.file("dataset", self.name)),
            cure="delete the file and run the same command again" if blamed else "take another source",
        )

    # --- records -----------------------------------------------------------------------------------
    def _write_records(self, contents: Contents, source: SourceRecord, outcome: Outcome) -> Fetched:
        reference = self.dataset.source.tree_sha256
        matches = None if reference is None else contents.tree_sha256 == reference
        notes = self._notes(contents, source, matches)
        record = DataRecord(
            dataset=self.name,
            **self._described(),
            images=len(contents.images),
            classes=len({entry.class_id for entry in contents.images}),
            bytes=sum(entry.bytes for entry in contents.images),
            tree_sha256=contents.tree_sha256,
            reference_tree_sha256=reference,
            matches_reference=matches,
            index_sha256=text_sha256(index_text(contents.images)),
            support_files=contents.support_files,
            source=source,
            notes=notes,
        )
        write_index(self.project, self.name, DataIndex(record, contents.images))
        return Fetched(record, outcome, list(notes))

    def _described(self) -> dict[str, Any]:
        """What the record repeats from the YAML."""
        dataset = self.dataset
        return {
            "title": dataset.title,
            "licence": dataset.licence,
            "access": dataset.access,
            "pretraining_overlap": list(dataset.pretraining_overlap),
            "unverified": list(dataset.unverified),
        }

    def _notes(self, contents: Contents, source: SourceRecord, matches: bool | None) -> list[str]:
        notes: list[str] = []
        if matches is False:
            notes.append(
                "the pictures differ from the reference (another Pillow, FreeType or matplotlib draws them a "
                "little differently); numbers are not comparable to the last digit"
            )
        if source.kind == "unpacked":
            notes.append(
                "the images come from a folder that was unpacked before: no archive vouches for them"
            )
        if self.dataset.published and not contents.layout.published:
            notes.append(
                "the published lists are not here: the split follows the archive, and is called published "
                "only where its digests are"
            )
        if contents.layout.ignored:
            count, first = len(contents.layout.ignored), contents.layout.ignored[0]
            notes.append(f"{count} file(s) are no images by their name and were left out, such as {first}")
        return notes
