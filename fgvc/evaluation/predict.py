"""Predictions of a frozen checkpoint, image by image, and the metrics that follow from them alone."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from fgvc.backbones.weights import read_record
from fgvc.config.identity import recipe_sha256
from fgvc.config.project import Project
from fgvc.config.stages import version
from fgvc.data.loading import ImageSet, Sample, batches_of, eval_loader
from fgvc.data.splits import read_class_names, read_split
from fgvc.data.transforms import Pipeline, Triple, eval_pipeline, normalisation
from fgvc.device import (
    describe_device,
    give_back,
    is_out_of_memory,
    loader_workers,
    prepare_process,
)
from fgvc.device_lease import leased_devices
from fgvc.errors import FgvcError
from fgvc.evaluation.heads import HEADS, PREFIX, columns_of_heads, write_heads
from fgvc.evaluation.metrics import compute_metrics
from fgvc.methods.base import Method
from fgvc.methods.build import build_variant
from fgvc.methods.checkpoints import backbone_of, load_checkpoint
from fgvc.provenance.digests import file_sha256
from fgvc.provenance.files import atomic_path, read_json, write_json
from fgvc.provenance.store import ResultStore

PREDICTIONS, METRICS = "predictions.parquet", "metrics.json"
EVALUATION_FILES = [PREDICTIONS, METRICS]

#: The split that a run is evaluated on, by the split that it was trained on.
HELD_OUT = {"train": "val", "train_val": "test"}

#: How many classes of each image are kept, best first.
TOP_CLASSES = 10

_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("label", pa.int32()),
        ("label_logprob", pa.float32()),
        ("top_classes", pa.list_(pa.int32())),
        ("top_probabilities", pa.list_(pa.float32())),
    ]
)


def predict(
    model: nn.Module,
    images: ImageSet,
    *,
    device: torch.device,
    batch_size: int,
    workers: int,
    channels_last: bool = False,
) -> pd.DataFrame:
    """One row an image, in list order.

    Returns columns sample_id, label, label_logprob (natural log of the label's probability), top_classes
    and top_probabilities (lists of min(10, K), best first), and for each of `Method.head_logits` its class.
    Probabilities are float32 softmax outputs.
    """
    model.eval()
    frames: list[dict[str, Any]] = []
    parts = 1
    loader = eval_loader(images, batch_size, workers, pin_memory=device.type == "cuda")
    with torch.inference_mode():
        for batch in batches_of(loader):
            inputs = batch.images.to(device, non_blocking=True)
            if channels_last:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            logits, heads, parts = _logits(model, inputs, parts)
            logprobs = logits.float().log_softmax(dim=1).cpu()
            top = logprobs.topk(min(TOP_CLASSES, logprobs.shape[1]), dim=1)
            own = logprobs.gather(1, batch.targets[:, None])[:, 0]
            for row, index in enumerate(batch.indices.tolist()):
                frames.append(
                    {
                        "sample_id": images.samples[index].path,
                        "label": int(batch.targets[row]),
                        "label_logprob": float(own[row]),
                        "top_classes": top.indices[row].tolist(),
                        "top_probabilities": top.values[row].exp().tolist(),
                        **{f"{PREFIX}{name}": classes[row] for name, classes in heads.items()},
                    }
                )
    return pd.DataFrame(frames) if frames else pd.DataFrame([], columns=_SCHEMA.names)


def _logits(model: nn.Module, inputs: Tensor, parts: int) -> tuple[Tensor, dict[str, list[int]], int]:
    """Logits [B, K] of a batch and its class by each head, given in ``parts`` or in more where memory does
    not suffice; and how many.

    An image's prediction does not depend on its batch, but for the last bits. Raises FgvcError where not even
    one image fits.
    """
    while True:
        try:
            passes = [_pass(model, some) for some in inputs.chunk(parts)]
            heads = {name: [c for _, each in passes for c in each[name].tolist()] for name in passes[0][1]}
            return torch.cat([logits for logits, _ in passes]), heads, parts
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        give_back(inputs.device)  # the exception, which is gone here, kept the failed pass's memory
        if parts >= len(inputs):
            raise FgvcError(
                "out of memory with a single image", cure="predict on a device with more memory: --device cpu"
            )
        parts *= 2
        print(f"out of memory; from here on {-(-len(inputs) // parts)} images a pass", file=sys.stderr)


def _pass(model: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits [B, K], and the class [B] that each of the method's heads predicts."""
    output = model(images)
    heads = model.head_logits(output) if isinstance(model, Method) else {}
    return output.logits, {name: logits.argmax(dim=1) for name, logits in heads.items()}


def write_predictions(path: Path, predictions: pd.DataFrame, about: dict[str, Any]) -> None:
    """Write ``predictions.parquet``; ``about`` (dataset, method, digests …) goes into its metadata."""
    metadata = {f"fgvc.{key}": str(value) for key, value in about.items()}
    table = pa.Table.from_pylist(predictions.to_dict("records"), schema=_SCHEMA.with_metadata(metadata))
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def evaluate_directory(
    project: Project,
    directory: Path,
    split: str,
    *,
    device: str | None = None,
    batch_size: int | None = None,
    say_device: bool = True,
) -> dict[str, Any]:
    """Evaluate the frozen checkpoint in ``directory`` on ``split``; writes predictions and metrics there.

    Args:
        batch_size: overrides the recipe's (1: streaming). The predictions may differ in the last bits.
        say_device: False where the caller has just said it.

    Returns the metrics. A diverged run gives empty predictions and metrics that say so.

    Raises FgvcError when the run does not exist, was trained on (part of) the split or with another recipe
    than its variant has now, or when its checkpoint was changed.
    """
    record = read_json(directory / "run.json", made_by=_maker(project, directory))
    dataset, method = record["dataset"], record["method"]
    check_fits(project, directory, record, split)
    about = {
        "dataset": dataset,
        "method": method,
        "image_size": record["image_size"],
        "seed": record["seed"],
        "learning_rate": record["learning_rate"],
        "split": split,
        "run_sha256": record["run_sha256"],
        "model_sha256": record["model_sha256"],
        "stage_version": version("evaluate"),
    }
    if record["status"] == "diverged":
        predictions = pd.DataFrame([], columns=_SCHEMA.names)
        metrics: dict[str, Any] = {"status": "diverged", "cause": record["cause"]}
    else:
        wanted, jobs = device or project.settings.device, project.settings.jobs_per_gpu
        doing = f"evaluating {project.paths.shown(directory)}"
        with leased_devices(wanted, 1, doing, jobs_per_gpu=jobs) as (lent,):
            predictions = _predictions(project, directory, record, split, lent, batch_size, say_device)
        names = read_class_names(project, dataset)
        metrics = {"status": "ok", **compute_metrics(predictions, len(names), names)}
    write_predictions(directory / PREDICTIONS, predictions, about)
    heads = write_heads(directory, columns_of_heads(predictions), about)
    metrics = {**about, "predictions_sha256": file_sha256(directory / PREDICTIONS), **metrics, **heads}
    write_json(directory / METRICS, metrics)
    store = ResultStore(project.paths.state_dir(directory), record["run_sha256"])
    store.keep([directory / name for name in [*EVALUATION_FILES, *([HEADS] if heads else [])]])
    return metrics


def restore_evaluation(store: ResultStore, directory: Path) -> None:
    """Put a run's evaluation back into ``directory`` where the store has it, with that of its heads."""
    if store.restore(EVALUATION_FILES, directory):
        store.restore([HEADS], directory)


def drop_foreign_evaluation(directory: Path, run_sha256: str) -> None:
    """Remove the predictions and metrics of another run from ``directory``, before this one comes there.

    Nothing is lost: they are in the store of the run that they belong to.
    """
    metrics = directory / METRICS
    with contextlib.suppress(OSError, ValueError, KeyError):
        if json.loads(metrics.read_text(encoding="utf-8"))["run_sha256"] == run_sha256:
            return
    for name in (METRICS, PREDICTIONS, HEADS):
        (directory / name).unlink(missing_ok=True)


def frozen_model(project: Project, directory: Path, record: dict[str, Any]) -> nn.Module:
    """The model of a run's checkpoint. Raises FgvcError when it is not the one of the record."""
    checkpoint = directory / "model.safetensors"
    if not checkpoint.is_file() or file_sha256(checkpoint) != record["model_sha256"]:
        raise FgvcError(
            "the checkpoint is missing, or is not the one that run.json vouches for",
            file=project.paths.shown(checkpoint),
            cure="train the run again, or restore the file (dvc checkout)",
        )
    dataset = record["dataset"]
    leans_on = backbone_of(checkpoint)
    model = build_variant(
        project,
        record["method"],
        record["image_size"],
        project.dataset(dataset).classes,
        with_weights=leans_on is not None,
        dataset=dataset,
    )
    weights = project.variant(record["method"]).weights
    here = read_record(project, weights)["sha256"] if leans_on and weights else None
    load_checkpoint(model, checkpoint, here)
    return model


def images_of(project: Project, record: dict[str, Any], split: str) -> ImageSet:
    """The images of a split as the run of ``record`` (its ``run.json``) sees them in evaluation."""
    samples = [Sample(c, p) for c, p in read_split(project, record["dataset"], split)]
    return ImageSet(project.paths.data_dir(record["dataset"]), samples, pipeline_of(project, record)[0], None)


def pipeline_of(project: Project, record: dict[str, Any]) -> tuple[Pipeline, Triple, Triple]:
    """How the run of ``record`` prepares images in evaluation, and the mean and std that it takes off."""
    recipe = project.variant(record["method"]).recipe_on(record["dataset"]).resolved()
    weights = record["identity"]["weights"]
    known = project.weights(weights) if weights else None
    mean, std = normalisation(recipe, known.mean if known else None, known.std if known else None)
    dataset = project.dataset(record["dataset"])
    return eval_pipeline(recipe, dataset, record["image_size"], mean, std), mean, std


def _predictions(
    project: Project,
    directory: Path,
    record: dict[str, Any],
    split: str,
    device: torch.device,
    batch_size: int | None,
    say_device: bool,
) -> pd.DataFrame:
    recipe = project.variant(record["method"]).recipe_on(record["dataset"]).resolved()
    prepare_process(recipe.threads)
    model = frozen_model(project, directory, record).to(device)
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = images_of(project, record, split)
    where = f" on {describe_device(device)['name']}" if say_device else ""
    print(
        f"{record['dataset']}/{record['method']}/{record['image_size']}: "
        f"{len(images)} images of '{split}'{where}",
        file=sys.stderr,
        flush=True,
    )
    return predict(
        model,
        images,
        device=device,
        batch_size=batch_size or recipe.eval_batch_size,
        workers=loader_workers(project.settings.loader_workers, device),
        channels_last=recipe.channels_last,
    )


def check_fits(project: Project, directory: Path, record: dict[str, Any], split: str) -> None:
    """Raise FgvcError for a run that was trained on the split, or with a recipe that its variant had once."""
    if HELD_OUT[record["split"]] != split:
        raise FgvcError(
            f"a run that was trained on '{record['split']}' is not evaluated on '{split}'",
            file=project.paths.shown(directory / "run.json"),
            cure=f"its images are those of '{HELD_OUT[record['split']]}'",
        )
    if record["recipe_sha256"] != recipe_sha256(project, record["dataset"], record["method"]):
        raise FgvcError(
            f"the recipe of '{record['method']}' is no longer the one that this run was trained with",
            file=project.paths.shown(directory / "run.json"),
            cure="train again (the earlier run is kept), or put the recipe back as it was",
        )


def _maker(project: Project, directory: Path) -> str:
    return f"snakemake --cores 1 -- {project.paths.shown(directory / 'run.json')}"
