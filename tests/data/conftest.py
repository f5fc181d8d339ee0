"""A toy dataset in a mirror, a folder of class folders, and a web server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from archivekit import Archive
from datakit import (
    CLASSES,
    DATA,
    PER_CLASS,
    Handler,
    HTTPServer,
    MakeSmall,
    Server,
    Toy,
    pack,
    picture,
    sha256,
    toy_files,
    toy_yaml,
)

from fgvc.config.project import Project

SHIPPED = Path(__file__).resolve().parents[2]


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
def small(project_factory: Callable[..., Project], tmp_path: Path) -> MakeSmall:
    """``small(name, archive)``: a project with the shipped YAML scaled down, and a mirror of its archives."""

    def make(name: str, archive: Archive, **changes: Any) -> Project:
        facts = yaml.safe_load((SHIPPED / "params/datasets" / f"{name}.yaml").read_text())
        facts["classes"] = 3
        facts["disk_mib"] = 1
        facts["expected"] = {part: {"rows": len(rows)} for part, rows in archive.rows.items()}
        published, packed = facts.pop("published", None), archive.packed()
        facts.update(changes.pop("yaml", {}))
        for download in facts["source"]["downloads"]:
            data = packed[download["file"]]
            facts_of_file = {"bytes": len(data), "sha256": sha256(data)}
            download.update({k: v for k, v in facts_of_file.items() if k in download})
            download.pop("md5", None)
            place = tmp_path / "mirror" / download["file"]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        if "published" in changes and published:
            facts["published"] = {**published, "url": "http://127.0.0.1:9/{}", **changes.pop("published")}
        return project_factory(
            files={f"params/datasets/{name}.yaml": {**facts, **changes}}, settings={"network_timeout_s": 0.2}
        )

    return make


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
