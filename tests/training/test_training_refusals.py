"""What is looked at before the first epoch, each with one clear error; and a failure in the table."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from trainkit import (
    SIZE,
    made,
    run_dir,
    spec_of,
)

from fgvc.config.grid import Cell
from fgvc.config.project import Project
from fgvc.data.fetch import fetch
from fgvc.data.splits import prepare_splits
from fgvc.errors import FgvcError
from fgvc.evaluation.predict import evaluate_directory
from fgvc.reporting.runs import read_run
from fgvc.training.run import train_run

Fresh = Callable[..., Project]


def refused(project: Project, method: str = "plain", **facts: Any) -> str:
    """The message of a run that does not begin; its failure is left for the tables."""
    spec = spec_of(project, method, **facts)
    with pytest.raises(FgvcError) as caught:
        train_run(spec)
    assert not (spec.directory / "run.json").exists()
    assert len(str(caught.value).splitlines()) <= 5
    return str(caught.value)


def test_half_precision_on_a_cpu_is_refused_before_anything_is_read(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fgvc.training.run.build_variant", lambda *_a, **_k: pytest.fail("a model was built"))
    text = refused(project, "half")
    assert "fp16" in text and "GPU" in text
    failure = json.loads((project.paths.state_dir(run_dir(project, "half")) / "failure.json").read_text())
    assert "fp16" in failure["error"]


@pytest.mark.parametrize("method", ["plain", "everything"])
@pytest.mark.parametrize("how", ["shorter", "same size", "missing"])
def test_f08_a_damaged_picture_is_found_before_the_first_epoch(
    project: Project, monkeypatch: pytest.MonkeyPatch, method: str, how: str
) -> None:
    """A picture that was damaged after it was fetched is named before the first epoch."""
    image = project.paths.data_dir("tiny") / "train/bee/3.png"
    data = image.read_bytes()
    image.unlink()
    if how == "shorter":
        image.write_bytes(data[:100])
    elif how == "same size":
        image.write_bytes(data[:100] + bytes(len(data) - 100))
    monkeypatch.setattr("fgvc.training.run.Trainer.train", lambda *_: pytest.fail("training began"))
    text = refused(project, method)
    assert "train/bee/3.png" in text and "fgvc data fetch tiny" in text


def test_an_image_that_the_run_does_not_see_is_not_read(project: Project) -> None:
    """The test images are none of a training run's business; only their sizes are looked at."""
    image = project.paths.data_dir("tiny") / "test/bee/1.png"
    data = image.read_bytes()
    image.unlink()
    image.write_bytes(bytes(len(data)))
    assert train_run(spec_of(project)).status == "ok"
    with pytest.raises(FgvcError, match="cannot be decoded") as caught:
        evaluate_directory(Project(project.root), run_dir(project), "test")
    assert "test/bee/1.png" in str(caught.value)


def test_a_class_that_is_missing_from_the_split_is_found(project: Project) -> None:
    file = project.file("dataset", "tiny")
    file.write_text(file.read_text().replace("classes: 3", "classes: 4"))
    text = refused(project)
    assert "does not have its 4 classes" in text and "lacking: [3]" in text
    assert "results/splits/tiny/train_val.csv" in text


def test_f10_an_edited_list_is_not_trained_on(project: Project) -> None:
    """A prepared list that was edited is not trained on: its digest is no longer the one of split.json."""
    path = project.paths.split_list("tiny", "train_val")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert "the list was changed since it was made" in refused(project)


def test_images_that_changed_since_the_split_are_refused(project: Project) -> None:
    new = project.root / "pictures/train/ant/new.png"
    new.write_bytes((project.root / "pictures/train/ant/0.png").read_bytes())
    fetch(Project(project.root), "tiny", replace=True)
    text = refused(project)
    assert "changed since they were split" in text and "fgvc data split tiny" in text
    prepare_splits(Project(project.root), "tiny")
    assert train_run(spec_of(project)).record["train_images"] == 22


def test_what_was_not_made_yet_is_named_with_its_command(project: Project) -> None:
    project.paths.split_record("tiny").unlink()
    assert "fgvc data split tiny" in refused_spec(project)


def refused_spec(project: Project) -> str:
    with pytest.raises(FgvcError) as caught:
        train_run(spec_of(project))
    return str(caught.value)


def test_a_failure_is_shown_in_the_table_until_the_run_succeeds(project: Project) -> None:
    image = project.paths.data_dir("tiny") / "train/bee/3.png"
    data = image.read_bytes()
    image.write_bytes(b"x")
    refused(project)
    seen = read_run(Project(project.root), Cell("tiny", "plain", SIZE), 1)
    assert seen.status == "failed" and "train/bee/3.png" in (seen.cause or "")
    image.write_bytes(data)
    made(project)
    assert read_run(Project(project.root), Cell("tiny", "plain", SIZE), 1).status == "ok"
    assert not (project.paths.state_dir(run_dir(project)) / "failure.json").exists()
