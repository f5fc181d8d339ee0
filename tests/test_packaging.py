"""The pins: one lock for everyone, and the conda file that repeats it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def lock_lines() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_version_is_pinned_exactly_and_fits_gpu_users_too() -> None:
    for line in lock_lines():
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.!-]+", line), line
    names = {line.partition("==")[0].lower() for line in lock_lines()}
    assert "torch==2.13.0" in lock_lines()
    assert "torchvision==0.28.0" in lock_lines()
    # pip adds the CUDA packages that a user's own torch build needs.
    assert not [name for name in names if name.startswith(("nvidia-", "triton"))]


def test_environment_yml_has_the_same_pins() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip_part = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip_part == lock_lines()


def test_what_pyproject_asks_for_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + [
        d for extra in project["optional-dependencies"].values() for d in extra
    ]
    normal = {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in lock_lines()}
    for requirement in asked:
        name = re.sub(r"[-_.]+", "-", re.split(r"[<>=!~ \[]", requirement)[0]).lower()
        assert name in normal, f"{requirement} is not in requirements.lock"
