"""``fgvc data split``: official and published parts kept, missing ones cut, everything checked and recorded.

Two kinds of paths meet here. Rows, and the files in ``results/splits/D``, hold paths relative to data/D, so
that one join finds the image. Published lists, and the digests taken over them, hold paths relative to the
dataset's image folder; `published_form` goes from the first to the second, and ``split.json`` gives both
digests of each part (``sha256`` and ``list_sha256``) and the ``image_root`` between them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fgvc.config.dataset import Dataset, SplitRule
from fgvc.config.layout import SplitName
from fgvc.config.project import Project
from fgvc.data.layouts import Layout, read_layout
from fgvc.data.lists import Row, csv_rows, csv_text, read_list, read_list_text, write_list
from fgvc.data.records import DataIndex, read_index
from fgvc.errors import FgvcError, first_few
from fgvc.provenance.digests import file_sha256, split_sha256, value_sha256
from fgvc.provenance.files import read_json, write_json, write_text

PARTS: tuple[SplitName, ...] = ("train", "val", "train_val", "test")

Origin = Literal["list", "cut", "union"]


@dataclass(frozen=True)
class Part:
    """Rows of one part and how it came about: listed, cut by us, or put together from two lists."""

    rows: list[Row]
    origin: Origin


def cut(rows: Sequence[Row], fraction: float) -> tuple[list[Row], list[Row]]:
    """Cut every class in two, as the published lists were made: no shuffling, no seed.

    The first ``int(n_c * fraction)`` of the n_c rows of each class, in list order, and the rest. Both
    results are grouped by class in ascending order. The product is a float product and ``int`` drops what is
    behind the point, as in the source (GLSim at 99cc474, tools/preprocess/data_split.py).
    """
    by_class: dict[int, list[Row]] = {}
    for row in rows:
        by_class.setdefault(row[0], []).append(row)
    first: list[Row] = []
    rest: list[Row] = []
    for class_id in sorted(by_class):
        own = by_class[class_id]
        count = int(len(own) * fraction)
        first += own[:count]
        rest += own[count:]
    return first, rest


def published_form(rows: Sequence[Row], image_root: str) -> list[Row]:
    """Rows with paths relative to ``image_root``, as published lists have them."""
    prefix = "" if image_root == "." else f"{image_root}/"
    return [(class_id, path.removeprefix(prefix)) for class_id, path in rows]


def divide(layout: Layout, rule: SplitRule) -> dict[SplitName, Part]:
    """The four parts of a dataset: listed ones as they are, the others cut or put together.

    ``test``, where there is none, is cut off the end of each class; then ``val`` off the rest. Raises
    FgvcError when the rule gives no fraction for a part that must be cut.
    """
    given: dict[str, Part] = {name: Part(rows, "list") for name, rows in layout.rows.items()}
    whole = next(name for name in ("all", "train_val", "train") if name in given)
    if "test" not in given:
        fraction = _fraction(rule.test_fraction, "test")
        kept, test = cut(given[whole].rows, 1 - fraction)
        given[whole], given["test"] = Part(kept, "cut"), Part(test, "cut")
    if "val" not in given:
        pool = given[whole]
        train, val = cut(pool.rows, _fraction(rule.train_fraction, "val"))
        return {
            "train": Part(train, "cut"),
            "val": Part(val, "cut"),
            "train_val": pool,
            "test": given["test"],
        }
    union = Part(given["train"].rows + given["val"].rows, "union")
    return {
        "train": given["train"],
        "val": given["val"],
        "train_val": given.get("train_val", union),
        "test": given["test"],
    }


def _fraction(fraction: float | None, part: str) -> float:
    if fraction is None:
        key = {"test": "test_fraction", "val": "train_fraction"}[part]
        raise FgvcError(
            f"there is no {part} part, and no rule to cut one", key=f"split.{key}", cure=f"give {key}"
        )
    return fraction


# --- the verb --------------------------------------------------------------------------------------


def prepare_splits(project: Project, name: str) -> dict[str, Any]:
    """Write ``results/splits/D/{train,val,train_val,test,classes}.csv`` and, last, ``split.json``; return it.

    Raises FgvcError when the dataset is not fetched; when parts overlap, or an image is listed twice, lies
    outside data/D or is not in its index; when a part lacks classes other than declared; and when counts
    differ from the expected ones. A digest other than expected is no error: the split is then called ours.
    """
    name = project.canonical_dataset(name)
    dataset = project.dataset(name)
    yaml = project.paths.shown(project.file("dataset", name))
    index = read_index(project, name)
    layout = read_layout(project, name)
    try:
        parts = divide(layout, dataset.split)
    except FgvcError as error:
        error.file = error.file or yaml
        raise
    checks = _Checks(dataset, yaml, layout, index, parts)
    checks.run()
    files = {part: write_list(project.paths.split_list(name, part), parts[part].rows) for part in PARTS}
    names = csv_text(("class_id", "class_name"), enumerate(layout.class_names))
    write_text(project.paths.split_list(name, "classes"), names)
    described = {
        part: _describe(parts[part], dataset, part, layout.image_root, files[part]) for part in PARTS
    }
    record = {
        "dataset": name,
        "provenance": _provenance(dataset, described, layout.published),
        "lists": "published" if layout.published else "own",
        "classes": dataset.classes,
        "image_root": layout.image_root,
        "train_fraction": dataset.split.train_fraction if parts["train"].origin == "cut" else None,
        "test_fraction": dataset.split.test_fraction if parts["test"].origin == "cut" else None,
        "tree_sha256": index.record.tree_sha256,
        "sha256": value_sha256([names, *(described[part]["file_sha256"] for part in PARTS)]),
        "parts": described,
        "checks": checks.done,
    }
    write_json(project.paths.split_record(name), record)
    return record


def _describe(part: Part, dataset: Dataset, name: SplitName, image_root: str, text: str) -> dict[str, Any]:
    facts = dataset.expected.get(name)
    expected = facts.sha256 if facts else None
    list_sha256 = split_sha256(published_form(part.rows, image_root))
    return {
        "rows": len(part.rows),
        "classes": len({class_id for class_id, _ in part.rows}),
        "origin": part.origin,
        "sha256": split_sha256(part.rows),
        "list_sha256": list_sha256,
        "expected_list_sha256": expected,
        "matches_expected": None if expected is None else list_sha256 == expected,
        "file_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def _provenance(dataset: Dataset, parts: dict[SplitName, dict[str, Any]], from_published: bool) -> str:
    """Whose split it is: ``official``, ``published``, ``ours`` or ``unverified``.

    It is published when every part has the published digest, wherever its rows come from; unverified, when
    its lists claim to be the published ones and some part's digest is not known; ours, when a part differs.
    """
    claimed = "published" if from_published else dataset.split.provenance
    matches = [part["matches_expected"] for part in parts.values()]
    if all(matches):
        return "published"
    if False in matches or parts["test"]["origin"] == "cut":
        return "ours"
    if claimed == "published" and None in matches:
        return "unverified"
    return claimed


class _Checks:
    """What must hold of a split. ``done`` is what ``split.json`` says of it."""

    def __init__(
        self, dataset: Dataset, yaml: str, layout: Layout, index: DataIndex, parts: dict[SplitName, Part]
    ) -> None:
        self.dataset, self.yaml, self.layout, self.index, self.parts = dataset, yaml, layout, index, parts
        self.paths = {name: {path for _, path in part.rows} for name, part in parts.items()}
        self.done: list[dict[str, str]] = []

    def run(self) -> None:
        self._listed_once()
        self._in_index()
        self._disjoint("train", "val")
        self._disjoint("train_val", "test")
        self._train_and_val_make_train_val()
        self._classes_present()
        self._counts()
        self._digests()
        self._identical_files()

    def _passed(self, check: str, outcome: str = "passed") -> None:
        self.done.append({"check": check, "outcome": outcome})

    def _listed_once(self) -> None:
        for name, part in self.parts.items():
            if len(self.paths[name]) < len(part.rows):
                twice = [path for (_, path), times in Counter(part.rows).items() if times > 1]
                raise FgvcError(
                    f"{len(twice)} image(s) stand twice in {name}: {first_few(twice)}", file=self.yaml
                )
        self._passed("no image stands twice in a part")

    def _in_index(self) -> None:
        known = {entry.path: entry.class_id for entry in self.index.images}
        for name, part in self.parts.items():
            strange = [path for class_id, path in part.rows if known.get(path) != class_id]
            if strange:
                raise FgvcError(
                    f"{len(strange)} image(s) of {name} are not in the index so: {first_few(strange)}",
                    file=f"data/{self.index.record.dataset}.csv",
                    cure=f"fgvc data fetch {self.index.record.dataset}",
                )
        self._passed("every image lies in the dataset and is in its index with the same class")

    def _disjoint(self, first: SplitName, second: SplitName) -> None:
        shared = sorted(self.paths[first] & self.paths[second])
        if shared:
            raise FgvcError(
                f"{len(shared)} image(s) are in {first} and in {second}: {first_few(shared)}",
                file=self.yaml,
                key="layout",
                cure="an image may be in one of them only; correct the lists",
            )
        self._passed(f"{first} and {second} share no image")

    def _train_and_val_make_train_val(self) -> None:
        differing = sorted((self.paths["train"] | self.paths["val"]) ^ self.paths["train_val"])
        if differing:
            raise FgvcError(
                f"train and val together are not train_val: {len(differing)} differ, "
                f"as {first_few(differing)}",
                file=self.yaml,
                key="layout.lists",
                cure="take all lists from one source, or drop train and val and give a train_fraction",
            )
        self._passed("train and val together are train_val")

    def _classes_present(self) -> None:
        for name, part in self.parts.items():
            present = {class_id for class_id, _ in part.rows}
            lacking = [c for c in range(self.dataset.classes) if c not in present]
            declared = self.dataset.split.missing_classes.get(name, 0)
            if len(lacking) != declared:
                raise self._wrong_classes(name, lacking, declared, part.origin)
            note = f", but {declared} that the official split lacks" if declared else ""
            self._passed(f"{name} holds every class{note}")

    def _wrong_classes(self, name: str, lacking: list[int], declared: int, origin: Origin) -> FgvcError:
        names = first_few([self.layout.class_names[c] for c in lacking])
        if origin == "cut":
            cure = "these classes have too few images to be cut; three each are enough for 0.8 and 0.2"
        else:
            cure = f"complete the part, or declare it: missing_classes: {{{name}: {len(lacking)}}}"
        problem = f"{name} lacks {len(lacking)} class(es)" + (f" ({names})" if names else "")
        problem += f"; {declared} are declared" if declared else ""
        return FgvcError(problem, file=self.yaml, key="split", cure=cure)

    def _counts(self) -> None:
        for name, facts in self.dataset.expected.items():
            found = len(self.parts[name].rows)
            if found != facts.rows and self._is_another_split:
                self._passed(f"{name} has {facts.rows} images, as published", f"differs: {found}")
            elif found != facts.rows:
                raise FgvcError(
                    f"{name} has {found} images, {facts.rows} are expected",
                    file=self.yaml,
                    key=f"expected.{name}.rows",
                    cure="the lists are not the published ones, or the expectation is wrong",
                )
        self._passed("counts are as expected" if self.dataset.expected else "counts: nothing is expected")

    @property
    def _is_another_split(self) -> bool:
        """Whether the published split is expected, and nobody claims that this one is it."""
        ours = self.dataset.split.provenance == "ours"
        return ours and self.dataset.published is not None and not self.layout.published

    def _digests(self) -> None:
        for name, facts in self.dataset.expected.items():
            if facts.sha256:
                found = split_sha256(published_form(self.parts[name].rows, self.layout.image_root))
                outcome = "passed" if found == facts.sha256 else "differs"
                self._passed(f"{name} is the published list", outcome)

    def _identical_files(self) -> None:
        """Identical bytes on both sides are leakage that paths do not show; reported, not mended."""
        digest = {entry.path: entry.sha256 for entry in self.index.images}
        trained = {digest[path] for path in self.paths["train_val"]}
        same = sorted(path for path in self.paths["test"] if digest[path] in trained)
        outcome = f"{len(same)} test image(s) are: {first_few(same)}" if same else "passed"
        self._passed("no test image is byte-identical to one of train_val", outcome)


# --- reading what the verb wrote -------------------------------------------------------------------


def read_split(project: Project, name: str, part: str) -> list[Row]:
    """One part of a prepared split: ``(class id, path relative to data/D)`` in list order.

    Raises FgvcError when it is not prepared, a line is not what it must be (a path outside data/D too), or
    the list is not the one that ``split.json`` speaks of.
    """
    path = project.paths.split_list(name, part)
    shown = project.paths.shown(path)
    maker = f"fgvc data split {name}"
    if not path.is_file():
        raise FgvcError(f"the {part} part does not exist yet", file=shown, cure=maker)
    rows = read_list(path, shown, project.dataset(name).classes)
    record = read_json(project.paths.split_record(name), made_by=maker)
    if file_sha256(path) != record["parts"][part]["file_sha256"]:
        raise FgvcError("the list was changed since it was made", file=shown, cure=f"make it again: {maker}")
    return rows


def read_class_names(project: Project, name: str) -> list[str]:
    """Class names by id, of a prepared split. Raises FgvcError when it is not prepared."""
    path = project.paths.split_list(name, "classes")
    shown = project.paths.shown(path)
    if not path.is_file():
        raise FgvcError("the class names do not exist yet", file=shown, cure=f"fgvc data split {name}")
    rows = list(csv_rows(read_list_text(path, shown), shown))
    return [fields[1] for _, fields in rows[1:]]
