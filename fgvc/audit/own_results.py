"""What a suite left behind, read once for all checks of own results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc.audit.context import SuiteContext
from fgvc.audit.finding import Finding, Verdict
from fgvc.config.grid import Cell, cells, rate_search
from fgvc.config.paths import rate_text
from fgvc.provenance.digests import file_sha256

_KEY = "own results"


@dataclass(frozen=True)
class Result:
    """One training of a suite: a final run, or a candidate of a learning-rate search (``rate``).

    ``card`` and ``metrics`` are run.json and metrics.json; None where there is no such file, or where it
    cannot be read: then ``broken`` says which and why.
    """

    cell: Cell
    seed: int
    rate: float | None
    folder: Path
    shown: str
    card: dict[str, Any] | None
    metrics: dict[str, Any] | None
    broken: tuple[str, ...]

    @property
    def is_search(self) -> bool:
        return self.rate is not None

    @property
    def name(self) -> str:
        """``shapes/vit/32 seed 1``, or ``shapes/vit/32 lr 0.003``."""
        which = f"seed {self.seed}" if self.rate is None else f"lr {rate_text(self.rate)}"
        return f"{cell_name(self.cell)} {which}"

    @property
    def trained_on(self) -> str:
        """The split that it must have been trained on."""
        return "train" if self.is_search else "train_val"

    @property
    def evaluated_on(self) -> str:
        """The split that it must have been evaluated on."""
        return "val" if self.is_search else "test"

    def file(self, name: str) -> Path:
        return self.folder / name

    def source(self, name: str) -> str:
        """A file of it, relative to the project."""
        return f"{self.shown}/{name}"

    @property
    def is_there(self) -> bool:
        """Whether anything was left to look at."""
        return self.card is not None or self.metrics is not None or bool(self.broken)


def cell_name(cell: Cell) -> str:
    """``shapes/vit/32``."""
    return f"{cell.dataset}/{cell.method}/{cell.size}"


def results_of(context: SuiteContext, *, searches: bool = True) -> list[Result]:
    """Every training of the suite, made or not: its final runs, and the candidates of its searches."""
    if _KEY not in context.cache:
        context.cache[_KEY] = list(_read_all(context))
    found: list[Result] = context.cache[_KEY]
    return found if searches else [r for r in found if not r.is_search]


def suite_cells(context: SuiteContext) -> list[Cell]:
    """The cells of the suite, dataset by dataset."""
    return cells(context.project, context.suite_name)


def _read_all(context: SuiteContext) -> Iterator[Result]:
    paths = context.project.paths
    for cell in suite_cells(context):
        ids = (cell.dataset, cell.method, cell.size)
        search = rate_search(context.project, cell)
        for rate in search.rates if search.is_searched else ():
            yield _read(context, cell, search.seed, rate, paths.sweep_dir(*ids, rate))
        for seed in context.suite.seeds:
            yield _read(context, cell, seed, None, paths.run_dir(*ids, seed))


def _read(context: SuiteContext, cell: Cell, seed: int, rate: float | None, folder: Path) -> Result:
    card, wrong_card = read_object(folder / "run.json")
    metrics, wrong_metrics = read_object(folder / "metrics.json")
    broken = tuple(text for text in (wrong_card, wrong_metrics) if text)
    shown = context.project.paths.shown(folder)
    return Result(cell, seed, rate, folder, shown, card, metrics, broken)


def read_object(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    """A record, or None with what is wrong with it; None and None where there is no file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError) as error:
        return None, f"{path.name} cannot be read: {str(error).splitlines()[0]}"
    if not isinstance(found, dict):
        return None, f"{path.name} holds no record"
    return found, None


# --- findings ------------------------------------------------------------------------------------------


def finding(
    verdict: Verdict,
    subject: str,
    explanation: str,
    source: str,
    published: object = None,
    recomputed: object = None,
) -> Finding:
    """A finding whose values may be of any kind; what is no number becomes text."""
    return Finding(
        subject=subject,
        verdict=verdict,
        published=_value(published),
        recomputed=_value(recomputed),
        explanation=explanation,
        source=source,
    )


def _value(value: object) -> str | float | None:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def differences(
    recorded: Any, recomputed: Any, same: Callable[[str, Any, Any], bool], path: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Where two JSON values differ: ``(path, recorded, recomputed)``, as ``per_class[3].accuracy_pct``.

    Args:
        same: whether two numbers, texts or the like at a path count as the same.
    """
    if isinstance(recorded, dict) and isinstance(recomputed, dict):
        for key in [*recomputed, *(k for k in recorded if k not in recomputed)]:
            inner = f"{path}.{key}" if path else str(key)
            yield from differences(recorded.get(key), recomputed.get(key), same, inner)
    elif isinstance(recorded, list) and isinstance(recomputed, list) and len(recorded) == len(recomputed):
        for position, (one, other) in enumerate(zip(recorded, recomputed, strict=True)):
            yield from differences(one, other, same, f"{path}[{position}]")
    elif not same(path, recorded, recomputed):
        yield path, recorded, recomputed


def counted(value: Any) -> int:
    """How many numbers and texts a JSON value holds."""
    if isinstance(value, dict):
        return sum(map(counted, value.values()))
    return sum(map(counted, value)) if isinstance(value, list) else 1


def digest_finding(path: Path, shown: str, expected: object, vouched: str, cure: str) -> Finding:
    """Whether a file has the digest that a record gives it; not checkable where the file is not here."""
    subject = f"{shown}: SHA-256 in {vouched}"
    if not isinstance(expected, str):
        return finding("not_checkable", subject, f"{vouched} gives no digest", shown)
    if not path.is_file():
        return finding("not_checkable", subject, f"the file is not here ({cure})", shown, expected)
    actual = file_sha256(path)
    if actual == expected:
        return finding(
            "confirmed", subject, "the bytes are those that were recorded", shown, expected, actual
        )
    why = f"the file was changed since {vouched} was written, or the record was"
    return finding("contradicted", subject, why, shown, expected, actual)
