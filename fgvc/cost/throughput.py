"""The record of a method's speed on one machine: throughput, latency, memory, training step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from fgvc.config.conditions import Conditions
from fgvc.config.project import Project
from fgvc.config.recipe import Recipe
from fgvc.cost.speed import REPEATS, PeakMemory, Repeated, Subject
from fgvc.data.loading import ImageSet, Sample
from fgvc.data.splits import read_split
from fgvc.data.transforms import eval_pipeline, normalisation
from fgvc.device import choose_device, describe_device, loader_workers, prepare_process
from fgvc.device_lease import leased_devices
from fgvc.errors import FgvcError
from fgvc.methods.build import build_variant
from fgvc.provenance.files import write_json
from fgvc.provenance.machine import code_identity, host, package_versions

UNITS = (
    "images_s: images per second; ms: milliseconds; mib: 2^20 bytes. Medians of repeats with the least and "
    "the largest. Weights as initialised: no speed depends on what they hold."
)


@dataclass(frozen=True)
class Measured:
    """What is measured, and where.

    Attributes:
        dataset, method: ids; the dataset gives classes, recipe and the images that are decoded.
        image_size: S in pixels.
    """

    project: Project
    dataset: str
    method: str
    image_size: int
    conditions: Conditions

    @property
    def classes(self) -> int:
        return self.project.dataset(self.dataset).classes

    @property
    def recipe(self) -> Recipe:
        return self.project.variant(self.method).recipe_on(self.dataset).resolved()

    def subject(self, device: torch.device) -> Subject:
        """The model with weights as initialised."""
        torch.manual_seed(0)
        model = build_variant(
            self.project, self.method, self.image_size, self.classes, with_weights=False, dataset=self.dataset
        )
        return Subject(model, self.recipe, self.conditions, self.image_size, device)

    def images(self) -> ImageSet:
        """The dataset's test images, each decoded when it is asked for."""
        weights = self.project.variant(self.method).weights
        known = self.project.weights(weights) if weights else None
        mean, std = normalisation(self.recipe, known.mean if known else None, known.std if known else None)
        dataset = self.project.dataset(self.dataset)
        pipeline = eval_pipeline(self.recipe, dataset, self.image_size, mean, std)
        samples = [Sample(c, p) for c, p in read_split(self.project, self.dataset, "test")]
        return ImageSet(self.project.paths.data_dir(self.dataset), samples, pipeline, None)


def default_conditions(device: str | None, precision: str | None, batch_size: int | None) -> Conditions:
    """Conditions from what a user gave; the rest as is usual on the device.

    Raises FgvcError for a device that is not here and for a precision that it does not have.
    """
    kind = choose_device(device or "auto").type
    try:
        return Conditions(
            device=kind,
            precision=precision or ("bf16" if kind == "cuda" else "fp32"),
            batch_size=batch_size or (64 if kind == "cuda" else 8),
            threads=torch.get_num_threads() if kind == "cpu" else None,
        )
    except ValueError as error:
        text = str(error).split("Value error, ")[-1].splitlines()[0].partition(" [type")[0]
        raise FgvcError(f"these conditions are not possible: {text}", cure="fgvc benchmark --help") from None


def measure(what: Measured, *, repeats: int = REPEATS) -> dict[str, Any]:
    """Measure a variant on this machine and return its record; a minute or so on a CPU.

    Raises FgvcError when the device is not here, and when the dataset was not split yet.
    """
    doing, jobs = f"measuring {what.dataset}/{what.method}", what.project.settings.jobs_per_gpu
    with leased_devices(what.conditions.device, 1, doing, jobs_per_gpu=jobs) as (device,):
        return _measured(what, device, repeats)


def _measured(what: Measured, device: torch.device, repeats: int) -> dict[str, Any]:
    images, recipe, conditions = what.images(), what.recipe, what.conditions
    prepare_process(conditions.threads or recipe.threads)
    workers = loader_workers(what.project.settings.loader_workers, device)
    subject = what.subject(device)
    with PeakMemory(device) as inference_memory:
        throughput = subject.model_throughput(repeats)
    streamed = subject.latency()
    end_to_end, count = subject.end_to_end_throughput(images, workers, throughput.median)
    step: Repeated | None = None
    reason: str | None = None
    with PeakMemory(device) as training_memory:
        try:
            step = subject.training_step(what.classes, repeats)
        except FgvcError as error:  # fp16 on a CPU
            reason = error.problem
    return {
        "method": what.method,
        "dataset": what.dataset,
        "image_size": what.image_size,
        "classes": what.classes,
        "conditions": conditions.model_dump(),
        **_spread("model_throughput_images_s", throughput),
        **_spread("end_to_end_throughput_images_s", end_to_end),
        "end_to_end_images": count,
        "loader_workers": workers,
        "latency_ms_p50": round(streamed.p50_ms, 3),
        "latency_ms_p95": round(streamed.p95_ms, 3),
        "latency_images": streamed.images,
        **(_spread("training_step_ms", step) if step else {"training_step_ms": None}),
        "training_step_reason": reason,
        "training_batch_size": recipe.batch_size,
        "training_precision": recipe.precision,
        "peak_memory_inference_mib": inference_memory.mib,
        "peak_memory_training_mib": training_memory.mib if step else None,
        "peak_memory_kind": PeakMemory.kind(device),
        "device": describe_device(device),
        "host": host(),
        "packages": package_versions(),
        "code": code_identity(),
        "units": UNITS,
    }


def write_throughput(what: Measured, *, repeats: int = REPEATS) -> dict[str, Any]:
    """Measure, and write ``results/throughput/D/M/S/CONDITIONS.json`` whole or not at all."""
    record = measure(what, repeats=repeats)
    paths = what.project.paths
    write_json(paths.throughput(what.dataset, what.method, what.image_size, what.conditions.text), record)
    return record


def _spread(name: str, measured: Repeated) -> dict[str, Any]:
    return {
        name: round(measured.median, 3),
        f"{name}_min": round(measured.least, 3),
        f"{name}_max": round(measured.largest, 3),
        f"{name}_repeats": measured.repeats,
    }
