"""How many GPUs a job asks for, and how many devices it is told to use."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fgvc.config.project import Project
from fgvc.workflow import rules
from fgvc.workflow.rules import Rules


@pytest.mark.parametrize(
    ("settings", "has_gpu", "asked", "devices"),
    [
        ({}, False, (0, 0), 1),
        ({}, True, (1, 1), 1),
        ({"gpus_per_training": 4}, True, (4, 1), 4),
        ({"gpus_per_training": 4}, False, (0, 0), 1),
        ({"gpus_per_training": 2, "device": "cuda"}, False, (2, 1), 2),  # on a cluster's login node
        ({"gpus_per_training": 2, "device": "cpu"}, True, (0, 0), 1),
    ],
)
def test_gpus_of_a_training_and_of_an_evaluation(
    project_factory: Callable[..., Project],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, object],
    has_gpu: bool,
    asked: tuple[int, int],
    devices: int,
) -> None:
    monkeypatch.setattr(rules, "has_gpu", lambda: has_gpu)
    found = Rules(project_factory(settings=settings))
    assert (found.gpus_per_training, found.gpus_per_evaluation) == asked
    assert found.devices_per_training == devices
