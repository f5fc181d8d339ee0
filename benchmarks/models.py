"""Our method classes against timm's own models of the same shape: inference and a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.harness import Ratio, Work, paired
from fgvc import create_model
from fgvc.backbones.timm_models import timm

CLASSES = 200

#: (method class, backbone, image size, batch): the shapes of the upstream comparison, and the demo's CNN.
CASES = (
    ("vit", "vit_tiny_patch16_224", 224, 8),
    ("vit", "vit_tiny_patch16_224", 448, 2),
    ("cnn", "tf_efficientnet_lite0", 224, 8),
)


def _reference(backbone: str, size: int) -> nn.Module:
    kwargs = {"img_size": size} if backbone.startswith("vit_") else {}
    model: nn.Module = timm.create_model(backbone, num_classes=CLASSES, **kwargs)
    return model


def _inference(model: nn.Module, images: Tensor) -> Work:
    model.eval()

    def work() -> None:
        with torch.inference_mode():
            model(images)

    return work


def _training_step(model: nn.Module, images: Tensor, loss: Callable[[nn.Module, Tensor], Tensor]) -> Work:
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def work() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(model, images).backward()
        optimizer.step()

    return work


def run() -> Iterator[Ratio]:
    """Goal: 1.0, since both classes need nothing that timm's model does not do."""
    for method, backbone, size, batch in CASES:
        torch.manual_seed(0)
        images = torch.randn(batch, 3, size, size)
        targets = torch.arange(batch) % CLASSES
        ours = create_model(method, backbone=backbone, num_classes=CLASSES, image_size=size)
        reference = _reference(backbone, size)

        def our_loss(model: nn.Module, x: Tensor, t: Tensor = targets) -> Tensor:
            terms: dict[str, Tensor] = model.loss(model(x), t)  # type: ignore[operator]
            return terms["total"]

        def their_loss(model: nn.Module, x: Tensor, t: Tensor = targets) -> Tensor:
            return nn.functional.cross_entropy(model(x), t)

        name = f"{method} on {backbone}, {size} px, batch {batch}"
        yield paired(f"{name}: inference / timm's", _inference(ours, images), _inference(reference, images))
        yield paired(
            f"{name}: training step / timm's",
            _training_step(ours, images, our_loss),
            _training_step(reference, images, their_loss),
        )
