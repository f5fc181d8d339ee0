"""Bilinear attention pooling, and the centres of classes in the space of its features.

Source: Rao et al., Counterfactual Attention Learning, ICCV 2021, arXiv 2108.08728, §3.1; raoyongming/CAL at
0ba9d50, ``models/cal.py`` (BAP) and the loop of ``train_distributed.py``, which follow WS-DAN. Written from a
description of what that code computes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgvc.backbones.precision import without_autocast

#: Added below the square root.
SQRT_EPS = 1e-6
#: Likewise in `second_moment`; only keeps the root's gradient finite.
SECOND_MOMENT_EPS = 1e-12

#: How centres are kept; at 5,089 classes and 65,536 features they are 1.3 GB in float32.
CENTER_DTYPES = {"float32": torch.float32, "float16": torch.float16}


class AttentionMaps(nn.Module):
    """M maps [B, M, h, w] of features [B, C, h, w]: 1 × 1 convolution without bias, batch norm, ReLU."""

    def __init__(self, width: int, count: int, norm_eps: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, count, kernel_size=1, bias=False)
        self.bn = nn.BatchNorm2d(count, eps=norm_eps)

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.relu(self.bn(self.conv(features)))


def at_least_single(values: Tensor) -> Tensor:
    """In float32, or as they are when they are more precise."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def bilinear_pool(features: Tensor, attention: Tensor) -> Tensor:
    """Features averaged under each attention map, signed square root, length 1.

    Args:
        features: [B, C, h, w].
        attention: [B, M, h', w']; of another size than the features, it is resized to theirs (bilinear,
            aligned corners).

    Returns [B, M·C] with index m·C + c, in float32, also under autocast: the sum of M·C squares and square
    roots of small numbers are beyond half precision.
    """
    with without_autocast(features):
        features, attention = at_least_single(features), at_least_single(attention)
        size = features.shape[-2:]
        if attention.shape[-2:] != size:
            attention = nn.functional.interpolate(attention, size, mode="bilinear", align_corners=True)
        cells = size[0] * size[1]
        pooled = torch.bmm(attention.flatten(2), features.flatten(2).transpose(1, 2)) / cells
        return _normalised(pooled)


def uniform_pool(features: Tensor, maps: int) -> Tensor:
    """`bilinear_pool` under M maps that are 1 everywhere: M times the mean, without a product."""
    means = at_least_single(features).mean(dim=(2, 3))
    return _normalised(means[:, None].expand(-1, maps, -1))


def second_moment(tokens: Tensor) -> Tensor:
    """Mean product of all pairs of channels, signed square root, length 1.

    Source: Lin et al., Bilinear CNN Models for Fine-Grained Visual Recognition, ICCV 2015, §3.1, with one
    stream; heads ``blp`` and ``lrblp`` of arkel23/DownSamplingInterLayerAdapter at 9b2248c.

    Args:
        tokens: [B, N, C].

    Returns [B, C²] in float32, also under autocast.
    """
    with without_autocast(tokens):
        tokens = at_least_single(tokens)
        pooled = torch.bmm(tokens.transpose(1, 2), tokens) / tokens.shape[1]
        return _normalised(pooled, SECOND_MOMENT_EPS)


def _normalised(pooled: Tensor, eps: float = SQRT_EPS) -> Tensor:
    """[B, M, C] → [B, M·C]: sgn(f)·√(|f| + eps), divided by its length."""
    rooted = pooled.sign() * (pooled.abs() + eps).sqrt()
    return nn.functional.normalize(rooted.flatten(1), dim=1)


class Centers(nn.Module):
    """One centre for each class, a running mean of its images' features; state in a buffer, not a parameter.

    Args:
        num_classes: K.
        width: of the features, D = M·C.
        rate: β, how far a step moves a centre towards the features.
        dtype: one of `CENTER_DTYPES`.
    """

    center: Tensor

    def __init__(self, num_classes: int, width: int, rate: float, dtype: str) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("center", torch.zeros(num_classes, width, dtype=CENTER_DTYPES[dtype]))

    def forward(self, features: Tensor, classes: Tensor) -> Tensor:
        """Σ‖f − ĉ‖² / B, where ĉ is the centre of an image's class divided by its length (0 stays 0).

        In training the centres move afterwards: c += β · mean of (f − ĉ) over the images of that class in the
        batch. Upstream's indexed assignment keeps the difference of one of them, on a GPU of any (quirk 5).

        Args:
            features: [B, D], as `bilinear_pool` returns them; gradients flow into them.
            classes: [B], int64.
        """
        center = self.center[classes].to(features.dtype)
        away = features - nn.functional.normalize(center, dim=1)
        if self.training:
            self._move(center, away.detach(), classes)
        return away.square().sum() / len(features)

    @torch.no_grad()
    def _move(self, center: Tensor, away: Tensor, classes: Tensor) -> None:
        with without_autocast(away):
            same = (classes[:, None] == classes[None, :]).to(away.dtype)
            moved = center + self.rate * (same / same.sum(dim=1, keepdim=True)) @ away
        # Each image writes what the first image of its class computed: the same bits in any order.
        first = same.argmax(dim=1)
        self.center[classes] = moved[first].to(self.center.dtype)
