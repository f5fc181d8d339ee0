"""The jobs of a suite, as the rules would make them, with what each needs and makes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fgvc.config.grid import Cell, cells, compared, counted, rate_search
from fgvc.config.paths import rate_text
from fgvc.config.project import Project
from fgvc.config.suite import CostTable, LayerFigure, PublishedFigure, PublishedTable, ThroughputFigure

JobKind = Literal[
    "fetch",
    "weights",
    "split",
    "stats",
    "audit_data",
    "search",
    "select_lr",
    "train",
    "evaluate",
    "cost",
    "throughput",
    "cka",
    "table",
    "figure",
]
TRAINING: tuple[JobKind, ...] = ("search", "train")


@dataclass(frozen=True)
class Job:
    """One job: its rule, the ids it is about, and the file that tells whether it is done."""

    kind: JobKind
    label: str
    record: Path
    dataset: str | None = None
    method: str | None = None
    size: int | None = None

    @property
    def is_done(self) -> bool:
        """Whether its record is there (Snakemake also asks whether it is up to date)."""
        return self.record.is_file()


def suite_jobs(project: Project, suite_name: str, short: bool) -> list[Job]:
    """Every job of a suite, each once, in the order of the workflow.

    Args:
        short: the suite's tables and figures go to the short path (default suite).
    """
    suite = project.suite(suite_name)
    jobs = [
        *_data_jobs(project, suite_name),
        *_run_jobs(project, suite_name),
        *_cost_jobs(project, suite_name),
        *_throughput_jobs(project, suite_name),
        *_layer_jobs(project, suite_name),
    ]
    folder = None if short else suite_name
    for name in suite.tables:
        jobs.append(Job("table", name, project.paths.table(folder, name).with_suffix(".csv")))
    for name in suite.figures:
        jobs.append(Job("figure", name, project.paths.figure(folder, name).with_suffix(".png")))
    return list(dict.fromkeys(jobs))


def _data_jobs(project: Project, suite_name: str) -> Iterator[Job]:
    suite, paths = project.suite(suite_name), project.paths
    for dataset in suite.datasets:
        yield Job("fetch", dataset, paths.data_record(dataset), dataset)
    for method in suite.methods:
        weights = project.variant(method).weights
        if weights:
            yield Job("weights", weights, paths.weights_record(weights))
    for dataset in suite.datasets:
        yield Job("split", dataset, paths.split_record(dataset), dataset)
        yield Job("stats", dataset, paths.stats(dataset), dataset)


def _run_jobs(project: Project, suite_name: str) -> Iterator[Job]:
    for cell in cells(project, suite_name):
        yield from _cell_jobs(project, cell, project.suite(suite_name).seeds)


def _cell_jobs(project: Project, cell: Cell, seeds: list[int]) -> Iterator[Job]:
    paths, ids = project.paths, (cell.dataset, cell.method, cell.size)
    name = f"{cell.dataset}/{cell.method}/{cell.size}"
    search = rate_search(project, cell)
    for rate in search.rates if search.is_searched else ():
        yield Job(
            "search", f"{name} lr {rate_text(rate)}", paths.sweep_dir(*ids, rate) / "metrics.json", *ids
        )
    yield Job("select_lr", name, paths.lr_choice(*ids), *ids)
    for seed in seeds:
        yield Job("train", f"{name} seed {seed}", paths.run_dir(*ids, seed) / "run.json", *ids)
        yield Job("evaluate", f"{name} seed {seed}", paths.run_dir(*ids, seed) / "metrics.json", *ids)


def _cost_jobs(project: Project, suite_name: str) -> Iterator[Job]:
    """Costs of the suite's own methods, and of the published ones that its tables and figures recount."""
    suite = project.suite(suite_name)
    wanted = [(c.method, c.size, project.dataset(c.dataset).classes) for c in cells(project, suite_name)]
    for shown in (*map(project.table, suite.tables), *map(project.figure, suite.figures)):
        if isinstance(shown, PublishedTable | PublishedFigure):
            wanted += project.published_accuracies(shown.published).costs(shown.image_size)
        elif isinstance(shown, CostTable):
            wanted += counted(project, suite_name, shown)
    for method, size, classes in wanted:
        record = project.paths.cost(method, size, classes)
        yield Job("cost", f"{method}/{size}/{classes}", record, None, method, size)


def _throughput_jobs(project: Project, suite_name: str) -> Iterator[Job]:
    for figure in map(project.figure, project.suite(suite_name).figures):
        if isinstance(figure, ThroughputFigure):
            conditions = project.suite(suite_name).throughput.text
            for cell in cells(project, suite_name, [figure.image_size]):
                ids = (cell.dataset, cell.method, cell.size)
                label = f"{cell.dataset}/{cell.method}/{cell.size} {conditions}"
                yield Job("throughput", label, project.paths.throughput(*ids, conditions), *ids)


def _layer_jobs(project: Project, suite_name: str) -> Iterator[Job]:
    for figure in map(project.figure, project.suite(suite_name).figures):
        if isinstance(figure, LayerFigure):
            for dataset, method, size, seed in compared(project, suite_name, figure):
                label = f"{dataset}/{method}/{size} seed {seed}"
                record = project.paths.layer_similarity(dataset, method, size, seed)
                yield Job("cka", label, record, dataset, method, size)
