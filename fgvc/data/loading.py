"""Loading images in an order and with an augmentation that depend on nothing but seed, epoch and sample.

The order of an epoch is f(seed, epoch), also where its batches are of whole classes
(`fgvc.data.class_batches`), and the augmentation of a sample is f(seed, epoch, sample id). So a resumed run,
and one with another number of workers, sees the same pictures.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fgvc.data.decoding import decode
from fgvc.data.transforms import Pipeline
from fgvc.errors import FgvcError
from fgvc.provenance.digests import seed_from

#: Of a run: lists of ``(epoch, index)``.
Batches = Sampler[list[tuple[int, int]]]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sample:
    """One line of a split list. ``path`` is relative to the dataset's folder and is the sample's id."""

    class_id: int
    path: str


@dataclass(frozen=True)
class Batch:
    """images [B, 3, S, S] float32; targets [B] int64; indices [B] int64 into the sample list."""

    images: Tensor
    targets: Tensor
    indices: Tensor


Item = tuple[Tensor, int, int]


class ImageSet(Dataset[Item | FgvcError]):
    """Samples of one split under one transform; prepared images are kept in memory when they fit.

    Items are addressed by ``(epoch, index)``.

    Args:
        root: the dataset's folder.
        seed: of the run; None for evaluation, where nothing is random.
    """

    def __init__(self, root: Path, samples: list[Sample], pipeline: Pipeline, seed: int | None) -> None:
        self.root = root
        self.samples = samples
        self.pipeline = pipeline
        self.seed = seed
        self._cache: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def cache_bytes(self) -> int | None:
        """Memory that `fill_cache` would take; None where it depends on the images' own sizes."""
        side = self.pipeline.prepared_side
        return None if side is None else len(self.samples) * side * side * 3

    def fill_cache(self, threads: int, progress: Progress | None = None) -> None:
        """Decode and prepare every image now. The first undecodable one raises FgvcError."""
        cache: list[np.ndarray] = []
        with ThreadPoolExecutor(threads) as pool:
            for array in pool.map(self._prepared_array, range(len(self.samples))):
                cache.append(array)
                if progress:
                    progress(len(cache), len(self.samples))
        self._cache = cache

    def _prepared_array(self, index: int) -> np.ndarray:
        return np.asarray(self.pipeline.prepare(decode(self.root / self.samples[index].path)))

    def __getitem__(self, address: tuple[int, int]) -> Item | FgvcError:
        epoch, index = address
        sample = self.samples[index]
        try:
            array = self._cache[index] if self._cache is not None else self._prepared_array(index)
        except FgvcError as error:
            # Raised by whoever takes the batch: a worker process would wrap it into a traceback.
            return error
        if self.seed is not None:
            torch.default_generator.manual_seed(seed_from("augment", self.seed, epoch, sample.path))
        return self.pipeline.finish(Image.fromarray(array)), sample.class_id, index


class EpochBatches(Batches):
    """The batches of a whole training run from some batch on, as lists of ``(epoch, index)``.

    Every epoch has ``batches_per_epoch`` full batches (the last, incomplete one is left out, another
    one each epoch); a split smaller than a batch is one batch.
    """

    def __init__(self, samples: int, batch_size: int, epochs: int, seed: int, first_batch: int = 0) -> None:
        self.samples = samples
        self.batch_size = min(batch_size, samples)
        self.batches_per_epoch = samples // self.batch_size
        self.epochs = epochs
        self.seed = seed
        self.first_batch = first_batch

    def __len__(self) -> int:
        return self.epochs * self.batches_per_epoch - self.first_batch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for epoch in range(self.first_batch // self.batches_per_epoch, self.epochs):
            skip = max(0, self.first_batch - epoch * self.batches_per_epoch)
            for chosen in self.of_epoch(epoch)[skip:]:
                yield [(epoch, index) for index in chosen]

    def of_epoch(self, epoch: int) -> list[list[int]]:
        """The indices of each of an epoch's batches."""
        order = epoch_order(self.samples, self.seed, epoch)
        starts = range(0, self.batches_per_epoch * self.batch_size, self.batch_size)
        return [order[start : start + self.batch_size] for start in starts]


def epoch_order(samples: int, seed: int, epoch: int) -> list[int]:
    """The permutation of 0..samples-1 in which an epoch sees them."""
    generator = torch.Generator().manual_seed(seed_from("order", seed, epoch))
    order: list[int] = torch.randperm(samples, generator=generator).tolist()
    return order


def _collate(items: list[Item | FgvcError]) -> Batch | FgvcError:
    for item in items:
        if isinstance(item, FgvcError):
            return item
    images, targets, indices = zip(*items, strict=True)
    return Batch(torch.stack(images), torch.tensor(targets), torch.tensor(indices))


def batches_of(loader: DataLoader[Any]) -> Iterator[Batch]:
    """The batches of a loader. Raises the FgvcError of the first undecodable image."""
    for batch in loader:
        if isinstance(batch, FgvcError):
            raise batch
        yield batch


def _begin_worker(_worker: int) -> None:
    """One thread; and requests to stop, which may reach the whole process group, are the trainer's to answer.

    A worker that ended by itself would fail the step whose pictures it decodes.
    """
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_the_trainer, daemon=True).start()


def _end_with_the_trainer() -> None:
    """Obey SIGTERM of the trainer, which ends its workers so, and of nobody else."""
    if sys.platform == "linux":
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)


def train_loader(images: ImageSet, batches: Batches, workers: int, pin_memory: bool) -> DataLoader[Any]:
    """All batches of a run, in order, decoded by ``workers`` processes (0: in this one)."""
    return DataLoader(
        images,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        worker_init_fn=_begin_worker,
    )


def eval_loader(images: ImageSet, batch_size: int, workers: int, pin_memory: bool) -> DataLoader[Any]:
    """Every sample once, in list order; the last batch may be smaller."""
    order = [(0, index) for index in range(len(images))]
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return DataLoader(
        images,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        worker_init_fn=_begin_worker,
    )
