"""Folders, clocks and locales that nobody planned for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from faultkit import TABLES, fgvc, make_small
from workflowkit import call, contents, snakemake
from workflowkit import fgvc as fgvc_process

pytestmark = [pytest.mark.workflow]

NOTHING = "nothing to be done"


# --- F21: times of files ------------------------------------------------------------------------------


def git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=T", "-c", "user.email=t@t"]
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


def test_f21_another_branch_and_back(small: Path) -> None:
    """Files that get new times without new contents (touch, a checkout of another branch and back, a copy)
    run nothing again."""
    git(small, "init", "-q", "-b", "main")
    git(small, "add", "Snakefile", "params", "rules", "profiles", "workflow")
    git(small, "commit", "-qm", "one")
    git(small, "checkout", "-qb", "other")
    variant = small / "params/methods/vit_tiny.yaml"
    variant.write_text(variant.read_text().replace("epochs: 2", "epochs: 3"))
    git(small, "commit", "-qam", "another recipe")
    git(small, "checkout", "-q", "main")
    for number, path in enumerate(sorted(p for p in small.rglob("*") if p.is_file())):
        if ".git" not in path.parts and ".snakemake" not in path.parts:
            os.utime(path, (2_000_000_000 - number, 2_000_000_000 - number))
    assert snakemake(small).check().lines[0].startswith(NOTHING)


# --- F23: names and locales ---------------------------------------------------------------------------

#: What a shell, a formatter, a URL or a list might trip over.
ODD = 'größe 図 it\'s $HOME & (x) "q"; 100% #1'


@pytest.mark.slow
def test_f23_an_odd_folder_and_no_locale(finished_small: Path, tmp_path: Path) -> None:
    """In a deep folder with spaces, quotes, other alphabets and signs of the shell in its name, and without a
    locale (LC_ALL=C), the workflow makes the same bytes as elsewhere."""
    root = tmp_path / ODD / "/".join(["d" * 60] * 4) / "my project"
    root.parent.mkdir(parents=True)
    make_small(root)
    snakemake(root, TABLES[0], LANG="C", LC_ALL="C").check()
    made = ("runs/**/*.safetensors", "runs/**/metrics.json", "runs/**/*.parquet", "tables/acc_32.*")
    assert len(contents(root, *made)) == 6
    assert contents(root, *made) == contents(finished_small, *made)


def test_f23_braces_in_the_folder_s_name(small: Path) -> None:
    """A folder with braces in its name, which Snakemake cannot work in, is refused with that reason."""
    odd = small.rename(small.with_name("pro{ject}"))
    outcome = snakemake(odd)
    assert outcome.status == 1 and len(outcome.lines) <= 5 and "Traceback" not in outcome.text
    assert "takes braces in a folder's name for wildcards" in outcome.text and str(odd) in outcome.text
    fgvc(odd, "table", "acc_32").check()


def test_f23_names_of_pictures_and_classes(small: Path, tmp_path: Path) -> None:
    """Class folders and pictures with spaces, quotes, commas and other alphabets in their names become a
    dataset, without a locale with the same lists to the byte."""
    made: list[list[bytes]] = []
    for more in ({}, {"LANG": "C", "LC_ALL": "C"}):
        images = tmp_path / f"my pictures {len(made)}"
        for name, source in (("Löwe, der", "circle"), ("図 it's", "ring")):
            (images / name).mkdir(parents=True)
            for number, path in enumerate(sorted((small / "images/shapes/train" / source).iterdir())):
                (images / name / f'ä "{number}" 100%.png').write_bytes(path.read_bytes())
        dataset = f"mine{len(made)}"
        call("fgvc", small, "data", "add", dataset, str(images), **more).check()
        for step in ("fetch", "split"):
            call("fgvc", small, "data", step, dataset, **more).check()
        lists = sorted((small / f"results/splits/{dataset}").glob("*.csv"))
        assert len(lists) == 5
        made.append([path.read_bytes() for path in lists])
    assert made[0] == made[1]


def test_f23_a_terminal_that_lacks_a_character(small: Path) -> None:
    """A table with signs that the terminal cannot show is shown with their codes; it is no error."""
    shown = call("fgvc", small, "table", "hw_stats", PYTHONIOENCODING="ascii").check().text
    assert "\\xb1" in shown and "±" in fgvc_process(small, "table", "hw_stats").check().text
