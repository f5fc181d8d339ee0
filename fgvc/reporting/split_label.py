"""Whose split the numbers of a dataset come from, as tables say it."""

from __future__ import annotations

from typing import Any

from fgvc.config.project import Project
from fgvc.provenance.files import read_json


def split_note(project: Project, name: str) -> str | None:
    """A sentence on the split of a dataset, where it is neither official nor shown to be the published one.

    It follows ``results/splits/D/split.json``: what the YAML claims is no proof. Where that record is not
    here, a split is ours when the YAML says so, and unknown when it depends on published lists.
    """
    dataset = project.dataset(name)
    path = project.paths.split_record(name)
    if not path.is_file():
        if dataset.split.provenance == "ours" and dataset.published is None:
            return f"{dataset.title}: the split is ours, neither official nor published."
        if dataset.published is not None:
            return f"{dataset.title}: whose split it is is not recorded here ({project.paths.shown(path)})."
        return None
    record: dict[str, Any] = read_json(path)
    if record["provenance"] == "unverified":
        return f"{dataset.title}: the split claims to be the published one; its digests are not all known."
    if record["provenance"] != "ours":
        return None
    same = published_parts(record)
    but = f", but {' and '.join(same)} are as published" if same else ", neither official nor published"
    return f"{dataset.title}: the split is ours{but}."


def published_parts(record: dict[str, Any]) -> list[str]:
    """The parts of a ``split.json`` that are the published ones by their digests."""
    return [part for part, facts in record["parts"].items() if facts["matches_expected"]]
