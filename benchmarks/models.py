"""Our method classes against timm's own models of the same shape: inference and a training step.

A method that needs several passes is set against as many passes of the plain model, so that 1.0 is what its
definition costs, and the rest is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.harness import Ratio, Work, paired
from fgvc import create_model
from fgvc.backbones.timm_models import timm

CLASSES = 200

Loss = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A method class on a backbone, and how many plain passes of that backbone it is set against."""

    method: str
    backbone: str
    image_size: int
    batch_size: int
    passes: int = 1

    @property
    def name(self) -> str:
        return f"{self.method} on {self.backbone}, {self.image_size} px, batch {self.batch_size}"

    @property
    def reference(self) -> str:
        return "timm's" if self.passes == 1 else f"{self.passes} passes of timm's"


#: The shapes of the upstream comparison, and the demo's CNN.
CASES = (
    Case("vit", "vit_tiny_patch16_224", 224, 8),
    Case("vit", "vit_tiny_patch16_224", 448, 2),
    Case("cnn", "tf_efficientnet_lite0", 224, 8),
    Case("glsim", "vit_tiny_patch16_224", 224, 8, passes=2),
    Case("glsim", "vit_tiny_patch16_224", 448, 2, passes=2),
)


def _reference(backbone: str, size: int) -> nn.Module:
    kwargs = {"img_size": size} if backbone.startswith("vit_") else {}
    model: nn.Module = timm.create_model(backbone, num_classes=CLASSES, **kwargs)
    return model


def inference(model: nn.Module, images: Tensor, passes: int = 1) -> Work:
    """Predictions of one batch, ``passes`` times."""
    model.eval()

    def work() -> None:
        with torch.inference_mode():
            for _ in range(passes):
                model(images)

    return work


def training_step(
    model: nn.Module, images: Tensor, loss: Callable[[nn.Module, Tensor], Tensor], passes: int = 1
) -> Work:
    """``passes`` times forward and backward of one batch, then one update."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def work() -> None:
        optimizer.zero_grad(set_to_none=True)
        for _ in range(passes):
            loss(model, images).backward()
        optimizer.step()

    return work


def losses(images: Tensor) -> tuple[Loss, Loss]:
    """What a method of ours and a plain model minimise on a batch of some labels."""
    targets = torch.arange(len(images)) % CLASSES

    def our_loss(model: nn.Module, x: Tensor) -> Tensor:
        terms: dict[str, Tensor] = model.loss(model(x), targets)  # type: ignore[operator]
        return terms["total"]

    def their_loss(model: nn.Module, x: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(x), targets)

    return our_loss, their_loss


def beside(name: str, ours: nn.Module, theirs: nn.Module, images: Tensor) -> Iterator[Ratio]:
    """Inference and a training step of a method beside a plain model of timm's, on a batch of some labels."""
    our_loss, their_loss = losses(images)
    yield paired(f"{name}: inference", inference(ours, images), inference(theirs, images))
    yield paired(
        f"{name}: training step",
        training_step(ours, images, our_loss),
        training_step(theirs, images, their_loss),
    )


def run() -> Iterator[Ratio]:
    """Goal: 1.0, since a class needs nothing that so many passes of timm's model do not do; at most 1.1."""
    for case in CASES:
        torch.manual_seed(0)
        images = torch.randn(case.batch_size, 3, case.image_size, case.image_size)
        targets = torch.arange(case.batch_size) % CLASSES
        ours = create_model(
            case.method, backbone=case.backbone, num_classes=CLASSES, image_size=case.image_size
        )
        theirs = _reference(case.backbone, case.image_size)

        def our_loss(model: nn.Module, x: Tensor, t: Tensor = targets) -> Tensor:
            terms: dict[str, Tensor] = model.loss(model(x), t)  # type: ignore[operator]
            return terms["total"]

        def their_loss(model: nn.Module, x: Tensor, t: Tensor = targets) -> Tensor:
            return nn.functional.cross_entropy(model(x), t)

        yield paired(
            f"{case.name}: inference / {case.reference}",
            inference(ours, images),
            inference(theirs, images, case.passes),
        )
        yield paired(
            f"{case.name}: training step / {case.reference}",
            training_step(ours, images, our_loss),
            training_step(theirs, images, their_loss, case.passes),
        )
