"""What checks may look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fgvc.config.project import Project
from fgvc.config.suite import Suite
from fgvc.provenance.files import read_json


@dataclass(frozen=True)
class Costs:
    """The cost records that are here (``results/cost/M/S/C.json``)."""

    project: Project

    def find(self, variant: str, image_size: int, classes: int) -> dict[str, Any] | None:
        """The record of a variant at an image size (pixels) with a head of ``classes``; None: not here."""
        file = self.project.paths.cost(variant, image_size, classes)
        return read_json(file) if file.is_file() else None

    def command(self, variant: str, image_size: int, classes: int) -> str:
        """What makes that record."""
        file = self.project.paths.shown(self.project.paths.cost(variant, image_size, classes))
        return f"snakemake --cores 2 -- {file}"


@dataclass(frozen=True)
class PublishedContext:
    """Published numbers, and the costs to hold them against. No data is read."""

    project: Project
    records: Sequence[Any]
    costs: Costs


@dataclass(frozen=True)
class SuiteContext:
    """A suite of ours and all that was made of it."""

    project: Project
    suite_name: str
    #: The suite's path is the short one (``results/tables``): it is the default suite.
    short: bool = False
    #: Findings of one check that another may use, by whatever key its module chooses.
    cache: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def suite(self) -> Suite:
        return self.project.suite(self.suite_name)
