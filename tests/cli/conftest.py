"""The shipped parameters alone, and a small project in which every step was run by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from clikit import Said, make_ready, make_shipped


@pytest.fixture(autouse=True)
def plain_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of ours in the environment, and a terminal of 80 columns."""
    _forget(monkeypatch)
    monkeypatch.setenv("COLUMNS", "80")


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FGVC_MIRROR", "FGVC_PROJECT", "FGVC_DEBUG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parameters of the checkout in a folder of their own; nothing was run."""
    return make_shipped(tmp_path_factory.mktemp("shipped") / "project")


@pytest.fixture(scope="session")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[Said, list[str]]]]:
    """The finished project, and what each rule's command said and should have made."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        _forget(monkeypatch)
        return make_ready(tmp_path_factory.mktemp("ready") / "project")


@pytest.fixture(scope="session")
def ready(by_hand: tuple[Path, dict[str, tuple[Said, list[str]]]]) -> Path:
    """A small project in which the suites quick and grocery are finished."""
    return by_hand[0]


@pytest.fixture
def cpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, whatever this one has."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
