"""The grid of a suite: which runs it needs, and which learning rates are searched for each."""

from __future__ import annotations

from dataclasses import dataclass

from fgvc.config.project import Project
from fgvc.config.suite import AccuracyTable, ConfusionFigure, CostTable, ExamplesFigure, LayerFigure
from fgvc.errors import FgvcError, available


@dataclass(frozen=True, order=True)
class Cell:
    """One cell of an accuracy table: a dataset, a method variant and an image size."""

    dataset: str
    method: str
    size: int


@dataclass(frozen=True)
class RateSearch:
    """The learning rates that are compared on val for one cell, and the seed they are compared with.

    ``suite`` is the suite that asks for it, or None for a cell of no suite: then the recipe's own learning
    rate is the only candidate and nothing is searched.
    """

    rates: tuple[float, ...]
    seed: int
    suite: str | None

    @property
    def is_searched(self) -> bool:
        return len(self.rates) > 1


def cells(
    project: Project, suite_name: str, sizes: list[int] | None = None, datasets: list[str] | None = None
) -> list[Cell]:
    """The cells of a suite, dataset by dataset, optionally of some image sizes or datasets of it only."""
    suite = project.suite(suite_name)
    return [
        Cell(d, m, s)
        for d in (suite.datasets if datasets is None else datasets)
        for m in suite.methods
        for s in suite.image_sizes
        if sizes is None or s in sizes
    ]


def datasets_of(project: Project, suite_name: str, table_name: str, table: AccuracyTable) -> list[str]:
    """The datasets of a suite that a table of accuracies shows, in the order of the table.

    Raises FgvcError where the table shows a dataset that the suite lacks.
    """
    listed = project.suite(suite_name).datasets
    if table.datasets is None:
        return listed
    foreign = [d for d in table.datasets if d not in listed]
    if foreign:
        raise FgvcError(
            f"the table '{table_name}' shows '{foreign[0]}', which is no dataset of the suite '{suite_name}'",
            file=project.paths.shown(project.file("table", table_name)),
            key="datasets",
            cure=f"datasets of the suite: {', '.join(listed)}",
        )
    return table.datasets


def counted(project: Project, suite_name: str, table: CostTable) -> list[tuple[str, int, int]]:
    """Variant, size and classes of the cost records that a table of costs shows, size by size."""
    suite = project.suite(suite_name)
    classes = table.classes or project.dataset(suite.datasets[0]).classes
    return [(method, size, classes) for size in suite.image_sizes for method in suite.methods]


def require_size(project: Project, suite_name: str, size: int) -> None:
    """Raise FgvcError where a suite has no runs at an image size."""
    sizes = project.suite(suite_name).image_sizes
    if size not in sizes:
        raise FgvcError(
            f"the suite '{suite_name}' has no runs at image size {size}",
            file=project.paths.shown(project.file("suite", suite_name)),
            key="image_sizes",
            cure="its sizes: " + ", ".join(map(str, sizes)),
        )


def exemplary(project: Project, suite_name: str, figure: ExamplesFigure) -> tuple[list[Cell], int]:
    """The cells and the seed of the runs whose predictions a figure of examples shows.

    Raises FgvcError where the suite has no runs of its size.
    """
    suite = project.suite(suite_name)
    require_size(project, suite_name, figure.image_size)
    cells_ = [Cell(suite.datasets[0], method, figure.image_size) for method in suite.methods]
    return cells_, suite.seeds[0]


def compared(project: Project, suite_name: str, figure: LayerFigure) -> list[tuple[str, str, int, int]]:
    """Dataset, variant, size and seed of the runs whose layers a figure shows, in the order of its panels.

    Raises FgvcError when the suite has no such size, lacks a variant that the figure names, or has none with
    a ViT.
    """
    suite, size = project.suite(suite_name), figure.image_size
    shown = figure.methods or [m for m in suite.methods if project.variant(m).has_vit]

    def refusal(problem: str, key: str, cure: str) -> FgvcError:
        file = project.paths.shown(project.file("suite", suite_name))
        return FgvcError(f"the suite '{suite_name}' {problem}", file=file, key=key, cure=cure)

    require_size(project, suite_name, size)
    foreign = [m for m in shown if m not in suite.methods]
    if foreign:
        cure = f"list it there, or name others in the figure '{figure.title}'"
        raise refusal(f"lacks '{foreign[0]}', whose layers a figure is to show", "methods", cure)
    if not shown:
        cure = f"list one, or take the figure '{figure.title}' out of the suite"
        raise refusal("has no method on a ViT, whose layers a figure could show", "methods", cure)
    return [(suite.datasets[0], method, size, suite.seeds[0]) for method in shown]


def confused(project: Project, suite_name: str, figure: ConfusionFigure) -> list[Cell]:
    """The cells that a figure of confusion matrices shows, dataset by dataset.

    Raises FgvcError where the suite lacks what the figure names, or has no runs of its size.
    """
    suite = project.suite(suite_name)
    shown: dict[str, list[str]] = {}
    for key, asked, has in (
        ("dataset", figure.datasets, suite.datasets),
        ("method", figure.methods, suite.methods),
    ):
        shown[key] = has if asked is None else asked
        for name in shown[key]:
            if name not in has:
                raise FgvcError(
                    f"the figure '{figure.title}' shows the {key} '{name}', "
                    f"which the suite '{suite_name}' lacks",
                    file=project.paths.shown(project.file("suite", suite_name)),
                    key=f"{key}s",
                    cure=available(key, has),
                )
    require_size(project, suite_name, figure.image_size)
    return [Cell(d, m, figure.image_size) for d in shown["dataset"] for m in shown["method"]]


def rate_search(project: Project, cell: Cell) -> RateSearch:
    """How the learning rate of ``cell`` is found.

    The choice is stored under the cell, not under a suite; so two suites that share a cell must agree, and
    FgvcError is raised when they do not.
    """
    return rate_searches(project).get(cell) or RateSearch(
        (project.variant(cell.method).recipe_on(cell.dataset).learning_rate,), 0, None
    )


def rate_searches(project: Project) -> dict[Cell, RateSearch]:
    """The search of every cell of every suite (see `rate_search`)."""
    cached: dict[Cell, RateSearch] | None = project._cache.get(("grid", "searches"))
    if cached is not None:
        return cached
    found: dict[Cell, RateSearch] = {}
    for name, suite in project.suites():
        for cell in cells(project, name):
            search = RateSearch(suite.rates_of(cell.method), suite.seeds[0], name)
            earlier = found.setdefault(cell, search)
            if (earlier.rates, earlier.seed) != (search.rates, search.seed):
                raise FgvcError(
                    f"suites '{earlier.suite}' and '{name}' search different learning rates (or with "
                    f"different first seeds) for {cell.dataset}/{cell.method}/{cell.size}",
                    file=project.paths.shown(project.file("suite", name)),
                    key="learning_rates",
                    cure="give both the same list and first seed, or make a method variant of your own:\n"
                    "one path never means two experiments",
                )
    project._cache["grid", "searches"] = found
    return found
