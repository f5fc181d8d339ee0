"""Parameter-efficient methods against timm's plain ViT that trains as a whole: inference, a training step.

Both necessary ratios are of multiply-accumulates: those of the forward pass by each method's formula, those
of a training step counted, forward and backward (a frozen layer has no gradient of its weights, but hands on
that of its input, because the CLS token trains).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import Ratio, paired
from benchmarks.models import CLASSES, Loss, inference, losses, training_step
from fgvc import create_model
from fgvc.backbones.timm_models import timm

BACKBONE = "vit_tiny_patch16_224"
SHAPES = ((224, 8), (448, 2))
#: Title, class, options, what trains besides the head.
METHODS: tuple[tuple[str, str, dict[str, Any], tuple[str, ...]], ...] = (
    ("ila", "ila", {}, ("between.*", "backbone.vit.cls_token")),
    ("ila++", "ila", {"adapter": "adapter"}, ("between.*", "adapters.*", "backbone.vit.cls_token")),
    ("adapter", "adapter", {}, ("adapters.*", "backbone.vit.cls_token")),
    ("convpass", "adapter", {"kind": "convpass"}, ("adapters.*", "backbone.vit.cls_token")),
    ("lora", "lora", {}, ("lora.*", "backbone.vit.cls_token")),
    ("vpt-shallow 100", "vpt", {"deep": False, "num_prompts": 100}, ("prompts.*", "backbone.vit.cls_token")),
    ("vpt-deep 100", "vpt", {"num_prompts": 100}, ("prompts.*", "backbone.vit.cls_token")),
    ("vqt 10, CLS trains", "vqt", {"num_queries": 10}, ("queries.*", "backbone.vit.cls_token")),
    ("vqt 10", "vqt", {"num_queries": 10}, ("queries.*",)),
    ("ifa, CLS trains", "ifa", {}, ("backbone.vit.cls_token",)),
    ("ifa", "ifa", {}, ()),
    ("frozen vit, CLS trains", "vit", {}, ("backbone.vit.cls_token",)),
    ("linear probe", "vit", {}, ()),
)

#: Batches of an epoch, and epochs, where features are computed once.
EPOCH, EPOCHS = 2, 10


def run() -> Iterator[Ratio]:
    """Goal: at most 1.1 times the necessary ratio."""
    for title, method, options, trains in METHODS:
        for size, batch in SHAPES:
            yield from _both(title, method, options, trains, size, batch)
    yield _once()


def _both(
    title: str, method: str, options: dict[str, Any], trains: tuple[str, ...], size: int, batch: int
) -> Iterator[Ratio]:
    torch.manual_seed(0)
    images = torch.randn(batch, 3, size, size)
    shape: dict[str, Any] = {"backbone": BACKBONE, "num_classes": CLASSES, "image_size": size}
    ours, plain = create_model(method, **shape, **options), create_model("vit", **shape)
    ours.set_trainable(("head.*", *trains))
    theirs: nn.Module = timm.create_model(BACKBONE, num_classes=CLASSES, img_size=size)

    our_loss, their_loss = losses(images)
    name = f"{title}, {size} px, batch {batch}"
    forward = (ours.closed_form_macs() or 0) / (plain.closed_form_macs() or 1)
    yield paired(
        f"{name}: inference (necessary {forward:.2f})", inference(ours, images), inference(theirs, images)
    )
    step = _step_macs(ours, images, our_loss) / _step_macs(theirs, images, their_loss)
    yield paired(
        f"{name}: training step (necessary {step:.2f})",
        training_step(ours, images, our_loss),
        training_step(theirs, images, their_loss),
    )


def _once() -> Ratio:
    """A linear probe's epochs on fixed pictures: features computed before the first against in every step."""
    torch.manual_seed(0)
    images, targets = torch.randn(EPOCH, 8, 3, 224, 224), torch.arange(8) % CLASSES
    model = create_model("vit", backbone=BACKBONE, num_classes=CLASSES, image_size=224)
    model.set_trainable(("head.*",))
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.01)

    def step(logits: Tensor) -> None:
        nn.functional.cross_entropy(logits, targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    def once() -> None:
        model.train()
        with torch.no_grad():
            features = [model.backbone_features(batch) for batch in images]
        for _ in range(EPOCHS):
            for batch in features:
                step(model.from_features(batch).logits)

    def each_step() -> None:
        model.train()
        for _ in range(EPOCHS):
            for batch in images:
                step(model(batch).logits)

    return paired(f"linear probe, {EPOCHS} epochs: features once / in every step", once, each_step)


def _step_macs(model: nn.Module, images: Tensor, loss: Loss) -> int:
    """Of one forward and backward pass; unfused, since attention's fused kernels of a CPU have no price."""
    model.train()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as products:
        loss(model, images).backward()
    return int(products.get_total_flops() // 2)
