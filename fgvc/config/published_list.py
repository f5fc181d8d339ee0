"""Published numbers of any kind as rows × columns, with what they share said once (``kind: records``)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from fgvc.config.base import Model
from fgvc.config.published import Evidence, Name, Protocol, PublishedAccuracies, PublishedCosts, Source
from fgvc.config.suite import ImageSize

#: What a published number measures. ``average_top1``: a printed mean over datasets; ``claim``: of a sentence.
PublishedMetric = Literal[
    "top1",
    "top5",
    "average_top1",
    "params_m",
    "trainable_params_m",
    "flops_g",
    "flops_pct_of_backbone",
    "throughput",
    "train_time_min",
    "claim",
]


class Facts(Model):
    """What can be said of a number, of its row, of its column or of the whole file: the nearest is heard.

    ``null`` is an answer too: where the file has a note and a cell says ``note: null``, the cell has none.
    """

    metric: PublishedMetric | None = None
    unit: str | None = None
    decimals: int | None = Field(None, ge=0, le=6, description="as printed")
    backbone: str | None = Field(None, description="as in the record")
    pretraining: str | None = Field(None, description="images that the weights saw, and who says so")
    image_size: ImageSize | None = None
    reported_by: str | None = Field(None, description="own paper, or who else printed or ran it")
    evidence: Evidence | None = Field(None, description="where it is not the source's")
    printed_in: str | None = Field(None, description="table, figure or file, where it is not the source's")
    asset: str | None = Field(None, description="file in the repository, where it is not the source's")
    approximate: bool | None = Field(None, description="read off a figure")
    note: str | None = Field(None, description="what is odd about the number")
    protocol: Protocol = Field(default=Protocol(), description="what differs from what is said further out")


class ListedCell(Facts):
    """One number; a bare number in the file where nothing else is said of it."""

    value: float
    std: float | None = Field(None, ge=0, description="what is printed behind ±, in the unit of the value")


def _bare(cell: Any) -> Any:
    return {"value": cell} if isinstance(cell, int | float) and not isinstance(cell, bool) else cell


class ListedRow(Facts):
    """A row of the list: a dataset as a rule, under the name that was printed."""

    title: str = Field(description="as printed")
    dataset: str | None = Field(description="id in params/datasets, or null: not one of ours, or not one")


class ListedColumn(Facts):
    """A method of the list, with its numbers by row."""

    method: str = Field(description="as printed")
    variant: str | None = Field(None, description="our variant that is the same method, or null: not here")
    cost_variant: str | None = Field(
        None, description="our variant whose inference is the same computation, where `variant` is not it"
    )
    cells: dict[
        Name, Annotated[ListedCell, BeforeValidator(_bare, json_schema_input_type=float | ListedCell)]
    ] = Field(min_length=1, description="by row id")


class PublishedRecords(Facts):
    """Any published numbers: rows × columns, not every pair of them filled."""

    kind: Literal["records"]
    title: str
    source: Source
    notes: list[str] = Field(default_factory=list)
    rows: dict[Name, ListedRow] = Field(min_length=1)
    columns: dict[Name, ListedColumn] = Field(min_length=1)

    @model_validator(mode="after")
    def _cells_are_complete(self) -> PublishedRecords:
        for name, column in self.columns.items():
            for key, cell in column.cells.items():
                if key not in self.rows:
                    raise ValueError(f"the column '{name}' has a cell '{key}' that no row is called")
                for fact in ("metric", "unit", "decimals", "reported_by"):
                    if self.fact(name, key, fact) is None:
                        raise ValueError(f"nothing says the {fact} of the cell '{key}' of '{name}'")
                decimals = self.fact(name, key, "decimals")
                for number in (cell.value, cell.std):
                    if number is not None and round(number, decimals) != number:
                        raise ValueError(
                            f"the cell '{key}' of '{name}' has a number {number} of more than "
                            f"{decimals} decimals"
                        )
        return self

    def fact(self, column: str, row: str, name: str) -> Any:
        """What is said of a cell by itself, its row, its column or the file: the first that says anything."""
        named = self.columns[column]
        for said in (named.cells[row], self.rows[row], named, self):
            if name in said.model_fields_set:
                return getattr(said, name)
        return None

    def protocol_of(self, column: str, row: str) -> Protocol:
        """The protocol of a cell; each of its fields is said by the nearest that says it."""
        named = self.columns[column]
        found = self.protocol
        for said in (named, self.rows[row], named.cells[row]):
            found = said.protocol.over(found)
        return found

    def source_of(self, column: str, row: str) -> Source:
        """Where a cell is printed."""
        said = {
            "table": self.fact(column, row, "printed_in"),
            "asset": self.fact(column, row, "asset"),
            "evidence": self.fact(column, row, "evidence"),
        }
        return self.source.model_copy(update={key: text for key, text in said.items() if text})

    @property
    def has_references(self) -> bool:
        """Whether any number may be set beside another one: whether someone was seen to have printed it."""
        pairs = [(name, row) for name, column in self.columns.items() for row in column.cells]
        return any(self.source_of(*pair).evidence != "none" for pair in pairs)

    def variants(self) -> list[str]:
        """Every variant of ours that a column names, each once."""
        named = [v for c in self.columns.values() for v in (c.variant, c.cost_variant) if v]
        return list(dict.fromkeys(named))


Published = PublishedAccuracies | PublishedCosts | PublishedRecords
