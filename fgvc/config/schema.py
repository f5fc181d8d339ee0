"""JSON Schemas of ``params/**``, so that editors complete keys and mark mistakes while one types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from fgvc.config.dataset import Dataset
from fgvc.config.method import Variant, Weights
from fgvc.config.project import Project
from fgvc.config.published import PublishedAccuracies, PublishedCosts
from fgvc.config.published_list import PublishedRecords
from fgvc.config.recipe import Recipe
from fgvc.config.suite import Figure, Settings, Suite, Table
from fgvc.provenance.files import write_text

MODELS: dict[str, tuple[type[BaseModel], ...]] = {
    "config": (Settings,),
    "suite": (Suite,),
    "method": (Variant,),
    "recipe": (Recipe,),
    "dataset": (Dataset,),
    "weights": (Weights,),
    "table": get_args(Table),
    "figure": get_args(Figure),
    "published": (PublishedAccuracies, PublishedCosts, PublishedRecords),
}


def schema_of(kind: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one kind of file."""
    models = [model.model_json_schema() for model in MODELS[kind]]
    schema = models[0] if len(models) == 1 else _one_of(models)
    if kind == "method":
        _type_dataset_recipe(schema)
        _allow_recipe_base(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _one_of(models: list[dict[str, Any]]) -> dict[str, Any]:
    """One of several models; what they refer to stands at the root, where ``#/$defs/…`` looks for it."""
    shared = {name: part for model in models for name, part in model.pop("$defs", {}).items()}
    return {"oneOf": models} | ({"$defs": shared} if shared else {})


def _type_dataset_recipe(schema: dict[str, Any]) -> None:
    """What a variant's recipe has otherwise on a dataset: any of a recipe's keys."""
    some = {key: value for key, value in schema["$defs"]["Recipe"].items() if key != "required"}
    schema["$defs"]["DatasetRecipe"] = {**some, "properties": dict(some["properties"])}
    schema["properties"]["dataset_recipe"]["additionalProperties"] = {"$ref": "#/$defs/DatasetRecipe"}


def _allow_recipe_base(schema: dict[str, Any]) -> None:
    """A variant's recipe may name a base, and then every key is optional."""
    recipe = schema["$defs"]["Recipe"]
    recipe["properties"]["base"] = {
        "type": "string",
        "description": "file in params/recipes that it starts from",
    }
    recipe.pop("required", None)


def schema_path(project: Project, kind: str) -> Path:
    return project.root / "workflow" / "schemas" / f"{kind}.schema.json"


def schema_text(kind: str) -> str:
    return json.dumps(schema_of(kind), indent=2, ensure_ascii=False) + "\n"


def write_schemas(project: Project) -> list[Path]:
    """Write every schema; returns their paths."""
    paths = []
    for kind in MODELS:
        path = schema_path(project, kind)
        write_text(path, schema_text(kind))
        paths.append(path)
    return paths


def stale_schemas(project: Project) -> list[Path]:
    """Schema files that are missing or differ from the models."""
    return [
        path
        for kind in MODELS
        if not (path := schema_path(project, kind)).is_file()
        or path.read_text(encoding="utf-8") != schema_text(kind)
    ]
