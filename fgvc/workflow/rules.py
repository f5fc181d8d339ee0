"""Inputs and params of the rules. Parsing the Snakefile imports this and nothing heavy.

Paths are relative to the project, as Snakemake wants them. ``params`` hold what should make a rule run again:
digests of the part of ``params/`` that matters, and the stage's version.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Literal

from fgvc.config.audit_facts import audit_costs, read_claims, read_statements
from fgvc.config.grid import (
    Cell,
    RateSearch,
    cells,
    compared,
    confused,
    counted,
    datasets_of,
    exemplary,
    rate_search,
)
from fgvc.config.identity import recipe_sha256
from fgvc.config.paths import Paths
from fgvc.config.project import Project
from fgvc.config.stages import version
from fgvc.config.suite import (
    AccuracyTable,
    ComparisonsTable,
    ConfusionFigure,
    CostTable,
    CriticalDifferenceFigure,
    DatasetsTable,
    ExamplesFigure,
    LayerFigure,
    PublishedFigure,
    PublishedTable,
    SelectionTable,
    SizeTable,
    ThroughputFigure,
    TrainableTable,
    VersusTable,
    figure_suffixes,
    is_of_every_suite,
    quoted_by,
)
from fgvc.errors import FgvcError
from fgvc.provenance.digests import value_sha256
from fgvc.workflow.jobs import suite_jobs

TABLE_SUFFIXES = ("tex", "md", "csv")


def has_gpu() -> bool:
    """Whether this machine seems to have an NVIDIA GPU that jobs may use (torch is not imported)."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return shutil.which("nvidia-smi") is not None and any(Path("/dev").glob("nvidia[0-9]*"))


@dataclass(frozen=True)
class Rules:
    """Answers for the rules of one project."""

    project: Project

    @cached_property
    def paths(self) -> Paths:
        return Paths(Path())

    @cached_property
    def gpus_per_evaluation(self) -> int:
        """GPUs that an evaluation or a measurement asks for here: one, or none."""
        wanted = self.project.settings.device
        return int(wanted == "cuda" or (wanted == "auto" and has_gpu()))

    @cached_property
    def gpus_per_training(self) -> int:
        """GPUs that a training job asks for here."""
        return self.gpus_per_evaluation * self.project.settings.gpus_per_training

    @cached_property
    def devices_per_training(self) -> int:
        """Devices that share the batches of a training job: its GPUs, or one CPU."""
        return max(1, self.gpus_per_training)

    # --- data -------------------------------------------------------------------------------------
    def dataset_sha256(self, dataset: str) -> str:
        """Digest of what a dataset's YAML says about its source, layout and splits."""
        facts = self.project.dataset(dataset).model_dump(
            mode="json",
            include={"classes", "source", "layout", "published", "split", "expected"},
            exclude_defaults=True,  # so that a new optional key reruns nothing
        )
        return value_sha256([facts, version("data")])

    def split_sha256(self, dataset: str) -> str:
        return value_sha256([self.dataset_sha256(dataset), version("split")])

    def weights_sha256(self, weights: str) -> str:
        facts = self.project.weights(weights).model_dump(
            mode="json", include={"architecture", "source", "format", "mean", "std"}
        )
        return value_sha256([facts, version("weights")])

    # --- training ---------------------------------------------------------------------------------
    def training_inputs(self, dataset: str, method: str) -> list[str]:
        """Small records that a run depends on; they vouch for the images and tensors behind them."""
        weights = self.project.variant(method).weights
        records = [self.paths.split_record(dataset)]
        if weights is not None:
            records.append(self.paths.weights_record(weights))
        return [str(record) for record in records]

    @cached_property
    def recipe_sha256(self) -> Callable[[str, str], str]:
        """Digest of the recipe of a dataset and a method: taken once, asked for by each seed and rate."""
        return cache(partial(recipe_sha256, self.project))

    def threads(self, dataset: str, method: str) -> int:
        return self.project.variant(method).recipe_on(dataset).threads

    def search(self, dataset: str, method: str, size: str) -> RateSearch:
        return rate_search(self.project, Cell(dataset, method, int(size)))

    def candidates(self, dataset: str, method: str, size: str) -> list[str]:
        """Metrics of the runs among which the learning rate is chosen; none when nothing is searched."""
        search = self.search(dataset, method, size)
        rates = search.rates if search.is_searched else ()
        return [str(self.paths.sweep_dir(dataset, method, size, rate) / "metrics.json") for rate in rates]

    # --- cost -------------------------------------------------------------------------------------
    def cost_sha256(self, method: str) -> str:
        variant = self.project.variant(method)
        facts = variant.model_dump(mode="json", include={"method", "backbone", "options", "train"})
        return value_sha256([facts, version("cost")])

    def throughput_sha256(self, dataset: str, method: str) -> str:
        facts = (
            self.project.variant(method)
            .recipe_on(dataset)
            .model_dump(mode="json", include={"batch_size", "precision", "channels_last", "optimizer"})
        )
        return value_sha256([self.cost_sha256(method), facts])

    # --- tables and figures -----------------------------------------------------------------------
    def suite(self, suite: str | None) -> str:
        return suite or self.project.settings.default_suite

    def metrics_of(self, suite: str | None, size: int, datasets: list[str] | None = None) -> list[str]:
        """Metrics of every run of a suite at one size, on all of its datasets or some."""
        return self.metrics_of_cells(suite, cells(self.project, self.suite(suite), [size], datasets))

    def metrics_of_cells(
        self, suite: str | None, wanted: list[Cell], seeds: list[int] | None = None
    ) -> list[str]:
        """Metrics of the runs of some cells of a suite, of all its seeds or some."""
        return [
            str(self.paths.run_dir(c.dataset, c.method, c.size, seed) / "metrics.json")
            for c in wanted
            for seed in seeds or self.project.suite(self.suite(suite)).seeds
        ]

    def stats_of(self, suite: str | None, table: SizeTable) -> list[str]:
        of_all = table.datasets == "present"
        listed = self.project.present_datasets() if of_all else self.project.suite(self.suite(suite)).datasets
        return [str(self.paths.stats(d)) for d in listed]

    def costs_of(self, suite: str | None, size: int) -> list[str]:
        """Cost records of a suite's methods, with the class counts of its datasets."""
        name = self.suite(suite)
        return sorted(
            {
                str(self.paths.cost(c.method, c.size, self.project.dataset(c.dataset).classes))
                for c in cells(self.project, name, [size])
            }
        )

    def throughputs_of(self, suite: str | None, figure: ThroughputFigure) -> list[str]:
        """Speed records of a suite's methods, on each of its datasets."""
        found = cells(self.project, self.suite(suite), [figure.image_size])
        conditions = self.project.suite(self.suite(suite)).throughput.text
        return [str(self.paths.throughput(c.dataset, c.method, c.size, conditions)) for c in found]

    def layers_of(self, suite: str | None, figure: LayerFigure) -> list[str]:
        """Records of how alike the layers are of the methods that a figure shows."""
        shown = compared(self.project, self.suite(suite), figure)
        return [str(self.paths.layer_similarity(*ids)) for ids in shown]

    def table_inputs(self, suite: str | None, name: str) -> list[str]:
        """What a table shows. A table of all datasets fetches none: it shows what is known, or here."""
        table = self.project.table(name)
        suite = suite or self.project.suite_at_short_path("table", name)
        if isinstance(table, AccuracyTable):
            shown = datasets_of(self.project, suite, name, table)
            return self.metrics_of(suite, table.image_size, shown)
        if isinstance(table, ComparisonsTable | VersusTable):
            return self.metrics_of(suite, table.image_size)
        if isinstance(table, DatasetsTable | SelectionTable | TrainableTable):
            return []
        if isinstance(table, PublishedTable):
            return self.published_costs(table)
        if isinstance(table, CostTable):
            records = counted(self.project, self.suite(suite), table)
            return [str(self.paths.cost(*ids)) for ids in records]
        return self.stats_of(suite, table)

    def figure_inputs(self, suite: str | None, name: str) -> list[str]:
        figure = self.project.figure(name)
        suite = suite or self.project.suite_at_short_path("figure", name)
        if isinstance(figure, PublishedFigure):
            return self.published_costs(figure)
        if isinstance(figure, LayerFigure):
            return self.layers_of(suite, figure)
        if isinstance(figure, CriticalDifferenceFigure):
            return self.metrics_of(suite, figure.image_size)
        if isinstance(figure, ConfusionFigure):
            return self.metrics_of_cells(suite, confused(self.project, self.suite(suite), figure))
        if isinstance(figure, ExamplesFigure):
            shown, seed = exemplary(self.project, self.suite(suite), figure)
            return self.metrics_of_cells(suite, shown, [seed])
        if isinstance(figure, ThroughputFigure):
            return self.metrics_of(suite, figure.image_size) + self.throughputs_of(suite, figure)
        return self.metrics_of(suite, figure.image_size) + self.costs_of(suite, figure.image_size)

    @cached_property
    def figures_with_csv(self) -> str:
        """Pattern of the figures that have their numbers as CSV; it matches nothing where there are none."""
        found = []
        for name in self.project.names("figure"):
            with contextlib.suppress(FgvcError):  # a mistake in it is told when the figure is asked for
                if "csv" in figure_suffixes(self.project.figure(name)):
                    found.append(name)
        return "|".join(found) or r"\b\B"

    def published_costs(self, shown: PublishedTable | PublishedFigure) -> list[str]:
        """Cost records of the methods of a published table that are here; nothing of it is trained."""
        printed = self.project.published_accuracies(shown.published)
        return [str(self.paths.cost(*ids)) for ids in printed.costs(shown.image_size)]

    # --- audits -----------------------------------------------------------------------------------
    def audit_published_inputs(self) -> list[str]:
        """Cost records alone: nothing is fetched, nothing is trained."""
        return [str(self.paths.cost(*ids)) for ids in audit_costs(self.project)]

    def audit_published_sha256(self) -> str:
        """Digest of all that the audit reads of ``params/``."""
        project = self.project
        read: list[Any] = [
            [project.published(name).model_dump(mode="json") for name in project.names("published")],
            [project.dataset(name).model_dump(mode="json") for name in project.names("dataset")],
            read_claims(project).model_dump(mode="json"),
            read_statements(project).model_dump(mode="json"),
            version("findings"),
        ]
        return value_sha256(read)

    def audit_suite_inputs(self, suite: str) -> list[str]:
        """Runs, costs and tables of a suite; tables of the default suite stand at the short path."""
        listed = self.project.suite(suite)
        folder = None if suite == self.project.settings.default_suite else suite
        runs = [metrics for size in listed.image_sizes for metrics in self.metrics_of(suite, size)]
        runs += [cost for size in listed.image_sizes for cost in self.costs_of(suite, size)]
        return runs + [f"{self.paths.table(folder, name)}.csv" for name in listed.tables]

    def audit_suite_sha256(self, suite: str) -> str:
        listed = self.project.suite(suite)
        return value_sha256([listed.model_dump(mode="json"), version("findings")])

    def tracked_inputs(self, suite: str | None) -> list[str]:
        """Every record of a suite, of its data, runs and costs, and its tables and figures."""
        jobs = suite_jobs(self.project, self.suite(suite), short=suite is None)
        return [str(job.record.relative_to(self.project.root)) for job in jobs]

    def shown_sha256(self, suite: str | None, kind: Literal["table", "figure"], name: str) -> str:
        """Digest of all that a table or figure shows of ``params/``: titles, groups, captions, seeds."""
        project = self.project
        config = project.table(name) if kind == "table" else project.figure(name)
        printed = [project.published(name).model_dump(mode="json") for name in quoted_by(config)]
        if isinstance(config, PublishedTable | PublishedFigure):  # the same in every suite
            return value_sha256([config.model_dump(), printed, version("table")])
        if isinstance(config, SelectionTable):  # it counts for itself
            return value_sha256([config.model_dump(), printed, version("table"), version("cost")])
        if isinstance(config, TrainableTable):  # so does this one
            named = self.project.published(config.published).variants()
            tasks = [*config.datasets, *config.mean_of]
            return value_sha256([config.model_dump(), printed, self._models(named, tasks), version("table")])
        if isinstance(config, DatasetsTable | SizeTable) and is_of_every_suite(config):
            return value_sha256([config.model_dump(), self._all_datasets(config), version("table")])
        listed = project.suite(suite or project.suite_at_short_path(kind, name))
        shown: list[Any] = [
            config.model_dump(),
            printed,
            listed.model_dump(mode="json", exclude={"title", "description", "tables", "figures"}),
            [project.dataset(d).model_dump(mode="json", include=_SHOWN_OF_DATASET) for d in listed.datasets],
            [project.variant(m).model_dump(mode="json", include=_SHOWN_OF_VARIANT) for m in listed.methods],
            [self._pretraining(m) for m in listed.methods],
            version("table"),
        ]
        if isinstance(config, AccuracyTable) and config.trainable_total:
            shown.append(self._models(listed.methods, []))
        return value_sha256(shown)

    def about(self, kind: Literal["table", "figure"], name: str) -> dict[str, str]:
        """What the report says of a table or figure: its own ``caption``, and its ``kind``."""
        config = self.project.table(name) if kind == "table" else self.project.figure(name)
        return {"caption": config.caption, "kind": config.kind}

    def _models(self, methods: Sequence[str], datasets: Sequence[str]) -> list[Any]:
        """What parameters are counted from: the models, and the classes of their heads."""
        classes = [self.project.dataset(dataset).classes for dataset in datasets]
        return [[self.cost_sha256(method) for method in methods], classes]

    def _pretraining(self, method: str) -> list[str]:
        weights = self.project.variant(method).weights
        return self.project.weights(weights).pretraining if weights else []

    def _all_datasets(self, table: DatasetsTable | SizeTable) -> list[Any]:
        """What a table that is the same in every suite shows of params/datasets."""
        project = self.project
        if isinstance(table, DatasetsTable):
            return [[d, project.dataset(d).model_dump(mode="json")] for d in project.names("dataset")]
        return [[d, project.dataset(d).title] for d in project.present_datasets()]

    def targets(self, suite: str | None) -> list[str]:
        """Every table and figure of a suite (None: the default suite, under its short path)."""
        listed = self.project.suite(self.suite(suite))
        tables = [f"{self.paths.table(suite, t)}.{s}" for t in listed.tables for s in TABLE_SUFFIXES]
        figures = [
            f"{self.paths.figure(suite, name)}.{suffix}"
            for name in listed.figures
            for suffix in figure_suffixes(self.project.figure(name))
        ]
        return tables + figures


_SHOWN_OF_DATASET = {"title", "classes", "split", "pretraining_overlap", "unverified"}
_SHOWN_OF_VARIANT = {"title", "group", "backbone_title", "weights"}
