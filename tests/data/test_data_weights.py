"""Weights come through the same sources as datasets: the network with its faults, the user's own folder."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datakit import Handler, Server, sha256

from fgvc.backbones.fetch_weights import fetch_weights, weights_notes
from fgvc.backbones.timm_models import build_timm
from fgvc.config.project import Project
from fgvc.errors import FgvcError

ARCHITECTURE = "test_vit"


@pytest.fixture(scope="module")
def file_bytes() -> bytes:
    torch.manual_seed(0)
    out = io.BytesIO()
    torch.save(dict(build_timm(ARCHITECTURE).state_dict()), out)
    return out.getvalue()


@pytest.fixture
def make(
    project_factory: Callable[..., Project], server: Server, file_bytes: bytes
) -> Callable[..., Project]:
    """The weights ``w`` at the server's URL; keyword arguments go to the source's entry."""
    server.behave = lambda handler: handler.send_range(file_bytes)

    def one(unverified: list[str] | None = None, **source: Any) -> Project:
        url = server.url.replace("/toy.tar", "/w.pth")
        facts = {"kind": "url", "url": url, "file": "w.pth", "sha256": sha256(file_bytes)[:8], **source}
        description = {
            "title": "Tiny",
            "architecture": ARCHITECTURE,
            "source": {key: value for key, value in facts.items() if value is not None},
            "format": "timm",
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "pretraining": ["nothing"],
            "licence": "none",
            "citation": "none",
            "unverified": unverified or [],
        }
        return project_factory(
            files={"params/weights/w.yaml": description},
            settings={"network_timeout_s": 0.5, "network_retry_wait_s": 0.01},
        )

    return one


Make = Callable[..., Project]


def test_from_the_network_with_what_was_checked(make: Make, server: Server) -> None:
    project = make()
    record, was_there = fetch_weights(project, "w")
    assert not was_there
    assert (record["source"], record["source_checked"]) == (
        server.url.replace("toy.tar", "w.pth"),
        ["sha256"],
    )
    assert weights_notes(project, "w", record) == []
    assert fetch_weights(project, "w", force=True)[0] == record
    assert len(server.asked) == 1  # the download is kept


def test_a_broken_download_is_resumed(make: Make, server: Server, file_bytes: bytes) -> None:
    def breaks(handler: Handler) -> None:
        handler.answer(200, file_bytes[:5000], Content_Length=len(file_bytes))
        handler.close_connection = True

    project = make()
    server.in_turn(breaks, lambda handler: handler.send_range(file_bytes))
    assert fetch_weights(project, "w")[0]["tensors"] > 0
    assert server.ranges == [None, "bytes=5000-"]


def test_the_next_source_serves_when_one_sends_another_file(
    make: Make, server: Server, file_bytes: bytes
) -> None:
    good = server.url.replace("toy.tar", "good.pth")
    project = make(other_urls=[good])
    server.behave = lambda h: h.send(file_bytes if h.path == "/good.pth" else file_bytes[::-1])
    assert fetch_weights(project, "w")[0]["source"] == good


def test_a_web_page_is_no_weights(make: Make, server: Server) -> None:
    project = make()
    server.behave = lambda handler: handler.send(b"<!doctype html><p>please log in</p>", kind="text/html")
    with pytest.raises(FgvcError, match="sends a web page instead of the file") as caught:
        fetch_weights(project, "w")
    message = str(caught.value)
    assert "--from-local" in message and "w.pth" in message
    assert len(message.splitlines()) <= 5


# --- trust on first use ----------------------------------------------------------------------------------


def test_without_a_digest_the_yaml_must_say_that_none_is_known(make: Make) -> None:
    with pytest.raises(FgvcError, match="a digest is needed") as caught:
        fetch_weights(make(sha256=None), "w")
    assert "w.yaml" in str(caught.value)


def test_the_first_file_is_trusted_recorded_and_told(make: Make, file_bytes: bytes) -> None:
    project = make(sha256=None, unverified=["no digest is published"])
    record, _ = fetch_weights(project, "w")
    assert record["source_sha256"] == sha256(file_bytes)
    notes = " ".join(weights_notes(project, "w", record))
    assert "no digest is published" in notes and f"not verified: {sha256(file_bytes)}" in notes


def test_another_file_later_is_refused(make: Make, server: Server) -> None:
    project = make(sha256=None, unverified=["no digest is published"])
    record, _ = fetch_weights(project, "w")
    (project.root / "data/.downloads/weights/w.pth").unlink()
    out = io.BytesIO()
    torch.save({n: t + 1 for n, t in build_timm(ARCHITECTURE).state_dict().items()}, out)
    server.behave = lambda handler: handler.send(out.getvalue())
    with pytest.raises(FgvcError, match=r"another SHA-256 .* than when it was first fetched") as caught:
        fetch_weights(project, "w", force=True)
    message = str(caught.value)
    assert sha256(out.getvalue())[:12] in message and record["source_sha256"][:12] in message
    assert len(message.splitlines()) <= 5
    kept = json.loads(project.paths.weights_record("w").read_text())
    assert kept == record  # what was there stays
    # A workflow deletes the record before it asks again; the memory stays.
    project.paths.weights_record("w").unlink()
    with pytest.raises(FgvcError, match="than when it was first fetched"):
        fetch_weights(project, "w")
    memory = next(word for word in message.split() if word.endswith("first.json"))
    (project.root / memory).unlink()
    assert fetch_weights(project, "w")[0]["source_sha256"] == sha256(out.getvalue())


# --- the user's folder -----------------------------------------------------------------------------------


def test_a_file_from_the_user_s_folder(make: Make, server: Server, tmp_path: Path, file_bytes: bytes) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/w.pth").write_bytes(file_bytes)
    project = make()
    record, _ = fetch_weights(project, "w", local=tmp_path / "mine")
    assert (record["source"], server.asked) == ("local w.pth", [])
    assert (tmp_path / "mine/w.pth").read_bytes() == file_bytes
    assert str(tmp_path) not in json.dumps(record)


def test_a_folder_without_the_file_names_it(make: Make, server: Server, tmp_path: Path) -> None:
    with pytest.raises(FgvcError, match=r"the folder does not hold w\.pth") as caught:
        fetch_weights(make(), "w", local=tmp_path)
    assert "/w.pth" in str(caught.value) and server.asked == []


def test_another_file_in_the_user_s_folder_is_refused(make: Make, server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"something else")
    with pytest.raises(FgvcError, match=r"w\.pth has another SHA-256"):
        fetch_weights(make(), "w", local=tmp_path)
    assert server.asked == []
