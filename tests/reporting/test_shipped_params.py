"""The tables and figures that come with the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgvc.config.project import Project

ROOT = Path(__file__).resolve().parents[2]
PROJECT = Project(ROOT)


@pytest.mark.parametrize("name", PROJECT.names("table"))
def test_tables_load(name: str) -> None:
    assert PROJECT.table(name).title


@pytest.mark.parametrize("name", PROJECT.names("figure"))
def test_figures_load(name: str) -> None:
    assert str(PROJECT.figure(name).image_size) in name


def test_names() -> None:
    assert {"sota_224", "sota_448", "hw_stats", "hw_stats_all", "datasets"} <= set(PROJECT.names("table"))
    assert {"acc_vs_flops_224", "acc_vs_flops_448", "published_acc_vs_flops_224"} <= set(
        PROJECT.names("figure")
    )


@pytest.mark.parametrize("path", sorted(ROOT.glob("params/[tfp]*/*.yaml")), ids=lambda p: p.stem)
def test_each_opens_with_what_command_and_expectation(path: Path) -> None:
    head = path.read_text(encoding="utf-8").split("\n\n")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert "# Command:" in head and "# Expect:" in head


def test_overlaps_are_called_what_weights_call_their_pretraining() -> None:
    """A name that no weights use would never warn."""
    used = {name for w in PROJECT.names("weights") for name in PROJECT.weights(w).pretraining}
    for dataset in PROJECT.names("dataset"):
        assert set(PROJECT.dataset(dataset).pretraining_overlap) <= used, dataset
