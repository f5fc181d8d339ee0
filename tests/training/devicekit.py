"""Tools of the tests of several devices: variants of every method, and trainings of them in any precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trainkit import spec_of, variant

from fgvc.config.project import Project
from fgvc.data.class_batches import batches_of_recipe
from fgvc.data.loading import Batch, ImageSet, batches_of, train_loader
from fgvc.data.transforms import train_pipeline
from fgvc.methods.build import build_variant
from fgvc.training.distributed import Peers, synchronised
from fgvc.training.engine import Trainer
from fgvc.training.progress import NoProgress
from fgvc.training.resume import ResumeState

SIZE = 64
#: What trains where batch norms must not: on CPUs nothing synchronises them.
CAL_WITHOUT_NORMS = ["backbone.cnn.*.conv*.weight", "attentions.conv.*", "fc.*"]


def of_class(
    method: str, backbone: str = "test_vit", train: Any = "all", options: Any = None, **recipe: Any
) -> dict[str, Any]:
    recipe = {"epochs": 1, "stochastic_depth": 0.2, "dropout": 0.1, **recipe}
    made = variant(method=method, backbone=backbone, **recipe)
    return {**made, "train": train, "options": options or {}}


#: Of methods with votes, at 64 pixels: 16 patches.
FEW_VOTES = {"vote_perhead": 3, "total_num": 12, "key_tokens": 4, "dynamic_warm_epochs": 1}

#: Variant → its YAML. Every class, with everything random that it has; and batches that do not come out even.
VARIANTS: dict[str, dict[str, Any]] = {
    "glsim": of_class("glsim", options={"top_k": 4}),
    "transfg": of_class("transfg"),
    "ffvt": of_class("ffvt", options={"num_token": 3}),
    "cal": of_class("cal", "test_resnet", CAL_WITHOUT_NORMS, {"num_attentions": 4}, stochastic_depth=0.0),
    "simtrans": of_class("simtrans", train=["backbone.*", "structure.*"]),
    "cnn": of_class("cnn", "test_resnet", train=["head.*"], stochastic_depth=0.0),
    "five": of_class("vit", batch_size=5),
    "five_mixed": of_class(
        "transfg", batch_size=5, augmentation="strong", mix_probability=1.0, optimizer="adamw"
    ),
    "groups": of_class(
        "sc4001", options=FEW_VOTES, batch_size=6, samples_per_class=2, accumulate=2, epochs=2
    ),
    "all_at_once": of_class("vit", batch_size=64, accumulate=3, epochs=5),
}


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model's weights and buffers after training, and the history."""

    state: dict[str, Tensor]
    history: list[dict[str, float]]

    def distance(self, other: Trained) -> float:
        """The largest difference of two entries."""
        return max((self.state[k].double() - t.double()).abs().max().item() for k, t in other.state.items())


def trained(root: Path, methods: list[str], dtype: torch.dtype, *place: Any) -> dict[str, Trained]:
    """Train each variant, on one device or as one of several (then ``place`` says where)."""
    device, peers = place[:2] or (torch.device("cpu"), Peers())
    torch.set_num_threads(1)
    return {method: _trained(Project(root), method, dtype, device, peers) for method in methods}


def _trained(
    project: Project, method: str, dtype: torch.dtype, device: torch.device, peers: Peers
) -> Trained:
    spec = spec_of(project, method, image_size=SIZE)
    recipe, samples = spec.recipe, spec.samples(spec.split)
    torch.manual_seed(spec.seed)
    model = build_variant(project, method, SIZE, spec.num_classes, with_weights=False)
    if peers.count > 1:
        model = synchronised(model, device)
    pipeline = train_pipeline(recipe, project.dataset(spec.dataset), SIZE, *spec.mean_std())
    images = ImageSet(project.paths.data_dir(spec.dataset), samples, pipeline, spec.seed)
    batches = batches_of_recipe(recipe, samples, spec.seed)
    trainer = Trainer(
        model.to(dtype),
        recipe,
        learning_rate=spec.learning_rate,
        seed=spec.seed,
        num_classes=spec.num_classes,
        batches_per_epoch=batches.batches_per_epoch,
        device=device,
        peers=peers,
    )
    loader = train_loader(images, peers.share(batches, mixes=trainer.mixing is not None), 0, False)

    def precise() -> Iterator[Batch]:
        for batch in batches_of(loader):
            yield dataclasses.replace(batch, images=batch.images.to(dtype))

    resume = ResumeState(project.root / "unused", spec.sha256)
    outcome = trainer.train(precise(), resume, NoProgress(), save_every_s=float("inf"))
    assert outcome.status == "ok", outcome.cause
    return Trained(dict(trainer.final_model().state_dict()), outcome.history)
