"""The project: a folder with ``params/``, its files by id, and what they mean together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from fgvc.config.base import Model, ModelT, load_model, validate
from fgvc.config.dataset import Dataset
from fgvc.config.method import Variant, Weights
from fgvc.config.paths import Paths
from fgvc.config.published import PublishedAccuracies, PublishedCosts
from fgvc.config.published_list import Published, PublishedRecords
from fgvc.config.recipe import Recipe
from fgvc.config.suite import (
    Figure,
    LayerFigure,
    Settings,
    Suite,
    Table,
    TrainableTable,
    VersusTable,
    is_of_every_suite,
    quoted_by,
)
from fgvc.config.yaml_source import KeyPath, YamlSource, read_yaml
from fgvc.errors import FgvcError, UnknownNameError

Kind = Literal["dataset", "method", "weights", "recipe", "suite", "table", "figure", "published"]

FOLDERS: dict[Kind, str] = {
    "dataset": "datasets",
    "method": "methods",
    "weights": "weights",
    "recipe": "recipes",
    "suite": "suites",
    "table": "tables",
    "figure": "figures",
    "published": "published",
}
#: Kinds whose folder's name is not theirs with an s.
_UNCOUNTED = ("weights", "published")


@dataclass(frozen=True)
class Project:
    """A checkout, or any folder that holds ``params/``. Nothing is written through this class."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """The project of ``$FGVC_PROJECT``, or the nearest folder upwards with ``params/config.yaml``."""
        named = os.environ.get("FGVC_PROJECT")
        first = Path(named) if named else (start or Path.cwd())
        for folder in [first.absolute(), *first.absolute().parents]:
            if (folder / "params" / "config.yaml").is_file():
                return cls(folder)
        raise FgvcError(
            f"no project here: neither {first} nor a folder above it holds params/config.yaml",
            cure="change into the checkout of fgvc-bench, or set FGVC_PROJECT to it",
        )

    @cached_property
    def paths(self) -> Paths:
        return Paths(self.root)

    @cached_property
    def settings(self) -> Settings:
        path = self.root / "params" / "config.yaml"
        return load_model(Settings, path, self.paths.shown(path))

    # --- files by id ------------------------------------------------------------------------------
    def folder(self, kind: Kind) -> Path:
        return self.root / "params" / FOLDERS[kind]

    def names(self, kind: Kind) -> list[str]:
        """All ids of one kind, sorted."""
        return sorted(p.stem for p in self.folder(kind).glob("*.yaml"))

    def file(self, kind: Kind, name: str) -> Path:
        """The file of one id. Raises UnknownNameError with the nearest id."""
        path = self.folder(kind) / f"{name}.yaml"
        if not path.is_file() or Path(name).name != name:
            plural = kind if kind in _UNCOUNTED else f"{kind}s"
            title = "published table" if kind == "published" else kind
            raise UnknownNameError(title, name, self.names(kind), listing=f"fgvc list {plural}")
        return path

    def _load(self, kind: Kind, name: str, model: type[ModelT]) -> ModelT:
        path = self.file(kind, name)
        return load_model(model, path, self.paths.shown(path))

    # --- typed access -----------------------------------------------------------------------------
    @cached_property
    def _cache(self) -> dict[tuple[str, str], Any]:
        return {}

    def _cached(self, kind: Kind, name: str, model: type[ModelT]) -> ModelT:
        if (kind, name) not in self._cache:
            self._cache[kind, name] = self._load(kind, name, model)
        found: ModelT = self._cache[kind, name]
        return found

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Names that others use, to our dataset ids."""
        found: dict[str, str] = {}
        for name in self.names("dataset"):
            for alias in self.dataset(name).aliases:
                if alias in found or (self.folder("dataset") / f"{alias}.yaml").exists():
                    raise FgvcError(
                        f"the alias '{alias}' is taken already",
                        file=self.paths.shown(self.file("dataset", name)),
                        key="aliases",
                    )
                found[alias] = name
        return found

    def canonical_dataset(self, name: str) -> str:
        """The id behind a dataset name or alias. Raises UnknownNameError."""
        if (self.folder("dataset") / f"{name}.yaml").is_file():
            return name
        if name in self.aliases:
            return self.aliases[name]
        known = self.names("dataset") + list(self.aliases)
        raise UnknownNameError("dataset", name, known, listing="fgvc list datasets")

    def dataset(self, name: str) -> Dataset:
        return self._cached("dataset", name, Dataset)

    def present_datasets(self) -> list[str]:
        """Ids of the datasets that are fetched here, sorted."""
        return [name for name in self.names("dataset") if self.paths.data_record(name).is_file()]

    def weights(self, name: str) -> Weights:
        return self._cached("weights", name, Weights)

    def recipe(self, name: str) -> Recipe:
        return self._cached("recipe", name, Recipe)

    def variant(self, name: str) -> Variant:
        """A method variant, its recipe merged with the base it names."""
        cached: Variant | None = self._cache.get(("method", name))
        if cached is not None:
            return cached
        path = self.file("method", name)
        shown = self.paths.shown(path)
        source = read_yaml(path, shown)
        recipe = source.data.get("recipe")
        if isinstance(recipe, dict) and "base" in recipe:
            own = {key: value for key, value in recipe.items() if key != "base"}
            try:
                base = self.recipe(str(recipe["base"]))
            except UnknownNameError as error:
                error.file, error.line = shown, source.line_of(("recipe", "base"))
                raise
            source.data["recipe"] = base.overridden(own)
        variant = validate(Variant, source, shown)
        if variant.weights is not None:
            try:
                self.file("weights", variant.weights)
            except UnknownNameError as error:
                error.file, error.line, error.key = shown, source.line_of(("weights",)), "weights"
                raise
        for dataset in variant.dataset_options:
            self._named("dataset", dataset, "method", name, ("dataset_options", dataset))
        for dataset, own in variant.dataset_recipe.items():
            at = ("dataset_recipe", dataset)
            self._named("dataset", dataset, "method", name, at)
            merged = variant.recipe.overridden(own)
            try:
                validate(Recipe, source.part(at, merged), shown)
            except FgvcError as error:
                error.key = ".".join((*at, error.key) if error.key else at)
                raise
        self._cache["method", name] = variant
        return variant

    def table(self, name: str) -> Table:
        """A table of any kind; the datasets that it names exist, and what it shows of params/published."""
        table: Table = self._tagged("table", name, *get_args(Table))
        if isinstance(table, VersusTable):
            self._only_references(name, table)
        if isinstance(table, TrainableTable):
            self._has_totals(name, table)
        for key in ("datasets", "mean_of"):
            named = getattr(table, key, None)
            for position, dataset in enumerate(named if isinstance(named, list) else []):
                self._named("dataset", dataset, "table", name, (key, position))
        return table

    def _only_references(self, name: str, table: VersusTable) -> None:
        """What was only remembered is never set beside our numbers."""
        for position, quoted in enumerate(table.published):
            found = self.published(quoted)
            if isinstance(found, PublishedRecords) and not found.has_references:
                path = self.file("table", name)
                raise FgvcError(
                    f"the published table '{quoted}' holds nothing but numbers from memory (evidence: none)",
                    file=self.paths.shown(path),
                    line=read_yaml(path).line_of(("published", position)),
                    key="published",
                    cure="remove it here: such numbers are listed, and never set beside ours",
                )

    def _has_totals(self, name: str, table: TrainableTable) -> None:
        """See that the row that a table of totals shows is there, and one of trainable parameters."""
        path = self.file("table", name)
        shown, line = self.paths.shown(path), read_yaml(path).line_of(("row",))
        rows = self.published_list(table.published).rows
        if table.row not in rows:
            raise UnknownNameError("published row", table.row, rows, file=shown, line=line, key="row")
        if rows[table.row].metric != "trainable_params_m":
            raise FgvcError(
                f"the row '{table.row}' of '{table.published}' holds no trainable parameters",
                file=shown,
                line=line,
                key="row",
                cure="name a row whose metric is trainable_params_m",
            )

    def figure(self, name: str) -> Figure:
        """A figure of any kind; the variants and what of params/published it shows exist."""
        figure: Figure = self._tagged("figure", name, *get_args(Figure))
        if isinstance(figure, LayerFigure):
            for position, method in enumerate(figure.methods or ()):
                self._named("method", method, "figure", name, ("methods", position))
        return figure

    def published(self, name: str) -> Published:
        """A published table. Raises UnknownNameError for a dataset or variant of ours that does not exist."""
        found: Published = self._tagged(
            "published", name, PublishedAccuracies, PublishedCosts, PublishedRecords
        )
        if not isinstance(found, PublishedCosts):
            for row, printed in found.rows.items():
                if printed.dataset is not None:
                    self._named("dataset", printed.dataset, "published", name, ("rows", row, "dataset"))
            for key, column in found.columns.items():
                for field in ("variant", "cost_variant"):
                    if (variant := getattr(column, field)) is not None:
                        self._named("method", variant, "published", name, ("columns", key, field))
        return found

    def published_accuracies(self, name: str) -> PublishedAccuracies:
        """A published table of accuracies. Raises FgvcError when it is one of another kind."""
        found = self.published(name)
        if not isinstance(found, PublishedAccuracies):
            raise FgvcError(
                f"the published table '{name}' holds no accuracies (kind: {found.kind})",
                file=self.paths.shown(self.file("published", name)),
                key="kind",
            )
        return found

    def published_list(self, name: str) -> PublishedRecords:
        """A published list of any numbers. Raises FgvcError when it is a file of another kind."""
        found = self.published(name)
        if not isinstance(found, PublishedRecords):
            raise FgvcError(
                f"the published table '{name}' is no list of numbers (kind: {found.kind})",
                file=self.paths.shown(self.file("published", name)),
                key="kind",
            )
        return found

    def published_selection(self, name: str) -> PublishedCosts:
        """A published table of selection costs. Raises FgvcError when it is one of another kind."""
        found = self.published(name)
        if not isinstance(found, PublishedCosts):
            raise FgvcError(
                f"the published table '{name}' holds no costs of choosing regions (kind: {found.kind})",
                file=self.paths.shown(self.file("published", name)),
                key="kind",
            )
        return found

    def _named(self, kind: Kind, name: str, of_kind: Kind, of_name: str, key_path: KeyPath) -> None:
        """See that ``name``, which a file mentions, exists; else the error says where it is mentioned."""
        try:
            self.file(kind, name)
        except UnknownNameError as error:
            path = self.file(of_kind, of_name)
            error.file, error.key = self.paths.shown(path), ".".join(map(str, key_path))
            error.line = read_yaml(path, error.file).line_of(key_path)
            raise

    def _tagged(self, kind: Kind, name: str, *models: type[Model]) -> Any:
        """A file whose key ``kind`` says which of several models it is."""
        if (kind, name) not in self._cache:
            path = self.file(kind, name)
            shown = self.paths.shown(path)
            source = read_yaml(path, shown)
            by_tag = {get_args(m.model_fields["kind"].annotation)[0]: m for m in models}
            tag = source.data.get("kind")
            if tag not in by_tag:
                raise UnknownNameError(
                    f"kind of {kind}",
                    str(tag),
                    by_tag,
                    file=shown,
                    line=source.line_of(("kind",)),
                    key="kind",
                )
            found = validate(by_tag[tag], source, shown)
            for position, quoted in enumerate(quoted_by(found)):
                at = ("published",) if isinstance(source.data["published"], str) else ("published", position)
                self._named("published", quoted, kind, name, at)
            self._cache[kind, name] = found
        return self._cache[kind, name]

    def suite(self, name: str) -> Suite:
        """A suite whose every name exists. Raises UnknownNameError with file and line otherwise."""
        cached: Suite | None = self._cache.get(("suite", name))
        if cached is not None:
            return cached
        path = self._suite_file(name)
        shown = self.paths.shown(path)
        source = read_yaml(path, shown)
        suite = validate(Suite, source, shown)
        lists: tuple[tuple[Kind, str, list[str]], ...] = (
            ("dataset", "datasets", suite.datasets),
            ("method", "methods", suite.methods),
            ("table", "tables", suite.tables),
            ("figure", "figures", suite.figures),
        )
        for kind, key, listed in lists:
            for position, item in enumerate(listed):
                try:
                    self.canonical_dataset(item) if kind == "dataset" else self.file(kind, item)
                except UnknownNameError as error:
                    error.file, error.key = shown, key
                    error.line = source.line_of((key, position))
                    raise
        self._only_own_tables(suite, shown, source)
        canonical = [self.canonical_dataset(d) for d in suite.datasets]
        suite = suite.model_copy(update={"datasets": canonical})
        self._cache["suite", name] = suite
        return suite

    def _only_own_tables(self, suite: Suite, shown: str, source: YamlSource) -> None:
        """A table that is the same in every suite stands at one path only."""
        for position, name in enumerate(suite.tables):
            if is_of_every_suite(self.table(name)):
                raise FgvcError(
                    f"the table '{name}' is the same in every suite, and so belongs to none",
                    file=shown,
                    line=source.line_of(("tables", position)),
                    key="tables",
                    cure=f"remove it here, and ask for results/tables/{name}.tex",
                )

    def _suite_file(self, name: str) -> Path:
        """As `file`; when it is the default suite that does not exist, the error says where it is named."""
        try:
            return self.file("suite", name)
        except UnknownNameError as error:
            if name == self.settings.default_suite:
                path = self.root / "params" / "config.yaml"
                error.file, error.key = self.paths.shown(path), "default_suite"
                error.line = read_yaml(path, error.file).lines.get(("default_suite",))
            raise

    def suites(self) -> Iterator[tuple[str, Suite]]:
        for name in self.names("suite"):
            yield name, self.suite(name)

    def suites_with(self, kind: Literal["table", "figure"], name: str) -> list[str]:
        """The suites that list a table or figure, sorted."""
        return [s for s, suite in self.suites() if name in suite.listed(kind)]

    def suite_at_short_path(self, kind: Literal["table", "figure"], name: str) -> str:
        """The suite that ``results/tables/NAME`` or ``results/figures/NAME`` is of.

        The default suite; or the only one that lists the name, where the default suite does not.
        """
        default = self.settings.default_suite
        if name in self.suite(default).listed(kind):
            return default
        if kind == "table" and is_of_every_suite(self.table(name)):
            return default
        found = self.suites_with(kind, name)
        return found[0] if len(found) == 1 else default
