"""The points of the figure of accuracy against cost: one a method, averaged over a suite's datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.evaluation.metrics import Metric
from fgvc.evaluation.pareto import Placed, Tradeoff, accuracy_interval, exactly, front, standings
from fgvc.evaluation.statistics import spread
from fgvc.provenance.digests import seed_from
from fgvc.provenance.files import read_json
from fgvc.reporting.cells import CellTable, average, gather, require_runs, seed_averaged_scores
from fgvc.reporting.grid_table import Heading, method_headings


@dataclass(frozen=True)
class Point:
    """A method: its cost for one image, and its accuracy.

    ``accuracy_pct`` is the mean over datasets of the means over seeds, ``std_pct`` the standard deviation
    over seeds of the average over datasets (None for one seed). ``macs_g`` and ``trainable_params_m`` are
    means over the datasets, which differ a little by the number of classes.
    """

    method: str
    title: str
    subtitle: str
    group: str
    macs_g: float
    trainable_params_m: float
    accuracy_pct: float
    std_pct: float | None


@dataclass(frozen=True)
class CostPoints:
    """What the figure shows, and the headings of the methods that it cannot show, each with the reason.

    ``standings``: by method, whether another dominates it given the 95 % intervals of the accuracies (over
    seeds, and over images where predictions are here); empty where one seed and no predictions give none.
    """

    points: tuple[Point, ...]
    left_out: tuple[tuple[str, str], ...]
    cells: CellTable
    standings: dict[str, Placed] = field(default_factory=dict)

    @property
    def is_partial(self) -> bool:
        """Whether more runs or cost records would change the figure. A diverged run would not."""
        return bool(self.cells.unfinished) or any(why == "no cost record" for _, why in self.left_out)


def cost_points(
    project: Project,
    suite_name: str,
    size: int,
    metric: Metric,
    target: str,
    *,
    allow_missing: bool = False,
) -> CostPoints:
    """The points of a suite at one image size.

    Raises FgvcError naming missing runs or cost records and the command that makes ``target``, unless
    ``allow_missing``; and when no method is left to show.
    """
    cells = gather(project, suite_name, size, metric, decimals=2)
    if not allow_missing:
        require_runs(project, cells, target)
    points: list[Point] = []
    left_out: list[tuple[str, str]] = []
    for heading in method_headings(project, cells.methods):
        costs = _costs(project, cells, heading.key, None if allow_missing else target)
        mean = average(cells, heading.key)
        if mean is None:
            statuses = {cells.cell(d, heading.key)["status"] for d in cells.datasets}
            why = "a run diverged" if "diverged" in statuses else "runs are missing"
            left_out.append((heading.one_line, why))
        elif costs is None:
            left_out.append((heading.one_line, "no cost record"))
        else:
            points.append(_point(cells, heading, mean[0], costs))
    if not points:
        raise nothing_to_draw(suite_name, left_out, target)
    return CostPoints(tuple(points), tuple(left_out), cells, _standings(project, cells, points))


def nothing_to_draw(suite_name: str, left_out: Sequence[tuple[str, str]], target: str) -> FgvcError:
    """The error of a figure without a single method: the first that are left out, each with the reason."""
    return FgvcError(
        f"the suite '{suite_name}' has no method to draw: "
        + "; ".join(f"{name}: {why}" for name, why in left_out[:3]),
        cure=f"snakemake --cores all -- {target}",
    )


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The methods that no other beats in both accuracy and cost, cheapest first."""
    by_method = {p.method: p for p in points}
    return [by_method[m] for m in front({p.method: (p.accuracy_pct, p.macs_g) for p in points})]


def _standings(project: Project, cells: CellTable, points: Sequence[Point]) -> dict[str, Placed]:
    known: dict[str, Tradeoff] = {}
    for point in points:
        loaded = [
            seed_averaged_scores(project, cells.runs_of(d, point.method), cells.metric)
            for d in cells.datasets
        ]
        images = [scores[1] for scores in loaded if scores is not None]
        interval = accuracy_interval(
            point.accuracy_pct,
            point.std_pct,
            len(cells.seeds),
            images if len(images) == len(loaded) else None,
            scale=100.0,
            seed=seed_from("trade-off", point.method),
        )
        if interval is None:
            return {}
        known[point.method] = Tradeoff(interval, exactly(point.macs_g))
    return standings(known)


def _point(cells: CellTable, heading: Heading, mean: float, costs: tuple[float, float]) -> Point:
    return Point(
        method=heading.key,
        title=heading.title,
        subtitle=heading.subtitle,
        group=heading.group,
        macs_g=costs[0],
        trainable_params_m=costs[1],
        accuracy_pct=mean,
        std_pct=std_over_seeds(cells, heading.key),
    )


def std_over_seeds(cells: CellTable, method: str) -> float | None:
    """Standard deviation over seeds of a method's average over datasets; None for one seed."""
    values = {(r.cell.dataset, r.seed): r.value(cells.metric) for r in cells.runs if r.cell.method == method}
    by_seed = [float(np.mean([values[d, seed] for d in cells.datasets])) for seed in cells.seeds]
    return spread(by_seed).std


def _costs(project: Project, cells: CellTable, method: str, target: str | None) -> tuple[float, float] | None:
    """GMACs and millions of trainable parameters, averaged over datasets; None when a record is missing.

    With a ``target`` a missing record raises FgvcError instead.
    """
    found: list[tuple[float, float]] = []
    for dataset in cells.datasets:
        file = project.paths.cost(method, cells.size, project.dataset(dataset).classes)
        if not file.is_file() and target is None:
            return None
        if not file.is_file():
            raise FgvcError(
                f"the cost of {method} at image size {cells.size} is not counted yet",
                file=project.paths.shown(file),
                cure=f"snakemake --cores all -- {target}",
            )
        record = read_json(file)
        found.append((float(record["macs_g"]), float(record["trainable_params_m"])))
    macs, parameters = np.mean(found, axis=0)
    return float(macs), float(parameters)
