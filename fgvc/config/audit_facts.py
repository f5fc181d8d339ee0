"""What an audit holds published numbers against besides themselves (``params/audit``): statements and claims.

Both are copied or restated from sources, never computed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fgvc.config.base import Model, load_model
from fgvc.config.project import Project
from fgvc.config.published import Name
from fgvc.config.suite import ImageSize

CLAIMS, STATEMENTS = Path("params/audit/claims.yaml"), Path("params/audit/statements.yaml")


#: The plain ViT-B/16 that published costs are shares of; the two class counts tell what a class costs.
BACKBONE = "vit_b16"
BACKBONE_CLASSES, OTHER_CLASSES = 200, 1000
BACKBONE_COSTS = (
    (BACKBONE, 224, BACKBONE_CLASSES),
    (BACKBONE, 448, BACKBONE_CLASSES),
    (BACKBONE, 224, OTHER_CLASSES),
)


class Statement(Model):
    """Something that a source says and another place says too, or differently."""

    subject: str
    said: str | float = Field(description="what the source says")
    source: str = Field(description="who says it, and where")
    dataset: str | None = Field(None, description="id in params/datasets that it is about")
    fact: Literal["classes", "train", "val", "train_val", "test"] | None = Field(
        None, description="what of the dataset: its classes, or the rows of a split list"
    )
    found: str | float | None = Field(
        None, description="what the other place says, where it is no dataset here"
    )
    found_in: str | None = Field(None, description="the other place")
    conclusive: bool = Field(True, description="false: the two may differ and both be right; `note` says why")
    note: str | None = None

    @model_validator(mode="after")
    def _says_what_with_what(self) -> Statement:
        if (self.dataset is None) != (self.fact is None):
            raise ValueError("`dataset` and `fact` go together")
        if (self.dataset is None) == (self.found is None):
            raise ValueError("either `dataset` and `fact`, or `found` says what it is held against")
        return self


class Licence(Model):
    """A repository that numbers or methods come from."""

    repository: str
    commit: str | None = Field(None, pattern=r"^[0-9a-f]{7,40}$")
    licence: str | None = Field(description="as its LICENSE file has it; null: there is none")
    note: str | None = None


class Statements(Model):
    """``params/audit/statements.yaml``."""

    statements: list[Statement] = Field(default_factory=list)
    licences: list[Licence] = Field(default_factory=list)


class _Claim(Model):
    paper: str
    statement: str = Field(description="the claim as it can be checked")
    wording: str = Field(description="how the claim reached us: quoted, or restated and from what")


class TradeoffClaim(_Claim):
    """One method of a published table has the better accuracy for its cost."""

    kind: Literal["tradeoff"]
    table: str = Field(description="id in params/published")
    accuracy: Name = Field(description="row of the accuracies")
    method: Name = Field(description="column of the method")
    rivals: list[Name] | None = Field(None, description="columns it is compared with; null: all others")
    reading: Literal["not_dominated", "dominates"] = Field(
        description="no rival is at least as accurate and as cheap; or the method is so beside every rival"
    )
    image_size: ImageSize
    classes: int | None = Field(None, description="cost: MACs recounted here, with a head of so many classes")
    throughput: Name | None = Field(None, description="cost: the printed throughput in this row")
    printed_flops: Name | None = Field(None, description="cost: the printed FLOPs in this row")

    @model_validator(mode="after")
    def _one_cost(self) -> TradeoffClaim:
        if [self.classes, self.throughput, self.printed_flops].count(None) != 2:
            raise ValueError(
                "one of `classes` (MACs recounted), `throughput` and `printed_flops` is the cost"
            )
        return self


class MarginClaim(_Claim):
    """A printed margin of one method over others: points, a factor, or a part saved."""

    kind: Literal["margin"]
    record: str = Field(description="id of the published claim: TABLE/COLUMN/ROW")
    table: str = Field(description="id in params/published of the numbers behind it")
    rows: list[Name] = Field(min_length=1, description="rows that are averaged")
    method: Name
    rivals: list[Name] = Field(min_length=1)
    quantity: Literal["points_more", "times_less", "percent_less"]
    over: Literal["each", "mean"] = Field(description="over each rival, or over their mean")
    complete: bool = Field(description="false: the claim is about more than the printed numbers show")


class Unsupported(_Claim):
    """A claim for which no numbers are here."""

    kind: Literal["unsupported"]
    why: str


Claim = Annotated[TradeoffClaim | MarginClaim | Unsupported, Field(discriminator="kind")]


class Claims(Model):
    """``params/audit/claims.yaml``."""

    claims: list[Claim] = Field(default_factory=list)


def read_statements(project: Project) -> Statements:
    """The statements of a project; none where it has no such file."""
    path = project.root / STATEMENTS
    return load_model(Statements, path, str(STATEMENTS)) if path.is_file() else Statements()


def read_claims(project: Project) -> Claims:
    """The claims of a project; none where it has no such file."""
    path = project.root / CLAIMS
    return load_model(Claims, path, str(CLAIMS)) if path.is_file() else Claims()


def audit_costs(project: Project) -> list[tuple[str, int, int]]:
    """Variant, image size and classes of the cost records that the audit of published numbers reads."""
    wanted = list(BACKBONE_COSTS)
    for claim in read_claims(project).claims:
        if isinstance(claim, TradeoffClaim) and claim.classes is not None:
            printed = project.published_accuracies(claim.table)
            columns = [claim.method, *(claim.rivals or printed.columns)]
            counted = [printed.columns[c].counted for c in columns if c in printed.columns]
            wanted += [(v, claim.image_size, claim.classes) for v in counted if v]
    known = set(project.names("method"))
    return [cost for cost in dict.fromkeys(wanted) if cost[0] in known]
