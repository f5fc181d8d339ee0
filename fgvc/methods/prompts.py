"""Learnt tokens beside those of the image: the prompts of VPT, the queries of VQT."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn

from fgvc.backbones.tokens import TokenBackbone


class Prompts(nn.Module):
    """``layers`` sets of n learnt tokens, each [n, D], without positions.

    Drawn from U(-v, v) with v = √(6 / (3·P² + d)), the range of a Xavier-uniform patch embedding. Source: VPT
    (arXiv 2203.12119, §3.2; KMnP/vpt at 4410440, vit_prompt/vit.py), from which VQT and the ILA code took it.

    Args:
        backbone: of width D and patch size P.
        count: n.
        dropout: rate in training, drawn for each image.
        projection: d, a width that one linear layer for all sets takes to D; None: d = D.
    """

    def __init__(
        self,
        backbone: TokenBackbone,
        layers: int,
        count: int,
        dropout: float,
        projection: int | None = None,
    ) -> None:
        super().__init__()
        inner = projection or backbone.width
        bound = sqrt(6 / (3 * backbone.patch_size**2 + inner))
        self.tokens = nn.Parameter(torch.empty(layers, count, inner).uniform_(-bound, bound))
        self.projection: nn.Linear | None = None
        if projection is not None:
            self.projection = nn.Linear(projection, backbone.width)
            nn.init.kaiming_normal_(self.projection.weight, mode="fan_out")
        self.dropout = nn.Dropout(dropout)

    @property
    def layers(self) -> int:
        return self.tokens.shape[0]

    @property
    def count(self) -> int:
        return self.tokens.shape[1]

    def forward(self, layer: int, batch: int) -> Tensor:
        """The set of one layer for each image, [B, n, D]."""
        tokens = self.tokens[layer]
        if not torch.is_grad_enabled():
            # In inference mode a view of a parameter says that it requires a gradient, although it can have
            # none; torch's counter of operations fails on such inputs of a layer.
            tokens = tokens.detach()
        if self.projection is not None:
            tokens = self.projection(tokens)
        return self.dropout(tokens.expand(batch, -1, -1))  # type: ignore[no-any-return]

    def macs(self) -> int:
        """Of the projections of all sets, which one pass needs once."""
        return 0 if self.projection is None else self.tokens[..., 0].numel() * self.projection.weight.numel()


def check_rate(option: str, rate: float | None) -> None:
    """Raise ValueError unless ``rate`` is None or lies in [0, 1) (for use in ``__post_init__``)."""
    if rate is not None and not 0 <= rate < 1:
        raise ValueError(f"{option}={rate}; a rate lies in [0, 1)")
