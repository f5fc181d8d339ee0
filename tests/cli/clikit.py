"""Acting as the user: the command line here or in a process of its own, its verbs, and small projects."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
import yaml
from PIL import Image

from fgvc.cli.groups import app
from fgvc.cli.main import main

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

#: Of the one seed that `make_ready` runs; the examples train seed 1.
SEED = 10
CLASSES = ("apple", "melon", "pear")


# --- commands ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """What a command left on the screen, and its exit status."""

    status: int
    out: str
    err: str

    def check(self) -> Said:
        assert self.status == 0, self.err + self.out
        return self


def fgvc(root: Path, *arguments: str | Path) -> Said:
    """``fgvc ARGUMENTS`` in ``root``, without a process of its own."""
    out, err = io.StringIO(), io.StringIO()
    status: Any = None
    with contextlib.chdir(root), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(a) for a in arguments])
        except SystemExit as end:
            status = end.code
    assert isinstance(status, int), "main always ends with a status"
    return Said(status, out.getvalue(), err.getvalue())


def process(root: Path, *arguments: str, **more: str) -> Said:
    """The same as a process; ``more`` is added to its environment."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FGVC_")}
    done = subprocess.run(
        [BIN / "fgvc", *arguments],
        cwd=root,
        env={**kept, "COLUMNS": "80", **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


# --- the verbs ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verb:
    """A verb by its path, such as ``("data", "fetch")``, and its long options."""

    path: tuple[str, ...]
    options: tuple[str, ...]

    @property
    def name(self) -> str:
        return " ".join(self.path)


def verbs() -> list[Verb]:
    """Every verb of the command tree."""
    return list(_walk(typer.main.get_command(app), ()))


def _walk(command: Any, path: tuple[str, ...]) -> Iterator[Verb]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield Verb(path, tuple(o for p in command.params for o in p.opts if o.startswith("--")))
    else:
        for name, sub in inner.items():
            yield from _walk(sub, (*path, name))


def examples(text: str) -> list[str]:
    """The commands below ``Example:`` in a help that is wide enough not to wrap them."""
    _, _, tail = text.partition("Example:")
    return [line.strip() for line in tail.splitlines() if line.strip().startswith("fgvc ")]


# --- the rules of the workflow -----------------------------------------------------------------------


def rule(name: str, **wildcards: object) -> tuple[list[str], list[str]]:
    """What a rule runs and the files that it declares: ``(arguments of fgvc, paths)``."""
    text = "".join(path.read_text() for path in sorted((REPOSITORY / "rules").glob("*.smk")))
    found = re.search(rf"^rule {name}:\n(.*?)(?=^\S|\Z)", text, flags=re.M | re.S)
    assert found, f"there is no rule {name}"
    output, shell = (
        re.search(rf"^    {section}:\n(.*?)(?=^    \w|\Z)", found[1], flags=re.M | re.S)
        for section in ("output", "shell")
    )
    assert output and shell
    parts = re.search(r"part=\[(.*?)\]", output[1])
    files = []
    for pattern in re.findall(r'"((?:results|data)/[^"]+)"', output[1]):
        pattern = pattern.replace("{{", "{").replace("}}", "}")
        each = re.findall(r'"(\w+)"', parts[1]) if parts and "{part}" in pattern else [""]
        files += [pattern.format(part=part, **wildcards) for part in each]
    command = "".join(re.findall(r'^\s+"(.*)"$', shell[1], flags=re.M)).partition(" > {log}")[0]
    command = command.removeprefix("exec ")
    command = command.replace("{params.suite}", f"--suite {wildcards.get('suite')}")
    command = command.replace("{resources.devices}", "1")
    command = re.sub(r"\{(?:wildcards|params)\.(\w+)\}", lambda m: str(wildcards[m[1]]), command)
    words = shlex.split(command)
    assert words[0] == "fgvc" and files
    return words[1:], files


# --- projects ----------------------------------------------------------------------------------------


def make_shipped(root: Path) -> Path:
    """The parameters as they are shipped, and nothing else."""
    shutil.copytree(REPOSITORY / "params", root / "params")
    (root / "workflow").mkdir()
    shutil.copy(REPOSITORY / "workflow/stages.lock.json", root / "workflow")
    return root


def make_small(root: Path) -> Path:
    """The shipped parameters with few pictures, one epoch and one method in the suites that a CPU runs.

    In ``DIR`` lies a mirror with a small archive under grocery35's name, and in ``path/to/folder`` are
    pictures of the user's own, and a table in ``paper.csv``: what the examples of the helps name.
    """
    make_shipped(root)
    change(root, "config", device="cpu", loader_workers=0)
    counts = {"kind": "generated", "generator": "typefaces", "counts": {"train": 2, "val": 1, "test": 1}}
    change(root, "datasets/typefaces", source=counts)
    archive = {
        "kind": "archive",
        "downloads": [{"file": "toy.tar", "urls": ["https://fgvc.invalid/toy.tar"]}],
    }
    change(
        root,
        "datasets/grocery35",
        classes=len(CLASSES),
        source=archive,
        layout={"kind": "class_folders"},
        split={"provenance": "ours"},
        expected=None,
        licence_file=None,
    )
    change(root, "recipes/quick", epochs=1, threads=1)
    change(root, "methods/vit_pico", recipe={"base": "quick", "batch_size": 16})
    of_suite = {key: [0.003, 0.001] for key in ("quick", "quick_sota", "quick_parts", "quick_petl")}
    for name, rates in (of_suite | {"grocery": [0.003]}).items():
        change(root, f"suites/{name}", methods=["vit_pico"], seeds=[SEED], learning_rates=rates)
        change(root, f"suites/{name}", tables=["sota_224", "hw_stats"], figures=["acc_vs_flops_224"])
    for part, count in (("train", 4), ("val", 2), ("test", 2)):
        draw(root / "pictures" / part, count, f"{part}-")
    draw(root / "path/to/folder", 6, "")
    lines = [f"{name}/{number}.png,{name}" for name in CLASSES for number in range(6)]
    (root / "path/to/folder/labels.csv").write_text("\n".join(["path,label", *lines]))
    (root / "paper.csv").write_text("method,accuracy\nOne,91.856\nAnother,91.80\n")
    (root / "DIR").mkdir()
    with tarfile.open(root / "DIR/toy.tar", "w") as tar:
        tar.add(root / "pictures", arcname=".")
    return root


def draw(root: Path, count: int, prefix: str) -> None:
    """``root/CLASS/PREFIX_N.png``, no two of them alike."""
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(count):
            colour = (80 * label, 20 * number, 3 * sum(map(ord, prefix)) % 256)
            Image.new("RGB", (40 + number, 48), colour).save(root / name / f"{prefix}{number}.png")


def change(root: Path, name: str, **values: Any) -> None:
    """Set keys of a file in params; None takes the key out."""
    path = root / "params" / f"{name}.yaml"
    content = {**yaml.safe_load(path.read_text()), **values}
    content = {key: value for key, value in content.items() if key not in values or value is not None}
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def make_ready(root: Path) -> tuple[Path, dict[str, tuple[Said, list[str]]]]:
    """`make_small` with every step of both suites run by hand, each with the command that its rule runs.

    Returns the folder, and what each rule's last command of the default suite said and should have made.
    """
    make_small(root)
    told: dict[str, tuple[Said, list[str]]] = {}

    def by_hand(name: str, *more: str, **wildcards: object) -> None:
        arguments, files = rule(name, **wildcards)
        told[name] = fgvc(root, *arguments, *more).check(), files

    fgvc(root, "weights", "fetch", "vit_pico_patch16_224.debian_faces").check()
    for suite, dataset, classes in (("grocery", "grocery35", len(CLASSES)), ("quick", "typefaces", 21)):
        cell: dict[str, object] = {"dataset": dataset, "method": "vit_pico", "size": 224, "seed": SEED}
        by_hand("fetch", *(("--mirror", "DIR") if suite == "grocery" else ()), dataset=dataset)
        by_hand("split", dataset=dataset)
        by_hand("stats", dataset=dataset)
        by_hand("audit_data", dataset=dataset)
        for rate in ("0.001", "0.003") if suite == "quick" else ():
            by_hand("search", lr=rate, **cell)
        by_hand("select_lr", **cell)
        by_hand("train", **cell)
        by_hand("evaluate", **cell)
        by_hand("cost", method="vit_pico", size=224, classes=classes)
        by_hand("table", table="sota_224", suite=suite)
        by_hand("figure", figure="acc_vs_flops_224", suite=suite)
    return root, told


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))
