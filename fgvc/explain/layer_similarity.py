"""How alike the layers of a trained ViT are: CKA of its attention maps, and of its features.

Source: the CKA figure of the ILA paper (arXiv 2409.11051) for attention maps; compute_feature_metrics.py of
arkel23/GLSim at 99cc474 for features (output of each block's second norm).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fgvc.backbones.attention import AttentionRecorder
from fgvc.backbones.tokens import TokenBackbone
from fgvc.config.project import Project
from fgvc.config.stages import version
from fgvc.data.loading import Batch, batches_of, eval_loader
from fgvc.device import choose_device, loader_workers, prepare_process
from fgvc.errors import FgvcError
from fgvc.evaluation.predict import frozen_model, images_of
from fgvc.explain.cka import MinibatchCka, gram
from fgvc.provenance.files import read_json, write_json

#: Test images that are looked at, spread over the whole list, and how many at a time.
IMAGES, BATCH = 256, 32


class LayerSimilarity:
    """Fills the CKA matrices of a ViT while images pass through it.

    Args:
        backbone: whose blocks are compared; the first pass of each batch counts, where a method makes several.

    Raises FgvcError for blocks whose attention cannot be recorded.
    """

    def __init__(self, backbone: TokenBackbone) -> None:
        self.backbone = backbone
        self.recorder = AttentionRecorder(backbone.blocks)
        self.attention, self.features = MinibatchCka(), MinibatchCka()

    def add(self, model: nn.Module, images: Tensor) -> None:
        """One minibatch [B, 3, S, S]."""
        depth = self.backbone.depth
        with (
            torch.inference_mode(),
            self.recorder.reading(lambda layer: gram(layer.map())) as attention,
            self._features() as features,
        ):
            model(images)
        if min(len(attention), len(features)) < depth:
            raise FgvcError(
                f"only {min(len(attention), len(features))} of the {depth} blocks were seen in a forward pass",
                cure="layers are compared for methods that run their whole ViT",
            )
        self.attention.add(attention[:depth])
        self.features.add(features[:depth])

    @contextlib.contextmanager
    def _features(self) -> Iterator[list[Tensor]]:
        """Gram matrices of what the second norms put out, block by block."""
        seen: list[Tensor] = []
        norms = [block.get_submodule("norm2") for block in self.backbone.blocks]
        handles = [n.register_forward_hook(lambda _m, _in, out: seen.append(gram(out))) for n in norms]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()


def layer_similarity(
    project: Project, directory: Path, *, images: int = IMAGES, device: str | None = None
) -> dict[str, Any]:
    """CKA between all pairs of blocks of the run in ``directory``, on test images.

    Returns the record: ``attention`` and ``features`` [layers, layers], and what they were computed from.

    Raises FgvcError when the run is not there, diverged, or has no ViT whose attention can be recorded.
    """
    record = read_json(directory / "run.json", made_by=f"snakemake --cores 1 -- {directory / 'run.json'}")
    if record["status"] == "diverged":
        raise FgvcError("the run diverged; its layers say nothing", file=project.paths.shown(directory))
    chosen = choose_device(device or project.settings.device)
    recipe = project.variant(record["method"]).recipe_on(record["dataset"]).resolved()
    prepare_process(recipe.threads)
    model = frozen_model(project, directory, record).to(chosen).eval()
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, TokenBackbone):
        raise FgvcError(f"'{record['method']}' has no ViT whose layers could be compared")
    compared = LayerSimilarity(backbone)
    shown = images_of(project, record, "test")
    shown.samples = shown.samples[:: max(1, len(shown.samples) // images)][:images]
    workers = loader_workers(project.settings.loader_workers, chosen)
    batch: Batch
    for batch in batches_of(eval_loader(shown, BATCH, workers, pin_memory=chosen.type == "cuda")):
        compared.add(model, batch.images.to(chosen))
    return {
        "dataset": record["dataset"],
        "method": record["method"],
        "image_size": record["image_size"],
        "seed": record["seed"],
        "attention": _rounded(compared.attention.value()),
        "features": _rounded(compared.features.value()),
        "layers": backbone.depth,
        "images": len(shown.samples),
        "batches": compared.attention.batches,
        "model_sha256": record["model_sha256"],
        "stage_version": version("explain"),
    }


def write_layer_similarity(
    project: Project, dataset: str, method: str, size: int, seed: int, *, device: str | None = None
) -> dict[str, Any]:
    """Write ``results/cka/D/M/S/seedK.json`` of a run, whole or not at all, and return the record."""
    directory = project.paths.run_dir(dataset, method, size, seed)
    record = layer_similarity(project, directory, device=device)
    write_json(project.paths.layer_similarity(dataset, method, size, seed), record)
    return record


def _rounded(values: Tensor) -> list[list[float]]:
    return [[round(value, 6) for value in row] for row in values.tolist()]
