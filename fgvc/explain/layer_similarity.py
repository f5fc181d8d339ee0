"""How alike the layers of a trained ViT are: CKA of its attention maps, and of its features.

Source: the CKA figure of the ILA paper (arXiv 2409.11051; attention maps of all heads, behind the softmax)
and compute_feature_metrics.py of arkel23/GLSim at 99cc474 (features: what each block's second norm puts out).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fgvc.backbones.attention import AttentionRecorder, QueriesAndKeys, queries_and_keys
from fgvc.backbones.tokens import TokenBackbone, is_vit
from fgvc.config.project import Project
from fgvc.config.stages import version
from fgvc.data.loading import ImageSet, Sample, batches_of, eval_loader
from fgvc.device import describe_device, loader_workers, prepare_process
from fgvc.device_lease import leased_devices
from fgvc.errors import FgvcError, first_few
from fgvc.evaluation.predict import check_fits, frozen_model, images_of
from fgvc.explain.cka import FEWEST_ROWS, MinibatchCka, gram
from fgvc.provenance.files import read_json, write_json

#: Test images that are looked at, and how many at a time, at most.
IMAGES, BATCH = 256, 32


class LayerSimilarity:
    """CKA between all pairs of blocks of a ViT, from the images that pass through it.

    Of each block and minibatch the first pass of the images counts: what a method shows it later (crops,
    learnt queries) does not. A pass may bring the images in groups.

    Args:
        backbone: a `TokenBackbone`, whose blocks are compared.

    Raises FgvcError for any other network, and for blocks whose attention cannot be recorded.

    Example:
        >>> compared = LayerSimilarity(model.backbone)
        >>> for images in batches:
        ...     compared.add(model, images)
        >>> compared.attention.value()  # [blocks, blocks]
    """

    def __init__(self, backbone: object) -> None:
        if not isinstance(backbone, TokenBackbone):
            raise FgvcError(
                f"the blocks of a {type(backbone).__name__} are not compared",
                cure="layers are compared of a ViT as a TokenBackbone",
            )
        AttentionRecorder(backbone.blocks)  # refuses what cannot be recorded before anything runs
        self.blocks: list[Any] = list(backbone.blocks)
        self.attention, self.features = MinibatchCka(), MinibatchCka()
        #: How many tokens each block has seen; they differ where a method shrinks or extends the sequence.
        self.tokens: list[int] = []

    def add(self, model: nn.Module, images: Tensor) -> None:
        """Let one minibatch [B, 3, S, S] pass; with B below four it is left out.

        Raises FgvcError when some block does not see every image in a pass of its own.
        """
        maps = [_FirstPass(len(images), map_gram_of(block.attn)) for block in self.blocks]
        features = [_FirstPass(len(images), centred_gram) for _ in self.blocks]
        with contextlib.ExitStack() as hooks, torch.inference_mode():
            for block, of_maps, of_features in zip(self.blocks, maps, features, strict=True):
                hooks.callback(block.attn.qkv.register_forward_hook(of_maps).remove)
                hooks.callback(block.norm2.register_forward_hook(of_features).remove)
            model(images)
        pairs = zip(maps, features, strict=True)
        unseen = [str(i) for i, (one, other) in enumerate(pairs, 1) if not (one.ended and other.ended)]
        if unseen:
            raise FgvcError(
                f"these of {len(maps)} blocks do not see each image of a batch once: {first_few(unseen)}",
                cure="layers are compared for methods that run all blocks of their ViT",
            )
        self.attention.add([one.gram for one in maps])
        self.features.add([one.gram for one in features])
        self.tokens = [one.length for one in maps]


class _FirstPass:
    """A forward hook: the Gram matrix [B, B] of what a layer puts out for a batch of B images.

    The images may come in groups, whose outputs [b, S, …] are joined. Calls after the last are not looked at.

    Attributes:
        gram: once the pass has ended.
        length: S.
    """

    def __init__(self, images: int, gram_of: Callable[[Tensor], Tensor]) -> None:
        self.gram = torch.empty(0)
        self.length = 0
        self._gram_of = gram_of
        self._groups: list[Tensor] = []
        self._missing = images

    @property
    def ended(self) -> bool:
        """Whether so many images came, and no more at once."""
        return self._missing == 0

    def __call__(self, _layer: nn.Module, _given: object, output: Tensor) -> None:
        if self._missing <= 0:
            return
        self._groups.append(output)
        self._missing -= len(output)
        if self.ended:
            whole = self._groups[0] if len(self._groups) == 1 else torch.cat(self._groups)
            self.gram, self.length = self._gram_of(whole), output.shape[1]
            self._groups.clear()


def centred_gram(features: Tensor) -> Tensor:
    """`gram` of features [B, …] from which their mean over the batch is taken.

    The unbiased HSIC is the same for both, to the last term; but where images differ little (maps that are
    nearly uniform), float32 would round off what it is made of.
    """
    wide = features.float()
    return gram(wide - wide.mean(dim=0))


def map_gram_of(attention: Any) -> Callable[[Tensor], Tensor]:
    """Takes the joint projection [B, S, 3·H·d] of timm's attention to the Gram matrix [B, B] of its maps.

    It is that of rows [H·S·S], the maps of all heads, which are made a head at a time: for ViT-B/16 at 448
    pixels all of them would take 30 MB an image.
    """

    def map_gram(qkv: Tensor) -> Tensor:
        whole = queries_and_keys(attention, qkv)
        grams = [
            centred_gram(QueriesAndKeys(whole.q[:, h : h + 1], whole.k[:, h : h + 1], whole.scale).map())
            for h in range(whole.q.shape[1])
        ]
        return torch.stack(grams).sum(dim=0)

    return map_gram


def minibatches(samples: list[Sample]) -> tuple[list[Sample], int]:
    """Which samples are looked at, in which order, and how many make a minibatch.

    At most `IMAGES`, evenly from the whole list, in minibatches of about one size, at most `BATCH`. Each of
    them spans the list, which is in the order of classes: neighbours would show a few classes only.
    """
    count = min(IMAGES, len(samples))
    batches = -(-count // BATCH)
    even = [samples[i * len(samples) // count] for i in range(count)]
    return [sample for first in range(batches) for sample in even[first::batches]], -(-count // batches)


def write_layer_similarity(
    project: Project, dataset: str, method: str, size: int, seed: int, *, device: str | None = None
) -> dict[str, Any]:
    """Compare the blocks of a run's model on test images, and write ``results/cka/D/M/S/seedK.json``.

    Returns the record: ``attention`` and ``features`` [blocks, blocks], the mean of each off its diagonal,
    and what they were computed from. Of a diverged run it says that it diverged.

    Raises FgvcError when the run is not there or is one of another recipe, its checkpoint was changed, the
    method has no ViT or does not run all of it, and when there are fewer than four test images.
    """
    variant = project.variant(method)
    if not is_vit(variant.backbone):
        raise FgvcError(
            f"'{method}' runs on {variant.backbone_title}, and layers are compared of ViTs only",
            file=project.paths.shown(project.file("method", method)),
            key="backbone",
            cure="name a variant on a ViT: fgvc list methods",
        )
    directory = project.paths.run_dir(dataset, method, size, seed)
    shown = project.paths.shown(directory / "run.json")
    run = read_json(directory / "run.json", made_by=f"snakemake --cores 1 -- {shown}")
    check_fits(project, directory, run, "test")
    kept = ("dataset", "method", "image_size", "seed", "learning_rate", "run_sha256", "model_sha256")
    record = {key: run[key] for key in kept} | {"stage_version": version("explain"), "status": run["status"]}
    if run["status"] == "diverged":
        record["cause"] = run["cause"]
    else:
        record |= _compare(project, directory, run, device or project.settings.device)
    write_json(project.paths.layer_similarity(dataset, method, size, seed), record)
    return record


def _compare(project: Project, directory: Path, run: dict[str, Any], wanted: str) -> dict[str, Any]:
    """What the record says of the blocks of a run that ended well."""
    prepare_process(project.variant(run["method"]).recipe_on(run["dataset"]).threads)
    images = images_of(project, run, "test")
    _require_images(project, run["dataset"], images)
    images.samples, batch_size = minibatches(images.samples)
    name = f"{run['dataset']}/{run['method']}/{run['image_size']} seed {run['seed']}"
    jobs = project.settings.jobs_per_gpu
    with leased_devices(wanted, 1, f"comparing the layers of {name}", jobs_per_gpu=jobs) as (lent,):
        print(f"{name}: {len(images)} test images on {describe_device(lent)['name']}", file=sys.stderr)
        model = frozen_model(project, directory, run).to(lent).eval()
        compared = LayerSimilarity(getattr(model, "backbone", None))
        workers = loader_workers(project.settings.loader_workers, lent)
        for batch in batches_of(eval_loader(images, batch_size, workers, pin_memory=lent.type == "cuda")):
            compared.add(model, batch.images.to(lent))
    return {
        "images": len(images),
        "batch_size": batch_size,
        "tokens": compared.tokens,
        **_told("attention", compared.attention),
        **_told("features", compared.features),
    }


def _require_images(project: Project, dataset: str, images: ImageSet) -> None:
    if len(images) < FEWEST_ROWS:
        raise FgvcError(
            f"'{dataset}' has {len(images)} test image(s); unbiased CKA needs {FEWEST_ROWS} at least",
            file=project.paths.shown(project.paths.split_list(dataset, "test")),
            cure="compare layers on a dataset with more",
        )


def _told(what: str, cka: MinibatchCka) -> dict[str, Any]:
    values = cka.value()
    off = ~torch.eye(len(values), dtype=torch.bool, device=values.device)
    return {
        what: [[round(value, 6) for value in row] for row in values.tolist()],
        f"{what}_mean_off_diagonal": round(values[off].mean().item(), 6),
    }
