"""Tables that others published (``params/published/NAME.yaml``): numbers as printed, and where they stand.

A number here is copied, never computed: what is recomputed from it is worked out where it is shown.
Accuracies and costs of choosing regions stand here; lists of any numbers in published_list.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fgvc.config.base import Model
from fgvc.config.suite import ImageSize, Metric

#: How a number reached us, best first: from the authors' own asset at a commit, from their logs, from a page.
#: "none" is memory alone: such a number is listed, and is never a reference value.
Evidence = Literal[
    "primary_repo_asset",
    "primary_repo_log",
    "abstract_text",
    "figure_read_off",
    "secondary_page",
    "tertiary_note",
    "seed_text",
    "recomputed_here",
    "none",
]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]


class Source(Model):
    """Where a table was printed, and the copy of it that the numbers were read from."""

    paper: str
    short: str = Field(description="the paper's name in notes and captions")
    year: int | None = Field(None, ge=1990, le=2100)
    arxiv: str | None = Field(None, pattern=r"^\d{4}\.\d{4,5}$")
    venue: str | None = Field(None, description="journal or conference, with the year")
    doi: str | None = Field(None, pattern=r"^10\.\d{4,}/\S+$")
    table: str = Field(description="number of the table, as printed; or where else the number stands")
    repository: str | None = None
    commit: str | None = Field(None, pattern=r"^[0-9a-f]{7,40}$")
    asset: str | None = Field(None, description="file in the repository at that commit")
    evidence: Evidence = Field(description="how the numbers reached us, where a cell says nothing else")

    @property
    def place(self) -> str:
        """``GLSim, Table 4``."""
        return f"{self.short}, {self.table}"

    @property
    def full(self) -> str:
        """Paper, identifier, table and asset on one line."""
        arxiv = f", arXiv:{self.arxiv}" if self.arxiv else ""
        venue = f", {self.venue}" if self.venue else ""
        doi = f", doi:{self.doi}" if self.doi else ""
        at = f" @{self.commit}" if self.commit else ""
        there = self.asset or (self.repository if at else None)
        asset = f" ({there}{at})" if there else ""
        year = f" ({self.year})" if self.year and not self.venue else ""
        return f"{self.paper}{arxiv}{venue}{doi}{year}, {self.table}{asset}"


class Protocol(Model):
    """How published numbers were measured, as far as it is known; None: not known."""

    split: str | None = Field(
        None, description="official, glsim_lists, vpt_train_val, vtab1k, …: which images train and test"
    )
    selection: Literal["last_epoch", "best_on_test", "best_on_val"] | None = Field(
        None, description="which of a run's checkpoints was reported"
    )
    views: int | None = Field(None, ge=1, description="forward passes averaged at test time")
    training: Literal["full", "frozen"] | None = Field(None, description="what of the backbone was trained")
    seeds: int | None = Field(None, ge=1, description="runs behind a printed mean")
    test_images: int | None = Field(None, ge=1, description="where it is not the dataset's own number")
    processes: int | None = Field(
        None, ge=1, description="of the evaluation: a DistributedSampler pads the test set to a multiple"
    )

    def over(self, general: Protocol) -> Protocol:
        """This protocol, with what it does not say taken from a more general one; it may say ``null``."""
        return general.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})


class PublishedCell(Model):
    """One printed number."""

    value: float
    std: float | None = Field(None, ge=0, description="what is printed behind ±, in the unit of the value")
    evidence: Evidence | None = Field(None, description="where it differs from the table's")
    note: str | None = Field(None, description="what is odd about the number; shown under the table")


class PublishedRow(Model):
    """A dataset of the table."""

    title: str = Field(description="as printed")
    dataset: str | None = Field(description="id in params/datasets, or null: not one of ours")


class PublishedColumn(Model):
    """A method of the table, with its cells by row."""

    method: str = Field(description="as printed")
    group: str = Field(description="heading that it stands under")
    backbone: str = Field(description="as in the record")
    backbone_title: str = Field(description="the backbone as column headings name it")
    pretraining: str = Field(description="images that the weights saw, and who says so")
    image_size: ImageSize
    reported_by: str = Field(description="own paper, or a reimplementation in another one")
    variant: str | None = Field(description="our variant that is the same method, or null: not here yet")
    cost_variant: str | None = Field(
        None, description="our variant whose inference is the same computation, where `variant` is not it"
    )
    protocol: Protocol = Field(default=Protocol(), description="what differs from the table's")
    cells: dict[Name, PublishedCell] = Field(min_length=1, description="by row id")
    average: PublishedCell | None = Field(None, description="as printed; its ± is across datasets")

    @property
    def counted(self) -> str | None:
        """The variant whose cost is this column's; None where nothing here can be counted for it."""
        return self.cost_variant or self.variant


class PublishedAccuracies(Model):
    """Datasets × methods, mean ± std, as printed."""

    kind: Literal["accuracy"]
    title: str
    source: Source
    metric: Metric
    unit: Literal["%"]
    decimals: int = Field(ge=0, le=4, description="as printed")
    spread: str = Field(description="what the ± of a cell is")
    cost_classes: int = Field(ge=1, description="classes of the head with which the cost is recounted")
    protocol: Protocol = Field(default=Protocol(), description="of every column that says nothing else")
    notes: list[str] = Field(default_factory=list)
    rows: dict[Name, PublishedRow] = Field(min_length=1)
    columns: dict[Name, PublishedColumn] = Field(min_length=1)

    @model_validator(mode="after")
    def _cells_have_rows(self) -> PublishedAccuracies:
        for name, column in self.columns.items():
            for row in column.cells:
                if row not in self.rows:
                    raise ValueError(f"the column '{name}' has a cell '{row}' that no row is called")
        cells = [cell for c in self.columns.values() for cell in (*c.cells.values(), c.average) if cell]
        if "none" in (self.source.evidence, *(cell.evidence for cell in cells)):
            raise ValueError("a number without evidence is no reference value: it goes to a `kind: records`")
        pairs = [(c.variant, c.image_size) for c in self.columns.values() if c.variant]
        twice = next((pair for pair in pairs if pairs.count(pair) > 1), None)
        if twice:
            raise ValueError(f"two columns name the variant '{twice[0]}' at image size {twice[1]}")
        return self

    def at_size(self, image_size: int) -> dict[str, PublishedColumn]:
        """The columns of one image size, by id."""
        return {name: c for name, c in self.columns.items() if c.image_size == image_size}

    def variants(self) -> list[str]:
        """Every variant of ours that a column names, each once."""
        named = [v for c in self.columns.values() for v in (c.variant, c.cost_variant) if v]
        return list(dict.fromkeys(named))

    def costs(self, image_size: int) -> list[tuple[str, int, int]]:
        """Variant, size and classes of the cost records that recount the columns of one image size."""
        counted = [c.counted for c in self.at_size(image_size).values()]
        return [(v, image_size, self.cost_classes) for v in dict.fromkeys(counted) if v]


class PublishedCostCell(Model):
    """What choosing regions costs at one image size."""

    image_size: ImageSize
    flops_g: float = Field(gt=0, description="as printed, in GFLOPs")
    percent_of_backbone: float = Field(gt=0, description="as printed")
    note: str | None = None


class PublishedCostColumn(Model):
    """A method of choosing regions."""

    method: str = Field(description="as printed")
    reported_by: str
    cells: list[PublishedCostCell] = Field(min_length=1)


class PublishedCosts(Model):
    """Image sizes × methods of choosing regions: their cost, and its share of the backbone's, as printed."""

    kind: Literal["selection_cost"]
    title: str
    source: Source
    backbone: str = Field(description="as in the record")
    backbone_method: str = Field(description="the backbone's name as a method")
    backbone_cost_g: dict[str, float] = Field(description="by image size: what the percentages divide by")
    backbone_cost_decimals: int = Field(ge=0)
    backbone_cost_unit: str
    backbone_cost_source: str
    percent_note: str
    flops_digits: int = Field(ge=1, description="significant digits of the printed costs")
    percent_digits: int = Field(ge=1, description="significant digits of the printed percentages, at most …")
    percent_decimals: int = Field(ge=0, description="… with so many decimals")
    notes: list[str] = Field(default_factory=list)
    columns: dict[Name, PublishedCostColumn] = Field(min_length=1)

    def variants(self) -> list[str]:
        """None: these are parts of methods, not methods."""
        return []
