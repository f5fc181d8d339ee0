"""One prediction from PIM's five heads, and where a class is seen.

Source: chou141253/FGVC-PIM at 348edd9, ``eval.py`` and ``heat.py``; written from a description of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from typing import Literal

import torch
from torch import Tensor, nn

from fgvc.backbones.levels import Level

Predict = Literal["sum", "combiner", "top_k", "highest_k_upstream"]
PREDICTIONS = ("sum", "combiner", "top_k", "highest_k_upstream")
#: What the maps of the four levels count for in the heat map, the finest first (upstream's weights).
HEAT_WEIGHTS = (8 / 15, 4 / 15, 2 / 15, 1 / 15)


def sum_of_heads(heads: Sequence[Tensor]) -> Tensor:
    """The logarithm of the mean of the heads' probabilities.

    Args:
        heads: logits, each [B, K].

    Returns [B, K]; its softmax is that mean.
    """
    return _log_mean(torch.stack([h.float().log_softmax(dim=1) for h in heads], dim=1))


def top_k(heads: Sequence[Tensor], count: int) -> Tensor:
    """As `sum_of_heads`, of the ``count`` heads that are most confident of each image."""
    return _ensemble(heads, count, most=True)


def highest_k_upstream(heads: Sequence[Tensor], count: int) -> Tensor:
    """As `top_k`, of the *least* confident heads: what upstream reports as ``highest-k``.

    Its code sorts the heads by their largest probability in ascending order and adds the first k.
    """
    return _ensemble(heads, count, most=False)


def all_predictions(heads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every prediction that upstream's ``eval.py`` reports: for a look at them, not to choose the best one.

    Args:
        heads: logits [B, K] by name.

    Returns [B, K] by name: the heads alone, ``sum``, and of fewer than all heads the most confident ones
    (``top_1`` …) and the least confident ones (``highest_1_upstream`` …).
    """
    each = list(heads.values())
    found = {**heads, "sum": sum_of_heads(each)}
    for count in range(1, len(each)):
        found[f"top_{count}"] = top_k(each, count)
    for count in range(1, len(each)):
        found[f"highest_{count}_upstream"] = highest_k_upstream(each, count)
    return found


def _ensemble(heads: Sequence[Tensor], count: int, *, most: bool) -> Tensor:
    log_probabilities = torch.stack([h.float().log_softmax(dim=1) for h in heads], dim=1)
    order = log_probabilities.amax(dim=2).sort(dim=1, descending=most, stable=True).indices[:, :count]
    chosen = log_probabilities.gather(1, order[:, :, None].expand(-1, -1, log_probabilities.shape[2]))
    return _log_mean(chosen)


def _log_mean(log_probabilities: Tensor) -> Tensor:
    """[B, k, K] → [B, K]."""
    return log_probabilities.logsumexp(dim=1) - log(log_probabilities.shape[1])


def class_heat(logits: Sequence[Tensor], levels: Sequence[Level], classes: Tensor) -> Tensor:
    """How probable a class is at each place: the weighted mean over the levels, on the first one's grid.

    Upstream's own map puts a constant in the classifier's place, so that it is the same for every class; this
    one reads the levels' classifiers, with upstream's weights of the levels.

    Args:
        logits: of each location, level by level, [B, S_i, K].
        levels: their shapes; tokens before the grid are left out, as they have no place.
        classes: one for each image, [B].

    Returns [B, h·w] in 0…1.
    """
    grid, heat = levels[0].grid, []
    for weight, level, of_level in zip(HEAT_WEIGHTS, levels, logits, strict=True):
        of_class = of_level.gather(2, classes[:, None, None].expand(-1, of_level.shape[1], 1))[..., 0]
        probability = (of_class.float() - of_level.float().logsumexp(dim=2)).exp()[:, level.prefix :]
        maps = probability.reshape(-1, 1, *level.grid)
        if level.grid != grid:
            maps = nn.functional.interpolate(maps, grid, mode="bilinear", align_corners=False)
        heat.append(weight * maps.flatten(1))
    return torch.stack(heat).sum(dim=0)
