"""A toy dataset in a mirror, a folder of class folders, and a web server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from datakit import (
    CLASSES,
    DATA,
    PER_CLASS,
    Handler,
    HTTPServer,
    Server,
    Toy,
    pack,
    picture,
    sha256,
    toy_files,
    toy_yaml,
)

from fgvc.config.project import Project


@pytest.fixture
def make_toy(project_factory: Callable[..., Project], tmp_path: Path) -> Callable[..., Toy]:
    """``make_toy(files=…, **yaml_changes)``: other archive members, other YAML keys."""

    def make(
        files: dict[str, bytes] | None = None, settings: dict[str, Any] | None = None, **changes: Any
    ) -> Toy:
        project = project_factory(
            files={"params/datasets/toy.yaml": toy_yaml(**changes)},
            settings={"network_timeout_s": 0.5, "network_retry_wait_s": 0.01, **(settings or {})},
        )
        toy = Toy(project, tmp_path / "mirror")
        toy.archive.parent.mkdir(parents=True, exist_ok=True)
        toy.archive.write_bytes(pack(files or toy_files()))
        return toy

    return make


@pytest.fixture
def toy(make_toy: Callable[..., Toy]) -> Toy:
    return make_toy()


@pytest.fixture
def class_folder(tmp_path: Path) -> Path:
    """A folder of three class folders with five images each."""
    root = tmp_path / "my pictures"
    for class_id, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(PER_CLASS):
            (root / name / f"{name}{number}.jpg").write_bytes(picture(7 * number + 50 * class_id))
    return root


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    http = HTTPServer(("127.0.0.1", 0), Handler)
    http.owner = Server(f"http://127.0.0.1:{http.server_port}/toy.tar", lambda h: h.send_error(404))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield http.owner
    http.shutdown()
    http.server_close()


@pytest.fixture
def online(make_toy: Callable[..., Toy], server: Server) -> Callable[..., Toy]:
    """The toy dataset with a URL and no mirror; keyword arguments go to the download's entry."""

    def make(settings: dict[str, Any] | None = None, **download: object) -> Toy:
        facts: dict[str, object] = {"file": "toy/toy.tar", "urls": [server.url], "sha256": sha256(DATA)}
        toy = make_toy(settings=settings, source={"kind": "archive", "downloads": [facts | download]})
        toy.archive.unlink()
        return toy

    return make
