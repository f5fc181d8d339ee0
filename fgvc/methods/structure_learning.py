"""Structure information learning: where the patches of an object lie around the one that stands out most.

Source: Sun, He and Peng, SIM-Trans: Structure Information Modeling Transformer for Fine-grained Visual
Categorization, ACM MM 2022; code PKU-ICST-MIPL/SIM-Trans_ACMMM2022 at d862e46, models/modeling.py. Written
from a description of what that code computes, and compared with its outputs (test_golden_simtrans.py).

The graph has a node for each patch and the adjacency E = w·wᵀ, w ≥ 0. Of rank one, it is never built: E·X is
w·(wᵀX), LeakyReLU(w_n·u) is w_n·LeakyReLU(u), and so two layers of the graph need O(N), not O(N²).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, leaky_relu

from fgvc.backbones.precision import without_autocast

#: Distance and angle.
NODE_FEATURES = 2
NEGATIVE_SLOPE = 0.2


@dataclass(frozen=True)
class Structure:
    """What the attention of one layer tells of an image.

    Attributes:
        vector: [B, D], the graph's output at the reference node, which CLS is given.
        weights: [B, N], w: the mean attention of the heads on the object, 0 elsewhere.
        features: [B, N, 2], distance from the reference node and angle around it, 0 off the object.
        on_object: [B, N], 1 where the attention is above its mean over the patches, else 0.
        attention: [B, N], sum over the heads.
        reference: [B], index of the node with the largest weight.
    """

    vector: Tensor
    weights: Tensor
    features: Tensor
    on_object: Tensor
    attention: Tensor
    reference: Tensor


class StructureLearning(nn.Module):
    """Two graph convolutions without bias, read at the reference node. Computes in float32 at least.

    A layer is G(X) = dropout(LeakyReLU(E·X·W)); between the two come ReLU and another dropout. The gradient
    flows through the weights w into queries and keys; mask, reference node and features have none.

    Args:
        width: D of the vector.
        hidden: width between the two layers.
        rate: of each of the three dropouts.
        upstream_eval_dropout: the dropout between the layers stays on in evaluation, as it does upstream.
    """

    def __init__(self, width: int, hidden: int, rate: float, *, upstream_eval_dropout: bool = False) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.empty(NODE_FEATURES, hidden))
        self.second = nn.Parameter(torch.empty(hidden, width))
        for weight in (self.first, self.second):
            bound = weight.shape[1] ** -0.5
            nn.init.uniform_(weight, -bound, bound)
        self.rate = rate
        self.upstream_eval_dropout = upstream_eval_dropout

    def forward(self, cls_row: Tensor, grid: tuple[int, int]) -> Structure:
        """
        Args:
            cls_row: [B, H, N], how CLS attends to the patches, in row-major order.
            grid: (h, w) with h·w = N.
        """
        with without_autocast(cls_row):
            row = cls_row.to(torch.promote_types(cls_row.dtype, torch.float32))
            attention = row.sum(dim=1)
            on_object = (attention > attention.mean(dim=1, keepdim=True)).to(row.dtype)
            weights = attention * on_object / row.shape[1]
            peak, reference = weights.max(dim=1)
            features = polar(reference, grid, row.dtype) * on_object[:, :, None]
            vector = self._at_reference(weights, peak, features)
        return Structure(vector, weights, features, on_object, attention, reference)

    def _at_reference(self, weights: Tensor, peak: Tensor, features: Tensor) -> Tensor:
        """The second layer's output at the node of weight ``peak`` [B], as [B, D]."""
        first, second = self.first.to(weights.dtype), self.second.to(weights.dtype)
        # LeakyReLU, then ReLU: ReLU.
        hidden = (weights[:, None] @ features @ first)[:, 0].relu()
        mixed = hidden * self._returned(weights) @ second
        vector = leaky_relu(peak[:, None] * mixed, NEGATIVE_SLOPE)
        return dropout(vector, self.rate, self.training)

    def _returned(self, weights: Tensor) -> Tensor:
        """What the second layer sums over the nodes: ‖w‖² [B, 1], or Σ_n w_n²·kept_nc [B, hidden]."""
        squared = weights.square()
        keep = 1.0 - self._dropped_between()
        if keep == 1.0:
            return squared.sum(dim=1, keepdim=True)
        kept = weights.new_empty(*weights.shape, self.first.shape[1]).bernoulli_(keep)
        return (squared[:, None] @ kept)[:, 0] / keep

    def _dropped_between(self) -> float:
        """Rate between the layers; in training two dropouts follow one another there, drawn here as one."""
        if self.training:
            return 1.0 - (1.0 - self.rate) ** 2
        return self.rate if self.upstream_eval_dropout else 0.0

    def macs(self, patches: int) -> int:
        """Multiply-accumulates of one image in evaluation."""
        hidden, width = self.second.shape
        between = patches * hidden if self.upstream_eval_dropout and self.rate else 0
        return NODE_FEATURES * (patches + hidden) + between + hidden * width


def polar(reference: Tensor, grid: tuple[int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Each node's distance from the reference node and angle around it, [B, N, 2].

    Distances are in units of the grid's sides. The angle is measured from the row axis: 0.5 is down the rows
    (and the reference node itself), 0.75 along the columns; it lies in (0, 1].

    Args:
        reference: [B], row-major indices.
        grid: (h, w) with h·w = N.
    """
    height, width = grid
    nodes = torch.arange(height * width, device=reference.device)
    down = (nodes // width - (reference // width)[:, None]).to(dtype) / height
    along = (nodes % width - (reference % width)[:, None]).to(dtype) / width
    distance = (down.square() + along.square()).sqrt()
    angle = (torch.atan2(along, down) / torch.pi + 1) / 2
    return torch.stack([distance, angle], dim=-1)
