"""Reading YAML so that every complaint can name its line.

PyYAML's safe types only; duplicate keys are refused, and so is what would fill the memory or the stack: a
huge file, deep nesting (which crashes libyaml's composer), aliases that contain themselves or write out to
millions of values. The line of each key is kept beside the data, for errors found later by the typed models.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fgvc.errors import FgvcError

KeyPath = tuple[str | int, ...]

#: Limits far above any file of parameters; what passes them is a mistake or an attack.
MAX_BYTES = 1 << 20
MAX_DEPTH = 40
#: With every alias written out.
MAX_VALUES = 200_000


@dataclass(frozen=True)
class YamlSource:
    """The contents of one YAML file and the line on which each key stands."""

    path: Path
    data: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def line_of(self, key_path: KeyPath) -> int | None:
        """Line of the longest known prefix of ``key_path``."""
        for end in range(len(key_path), -1, -1):
            if key_path[:end] in self.lines:
                return self.lines[key_path[:end]]
        return None

    def part(self, at: KeyPath, data: Any) -> YamlSource:
        """``data``, made of what stands below the key ``at``, with the lines of the keys there."""
        below = {keys[len(at) :]: line for keys, line in self.lines.items() if keys[: len(at)] == at}
        return YamlSource(self.path, data, below)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe loading with numbers such as ``1e-5`` read as floats (YAML 1.2), as everyone expects."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:float"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)"
        r"|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def read_yaml(path: Path, shown_as: str | None = None) -> YamlSource:
    """Read one YAML mapping.

    Raises FgvcError for a missing or unreadable file, bad syntax, a duplicate key, a value that its type
    cannot hold, a document that is not a mapping, and for more than `MAX_BYTES`, `MAX_DEPTH`, `MAX_VALUES`.
    """
    name = shown_as or str(path)
    text = _read_text(path, name)
    loader = _Loader(text)
    try:
        _check_depth(text, name)
        node = loader.get_single_node()
        lines: dict[KeyPath, int] = {}
        if node is not None:
            _note_lines(node, (), lines, name)
        data = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = f"this is not valid YAML: {error.problem or error.context}"
        raise FgvcError(problem, file=name, line=mark.line + 1 if mark else None) from None
    except yaml.YAMLError as error:
        raise FgvcError(f"this is not valid YAML: {error}".splitlines()[0], file=name) from None
    except ValueError as error:  # a date of the 99th month, a number of 5,000 digits
        raise FgvcError(f"a value cannot be read: {error}", file=name, cure="put it in quotes") from None
    finally:
        loader.dispose()
    if not isinstance(data, dict):
        raise FgvcError("the file must be a mapping of keys to values", file=name, line=1)
    return YamlSource(path, data, lines)


def _read_text(path: Path, name: str) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            problem = f"the file has more than {MAX_BYTES} bytes; parameters are short"
            raise FgvcError(problem, file=name, cure="is it another kind of file, put here by mistake?")
        return data.decode("utf-8")
    except FileNotFoundError:
        raise FgvcError("the file does not exist", file=name) from None
    except (OSError, UnicodeDecodeError) as error:
        raise FgvcError(f"the file cannot be read: {error}", file=name) from None


def _check_depth(text: str, name: str) -> None:
    """Refuse deep nesting by the parser's events, which need no recursion; composing it would."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else None
                raise FgvcError(f"values are nested more than {MAX_DEPTH} deep", file=name, line=line)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _note_lines(node: yaml.Node, at: KeyPath, lines: dict[KeyPath, int], name: str) -> None:
    """Record the line of every key and item below ``node``; refuse duplicate keys and bombs of aliases."""
    line = node.start_mark.line + 1
    lines.setdefault(at, line)
    if len(at) > MAX_DEPTH:
        raise FgvcError("an alias (*name) stands inside what it names", file=name, line=line)
    if len(lines) > MAX_VALUES:
        problem = f"with its aliases (*name) written out, the file has more than {MAX_VALUES} values"
        raise FgvcError(problem, file=name, line=line)
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = str(key_node.value)
            path = (*at, key)
            if path in lines:
                raise FgvcError(
                    f"the key '{key}' is given twice (first on line {lines[path]})",
                    file=name,
                    line=key_node.start_mark.line + 1,
                    key=key,
                    cure="keep one of the two",
                )
            lines[path] = key_node.start_mark.line + 1
            _note_lines(value_node, path, lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            _note_lines(item, (*at, position), lines, name)
