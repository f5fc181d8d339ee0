"""How fast a model is and how much memory it takes, measured: warmed up, synchronised, repeated.

What is timed:

* model throughput: forward passes of batches that lie on the device already;
* end-to-end throughput: from files to predictions, decoding, transforms and copies included;
* latency: one image at a time, as in a stream: copy to the device, forward pass, logits back;
* training step: forward, loss, backward, clipping and update on a batch that lies on the device;
* peak memory of each of these two uses of the model.

Times do not travel between machines: every number goes into a record together with where it was measured.
"""

from __future__ import annotations

import contextlib
import gc
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fgvc.config.conditions import Conditions
from fgvc.config.recipe import Recipe
from fgvc.data.loading import ImageSet
from fgvc.evaluation.predict import predict
from fgvc.methods import Method
from fgvc.training.engine import autocast
from fgvc.training.optimization import classification_loss, make_optimizer

REPEATS = 5
#: A repeat of throughput lasts at least this long: shorter ones measure the clock and the scheduler.
REPEAT_S = 0.5
WARM_UP_BATCHES = 2
#: Streamed images: as many as fit the time, between these limits.
LATENCY_IMAGES, LATENCY_FEWEST, LATENCY_S = 200, 20, 10.0
#: Images of one end-to-end repeat: as many as should take this long.
END_TO_END_S = 2.0
END_TO_END_REPEATS = 3
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Repeated:
    """Median, least and largest of repeated measurements, and their number."""

    median: float
    least: float
    largest: float
    repeats: int

    @classmethod
    def of(cls, values: list[float]) -> Repeated:
        return cls(float(np.median(values)), min(values), max(values), len(values))


@dataclass(frozen=True)
class Latency:
    """Percentiles of the time of one streamed image, in ms."""

    p50_ms: float
    p95_ms: float
    images: int


class Stopwatch:
    """Seconds of work on a device that may run behind the program."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def seconds(self, work: Callable[[], object]) -> float:
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began


class Subject:
    """A model on its device, with all that its measurements need to know.

    Args:
        model: with weights of any kind.
        recipe: batch size, precision, optimizer and memory format of training.
        image_size: S in pixels.
    """

    def __init__(
        self, model: Method, recipe: Recipe, conditions: Conditions, image_size: int, device: torch.device
    ) -> None:
        self.recipe, self.conditions = recipe, conditions
        self.image_size, self.device = image_size, device
        self.model = model.to(device)
        if recipe.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.watch = Stopwatch(device)

    def images(self, count: int) -> Tensor:
        """Images [count, 3, S, S] of noise on the host, the same each time."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(count, 3, self.image_size, self.image_size, generator=generator)
        return images.contiguous(memory_format=torch.channels_last) if self.recipe.channels_last else images

    @contextlib.contextmanager
    def inferring(self) -> Iterator[None]:
        """Evaluation mode, no gradients, the precision asked for."""
        self.model.eval()
        kind, precision = self.conditions.device, self.conditions.precision
        mixed = torch.autocast(kind, dtype=_DTYPES[precision], enabled=precision != "fp32")
        with torch.inference_mode(), mixed:
            yield

    # --- measurements -----------------------------------------------------------------------------
    def model_throughput(self, repeats: int = REPEATS) -> Repeated:
        """Images per second of the model alone, on batches [B, 3, S, S] that lie on the device."""
        count = self.conditions.batch_size
        images = self.images(count).to(self.device)
        with self.inferring():
            for _ in range(WARM_UP_BATCHES):
                once_s = self.watch.seconds(lambda: self.model(images))
            batches = max(1, round(REPEAT_S / max(once_s, 1e-9)))

            def work() -> None:
                for _ in range(batches):
                    self.model(images)

            return Repeated.of([batches * count / self.watch.seconds(work) for _ in range(repeats)])

    def end_to_end_throughput(
        self, images: ImageSet, workers: int, expected_images_s: float, repeats: int = END_TO_END_REPEATS
    ) -> tuple[Repeated, int]:
        """Images per second from files to predictions, and how many images a repeat took.

        Args:
            images: of a split, not kept in memory.
            workers: decoding processes, 0 for none.
            expected_images_s: the model's own throughput, from which the length of a repeat follows.
        """
        wanted = max(2 * self.conditions.batch_size, round(END_TO_END_S * expected_images_s))
        count = min(len(images), wanted)
        part = ImageSet(images.root, images.samples[:count], images.pipeline, None)

        def work() -> None:
            predict(
                self.model,
                part,
                device=self.device,
                batch_size=self.conditions.batch_size,
                workers=workers,
                channels_last=self.recipe.channels_last,
            )

        with self.inferring():
            self.watch.seconds(work)
            return Repeated.of([count / self.watch.seconds(work) for _ in range(repeats)]), count

    def latency(self) -> Latency:
        """Time of one image at a time, from the host's memory to logits in the host's memory."""
        image = self.images(1)
        if self.device.type == "cuda":
            image = image.pin_memory()

        def work() -> None:
            self.model(image.to(self.device, non_blocking=True)).logits.float().cpu()

        times_ms: list[float] = []
        with self.inferring():
            for _ in range(WARM_UP_BATCHES):
                self.watch.seconds(work)
            ends = time.perf_counter() + LATENCY_S
            while len(times_ms) < LATENCY_FEWEST or (
                len(times_ms) < LATENCY_IMAGES and time.perf_counter() < ends
            ):
                times_ms.append(1e3 * self.watch.seconds(work))
        p50, p95 = np.percentile(times_ms, [50, 95])
        return Latency(float(p50), float(p95), len(times_ms))

    def training_step(self, num_classes: int, repeats: int = REPEATS) -> Repeated:
        """Milliseconds of one micro-batch of the recipe: forward, loss, backward, clipping, update.

        Raises FgvcError for a precision that the device does not have.
        """
        recipe, model = self.recipe, self.model
        autocast(self.device, recipe)
        model.train()
        model.classification_loss = classification_loss(recipe, mixes=False)
        optimizer = make_optimizer(model, recipe, 1e-6)  # small, so that repeats see much the same weights
        images = self.images(recipe.batch_size).to(self.device)
        # Two images a class: contrastive terms have both kinds of pairs.
        labels = (torch.arange(recipe.batch_size, device=self.device) // 2) % num_classes
        trained = [p for p in model.parameters() if p.requires_grad]

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with autocast(self.device, recipe):
                total = model.loss(model(images), labels)["total"]
            total.backward()  # type: ignore[no-untyped-call]
            if recipe.clip_grad_norm is not None:
                nn.utils.clip_grad_norm_(trained, recipe.clip_grad_norm)
            optimizer.step()

        for _ in range(WARM_UP_BATCHES):
            self.watch.seconds(step)
        return Repeated.of([1e3 * self.watch.seconds(step) for _ in range(repeats)])


class PeakMemory:
    """The largest memory in use within a ``with`` block, in MiB.

    Attributes:
        mib: None where the system does not tell.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.mib: float | None = None

    @staticmethod
    def kind(device: torch.device) -> str:
        """What is measured on a device, in words."""
        if device.type == "cuda":
            return "largest memory that torch allocated on the GPU, weights included"
        return "largest resident memory of the process, Python and its packages included"

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with contextlib.suppress(OSError):
                # Linux: from here on the peak is of what follows (proc(5), clear_refs).
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return self

    def __exit__(self, *_error: object) -> None:
        if self.device.type == "cuda":
            self.mib = round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1)
            return
        with contextlib.suppress(OSError):
            status = Path("/proc/self/status").read_text(encoding="utf-8")
            found = re.search(r"VmHWM:\s+(\d+) kB", status)
            self.mib = round(int(found[1]) / 1024, 1) if found else None
