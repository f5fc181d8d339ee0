"""How many images a split has, before and after it is prepared."""

from __future__ import annotations

from fgvc.config.layout import SplitName
from fgvc.config.project import Project
from fgvc.provenance.files import read_json


def expected_rows(project: Project, dataset: str, part: SplitName) -> int | None:
    """Images of a split: of the prepared split where there is one, else as the dataset's YAML says.

    None where neither knows.
    """
    record = project.paths.split_record(dataset)
    if record.is_file():
        return int(read_json(record)["parts"][part]["rows"])
    facts = project.dataset(dataset)
    if part in facts.expected:
        return facts.expected[part].rows
    if facts.source.kind == "generated":
        counts = facts.source.counts
        whole_part = counts["train"] + counts["val"] if part == "train_val" else counts[part]
        return facts.classes * whole_part
    whole = facts.expected.get("train_val")
    if part == "train" and whole and facts.split.train_fraction:
        return int(whole.rows * facts.split.train_fraction)
    return None
