"""Features of a frozen backbone, computed once before the first step instead of in every one.

Only where that is exact: where each epoch would show the backbone the same pictures and it would make the
same of them. Anything else is refused, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fgvc.config.recipe import Recipe
from fgvc.data.loading import Batch, Batches, ImageSet, batches_of, eval_loader
from fgvc.errors import FgvcError
from fgvc.methods import Method
from fgvc.training.engine import autocast


def refuse_unless_exact(model: Method, recipe: Recipe) -> None:
    """Raise FgvcError with the reason where features computed once would not be those of every step."""
    reason = _reason(model, recipe)
    if reason:
        raise FgvcError(
            f"features cannot be computed once: {reason}",
            key="recipe.frozen_features",
            cure="remove the key: features are then computed in every step",
        )


def _reason(model: Method, recipe: Recipe) -> str | None:
    if not model.is_head_on_features:
        return f"'{model.name}' is more than a head on one pass of its backbone"
    trains = [name for name, p in model.backbone.named_parameters(prefix="backbone") if p.requires_grad]
    if trains:
        return f"{trains[0]} trains"
    if not model.frozen_eval:
        return "the backbone is in training mode (frozen_mode: train)"
    if recipe.augmentation != "none" or recipe.random_erasing or recipe.mix_probability:
        return "an epoch's pictures differ from the last one's (it takes augmentation: none)"
    return None


class FrozenFeatures:
    """The features of all training images, and batches of them in the order of training.

    Args:
        model: on its device, accepted by `refuse_unless_exact`.
        images: the training images; each is prepared and seen once.
    """

    def __init__(
        self, model: Method, recipe: Recipe, images: ImageSet, device: torch.device, workers: int
    ) -> None:
        loader = eval_loader(images, recipe.eval_batch_size, workers, pin_memory=device.type == "cuda")
        found: list[Tensor] = []
        model.eval()
        with torch.no_grad(), autocast(device, recipe):
            for batch in batches_of(loader):
                pictures = batch.images.to(device, non_blocking=True)
                if recipe.channels_last:
                    pictures = pictures.contiguous(memory_format=torch.channels_last)
                found.append(model.backbone_features(pictures).cpu())
        #: [N, …], in host memory.
        self.features = torch.cat(found)
        self.targets = torch.tensor([sample.class_id for sample in images.samples])

    def batches(self, order: Batches) -> Iterator[Batch]:
        """As the loader of images gives them, with features for images."""
        for addresses in order:
            indices = torch.tensor([index for _epoch, index in addresses])
            yield Batch(self.features[indices], self.targets[indices], indices)
