"""Suites, tables, figures and the machine's own settings."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, field_validator, model_validator

from fgvc.config.base import Model
from fgvc.config.conditions import Conditions

ImageSize = Annotated[int, Field(ge=16, le=2048)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
LearningRate = Annotated[float, Field(gt=0, le=100)]
Metric = Literal["top1_pct", "top5_pct", "macro_accuracy_pct"]
T = TypeVar("T")


def _each_once(values: list[T]) -> list[T]:
    """Refuse a list that names something twice."""
    doubles = sorted({str(v) for v in values if values.count(v) > 1})
    if doubles:
        raise ValueError(f"listed twice: {', '.join(doubles)}")
    return values


Names = Annotated[list[str], Field(min_length=1), AfterValidator(_each_once)]


class Suite(Model):
    """Which datasets, methods, sizes and seeds stand in one table, and which learning rates are searched."""

    title: str
    description: str
    datasets: list[str] = Field(min_length=1)
    methods: list[str] = Field(min_length=1)
    image_sizes: list[ImageSize] = Field(min_length=1)
    seeds: list[Seed] = Field(min_length=1)
    learning_rates: list[LearningRate] | dict[str, list[LearningRate]] = Field(
        description="searched on val with the first seed; a list, or one per method ('default': the rest)"
    )
    throughput: Conditions = Field(
        Conditions(device="cpu", precision="fp32", batch_size=8, threads=2),
        description="how its methods' throughput is measured; all on one machine",
    )
    tables: list[str] = Field(min_length=1)
    figures: list[str] = Field(default_factory=list)

    @field_validator("datasets", "methods", "image_sizes", "seeds", "tables", "figures")
    @classmethod
    def _no_doubles(cls, values: list[object]) -> list[object]:
        return _each_once(values)

    @model_validator(mode="after")
    def _rates_cover_methods(self) -> Suite:
        if isinstance(self.learning_rates, dict):
            unknown = set(self.learning_rates) - set(self.methods) - {"default"}
            if unknown:
                raise ValueError(f"learning_rates names no method of this suite: {sorted(unknown)[0]}")
            lacking = [m for m in self.methods if not self.rates_of(m)]
            if lacking:
                raise ValueError(f"learning_rates has neither '{lacking[0]}' nor 'default'")
        elif not self.learning_rates:
            raise ValueError("learning_rates is empty")
        return self

    def rates_of(self, method: str) -> tuple[float, ...]:
        """The learning rates searched for one method, in ascending order, without doubles."""
        rates = self.learning_rates
        if isinstance(rates, dict):
            rates = rates.get(method, rates.get("default", []))
        return tuple(sorted(set(rates)))

    def listed(self, kind: Literal["table", "figure"]) -> list[str]:
        """The tables or the figures of the suite."""
        return self.tables if kind == "table" else self.figures


class AccuracyTable(Model):
    """Datasets × methods (or methods × datasets), mean ± std over seeds."""

    kind: Literal["accuracy"]
    title: str
    caption: str
    image_size: ImageSize
    metric: Metric = "top1_pct"
    decimals: int = Field(2, ge=0, le=4)
    rows: Literal["datasets", "methods"] = Field(
        "datasets", description="what a row is; methods: for a suite of many methods"
    )
    datasets: Names | None = Field(
        None, description="those of the suite's datasets that are shown; null: all"
    )
    trainable_total: bool = Field(
        False,
        description="with methods as rows: what each trains, summed over the datasets shown, a head for each",
    )
    published: str | None = Field(
        None, description="id in params/published: what others printed stands beside our cells"
    )

    @model_validator(mode="after")
    def _totals_have_rows(self) -> AccuracyTable:
        if self.trainable_total and self.rows != "methods":
            raise ValueError("'trainable_total' is a column beside methods: it needs 'rows: methods'")
        return self


class ComparisonsTable(Model):
    """Every pair of methods on every dataset: difference, tests, and a verdict."""

    kind: Literal["comparisons"]
    title: str
    caption: str
    image_size: ImageSize
    metric: Metric = "top1_pct"


class PublishedTable(Model):
    """A published table from its records: averages recomputed, disagreements marked, costs recounted."""

    kind: Literal["published"]
    title: str
    caption: str
    published: str = Field(description="id in params/published, a table of accuracies")
    image_size: ImageSize = Field(description="columns of this image size are shown")


class VersusTable(Model):
    """Published, ours and the difference; with a test of equivalence where both have seeds."""

    kind: Literal["versus_published"]
    title: str
    caption: str
    published: list[str] = Field(min_length=1, description="ids in params/published, of any kind")
    image_size: ImageSize
    metric: Literal["top1_pct", "top5_pct"] = "top1_pct"
    decimals: int = Field(2, ge=0, le=4)
    margin: float = Field(gt=0, description="points: means that are surely closer count as equivalent")
    alpha: float = Field(0.05, gt=0, lt=0.5, description="level of each of the tests")


class SizeTable(Model):
    """Heights, widths and aspect ratios of the images."""

    kind: Literal["hw_stats"]
    title: str
    caption: str
    datasets: Literal["suite", "present"] = Field(
        "suite", description="those of a suite, or all that are fetched here (the same in every suite)"
    )


class CostTable(Model):
    """What each method of a suite costs, at each of its image sizes."""

    kind: Literal["costs"]
    title: str
    caption: str
    classes: Annotated[int, Field(ge=2)] | None = Field(
        None, description="classes of the head; null: those of the suite's first dataset"
    )


class SelectionTable(Model):
    """What choosing regions costs: as published, on one footing, and as the code here does it."""

    kind: Literal["selection_cost"]
    title: str
    caption: str
    published: str = Field(description="id in params/published, a table of selection costs")
    backbone: str = Field(description="timm name of the published backbone, on which ours is measured")


class TrainableTable(Model):
    """Trainable parameters summed over tasks, as published and as they follow from models and datasets."""

    kind: Literal["trainable_parameters"]
    title: str
    caption: str
    published: str = Field(description="id in params/published, with totals of trainable parameters")
    row: str = Field(description="the published table's row of totals")
    datasets: Names = Field(description="the tasks that the totals are said to be over")
    mean_of: Names = Field(description="the other reading: as many tasks as above, each the mean of these")


class DatasetsTable(Model):
    """What the files in params/datasets say of every dataset; no dataset needs to be here."""

    kind: Literal["datasets"]
    title: str
    caption: str


Table = (
    AccuracyTable
    | ComparisonsTable
    | CostTable
    | DatasetsTable
    | PublishedTable
    | SelectionTable
    | SizeTable
    | TrainableTable
    | VersusTable
)


def is_of_every_suite(table: Table) -> bool:
    """Whether a table is the same in every suite: it stands below ``results/tables``, in no suite's list."""
    of_all = isinstance(table, SizeTable) and table.datasets == "present"
    return of_all or isinstance(table, DatasetsTable | SelectionTable | TrainableTable)


class CostFigure(Model):
    """Accuracy against the cost of one image's inference."""

    kind: Literal["accuracy_vs_cost"]
    title: str
    caption: str
    image_size: ImageSize
    metric: Metric = "top1_pct"
    parameters: Literal["area", "log_area"] = Field(
        "area",
        description="a marker's area is in proportion to the trainable parameters, or to their logarithm",
    )


class CriticalDifferenceFigure(Model):
    """Methods by their average rank over a suite's datasets, with Nemenyi's critical difference."""

    kind: Literal["critical_difference"]
    title: str
    caption: str
    image_size: ImageSize
    metric: Metric = "top1_pct"


class ConfusionFigure(Model):
    """Confusion matrices of a suite's runs, summed over seeds, and their counts as CSV."""

    kind: Literal["confusion_matrix"]
    title: str
    caption: str
    image_size: ImageSize
    datasets: list[str] | None = Field(None, min_length=1, description="some of the suite's; null: all")
    methods: list[str] | None = Field(None, min_length=1, description="some of the suite's; null: all")
    max_classes: int = Field(
        30, ge=2, le=60, description="of datasets with more classes the most confused pairs are listed"
    )
    max_numbers: int = Field(12, ge=0, le=60, description="up to so many classes, shares stand in the cells")
    pairs: int = Field(12, ge=1, le=40, description="how many pairs are listed")


class ThroughputFigure(Model):
    """Accuracy and throughput side by side, as bars, with the baseline's as lines."""

    kind: Literal["accuracy_vs_throughput"]
    title: str
    caption: str
    image_size: ImageSize
    metric: Metric = "top1_pct"
    baseline_class: str = Field("vit", description="method class whose first variant the lines stand for")


class ExamplesFigure(Model):
    """Test images of a suite's first dataset, and what each method takes them for (first seed)."""

    kind: Literal["examples"]
    title: str
    caption: str
    image_size: ImageSize
    images: int = Field(15, ge=1, le=60, description="how many, at equal distances in the test list")


class LayerFigure(Model):
    """How alike the layers of methods are, a map a method: of a suite's first dataset and first seed."""

    kind: Literal["layer_similarity"]
    title: str
    caption: str
    image_size: ImageSize
    of: Literal["attention", "features"] = Field(
        description="attention: the maps of all heads; features: what the second norm of each block puts out"
    )
    methods: Names | None = Field(
        None, description="variants of the suite, in this order; null: all that run on a ViT"
    )


class PublishedFigure(Model):
    """Published accuracy, averaged over the table's datasets, against the cost as counted by us."""

    kind: Literal["published_vs_cost"]
    title: str
    caption: str
    published: str = Field(description="id in params/published, a table of accuracies")
    image_size: ImageSize = Field(description="columns of this image size are shown")


Figure = (
    ConfusionFigure
    | CostFigure
    | CriticalDifferenceFigure
    | ExamplesFigure
    | LayerFigure
    | PublishedFigure
    | ThroughputFigure
)


def figure_suffixes(figure: Figure) -> tuple[str, ...]:
    """The files of a figure; some have their numbers as CSV."""
    return ("pdf", "png", "csv") if isinstance(figure, ConfusionFigure) else ("pdf", "png")


def quoted_by(shown: Model) -> list[str]:
    """Ids in params/published of what a table or figure shows."""
    named = getattr(shown, "published", None)
    return [] if named is None else [named] if isinstance(named, str) else list(named)


class Settings(Model):
    """``params/config.yaml``: what depends on the machine and never on the numbers."""

    default_suite: str = "quick"
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    gpus_per_training: int = Field(1, ge=1, description="GPUs that share the batches of one training run")
    jobs_per_gpu: int = Field(1, ge=1, description="jobs of this user that may use a GPU at once")
    device_timeout_s: float = Field(
        600.0, gt=0, description="how long a device of a run waits for the others before the run ends"
    )
    mirror: str | None = Field(None, description="folder looked in before the network")
    loader_workers: int | Literal["auto"] = Field(
        "auto", description="processes that decode images; any number gives the same pictures"
    )
    image_cache_gib: float = Field(
        1.0, ge=0, description="decoded images are kept in memory up to this size, per training job"
    )
    checkpoint_interval_s: float = Field(60.0, ge=0, description="resume state is saved this often")
    network_timeout_s: float = Field(30.0, gt=0)
    network_retry_wait_s: float = Field(
        2.0, ge=0, description="before a download is tried again; doubles from try to try"
    )
    keep_sweep_weights: bool = Field(False, description="keep the models of learning-rate searches")
