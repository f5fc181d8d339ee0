"""Parameter files that were written to do harm: nothing in them runs, and none fills the memory."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fgvc.config.project import Project

ProjectFactory = Callable[..., Project]

MEMORY_BYTES = 2 << 30
SECONDS = 20


def _bomb(levels: int) -> str:
    """Ten values, ten times those, and so on."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


def _merged(levels: int) -> str:
    """The same with merge keys."""
    lines = ["a0: &a0 {x: 1, y: 2, z: 3}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


#: What is written below a good file, and what the error says.
HOSTILE: dict[str, tuple[str, str]] = {
    "code": (
        'notes: !!python/object/apply:os.system ["touch canary"]\n',
        "could not determine a constructor",
    ),
    "object": ("notes: !!python/object/new:subprocess.Popen [[touch, canary]]\n", "could not determine"),
    "module": ("notes: !!python/module:antigravity\n", "could not determine a constructor"),
    "twice": ("title: another\n", "the key 'title' is given twice"),
    "aliases": (_bomb(12), "more than 200000 values"),
    "merge keys": (_merged(12), "more than 200000 values"),
    "a loop": ("notes: &a [*a]\n", "an alias (*name) stands inside what it names"),
    "a loop of keys": ("notes: &a {b: *a}\n", "an alias (*name) stands inside what it names"),
    "deep": (f"notes: {'[' * 400_000}{']' * 400_000}\n", "nested more than 40 deep"),
    "deep keys": ("".join(f"{' ' * n}a:\n" for n in range(500)), "nested more than 40 deep"),
    "huge": ("".join(f"# {n}\n" for n in range(200_000)), "has more than 1048576 bytes"),
    "NUL": ("notes: \x00\n", "control characters are not allowed"),
    "two documents": ("---\ntitle: another\n", "not valid YAML"),
    "no date": ("notes: 2026-99-99\n", "a value cannot be read: month must be in 1..12"),
    "no number": (f"epochs: {'9' * 5000}\n", "a value cannot be read"),
    "a list as key": ("? [a, b]\n: 1\n", "unhashable key"),
}


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


@pytest.mark.parametrize("case", HOSTILE)
def test_f13_hostile_yaml_is_refused_by_its_line(project_factory: ProjectFactory, case: str) -> None:
    """A parameter file with Python tags, aliases that explode or loop, a key given twice, values nested too
    deep or more than a megabyte of anything is refused by its name; nothing in it runs, and it costs neither
    memory nor time."""
    project = project_factory(copy=["datasets/cub"], settings={})
    path = project.file("dataset", "cub")
    more, says = HOSTILE[case]
    path.write_text(path.read_text(encoding="utf-8") + "\n" + more, encoding="utf-8")
    done = subprocess.run(
        [Path(sys.executable).parent / "fgvc", "data", "split", "cub"],
        cwd=project.root,
        preexec_fn=_limited,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 2 and says in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 5 and "params/datasets/cub.yaml" in done.stderr
    assert not (project.root / "canary").exists()
