"""The text of `fgvc describe`."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import Any

import yaml

from fgvc.config.project import FOLDERS, Kind, Project
from fgvc.errors import UnknownNameError

_KINDS: tuple[Kind, ...] = tuple(FOLDERS)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as they were written."""

    def represent_str(self, text: str) -> yaml.ScalarNode:
        style = "|" if "\n" in text else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


def describe_name(project: Project, name: str, as_json: bool) -> str:
    """What ``name`` stands for, as YAML (or JSON). Names are looked for among variants, method classes,
    datasets (and aliases), suites, weights, recipes, tables, figures and published tables, in this order.

    Raises UnknownNameError.
    """
    kind, facts = _facts(project, name)
    if as_json:
        return json.dumps({"kind": kind, "name": name, **facts}, indent=2, ensure_ascii=False)
    text = yaml.dump(facts, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return f"# {kind} {name}\n{text}".rstrip("\n")


def _facts(project: Project, name: str) -> tuple[str, dict[str, Any]]:
    from fgvc.methods import registered

    if name in project.names("method"):
        return "method variant", _variant(project, name)
    if name in registered():
        return "method class", _class(name)
    if name in project.aliases:
        name = project.aliases[name]
    readers = {
        "dataset": project.dataset,
        "suite": project.suite,
        "weights": project.weights,
        "recipe": project.recipe,
        "table": project.table,
        "figure": project.figure,
    }
    for kind, read in readers.items():
        if name in project.names(kind):  # type: ignore[arg-type]
            return kind, read(name).model_dump(mode="json", exclude_none=True)
    if name in project.names("published"):  # as in the file: what says nothing of a number is left out
        return "published", project.published(name).model_dump(mode="json", exclude_unset=True)
    known = [n for kind in _KINDS for n in project.names(kind)] + list(registered())
    raise UnknownNameError(
        "variant, class, dataset, suite or weights", name, known, listing="fgvc list --help"
    )


def _variant(project: Project, name: str) -> dict[str, Any]:
    """A variant with its recipe written out and the parameters that train."""
    from fgvc.methods.build import build_variant

    variant = project.variant(name)
    facts = variant.model_dump(mode="json", exclude_none=True)
    facts["recipe"] = variant.recipe.resolved().model_dump(mode="json", exclude_none=True)
    facts["options"] = _options(variant.method) | variant.options
    model = build_variant(project, name, _a_size(project, name), 10, with_weights=False)
    trains = [n for n, p in model.named_parameters() if p.requires_grad]
    facts["trains"] = {
        "patterns": variant.train,
        "tensors": len(trains),
        "first": trains[:3],
        "last": trains[-3:],
    }
    facts["batch_coupled"] = model.batch_coupled
    return facts


def _a_size(project: Project, name: str) -> int:
    sizes = [s for _, suite in project.suites() if name in suite.methods for s in suite.image_sizes]
    return min(sizes, default=224)


def _class(name: str) -> dict[str, Any]:
    from fgvc.methods import method_class

    cls = method_class(name)
    return {"about": inspect.cleandoc(cls.__doc__ or ""), "module": cls.__module__, "options": _options(name)}


def _options(name: str) -> dict[str, Any]:
    """Options of a method class and their defaults."""
    from fgvc.methods import method_class

    return dict(dataclasses.asdict(method_class(name).Options()))
