"""What the training engine adds or saves: its loop, channels_last, kept memory, the image cache."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from benchmarks.harness import Ratio, Work, paired
from fgvc import create_model
from fgvc.config.dataset import Dataset
from fgvc.config.recipe import Recipe
from fgvc.data.loading import Batch, ImageSet, Sample
from fgvc.data.transforms import HALF, train_pipeline
from fgvc.data.typefaces import render
from fgvc.training.engine import Trainer
from fgvc.training.optimization import make_optimizer
from fgvc.training.progress import TrainingProgress
from fgvc.training.resume import ResumeState

STEPS, BATCH, CLASSES = 6, 8, 21
RECIPE = Recipe(epochs=1, batch_size=BATCH, learning_rate=1e-3, augmentation="weak", warmup_steps=0)


def _batches() -> list[Batch]:
    torch.manual_seed(0)
    indices = torch.arange(BATCH)
    return [Batch(torch.randn(BATCH, 3, 224, 224), indices % CLASSES, indices) for _ in range(STEPS)]


def _engine(batches: list[Batch], folder: Path) -> Work:
    """The whole engine: schedule, seeding, clipping, sums, progress."""
    model = create_model("vit", backbone="vit_pico_patch16_224", num_classes=CLASSES)
    quiet = (folder / "progress.log").open("w", encoding="utf-8")

    def work() -> None:
        trainer = Trainer(
            model,
            RECIPE,
            learning_rate=1e-3,
            seed=0,
            num_classes=CLASSES,
            batches_per_epoch=STEPS,
            device=torch.device("cpu"),
        )
        progress = TrainingProgress("bench", 1, STEPS, 0, folder / "progress.json", quiet)
        trainer.train(iter(batches), ResumeState(folder, "bench"), progress, save_every_s=1e9)

    return work


def _bare_loop(batches: list[Batch]) -> Work:
    """Forward, backward, clip, update: what any loop has to do."""
    model = create_model("vit", backbone="vit_pico_patch16_224", num_classes=CLASSES).train()

    def work() -> None:
        optimizer = make_optimizer(model, RECIPE, 1e-3)
        for batch in batches:
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(batch.images).logits, batch.targets).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return work


def _cnn_steps(channels_last: bool) -> Work:
    model = create_model("cnn", backbone="tf_efficientnet_lite0", num_classes=CLASSES).train()
    images = torch.randn(BATCH, 3, 224, 224)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)

    def work() -> None:
        model.zero_grad(set_to_none=True)
        model(images).logits.sum().backward()

    return work


_MEMORY_SCRIPT = """
import sys, time, torch
from fgvc import create_model
from fgvc.device import _keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    _keep_freed_memory()
model = create_model("cnn", backbone="tf_efficientnet_lite0", num_classes=21).train()
model = model.to(memory_format=torch.channels_last)
images = torch.randn(8, 3, 224, 224).contiguous(memory_format=torch.channels_last)
for step in range(8):
    if step == 2:
        began = time.perf_counter()
    model.zero_grad(set_to_none=True)
    model(images).logits.sum().backward()
print(time.perf_counter() - began)
"""


def _in_process(how: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY_SCRIPT, how], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def _kept_memory(pairs: int = 5) -> Ratio:
    """Processes of their own, since the setting is for a whole process."""
    times = [(_in_process("keep"), _in_process("default")) for _ in range(pairs)]
    kept, default = zip(*times, strict=True)
    name = "lite0 training step, 1 thread: freed memory kept / glibc's default"
    middle = pairs // 2
    return Ratio(name, sorted(kept)[middle], sorted(default)[middle], tuple(a / b for a, b in times))


def _image_set(folder: Path, cached: bool) -> Work:
    dataset = Dataset.model_validate(
        {
            "title": "b",
            "description": "b",
            "classes": 21,
            "licence": "b",
            "citation": "b",
            "source": {
                "kind": "generated",
                "generator": "typefaces",
                "counts": {"train": 1, "val": 1, "test": 1},
            },
            "layout": {"kind": "generated"},
            "split": {"provenance": "official"},
        }
    )
    samples = [Sample(c, f"{c}.jpg") for c in range(21)]
    images = ImageSet(folder, samples, train_pipeline(RECIPE.resolved(), dataset, 224, HALF, HALF), seed=0)
    if cached:
        images.fill_cache(threads=1)

    def work() -> None:
        for index in range(len(images)):
            images[0, index]

    return work


def run() -> Iterator[Ratio]:
    """Loop overhead (goal 1.05), and three savings (smaller is better)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        batches = _batches()
        yield paired(
            "vit_pico, 6 steps: training engine / bare loop", _engine(batches, folder), _bare_loop(batches)
        )
        yield paired(
            "lite0 training step: channels_last / default", _cnn_steps(True), _cnn_steps(False), pairs=5
        )
        yield _kept_memory()
        for class_id in range(21):
            render(class_id, 0).save(folder / f"{class_id}.jpg", quality=92)
        yield paired(
            "an epoch of pictures: from the cache / decoded again",
            _image_set(folder, True),
            _image_set(folder, False),
        )
