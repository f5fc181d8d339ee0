"""Covariance of a feature map's channels, and its square root by a few matrix products.

Source: Li et al., Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix Square
Root Normalization (iSQRT-COV), CVPR 2018, arXiv 1712.01034, §3; code jiangtaoxie/fast-MPN-COV at c430c78
(src/representation/MPNCOV.py). Written from a description of what that code computes, and compared with its
outputs and gradients (tests/methods/test_golden_isqrt_cov.py). The code writes its backward passes by hand;
autograd's are the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgvc.backbones.precision import without_autocast
from fgvc.methods.bilinear import at_least_single

#: Added to the trace, so that features that are the same in all cells have a root (0) and a gradient.
TRACE_EPS = 1e-12


def covariance(features: Tensor) -> Tensor:
    """Σ = (X - mean)(X - mean)ᵀ / M of features [B, d, h, w] with their M = h·w cells in columns: [B, d, d].

    Divided by M and not by M - 1. In float32 at least, also under autocast.
    """
    with without_autocast(features):
        cells = at_least_single(features).flatten(2)
        centred = cells - cells.mean(dim=2, keepdim=True)
        return torch.bmm(centred, centred.transpose(1, 2)) / cells.shape[2]


def newton_schulz_root(matrices: Tensor, iterations: int) -> Tensor:
    """The square root of positive semi-definite matrices [B, d, d], as near as n coupled steps come to it.

    A = Σ / tr Σ, Y₀ = A, Z₀ = I; T = ½(3I - Z Y), Y ← Y T, Z ← T Z; the result is √(tr Σ)·Yₙ. With n = 5 and
    many channels this is far from the square root: n belongs to the model, and is no matter of precision.

    Args:
        iterations: n, at least 1.

    Returns [B, d, d], in float32 at least, also under autocast: half precision loses small eigenvalues.
    """
    with without_autocast(matrices):
        matrices = at_least_single(matrices)
        trace = matrices.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None] + TRACE_EPS
        y = matrices / trace
        thrice_half = 1.5 * torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
        z = thrice_half - 0.5 * y
        y = torch.bmm(y, z)
        for step in range(2, iterations + 1):
            t = torch.baddbmm(thrice_half, z, y, alpha=-0.5)
            y = torch.bmm(y, t)
            if step < iterations:  # nobody reads the last Z
                z = torch.bmm(t, z)
        return trace.sqrt() * y


def root_macs(width: int, iterations: int) -> int:
    """Of `newton_schulz_root` for one matrix: d³ a product, of which n = 1 has one, n > 1 has 3n - 3."""
    return width**3 * max(3 * iterations - 3, 1)


class UpperTriangle(nn.Module):
    """Matrices [B, d, d] → [B, d(d+1)/2]: the diagonal and what is above it, row by row."""

    places: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        rows, columns = torch.triu_indices(width, width)
        self.register_buffer("places", rows * width + columns, persistent=False)

    def forward(self, matrices: Tensor) -> Tensor:
        return matrices.flatten(1).index_select(1, self.places)


class CovariancePooling(nn.Module):
    """Features [B, C, h, w] → [B, d(d+1)/2]: fewer channels, their covariance, its root, one triangle of it.

    Args:
        width: C.
        reduced: d; None: the channels as they are, d = C.
        iterations: n of `newton_schulz_root`.
    """

    def __init__(self, width: int, reduced: int | None, iterations: int) -> None:
        super().__init__()
        self.channels = reduced or width
        self.out_features = self.channels * (self.channels + 1) // 2
        self.iterations = iterations
        self.reduction: nn.Module = nn.Identity()
        if reduced is not None:
            convolution = nn.Conv2d(width, reduced, kernel_size=1, bias=False)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            self.reduction = nn.Sequential(convolution, nn.BatchNorm2d(reduced), nn.ReLU())
        self.triangle = UpperTriangle(self.channels)

    def forward(self, features: Tensor) -> Tensor:
        moments = covariance(self.reduction(features))
        return self.triangle(newton_schulz_root(moments, self.iterations))  # type: ignore[no-any-return]

    def macs(self, width: int, cells: int) -> int:
        """Of one image: the reduction from ``width`` channels, the covariance, and its root."""
        reducing = 0 if isinstance(self.reduction, nn.Identity) else width * self.channels * cells
        return reducing + self.channels**2 * cells + root_macs(self.channels, self.iterations)
