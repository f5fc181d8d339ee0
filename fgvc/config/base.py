"""The common base of all typed models, and the translation of their complaints into FgvcError."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fgvc.config.yaml_source import KeyPath, YamlSource, read_yaml
from fgvc.errors import MAX_NAMES, FgvcError, nearest


class Model(BaseModel):
    """Frozen, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


ModelT = TypeVar("ModelT", bound=BaseModel)


def load_model(model: type[ModelT], path: Path, shown_as: str | None = None) -> ModelT:
    """Read ``path`` and validate it as ``model``; the error names file, line, key and cure."""
    return validate(model, read_yaml(path, shown_as), shown_as)


def validate(model: type[ModelT], source: YamlSource, shown_as: str | None = None) -> ModelT:
    """Validate already-read YAML as ``model``.

    Raises FgvcError about the first complaint; how many more there are is said in the cure.
    """
    try:
        return model.model_validate(source.data)
    except ValidationError as error:
        raise _translate(error, model, source, shown_as or str(source.path)) from None


def _translate(error: ValidationError, model: type[BaseModel], source: YamlSource, name: str) -> FgvcError:
    complaints = error.errors(include_url=False)
    # A misspelt key is also a missing one; its own line and the nearest key help more.
    first = next((c for c in complaints if c["type"] == "extra_forbidden"), complaints[0])
    key_path = _yaml_path(first["loc"], source)
    # A missing key has no line of its own: the line of what should hold it is shown.
    line = source.line_of(key_path)
    key = ".".join(str(part) for part in key_path) or None
    cure: str | None
    match first["type"]:
        case "extra_forbidden":
            problem = f"the key '{key_path[-1]}' is not known here"
            known = _known_keys(model, first["loc"])
            guess = nearest(str(key_path[-1]), known)
            cure = f"did you mean '{guess}'? " if guess else ""
            cure += _valid_keys(sorted(known), in_full=guess is None)
        case "missing":
            problem, cure = f"the key '{key_path[-1]}' is missing", "add it"
        case "literal_error" | "enum":
            expected = first.get("ctx", {}).get("expected", "")
            problem = f"{first['input']!r} is not a possible value"
            guess = nearest(str(first["input"]), [v.strip(" '") for v in _choices(expected)])
            cure = (f"did you mean '{guess}'? " if guess else "") + f"possible: {expected}"
        case "union_tag_invalid" | "union_tag_not_found":
            problem = f"'{key}' has no usable 'kind'"
            cure = f"possible: {first.get('ctx', {}).get('expected_tags', 'see docs')}"
        case _:
            message = first["msg"].removeprefix("Value error, ")
            problem = f"{message} (got {_short(first['input'])})"
            cure = None
    if len(complaints) > 1:
        more = f"{len(complaints) - 1} more complaint(s) about this file follow once this is mended"
        cure = f"{cure}\n{more}" if cure else more
    return FgvcError(problem, file=name, line=line, key=key, cure=cure)


def _valid_keys(keys: list[str], in_full: bool) -> str:
    if not keys:
        return "remove it"
    shown = keys if in_full else keys[:MAX_NAMES]
    rest = f" … and {len(keys) - len(shown)} more" if len(shown) < len(keys) else ""
    return "valid keys: " + ", ".join(shown) + rest


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _choices(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").split(", ")


def _yaml_path(loc: tuple[int | str, ...], source: YamlSource) -> KeyPath:
    """Pydantic's location without the parts that name union members (they are not in the file)."""
    at: KeyPath = ()
    here, seen_tag = source.data, True
    for position, part in enumerate(loc):
        if not seen_tag and isinstance(here, dict) and here.get("kind") == part:
            seen_tag = True  # the member's name comes first, also where a key of it has the same name
        elif (*at, part) in source.lines or position == len(loc) - 1:
            at, seen_tag = (*at, part), False
            with contextlib.suppress(LookupError, TypeError):
                here = here[part]
    return at


def _known_keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> set[str]:
    """The keys that the model at ``loc`` accepts, following nested models and tagged unions."""
    candidates: list[type[BaseModel]] = [model]
    for part in loc[:-1]:
        following: list[type[BaseModel]] = []
        for candidate in candidates:
            if isinstance(part, str) and part in candidate.model_fields:
                following += _models_in(candidate.model_fields[part].annotation)
        if following:
            candidates = following
    tagged = [m for m in candidates if _tag_of(m) in loc]
    return {name for m in tagged or candidates for name in m.model_fields}


def _tag_of(model: type[BaseModel]) -> str | None:
    kind = model.model_fields.get("kind")
    args = getattr(kind.annotation, "__args__", ()) if kind else ()
    return args[0] if args else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Every model class inside an annotation such as ``list[A | B] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in getattr(annotation, "__args__", ()) for m in _models_in(arg)]
