"""How many images a split has, before and after it is prepared."""

from __future__ import annotations

from fgvc.config.dataset import Dataset
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
    stated = stated_rows(facts, part)
    if stated is not None:
        return stated
    whole = facts.expected.get("train_val")
    if part == "train" and whole and facts.split.train_fraction:
        return int(whole.rows * facts.split.train_fraction)
    return None


def stated_rows(facts: Dataset, part: SplitName) -> int | None:
    """Images of a split as the dataset's YAML says, exactly; None where it does not."""
    if part in facts.expected:
        return facts.expected[part].rows
    if facts.source.kind == "generated":
        counts = facts.source.counts
        whole_part = counts["train"] + counts.get("val", 0) if part == "train_val" else counts.get(part)
        return facts.classes * whole_part if whole_part else None
    known = {name: facts.expected[name].rows for name in facts.expected}
    if part == "train_val" and {"train", "val"} <= set(known):
        return known["train"] + known["val"]
    other: SplitName = "val" if part == "train" else "train"
    if part in ("train", "val") and {"train_val", other} <= set(known):
        return known["train_val"] - known[other]
    return None
