"""What a method's single heads predict, for methods that have several: ``heads.parquet`` and its accuracies.

The headline stands in ``predictions.parquet``; these numbers are beside it, and no table shows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fgvc.errors import FgvcError
from fgvc.evaluation.metrics import DIGITS
from fgvc.provenance.digests import file_sha256
from fgvc.provenance.files import atomic_path

HEADS = "heads.parquet"
#: Before the columns of the heads.
IMAGE_COLUMNS = ("sample_id", "label")
#: How the columns of heads are told from others where they stand beside them.
PREFIX = "head:"


def columns_of_heads(frame: pd.DataFrame) -> pd.DataFrame | None:
    """Images, labels and a column a head, by its name, of what `predict` returns; None without heads."""
    marked = [name for name in frame.columns if name.startswith(PREFIX)]
    if not marked:
        return None
    return frame[[*IMAGE_COLUMNS, *marked]].rename(columns=lambda name: name.removeprefix(PREFIX))


def write_heads(directory: Path, predicted: pd.DataFrame | None, about: dict[str, Any]) -> dict[str, Any]:
    """Write ``heads.parquet``, or remove an earlier one where there are no heads.

    Args:
        predicted: ``sample_id``, ``label`` and the predicted class of each head, one row an image.
        about: for its metadata, as in the predictions'.

    Returns what ``metrics.json`` says of it: ``heads_sha256`` and ``heads_top1_pct``, or nothing.
    """
    path = directory / HEADS
    if predicted is None:
        path.unlink(missing_ok=True)
        return {}
    heads = [name for name in predicted.columns if name not in IMAGE_COLUMNS]
    kinds = [("sample_id", pa.string()), *((name, pa.int32()) for name in ("label", *heads))]
    schema = pa.schema(kinds, metadata={f"fgvc.{key}": str(value) for key, value in about.items()})
    with atomic_path(path) as temporary:
        pq.write_table(
            pa.Table.from_pandas(predicted, schema=schema, preserve_index=False).cast(schema),
            temporary,
            compression="zstd",
        )
    return {"heads_sha256": file_sha256(path), "heads_top1_pct": head_accuracies(predicted)}


def read_heads(path: Path, images: pd.DataFrame) -> pd.DataFrame:
    """A stored ``heads.parquet``.

    Args:
        images: the predictions beside it, with ``sample_id`` and ``label``.

    Raises FgvcError when it cannot be read, or is of other images or labels than the predictions.
    """
    try:
        frame = pd.read_parquet(path)
        found = frame[list(IMAGE_COLUMNS)]
    except (OSError, ValueError, KeyError) as error:
        problem = f"the predictions of the heads cannot be read: {str(error).splitlines()[0]}"
        raise FgvcError(problem, file=path, cure="delete the file and evaluate the run again") from None
    if _pairs(found) != _pairs(images):
        raise FgvcError(
            "the heads were evaluated on other images or labels than the predictions beside them",
            file=path,
            cure="evaluate the run again",
        )
    return frame


def head_accuracies(predicted: pd.DataFrame) -> dict[str, float]:
    """Top-1 accuracy in percent of each head, in the order of the columns."""
    labels = predicted["label"].to_numpy(np.int64)
    heads = [name for name in predicted.columns if name not in IMAGE_COLUMNS]
    return {
        name: round(float(100.0 * (predicted[name].to_numpy(np.int64) == labels).mean()), DIGITS)
        for name in heads
    }


def _pairs(frame: pd.DataFrame) -> Sequence[tuple[str, int]]:
    return sorted(zip(frame["sample_id"].astype(str), frame["label"].astype(int), strict=True))
