"""What there is to track: each unit is a small record for git and, beside it, the files that DVC takes.

Git gets what is claimed and read (records, choices, histories, tables, figures). DVC gets what grows with
images or parameters: pictures and their lists, weights, checkpoints, predictions. The patterns of
``.gitignore`` are the same decision; a test holds the two together.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.provenance.digests import file_sha256
from fgvc.provenance.locks import LockHeldError, exclusive_lock

SPLIT_LISTS = ("train.csv", "val.csv", "train_val.csv", "test.csv", "classes.csv")


@dataclass(frozen=True)
class Unit:
    """Files that are finished together.

    Attributes:
        record: the small file that vouches for the others.
        large: what DVC tracks; a dataset's folder is one path.
        small: what git tracks, the record among them.
        kind: dataset, weights, split, run, search or record.
    """

    kind: str
    record: Path
    large: tuple[Path, ...]
    small: tuple[Path, ...]

    @property
    def outputs(self) -> tuple[Path, ...]:
        """All its files, as the rules declare them (a dataset's pictures are behind its record)."""
        return tuple(path for path in (*self.small, *self.large) if path.is_file())


def all_units(project: Project) -> list[Unit]:
    """Every unit whose record is there, finished or not, in order of paths."""
    return [*_data(project), *_weights(project), *_splits(project), *_runs(project), *_records(project)]


def _data(project: Project) -> Iterator[Unit]:
    for record in sorted((project.root / "data").glob("*.json")):
        name = record.stem
        large = (project.paths.data_dir(name), project.paths.data_index(name))
        yield Unit("dataset", record, large, (record,))


def _weights(project: Project) -> Iterator[Unit]:
    for record in sorted((project.root / "data" / "weights").glob("*.json")):
        yield Unit("weights", record, (record.with_suffix(".safetensors"),), (record,))


def _splits(project: Project) -> Iterator[Unit]:
    for record in sorted((project.root / "results" / "splits").glob("*/split.json")):
        lists = tuple(record.with_name(name) for name in SPLIT_LISTS)
        yield Unit("split", record, lists, (record,))


def _runs(project: Project) -> Iterator[Unit]:
    results = project.root / "results"
    for kind, top in (("search", "sweeps"), ("run", "runs")):
        for record in sorted((results / top).glob("*/*/*/*/run.json")):
            model, predictions = (record.with_name(n) for n in ("model.safetensors", "predictions.parquet"))
            heads = record.with_name("heads.parquet")  # of methods that have several
            further = (heads,) if heads.is_file() or pointer_of(heads).is_file() else ()
            large = (model, predictions, *further) if kind == "run" else (predictions, *further)
            small = tuple(record.with_name(name) for name in ("run.json", "metrics.json", "history.csv"))
            yield Unit(kind, record, large, small)


#: Results that are small themselves: choices, statistics, costs, audits, tables and figures.
_SMALL = (
    *("sweeps/*/*/*/lr.json", "stats/*.json", "cost/*/*/*.json", "cka/*/*/*/*.json"),
    *("audit/*.json", "audit/*.md"),
    *(f"{top}tables/*.{suffix}" for top in ("", "*/") for suffix in ("tex", "md", "csv")),
    *(f"{top}figures/*.{suffix}" for top in ("", "*/") for suffix in ("pdf", "png", "csv")),
)


def _records(project: Project) -> Iterator[Unit]:
    for pattern in _SMALL:
        for path in sorted((project.root / "results").glob(pattern)):
            if not path.stem.endswith(".partial"):
                yield Unit("record", path, (), (path,))


def chosen(units: Iterable[Unit], targets: Iterable[Path]) -> list[Unit]:
    """The units that have a file at or below one of ``targets`` (absolute paths); all without targets."""
    wanted = set(targets)
    return [
        unit for unit in units if not wanted or any(is_below(p, wanted) for p in (*unit.small, *unit.large))
    ]


def is_below(path: Path, folders: Container[Path]) -> bool:
    """Whether ``path`` is one of ``folders`` or lies in one."""
    return path in folders or any(parent in folders for parent in path.parents)


# --- is it finished? -------------------------------------------------------------------------------


def obstacle(project: Project, unit: Unit) -> str | None:
    """Why ``unit`` is not tracked now; None when it is finished and whole.

    Files are compared with their record: a dataset's by size, a checkpoint and predictions by digest.
    """
    missing = [path for path in (*unit.large, *unit.small) if not path.exists()]
    if missing:
        return _absent(missing[0].name, unit)
    link = next((path for path in unit.large if path.is_symlink()), None)
    if link is not None:
        return f"{link.name} is a symbolic link, which DVC does not follow"
    if unit.kind == "dataset":
        return _dataset_obstacle(project, unit)
    if unit.kind in ("run", "search"):
        return _run_obstacle(project, unit)
    if unit.kind == "weights" and file_sha256(unit.large[0]) != _read(unit.record).get("sha256"):
        return _not_vouched(unit.large[0], unit.record)
    return None


def _absent(name: str, unit: Unit) -> str:
    if name == "metrics.json":
        return "not evaluated yet"
    restore = " (dvc pull brings it)" if unit.large and _pointer(unit, name).is_file() else ""
    return f"{name} is not there{restore}"


def _pointer(unit: Unit, name: str) -> Path:
    return next(pointer_of(p) for p in (*unit.large, *unit.small) if p.name == name)


def pointer_of(path: Path) -> Path:
    """The ``.dvc`` file of a path that DVC tracks."""
    return path.with_name(f"{path.name}.dvc")


def _dataset_obstacle(project: Project, unit: Unit) -> str | None:
    from fgvc.data.records import check_files

    if _is_held(project.paths.state("data", f"{unit.record.stem}.lock")):
        return "it is being fetched"
    try:
        check_files(project, unit.record.stem)
    except FgvcError as error:
        return error.problem
    return None


def _run_obstacle(project: Project, unit: Unit) -> str | None:
    """A run counts when nobody trains it, and its records vouch for its files and for one another."""
    folder = unit.record.parent
    if _is_held(project.paths.state_dir(folder) / "lock"):
        return "it is being trained"
    run, metrics = _read(unit.record), _read(folder / "metrics.json")
    if run.get("run_sha256") != metrics.get("run_sha256"):
        return "its metrics are of another run; evaluate it again"
    vouching = {"model.safetensors": run, "predictions.parquet": metrics, "heads.parquet": metrics}
    for path in unit.large:
        if file_sha256(path) != vouching[path.name].get(f"{path.stem}_sha256"):
            return _not_vouched(path, unit.record if vouching[path.name] is run else folder / "metrics.json")
    return None


def _is_held(lock: Path) -> bool:
    """Whether a living process holds a lock file; nothing is made where there is none."""
    if not lock.is_file():
        return False
    try:
        with exclusive_lock(lock, "tracking"):
            return False
    except LockHeldError:
        return True


def _not_vouched(path: Path, record: Path) -> str:
    return f"{path.name} is not the one that {record.name} vouches for (dvc checkout brings that one)"


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}
