"""What a run reads: checked before the first epoch, and in the batches that training takes."""

from __future__ import annotations

import os
from collections.abc import Iterator

from fgvc.data.images import hash_files
from fgvc.data.loading import Batch, Batches, ImageSet, Sample, batches_of, train_loader
from fgvc.data.progress import quiet
from fgvc.data.records import check_files, damage
from fgvc.data.transforms import train_pipeline
from fgvc.device import loader_workers
from fgvc.errors import FgvcError
from fgvc.training.engine import Trainer
from fgvc.training.frozen_features import FrozenFeatures
from fgvc.training.spec import RunSpec

#: Splits up to this size are read and compared with their digests before the first epoch: that takes
#: seconds, and each image decoded when its digest was taken. Of larger ones only the file sizes are compared.
REREAD_BYTES = 2**30


def check_inputs(spec: RunSpec) -> None:
    """Refuse, before the first epoch, what would fail or mislead later."""
    index = check_files(spec.project, spec.dataset)
    if index.record.tree_sha256 != spec.split_record["tree_sha256"]:
        raise FgvcError(
            f"the images of '{spec.dataset}' changed since they were split",
            file=spec.project.paths.shown(spec.project.paths.split_record(spec.dataset)),
            cure=f"fgvc data split {spec.dataset}",
        )
    samples = spec.samples(spec.split)
    classes = {sample.class_id for sample in samples}
    allowed = spec.project.dataset(spec.dataset).split.missing_classes.get(spec.split, 0)
    if len(classes) + allowed < spec.num_classes or max(classes) >= spec.num_classes:
        lacking = sorted(set(range(spec.num_classes)) - classes)
        raise FgvcError(
            f"the split '{spec.split}' of {spec.dataset} does not have its {spec.num_classes} classes; "
            f"lacking: {lacking[:8]}",
            file=spec.project.paths.shown(spec.project.paths.split_list(spec.dataset, spec.split)),
            cure=f"fgvc data split {spec.dataset}",
        )
    recorded = index.by_path()
    if sum(recorded[sample.path].bytes for sample in samples) <= REREAD_BYTES:
        digests = hash_files(spec.project.paths.data_dir(spec.dataset), [s.path for s in samples], quiet)
        changed = [path for path, digest in digests.items() if digest != recorded[path].sha256]
        if changed:
            raise damage(spec.project, spec.dataset, [], changed)


def batches_of_run(
    spec: RunSpec, trainer: Trainer, samples: list[Sample], shared: Batches
) -> Iterator[Batch]:
    """The batches of this process in their order: pictures, or features where they are computed once.

    Args:
        shared: places of samples, this process's part of each batch.
    """
    recipe, device, processes = spec.recipe, trainer.device, trainer.peers.count
    pipeline = train_pipeline(recipe, spec.project.dataset(spec.dataset), spec.image_size, *spec.mean_std())
    images = ImageSet(spec.project.paths.data_dir(spec.dataset), samples, pipeline, spec.seed)
    _cache_if_it_fits(images, spec, processes)
    workers = loader_workers(spec.project.settings.loader_workers, device, processes)
    if recipe.frozen_features == "once":
        trainer.on_features = True
        return FrozenFeatures(trainer.model, recipe, images, device, workers).batches(shared)
    return batches_of(train_loader(images, shared, workers, pin_memory=device.type == "cuda"))


def _cache_if_it_fits(images: ImageSet, spec: RunSpec, processes: int) -> None:
    """Keep prepared images in memory where they fit; this also decodes every one before the first step."""
    size, settings = images.cache_bytes(), spec.project.settings
    if size is not None and size * processes <= settings.image_cache_gib * 2**30:
        images.fill_cache(threads=max(1, min(4, os.cpu_count() or 1)))
