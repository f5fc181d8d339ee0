"""Optimizer, schedule, mixing and losses: timm's, set up as the recipe says."""

from __future__ import annotations

import fnmatch

import numpy as np
import torch
from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor, nn

from fgvc.config.recipe import Recipe
from fgvc.errors import FgvcError, nearest
from fgvc.provenance.digests import seed_from


def make_optimizer(model: nn.Module, recipe: Recipe, learning_rate: float) -> torch.optim.Optimizer:
    """timm's optimizer over the parameters that train (no weight decay on biases and norms).

    Raises FgvcError for learning-rate factors whose patterns match no parameter, or one parameter twice.
    """
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model,
        opt=recipe.optimizer,
        lr=learning_rate,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
    )
    if recipe.learning_rate_factors:
        factors = _factor_of_each(model, recipe.learning_rate_factors)
        optimizer.param_groups = [
            # timm's schedules multiply the rates that they set by it.
            {**group, "params": parameters, "lr_scale": factor}
            for group in optimizer.param_groups
            for factor, parameters in _by_factor(group["params"], factors)
        ]
    return optimizer


def _factor_of_each(model: nn.Module, patterns: dict[str, float]) -> dict[int, float]:
    """``id(parameter)`` → what its learning rate is multiplied by."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise FgvcError(
                f"the pattern '{pattern}' matches no parameter",
                key="recipe.learning_rate_factors",
                cure=f"the nearest parameter is '{nearest(pattern, names) or names[0]}'",
            )
    factors = {}
    for name, parameter in model.named_parameters():
        own = [pattern for pattern in patterns if fnmatch.fnmatchcase(name, pattern)]
        if len(own) > 1:
            raise FgvcError(
                f"the patterns '{own[0]}' and '{own[1]}' both match the parameter '{name}'",
                key="recipe.learning_rate_factors",
                cure="give each parameter one factor",
            )
        factors[id(parameter)] = patterns[own[0]] if own else 1.0
    return factors


def _by_factor(parameters: list[Tensor], factors: dict[int, float]) -> list[tuple[float, list[Tensor]]]:
    """The parameters of one group, those of each factor together, in their order."""
    found: dict[float, list[Tensor]] = {}
    for parameter in parameters:
        found.setdefault(factors[id(parameter)], []).append(parameter)
    return list(found.items())


def base_rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate that the schedule set, before any factor."""
    group = optimizer.param_groups[0]
    return float(group["lr"] / group.get("lr_scale", 1.0))


class Schedule:
    """The learning rate as a function of the number of optimizer steps done, [0, total_steps].

    Cosine from ``learning_rate`` to ``min_learning_rate`` over the whole run, with a linear warm-up in steps
    that overlays it (the cosine counts from step 0, as in GLSim's scheduler.py), by timm. All of it is
    multiplied by the recipe's learning-rate factors.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, recipe: Recipe, total_steps: int) -> None:
        constant = recipe.schedule == "constant"
        self._scheduler = CosineLRScheduler(
            optimizer,
            # A cosine that never gets anywhere is a constant.
            t_initial=10**12 if constant else total_steps,
            lr_min=recipe.min_learning_rate,
            warmup_t=recipe.warmup(total_steps),
            warmup_lr_init=recipe.warmup_learning_rate,
            t_in_epochs=False,
            cycle_limit=1,
        )

    def set(self, steps_done: int) -> None:
        """Set the optimizer's learning rate for the step that follows ``steps_done`` steps."""
        self._scheduler.step_update(steps_done)


def make_mixing(recipe: Recipe, num_classes: int) -> Mixup | None:
    """timm's mixup/cutmix, or None when the recipe mixes nothing."""
    if not (recipe.mix_probability and (recipe.mixup_alpha or recipe.cutmix_alpha)):
        return None
    return Mixup(
        mixup_alpha=recipe.mixup_alpha or 0.0,
        cutmix_alpha=recipe.cutmix_alpha or 0.0,
        prob=recipe.mix_probability,
        switch_prob=0.5,
        label_smoothing=recipe.label_smoothing or 0.0,
        num_classes=num_classes,
    )


def mix(mixing: Mixup, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mixed images and soft targets [B, K]. An odd batch loses its last image, since timm mixes pairs."""
    even = len(images) // 2 * 2
    if even == 0:
        return images, nn.functional.one_hot(targets, mixing.num_classes).float()
    return mixing(images[:even].clone(), targets[:even])  # type: ignore[no-any-return]


def classification_loss(recipe: Recipe, mixes: bool) -> nn.Module:
    """Cross-entropy: for class ids, smoothed as the recipe says; for soft targets when images are mixed."""
    if mixes:
        soft: nn.Module = SoftTargetCrossEntropy()
        return soft
    if recipe.label_smoothing:
        smoothed: nn.Module = LabelSmoothingCrossEntropy(recipe.label_smoothing)
        return smoothed
    return nn.CrossEntropyLoss()


def seed_step(seed: int, step: int, micro_batch: int) -> None:
    """Seed everything random inside a forward pass as a function of seed and step.

    So no generator state has to be saved: dropout, stochastic depth (torch) and mixing (numpy, in timm) draw
    the same numbers whether or not the run was interrupted before.
    """
    value = seed_from("step", seed, step, micro_batch)
    torch.manual_seed(value)
    np.random.seed(value % 2**32)
