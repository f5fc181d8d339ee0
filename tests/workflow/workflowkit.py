"""A tiny project for tests that run Snakemake for real, and what a user does in it."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from PIL import Image, ImageDraw

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

SIZE = 32
CLASSES = ("circle", "cross", "ring", "square")
PER_CLASS = {"train": 8, "val": 4, "test": 5}
METHODS = ("cnn_tiny", "vit_tiny")
SEEDS = (1, 10)
RATES = ("0.001", "0.003")
#: Jobs of the default suite from nothing.
JOBS = 23

#: How long one command may take on a busy machine.
TIMEOUT_S = 300.0


def variant(**changes: Any) -> dict[str, Any]:
    """A small ViT as a method file; ``recipe`` is merged, other keys replace."""
    recipe = {"base": "tiny", "epochs": 6} | changes.pop("recipe", {})
    return {
        "method": "vit",
        "title": "ViT",
        "group": "ViT-based",
        "backbone": "vit_pico_patch16_224",
        "backbone_title": "ViT-Pico/16",
        "weights": None,
        "recipe": recipe,
        "source": "this test",
        **changes,
    }


def suite(**changes: Any) -> dict[str, Any]:
    """The default suite of the tiny project, or one like it."""
    return {
        "title": "Mini",
        "description": "Two methods on four shapes.",
        "datasets": ["shapes"],
        "methods": list(METHODS),
        "image_sizes": [SIZE],
        "seeds": list(SEEDS),
        "learning_rates": [0.003, 0.001],
        "tables": ["acc_32", "hw_stats"],
        "figures": ["acc_vs_flops_32"],
        **changes,
    }


_SHOWN = {"caption": "Made for a test.", "image_size": SIZE}
FILES: dict[str, dict[str, Any]] = {
    # A state is saved after each step, so that a kill at any moment finds one.
    "config": {"default_suite": "mini", "device": "cpu", "checkpoint_interval_s": 0},
    "datasets/shapes": {
        "title": "Shapes",
        "description": "Four shapes drawn for the tests.",
        "classes": len(CLASSES),
        "licence": "none needed",
        "citation": "this test",
        "source": {"kind": "folder", "path": "images/shapes"},
        "layout": {"kind": "class_folders"},
        "split": {"provenance": "ours"},
    },
    "recipes/tiny": {
        "epochs": 1,
        "batch_size": 8,
        "optimizer": "adamw",
        "learning_rate": 0.001,
        "warmup_steps": 2,
        "augmentation": "weak",
        "dropout": 0.0,
    },
    "methods/vit_tiny": variant(),
    "methods/cnn_tiny": variant(
        method="cnn",
        title="CNN",
        group="CNN-based",
        backbone="tf_efficientnet_lite0",
        backbone_title="EfficientNet-Lite0",
        weights="tf_efficientnet_lite0.in1k",
        recipe={"epochs": 1},
    ),
    "suites/mini": suite(),
    "tables/acc_32": {"kind": "accuracy", "title": "Top-1 accuracy, 32 × 32 pixels", **_SHOWN},
    "figures/acc_vs_flops_32": {"kind": "accuracy_vs_cost", "title": "Accuracy and cost", **_SHOWN},
}


# --- the project -------------------------------------------------------------------------------------


def make_project(root: Path) -> Path:
    """The workflow as it is shipped, with parameters and pictures so small that all runs in a minute."""
    copy_workflow(root)
    for name in FILES:
        write_params(root, name, FILES[name])
    for name in ("tables/hw_stats", "weights/tf_efficientnet_lite0.in1k"):
        target = root / "params" / f"{name}.yaml"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / "params" / f"{name}.yaml", target)
    draw_shapes(root / "images" / "shapes")
    return root


def copy_workflow(root: Path) -> None:
    """Snakefile, rules and what they use, without parameters."""
    root.mkdir(parents=True)
    for name in ("Snakefile", "environment.yml"):
        shutil.copyfile(REPOSITORY / name, root / name)
    for name in ("rules", "profiles", "workflow"):
        shutil.copytree(REPOSITORY / name, root / name)


def write_params(root: Path, name: str, content: dict[str, Any]) -> Path:
    target = root / "params" / f"{name}.yaml"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return target


def draw_shapes(root: Path, parts: dict[str, int] = PER_CLASS) -> None:
    """``root/PART/CLASS/NNN.png``: a shape of random place, size and colours."""
    for part, count in parts.items():
        for name in CLASSES:
            folder = root / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                _draw(name, random.Random(f"{part} {name} {number}")).save(folder / f"{number:03d}.png")


def _draw(name: str, dice: random.Random) -> Image.Image:
    width, height = dice.randrange(40, 65), dice.randrange(40, 65)
    image = Image.new("RGB", (width, height), tuple(dice.randrange(0, 100) for _ in range(3)))
    pen, ink = ImageDraw.Draw(image), tuple(dice.randrange(150, 256) for _ in range(3))
    r = dice.randrange(10, 17)
    x, y = dice.randrange(r, width - r), dice.randrange(r, height - r)
    side = int(r / math.sqrt(2))
    if name == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=ink)
    elif name == "ring":
        pen.ellipse((x - r, y - r, x + r, y + r), outline=ink, width=4)
    elif name == "square":
        pen.rectangle((x - side, y - side, x + side, y + side), fill=ink)
    else:
        pen.line((x - r, y, x + r, y), fill=ink, width=5)
        pen.line((x, y - r, x, y + r), fill=ink, width=5)
    return image


def copy_tree(source: Path, target: Path) -> Path:
    """A copy with its times and its hard links."""
    subprocess.run(["cp", "-a", source, target], check=True)
    return target


def forget_method(root: Path, method: str, kind: str = "*") -> None:
    """Remove all that was made of one method (or only its ``runs``), and the tables and figures."""
    for top in ("results", "state", "logs"):
        for folder in root.glob(f"{top}/{kind}/*/{method}"):
            shutil.rmtree(folder)
    for name in ("tables", "figures"):
        shutil.rmtree(root / "results" / name)


# --- commands ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What a command left on the screen, and its exit status."""

    status: int
    text: str

    @property
    def lines(self) -> list[str]:
        """The lines of ours: Snakemake's own first one, printed before it reads any plugin, left out."""
        return [line for line in self.text.splitlines() if not line.startswith("Using workflow specific")]

    @property
    def done(self) -> list[str]:
        """The jobs that ended well, as ``train shapes/vit_tiny/32 seed 1``."""
        return re.findall(r"^\[\d+/\d+\] (.*): done in ", self.text, flags=re.M)

    @property
    def reused(self) -> int:
        match = re.search(r"^(\d+) results are there already", self.text, flags=re.M)
        return int(match[1]) if match else 0

    def check(self) -> Outcome:
        assert self.status == 0, self.text
        return self


def environment(**more: str) -> dict[str, str]:
    """The user's, without what would help: no activated environment, nothing of fgvc."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FGVC_", "SNAKEMAKE_", "PYTEST_"))}
    path = [p for p in kept.get("PATH", os.defpath).split(os.pathsep) if Path(p) != BIN]
    return {**kept, "PATH": os.pathsep.join(path), "COLUMNS": "80", **more}


def call(command: str, root: Path, *arguments: str | Path, **more: str) -> Outcome:
    """Run a command of the environment by its path, with ``root`` as the folder."""
    done = subprocess.run(
        [BIN / command, *map(str, arguments)],
        cwd=root,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Outcome(done.returncode, done.stdout)


def snakemake(root: Path, *targets: str, **more: str) -> Outcome:
    return call("snakemake", root, "--cores", "2", "--", *targets, **more)


def fgvc(root: Path, *arguments: str | Path) -> Outcome:
    return call("fgvc", root, *arguments)


@dataclass(frozen=True)
class Planned:
    """A job of a dry run."""

    rule: str
    wildcards: dict[str, str]


def planned(root: Path, *targets: str) -> list[Planned]:
    """The jobs that Snakemake would run, without the final target."""
    text = call("snakemake", root, "-n", "--", *targets).check().text
    jobs = []
    for block in re.split(r"^(?:local)?rule ", text, flags=re.M)[1:]:
        rule = block.partition(":")[0]
        match = re.search(r"^    wildcards: (.*)$", block, flags=re.M)
        pairs = [pair.split("=", 1) for pair in match[1].split(", ")] if match else []
        if rule != "all":
            jobs.append(Planned(rule.removesuffix("_default"), dict(pairs)))
    return jobs


def counts(jobs: Iterable[Planned]) -> dict[str, int]:
    found: dict[str, int] = {}
    for job in jobs:
        found[job.rule] = found.get(job.rule, 0) + 1
    return found


# --- processes that are killed -----------------------------------------------------------------------


class Driver:
    """A running ``snakemake``, in a process group of its own, with its screen in a file."""

    def __init__(self, root: Path, *targets: str, options: Sequence[str] = ("--cores", "2")) -> None:
        self.root = root
        self.screen = root / "screen.txt"
        with self.screen.open("w") as stream:
            self.process = subprocess.Popen(
                [BIN / "snakemake", *options, "--", *targets],
                cwd=root,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.screen.read_text()

    def wait_until(self, is_so: Callable[[], T | None], what: str) -> T:
        """Wait until ``is_so`` gives something true, and give it; the driver must live until then."""
        deadline = time.monotonic() + TIMEOUT_S
        while not (found := is_so()):
            assert self.process.poll() is None, f"it ended before {what}:\n{self.text}"
            assert time.monotonic() < deadline, f"no {what}:\n{self.text}"
            time.sleep(0.01)
        return found

    def signal(self, number: signal.Signals, *, group: bool) -> None:
        """To the driver, or to it and all that it started (Ctrl-C; a machine that goes down)."""
        (os.killpg if group else os.kill)(self.process.pid, number)

    def end(self) -> Outcome:
        self.process.wait(TIMEOUT_S)
        return Outcome(self.process.returncode, self.text)


@contextmanager
def driving(root: Path, *targets: str, options: Sequence[str] = ("--cores", "2")) -> Iterator[Driver]:
    """A driver that leaves no process behind, whatever the test does."""
    driver = Driver(root, *targets, options=options)
    try:
        yield driver
    finally:
        with suppress(ProcessLookupError):
            os.killpg(driver.process.pid, signal.SIGKILL)
        driver.process.wait(TIMEOUT_S)


def group_lives(group: int) -> bool:
    """Whether a process of the group is left (zombies do not count)."""
    found = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in found.stdout.splitlines()]
    return any(int(pgid) == group and not state.startswith("Z") for pgid, state in rows)


def gone(group: int) -> bool:
    """Whether no process of the group is left, after a while: a killed process frees its memory first."""
    deadline = time.monotonic() + 10
    while group_lives(group) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not group_lives(group)


def states(root: Path, kind: str) -> list[Path]:
    """The saved states of unfinished trainings: ``runs`` or ``sweeps``."""
    return list(root.glob(f"state/{kind}/*/*/*/*/*/step-*.json"))


# --- what is there -----------------------------------------------------------------------------------


def result_files(root: Path, *patterns: str) -> list[Path]:
    """Result files by pattern below ``results/``."""
    return sorted(p for pattern in patterns for p in (root / "results").glob(pattern) if p.is_file())


#: What must not differ by a byte between two projects, however often they were interrupted.
FINAL = (
    "runs/*/*/*/*/model.safetensors",
    "runs/*/*/*/*/history.csv",
    "runs/*/*/*/*/metrics.json",
    "runs/*/*/*/*/predictions.parquet",
    "sweeps/*/*/*/lr.json",
    "sweeps/*/*/*/*/metrics.json",
    "tables/*",
    "figures/*.png",
)


def contents(root: Path, *patterns: str) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in result_files(root, *patterns)}


def identities(paths: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Inode and time of each file: what a job that runs again would change."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
