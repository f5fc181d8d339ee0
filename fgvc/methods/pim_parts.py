"""The parts of PIM: feature pyramid, classifiers of a level, the choice of locations, the graph combiner.

Source: Chou, Lin and Kao, A Novel Plug-in Module for Fine-Grained Visual Classification, arXiv 2202.03822,
§3; chou141253/FGVC-PIM at 348edd9, ``models/pim_module/pim_module.py``. Written from a description of what
that code computes. Here locations come before channels throughout, [B, S, E]: its convolutions of kernel 1
are linear layers then, and no logit is moved about in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from fgvc.backbones.levels import Level

#: One node of the graph for so many chosen locations.
LOCATIONS_PER_NODE = 32
#: Of the width, what queries and keys of the graph have.
_QUERY_SHARE = 4


class FeaturePyramid(nn.Module):
    """Four levels brought to one width, each but the last with the next one added to it.

    Sequences are resampled by a learnt mixing of locations [S_i → S_{i-1}], which ties the weights to the
    image size; maps bilinearly. Where two levels are of one size, nothing is resampled.

    Args:
        levels: their shapes.
        width: E.
        sequences: whether levels come as [B, S, C] and not as [B, C, h, w].
    """

    def __init__(self, levels: Sequence[Level], width: int, *, sequences: bool) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.projections = nn.ModuleList(
            _projection(level.width, width, sequences=sequences) for level in levels
        )
        self.ups = nn.ModuleList(
            nn.Conv1d(lower.locations, upper.locations, kernel_size=1)
            if sequences and lower.locations != upper.locations
            else nn.Identity()
            for upper, lower in pairwise(self.levels)
        )
        self.sequences = sequences

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Four levels → as many [B, S_i, E]."""
        projected = [project(f) for project, f in zip(self.projections, features, strict=True)]
        pyramid = projected[-1:]
        for place in reversed(range(len(projected) - 1)):
            pyramid.insert(0, projected[place] + self._resample(pyramid[0], place))
        return pyramid if self.sequences else [p.flatten(2).transpose(1, 2) for p in pyramid]

    def _resample(self, features: Tensor, place: int) -> Tensor:
        if self.sequences:
            return self.ups[place](features)  # type: ignore[no-any-return]
        grid = self.levels[place].grid
        if features.shape[2:] == grid:
            return features
        return nn.functional.interpolate(features, grid, mode="bilinear", align_corners=False)

    def closed_form_macs(self, width: int) -> int:
        """One image's, on paper: C² + C·E for each location, and the mixing's S_{i-1}·S_i·E."""
        macs = sum(one.locations * one.width * (one.width + width) for one in self.levels)
        mixing = (up.weight.numel() for up in self.ups if isinstance(up, nn.Conv1d))
        return macs + width * sum(mixing)


def _projection(channels: int, width: int, *, sequences: bool) -> nn.Sequential:
    if sequences:
        return nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, width))
    return nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, width, 1))


class LevelClassifier(nn.Module):
    """Every location's logits: linear layer, batch norm over images and locations, ReLU, linear layer."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.out = nn.Linear(width, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """[B, S, E] → [B, S, K]."""
        hidden = self.hidden(features)
        normed = self.norm(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])
        return self.out(nn.functional.relu(normed))  # type: ignore[no-any-return]


def log_confidence(logits: Tensor) -> Tensor:
    """The logarithm of the largest probability, [B, S, K] → [B, S], which sorts as the probability does."""
    return logits.amax(dim=2) - logits.logsumexp(dim=2)


def most_confident(logits: Tensor, count: int) -> Tensor:
    """The indices [B, n] of the ``count`` locations with the largest probability of any class, in that order.

    The order matters: the combiner's first layer has weights for each place. Of equals the first comes first.
    """
    confidence = log_confidence(logits.detach().float())
    return confidence.sort(dim=1, descending=True, stable=True).indices[:, :count]


def not_selected_penalty(logits: Tensor, selected: Tensor) -> Tensor:
    """The mean of (tanh(logit) + 1)² over all classes at the locations that were not chosen, a scalar.

    Args:
        logits: [B, S, K].
        selected: indices [B, n], n < S.
    """
    left = torch.ones(logits.shape[:2], device=logits.device).scatter(1, selected, 0.0)
    distances = (logits.float().tanh() + 1).square().mean(dim=2)
    return (distances * left).sum() / (len(logits) * (logits.shape[1] - selected.shape[1]))


class GraphCombiner(nn.Module):
    """One prediction from the chosen locations of all levels, by a graph whose nodes are mixtures of them.

    Args:
        locations: T, of all levels together.
        width: E, a multiple of 4.
        dropout: before the classifier.
    """

    def __init__(self, locations: int, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        nodes = locations // LOCATIONS_PER_NODE
        self.pool = nn.Conv1d(locations, nodes, kernel_size=1)
        self.adjacency = nn.Parameter(torch.eye(nodes) / 100 + 1 / 100)
        self.convolution = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.query = nn.Linear(width, width // _QUERY_SHARE)
        self.key = nn.Linear(width, width // _QUERY_SHARE)
        self.alpha = nn.Parameter(torch.zeros(1))
        self.readout = nn.Linear(nodes, 1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """[B, T, E] → logits [B, K]."""
        nodes = self.pool(features)
        query, key = self.query(nodes).mean(dim=2), self.key(nodes).mean(dim=2)
        adjacency = self.adjacency + self.alpha * (query[:, :, None] - key[:, None, :]).tanh()
        mixed = adjacency.transpose(1, 2) @ self.convolution(nodes)
        mixed = self.norm(mixed.flatten(0, 1)).unflatten(0, mixed.shape[:2])
        return self.classifier(self.dropout(self.readout(mixed.transpose(1, 2)).flatten(1)))  # type: ignore[no-any-return]

    def closed_form_macs(self) -> int:
        """One image's, on paper."""
        nodes, locations, _ = self.pool.weight.shape
        width, classes = self.classifier.in_features, self.classifier.out_features
        graph = nodes * width * (width + 2 * self.query.out_features) + nodes**2 * width
        return nodes * locations * width + graph + nodes * width + width * classes
