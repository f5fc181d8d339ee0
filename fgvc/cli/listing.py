"""The rows of `fgvc list`."""

from __future__ import annotations

from typing import Any

from fgvc.cli.output import Column
from fgvc.config.project import Project
from fgvc.config.published_records import records_of

Rows = list[dict[str, Any]]


def listing(project: Project, what: str) -> tuple[list[Column], Rows]:
    """Columns and rows of one list; the column ``name`` is what verbs and paths take."""
    if what in ("classes", "backbones"):
        rows = _classes() if what == "classes" else _backbones()
    else:
        rows = {
            "methods": _methods,
            "datasets": _datasets,
            "suites": _suites,
            "tables": _tables,
            "figures": _figures,
            "published": _published,
            "weights": _weights,
            "recipes": _recipes,
        }[what](project)
    keys = list(rows[0]) if rows else ["name"]
    return [Column(k, k, rigid=k == "name", prose=k in ("about", "title", "printed in")) for k in keys], rows


def _methods(project: Project) -> Rows:
    rows = []
    for name in project.names("method"):
        variant = project.variant(name)
        rows.append(
            {
                "name": name,
                "class": variant.method,
                "backbone": variant.backbone_title,
                "group": variant.group,
            }
        )
    return rows


def _datasets(project: Project) -> Rows:
    rows = []
    for name in project.names("dataset"):
        dataset = project.dataset(name)
        here = "yes" if project.paths.data_record(name).is_file() else "no"
        rows.append(
            {
                "name": name,
                "title": dataset.title,
                "classes": dataset.classes,
                "access": dataset.access.replace("_", " "),
                "fetched": here,
                "also called": ", ".join(dataset.aliases),
            }
        )
    return rows


def _suites(project: Project) -> Rows:
    return [
        {
            "name": name,
            "datasets": len(suite.datasets),
            "methods": len(suite.methods),
            "sizes": ", ".join(map(str, suite.image_sizes)),
            "seeds": len(suite.seeds),
            "about": suite.description,
        }
        for name, suite in project.suites()
    ]


def _tables(project: Project) -> Rows:
    return [{"name": name, "title": project.table(name).title} for name in project.names("table")]


def _figures(project: Project) -> Rows:
    return [{"name": name, "title": project.figure(name).title} for name in project.names("figure")]


def _published(project: Project) -> Rows:
    return [
        {
            "name": name,
            "title": found.title,
            "numbers": len(records_of(name, found)),
            "printed in": found.source.place,
            "evidence": found.source.evidence.replace("_", " "),
        }
        for name, found in ((n, project.published(n)) for n in project.names("published"))
    ]


def _weights(project: Project) -> Rows:
    rows = []
    for name in project.names("weights"):
        weights = project.weights(name)
        here = "yes" if project.paths.weights_record(name).is_file() else "no"
        rows.append({"name": name, "title": weights.title, "licence": weights.licence, "fetched": here})
    return rows


def _recipes(project: Project) -> Rows:
    rows = []
    for name in project.names("recipe"):
        recipe = project.recipe(name)
        rows.append(
            {
                "name": name,
                "epochs": recipe.epochs,
                "batch": recipe.batch_size,
                "optimizer": recipe.optimizer,
                "augmentation": recipe.augmentation,
                "precision": recipe.precision,
            }
        )
    return rows


def _classes() -> Rows:
    from fgvc.methods import registered

    return [
        {"name": name, "about": (cls.__doc__ or "").strip().splitlines()[0]}
        for name, cls in registered().items()
    ]


def _backbones() -> Rows:
    from fgvc.backbones.timm_models import backbone_names

    return [{"name": name} for name in backbone_names()]
