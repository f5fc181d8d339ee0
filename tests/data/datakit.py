"""Tools of these tests: a toy dataset in an archive, and a web server that misbehaves on demand."""

from __future__ import annotations

import hashlib
import io
import tarfile
import time
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


#: The toy archive, and a place in it to break off.
DATA = pack(toy_files())
HALF = len(DATA) // 2


def get(toy: Toy) -> Fetched:
    """A fetch without a mirror."""
    return fetch(toy.project, "toy")


def part(toy: Toy) -> Path:
    """Where the toy's archive grows."""
    return toy.project.root / "data/.downloads/toy/toy.tar.part"


def put_part(toy: Toy, data: bytes) -> None:
    part(toy).parent.mkdir(parents=True, exist_ok=True)
    part(toy).write_bytes(data)


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
        self.server.owner.asked.append((time.monotonic(), self.path))
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

    def answer(self, status: int, data: bytes = b"", **headers: object) -> None:
        """Any answer; underscores in the names of headers stand for hyphens."""
        self.send_response(status)
        given = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        for name, value in {"Content-Length": str(len(data)), **given}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def send_range(self, data: bytes, **headers: object) -> None:
        """The rest of ``data`` from where the request's Range begins, or all of it; as If-Range says."""
        wanted = self.headers.get("Range")
        only_if = self.headers.get("If-Range")
        if not wanted or (only_if and only_if != headers.get("ETag", only_if)):
            return self.answer(200, data, **headers)
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        whole = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self.answer(206, data[start:], Content_Range=whole, **headers)


class HTTPServer(ThreadingHTTPServer):
    owner: Server
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass  # clients that hang up are what the tests are about


@dataclass
class Server:
    """Answers every request with ``behave``.

    Attributes:
        ranges: the Range headers seen.
        asked: when and for what, one a request.
    """

    url: str
    behave: Callable[[Handler], None]
    ranges: list[str | None] = field(default_factory=list)
    asked: list[tuple[float, str]] = field(default_factory=list)

    def in_turn(self, *behaviours: Callable[[Handler], None]) -> None:
        """Answer the first request with the first, the next with the next, and then with the last again."""
        self.behave = lambda handler: behaviours[min(len(self.asked), len(behaviours)) - 1](handler)
