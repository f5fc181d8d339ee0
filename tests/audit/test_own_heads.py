"""The audit of a method's single heads: what metrics.json says of them follows from heads.parquet alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ownkit as kit
import pandas as pd
import pyarrow.parquet as pq
import pytest

from fgvc.evaluation.heads import HEADS, write_heads
from fgvc.evaluation.metrics import read_predictions
from fgvc.provenance.digests import file_sha256
from fgvc.provenance.files import read_json, write_json

NAME = "tiny/trained/32 seed 1"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("suite") / "clean"
    kit.make_suite(root)
    return root


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    """A copy in which one run has two heads: one agrees with the predictions, one is always right."""
    copy = shutil.copytree(finished, tmp_path / "copy")
    folder = kit.run_folder(copy)
    frame = read_predictions(folder / "predictions.parquet")
    predicted = pd.DataFrame(
        {
            "sample_id": frame["sample_id"],
            "label": frame["label"],
            "headline": [int(top[0]) for top in frame["top_classes"]],
            "all right": frame["label"],
        }
    )
    metrics = read_json(folder / "metrics.json")
    write_json(folder / "metrics.json", metrics | write_heads(folder, predicted, metrics))
    return copy


def told(root: Path, check: str) -> list[tuple[str, object, object]]:
    return [(f.subject, f.published, f.recomputed) for f in kit.contradicted(root, check)]


def forge(root: Path, *, with_digest: bool) -> None:
    """Make the other head all right, too."""
    path = kit.run_folder(root) / HEADS
    table = pq.read_table(path)
    place = table.schema.get_field_index("headline")
    pq.write_table(table.set_column(place, table.schema.field(place), table["label"]), path)
    if with_digest:
        kit.edit_json(path.with_name("metrics.json"), "heads_sha256", value=file_sha256(path))


def test_heads_that_were_not_touched_are_confirmed(root: Path) -> None:
    metrics = read_json(kit.run_folder(root) / "metrics.json")
    assert metrics["heads_top1_pct"] == {"headline": metrics["top1_pct"], "all right": 100.0}
    assert metrics["top1_pct"] < 100
    for check in ("own_metrics", "own_predictions"):
        assert set(kit.verdicts(root, check)) == {"confirmed"}


def test_an_edited_accuracy_of_a_head_is_named(root: Path) -> None:
    path = kit.run_folder(root) / "metrics.json"
    before = kit.edit_json(path, "heads_top1_pct", "headline", value=99.0)
    assert told(root, "own_metrics") == [(f"{NAME}: heads_top1_pct.headline", 99.0, before)]


def test_edited_predictions_of_a_head_break_its_digest_and_its_accuracy(root: Path) -> None:
    forge(root, with_digest=False)
    assert [s for s, _, _ in told(root, "own_metrics")] == [f"{NAME}: heads_top1_pct.headline"]
    (subject, recorded, found), = told(root, "own_predictions")  # fmt: skip
    assert subject.endswith("seed1/heads.parquet: SHA-256 in metrics.json") and recorded != found
    forge(root, with_digest=True)
    assert told(root, "own_predictions") == []
    assert [s for s, _, _ in told(root, "own_metrics")] == [f"{NAME}: heads_top1_pct.headline"]


def test_a_head_that_nobody_evaluated_is_found(root: Path) -> None:
    path = kit.run_folder(root) / "metrics.json"
    record = json.loads(path.read_text())
    record["heads_top1_pct"]["invented"] = 100.0
    write_json(path, record)
    assert told(root, "own_metrics") == [(f"{NAME}: heads_top1_pct.invented", 100.0, None)]


def test_heads_of_other_images_or_another_run_are_found(root: Path) -> None:
    path = kit.run_folder(root) / HEADS
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    kit.edit_json(path.with_name("metrics.json"), "heads_sha256", value=file_sha256(path))
    ((subject, _, _),) = told(root, "own_metrics")
    assert subject == f"{NAME}: metrics"
    metadata = {**table.schema.metadata, b"fgvc.run_sha256": b"0" * 64}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    kit.edit_json(path.with_name("metrics.json"), "heads_sha256", value=file_sha256(path))
    assert f"{NAME}: run_sha256 of the predictions" in [s for s, _, _ in told(root, "own_predictions")]


def test_heads_that_are_not_here_are_not_checkable_and_the_rest_is_confirmed(root: Path) -> None:
    (kit.run_folder(root) / HEADS).unlink()
    for check in ("own_metrics", "own_predictions"):
        assert told(root, check) == []
        assert kit.verdicts(root, check)["not_checkable"] == 1
