"""Multi-head voting: each head of an attention layer votes for patches, and a layer's votes are counted.

Source: Xu et al., Fine-Grained Visual Classification via Internal Ensemble Learning Transformer, IEEE TMM
2023 (multi-head voting, dynamic selection); code mobulan/IELT at b185111, models/modules.py. Several scales:
edward62740/SC4001-Project at cb581f1, models/IELT_DINOv2.py. Written from descriptions of what these compute,
and compared with their outputs (tests/methods/test_golden_ielt.py, test_golden_sc4001.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from fgvc.backbones.precision import without_autocast
from fgvc.methods.token_selection import histogram

Kernel = Literal["gauss", "learnable"]
KERNELS = ("gauss", "learnable")
SelectInit = Literal["ushape", "uniform"]
SELECT_INITS = ("ushape", "uniform")
Intervals = Literal["actual", "upstream"]
INTERVALS = ("actual", "upstream")

_GAUSS = ((1.0, 2.0, 1.0), (2.0, 4.0, 2.0), (1.0, 2.0, 1.0))


def votes(rows: Tensor, per_head: int) -> Tensor:
    """How many heads vote for each patch.

    Args:
        rows: [B, H, N], how CLS attends to the patches in each head.
        per_head: a head votes for so many patches, those with the most attention.

    Returns [B, N], whole numbers of at most H in float32; their sum is H · min(per_head, N).
    """
    chosen = rows.topk(min(per_head, rows.shape[-1]), dim=-1).indices
    return histogram(chosen.flatten(1), rows.shape[-1])


def ranked(scores: Tensor, count: int) -> Tensor:
    """Indices [B, count] of the highest scores [B, N], best first; of equal ones the lowest index first.

    Votes tie often. Upstream leaves ties to an unstable sort, whose order is none that one could repeat.
    """
    return scores.sort(dim=-1, descending=True, stable=True).indices[:, :count]


class Enhancement(nn.Module):
    """Votes spread to neighbouring patches: 3×3 kernels on the map of votes, the largest at each patch.

    Args:
        kernel: ``gauss``: 1 2 1 / 2 4 2 / 1 2 1, not normalised. ``learnable``: one kernel and one bias a
            dilation, drawn as torch's `Conv2d` draws them. Ranks pass no gradient on: such kernels learn only
            where the scores themselves are used (`merged_token`), and otherwise stay as they were drawn.
        dilations: of the kernels; each map is padded with as many zeros.
    """

    def __init__(self, kernel: Kernel = "gauss", dilations: Sequence[int] = (1,)) -> None:
        super().__init__()
        self.dilations = tuple(dilations)
        self.convs: nn.ModuleList | None = None
        if kernel == "learnable":
            self.convs = nn.ModuleList(nn.Conv2d(1, 1, 3, padding=d, dilation=d) for d in self.dilations)
        else:
            self.register_buffer("kernel", torch.tensor(_GAUSS)[None, None], persistent=False)

    def forward(self, counts: Tensor, grid: tuple[int, int]) -> Tensor:
        """counts [B, N] on a grid of N patches → scores [B, N]; of ``gauss`` whole numbers, exact."""
        maps = counts.reshape(-1, 1, *grid)
        with without_autocast(counts):
            if self.convs is not None:
                scales = [conv(maps.to(conv.get_parameter("weight").dtype)) for conv in self.convs]
            else:
                kernel = self.get_buffer("kernel").to(maps.dtype)
                scales = [conv2d(maps, kernel, padding=d, dilation=d) for d in self.dilations]
        return torch.stack(scales).amax(dim=0).flatten(1)

    def macs(self, patches: int) -> int:
        """Of one image's map of votes."""
        return 9 * patches * len(self.dilations)


def merged_token(patches: Tensor, scores: Tensor, chosen: Tensor) -> Tensor:
    """The tokens that were not chosen as one: their mean, weighted by their scores.

    Σ s_j·t_j / (Σ s_j + 1e-6) over all patches j that are not in ``chosen``.

    Args:
        patches: [B, N, D].
        scores: [B, N].
        chosen: [B, m], indices of patches.

    Returns [B, 1, D]. Source: edward62740/SC4001-Project at cb581f1 (its TokenMerger).
    """
    # As shares of one, since a sum over hundreds of patches would overflow half precision.
    left = scores.scatter(1, chosen, 0.0)
    shares = left / (left.sum(dim=1, keepdim=True) + 1e-6)
    return shares[:, None].to(patches.dtype) @ patches


class DynamicSelection(nn.Module):
    """How many tokens each layer contributes; a share follows the layers that the last vote prefers.

    The shares are a buffer, so that a reloaded model chooses as the saved one did (upstream's are not saved).

    Args:
        layers: T, layers that contribute.
        total: tokens that they contribute together, but for rounding.
        init: ``uniform``, or ``ushape``: most from the first and the last layer, least from the middle; for
            11 layers and a total of 126 these are 16, 14, 12, 10, 8, 6, 8, 10, 12, 14, 16.
        rate: of the moving average; 0: the shares stay.
        warm_steps: training steps before the shares begin to move.
        intervals: how a token's place in the sequence of all chosen ones tells its layer: by the ``actual``
            numbers of tokens, or by sums of shares before rounding (``upstream``), which are off by a few.
    """

    rates: Tensor
    steps: Tensor

    def __init__(
        self, layers: int, total: int, init: SelectInit, rate: float, warm_steps: int, intervals: Intervals
    ) -> None:
        super().__init__()
        self.total, self.rate, self.warm_steps, self.intervals = total, rate, warm_steps, intervals
        self._initial = _initial_shares(layers, init)
        self.register_buffer("rates", torch.tensor(self._initial))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def numbers(self) -> Tensor:
        """Tokens a layer before rounding, [T]."""
        return self.rates * self.total

    def sizes(self) -> list[int]:
        """Tokens that each of the T layers contributes, the same for every image."""
        if self.rates.is_meta:  # no values there: costs are counted of the model as it starts
            return [round(share * self.total) for share in self._initial]
        return [round(number) for number in self.numbers().tolist()]

    def layers_of(self, positions: Tensor, sizes: Sequence[int]) -> Tensor:
        """How many tokens of each image come from each layer.

        Args:
            positions: [B, m], places in the sequence of all contributed tokens, layer after layer.
            sizes: tokens that each layer contributed.

        Returns [B, T] in float32. Places before the first layer count for it, places after the last for none.
        """
        if self.intervals == "upstream":
            ends = self.numbers().cumsum(dim=0)
        else:
            ends = torch.tensor(sizes, device=positions.device).cumsum(dim=0).to(self.rates.dtype)
        layers = (positions[:, :, None] >= ends).sum(dim=-1)
        return histogram(layers, len(sizes) + 1)[:, :-1]

    @torch.no_grad()
    def observe(self, counts: Tensor) -> None:
        """Count a training step and, after the warm-up, move the shares.

        shares ← (1 - rate)·shares + rate·(counts / Σ counts), then divided by their sum.

        Args:
            counts: [T], chosen tokens a layer, over the whole batch.
        """
        moves = (self.steps >= self.warm_steps) & (counts.sum() > 0)
        self.steps += 1
        wanted = counts / counts.sum().clamp(min=1)
        moved = self.rates + self.rate * (wanted - self.rates)
        self.rates.copy_(torch.where(moves, moved / moved.sum(), self.rates))


def _initial_shares(layers: int, init: SelectInit) -> list[float]:
    if init == "uniform":
        return [1 / layers] * layers
    # 6 in the middle and 16 at both ends, in a straight line between.
    ends = max(layers - 1, 1)
    heights = [6 + 10 * abs(2 * layer - ends) / ends for layer in range(layers)]
    return [height / sum(heights) for height in heights]
