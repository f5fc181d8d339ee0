"""What checks may look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fgvc.audit.published_tables import score_tables
from fgvc.audit.tables import ScoreTable
from fgvc.config.project import Project
from fgvc.config.published_records import Record, published_records
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
    records: Sequence[Record]
    costs: Costs

    @cached_property
    def tables(self) -> list[ScoreTable]:
        """The printed accuracies as tables: no figures, no memories."""
        return score_tables(self.project, self.records)

    def place_of(self, table: str) -> str:
        """Short name of a file of params/published: ``GLSim, Table 4``."""
        return self.project.published(table).source.place

    def source_of(self, table: str) -> str:
        """The same in full."""
        return self.project.published(table).source.full

    @classmethod
    def of(cls, project: Project) -> PublishedContext:
        """All that a project quotes, and the costs that are here."""
        return cls(project, published_records(project), Costs(project))


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
