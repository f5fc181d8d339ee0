"""Predictions of single heads: accuracies by hand, the file, and what is no such file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fgvc.errors import FgvcError
from fgvc.evaluation.heads import columns_of_heads, head_accuracies, read_heads, write_heads
from fgvc.provenance.digests import file_sha256


@pytest.fixture
def predicted() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sample_id": ["b.png", "a.png", "c.png"],
            "label": [0, 1, 2],
            "layer 1": [0, 1, 1],
            "never": [1, 2, 0],
        }
    )


def test_accuracies_by_hand(predicted: pd.DataFrame) -> None:
    assert head_accuracies(predicted) == {"layer 1": 66.666667, "never": 0.0}


def test_what_is_written_comes_back_and_is_vouched_for(predicted: pd.DataFrame, tmp_path: Path) -> None:
    told = write_heads(tmp_path, predicted, {"method": "pim"})
    path = tmp_path / "heads.parquet"
    assert told == {"heads_sha256": file_sha256(path), "heads_top1_pct": head_accuracies(predicted)}
    found = read_heads(path, predicted.iloc[::-1])
    assert found.to_dict("list") == predicted.to_dict("list")
    before = path.read_bytes()
    write_heads(tmp_path, predicted, {"method": "pim"})
    assert path.read_bytes() == before, "the same bytes every time"


def test_a_method_without_heads_leaves_none(predicted: pd.DataFrame, tmp_path: Path) -> None:
    write_heads(tmp_path, predicted, {})
    assert write_heads(tmp_path, None, {}) == {} and not (tmp_path / "heads.parquet").exists()
    assert columns_of_heads(predicted) is None
    marked = predicted.rename(columns={"layer 1": "head:layer 1", "never": "top_classes"})
    found = columns_of_heads(marked)
    assert found is not None and list(found.columns) == ["sample_id", "label", "layer 1"]


def test_heads_of_other_images_and_broken_files_are_refused(predicted: pd.DataFrame, tmp_path: Path) -> None:
    write_heads(tmp_path, predicted, {})
    path = tmp_path / "heads.parquet"
    for images in (predicted.iloc[:2], predicted.assign(label=[0, 1, 1])):
        with pytest.raises(FgvcError, match="other images or labels"):
            read_heads(path, images)
    path.write_bytes(b"no parquet")
    with pytest.raises(FgvcError, match=r"cannot be read") as caught:
        read_heads(path, predicted)
    assert caught.value.file == str(path)
    predicted.drop(columns="label").to_parquet(path)
    with pytest.raises(FgvcError, match="cannot be read"):
        read_heads(path, predicted)
