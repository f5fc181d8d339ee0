"""Tools of these tests: a toy dataset in an archive, and a web server that misbehaves on demand."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

from fgvc.config.dataset import Dataset
from fgvc.config.project import Project
from fgvc.data.fetch import Fetched, fetch
from fgvc.data.splits import prepare_splits

#: See the fixture `small`.
MakeSmall = Callable[..., Project]

CLASSES = ("ant", "bee", "cow")
PER_CLASS = 5


def plain_dataset(**more: Any) -> Dataset:
    """A dataset of three classes that lies nowhere; ``more`` replaces its facts."""
    facts = {
        "title": "T",
        "description": "d",
        "classes": 3,
        "licence": "none",
        "citation": "none",
        "source": {"kind": "folder", "path": "x"},
        "layout": {"kind": "class_folders"},
        "split": {"provenance": "ours"},
    }
    return Dataset.model_validate(facts | more)


def picture(shade: int, size: tuple[int, int] = (12, 9)) -> bytes:
    """A small JPEG; its bytes differ with ``shade``."""
    out = io.BytesIO()
    Image.new("RGB", size, (shade % 256, shade // 256, 40)).save(out, "JPEG")
    return out.getvalue()


def pack(files: dict[str, bytes]) -> bytes:
    """An uncompressed tar of ``files``; the same files give the same bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def list_text(rows: list[tuple[int, str]]) -> bytes:
    return "\n".join(["class_id,dir", *(f"{c},{p}" for c, p in rows), ""]).encode()


def toy_files() -> dict[str, bytes]:
    """Members of the toy archive: images, lists, a licence, and a file that nothing uses."""
    images = {
        f"img/{name}/{number}.jpg": picture(10 * number + 60 * class_id)
        for class_id, name in enumerate(CLASSES)
        for number in range(PER_CLASS)
    }
    rows = [(CLASSES.index(p.split("/")[1]), p.removeprefix("img/")) for p in images]
    train_val = [row for row in rows if not row[1].endswith("4.jpg")]
    test = [row for row in rows if row[1].endswith("4.jpg")]
    return {
        **images,
        "lists/train_val.csv": list_text(train_val),
        "lists/test.csv": list_text(test),
        "LICENSE": b"do what you like\n",
        "unused.txt": b"nobody asks for this\n",
    }


def toy_yaml(**changes: Any) -> dict[str, Any]:
    """The toy dataset's YAML; ``changes`` replace top-level keys."""
    base: dict[str, Any] = {
        "title": "Toy",
        "description": "three classes",
        "classes": 3,
        "licence": "none",
        "citation": "none",
        "licence_file": "LICENSE",
        "source": {"kind": "archive", "downloads": [{"file": "toy/toy.tar"}]},
        "layout": {
            "kind": "lists",
            "lists": {"train_val": "lists/train_val.csv", "test": "lists/test.csv"},
            "image_root": "img",
        },
        "split": {"train_fraction": 0.5, "provenance": "official"},
    }
    return {**base, **changes}


@dataclass
class Toy:
    """A project with the dataset ``toy`` and a mirror that holds its archive."""

    project: Project
    mirror: Path

    @property
    def archive(self) -> Path:
        return self.mirror / "toy" / "toy.tar"

    @property
    def folder(self) -> Path:
        return self.project.paths.data_dir("toy")

    def fetch(self, **options: Any) -> Fetched:
        return fetch(Project(self.project.root), "toy", self.mirror, **options)


def prepared(project: Project, name: str, mirror: Path) -> dict[str, Any]:
    """Fetch a dataset and split it; returns ``split.json``."""
    fetch(project, name, mirror)
    return prepare_splits(project, name)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- a web server ----------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    server: HTTPServer

    def do_GET(self) -> None:
        self.server.owner.ranges.append(self.headers.get("Range"))
        self.server.owner.behave(self)

    def log_message(self, *_: object) -> None:
        pass

    def send(self, data: bytes, *, claim: int | None = None, kind: str = "application/octet-stream") -> None:
        """200 with ``data``; ``claim`` is the length that the header gives."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data) if claim is None else claim))
        self.end_headers()
        self.wfile.write(data)

    def send_range(self, data: bytes) -> None:
        """The rest of ``data`` from where the request's Range begins, or all of it."""
        wanted = self.headers.get("Range")
        if not wanted:
            return self.send(data)
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:])
        return None


class HTTPServer(ThreadingHTTPServer):
    owner: Server
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass  # clients that hang up are what the tests are about


@dataclass
class Server:
    """Answers every request with ``behave``; ``ranges`` are the Range headers seen."""

    url: str
    behave: Callable[[Handler], None]
    ranges: list[str | None] = field(default_factory=list)
