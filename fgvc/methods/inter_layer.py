"""The inter-layer adapter of ILA: a module between two encoder blocks that may shrink the grid of patches.

Source: arXiv 2409.11051, code arkel23/DownSamplingInterLayerAdapter at 9b2248c
(model_utils/modules_others/adapters.py). Written from a description of what that code computes, and compared
with its outputs and gradients (tests/methods/test_golden_ila.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from fgvc.methods.adapters import Grid, images_of, parted, tokens_of, widened
from fgvc.methods.heads import draw_xavier

Residual = Literal["depthwise", "dense", "avg_pool"]
ResidualInit = Literal["near_ones", "ones", "mean", "xavier"]
Norm = Literal["batch", "layer", "none"]


@dataclass(frozen=True)
class InterLayerForm:
    """What an `InterLayerAdapter` is made of; see `ILAOptions` for the meaning of each."""

    bottleneck: int = 8
    kernel: int = 3
    multiplier: int = 1
    norm: Norm = "batch"
    shrink: bool = True
    residual: Residual = "depthwise"
    residual_init: ResidualInit = "near_ones"


class InterLayerAdapter(nn.Module):
    """residual(x) + drop(adapter(x)), [B, P + h·w, D] → [B, P + h'·w', D].

    With ``shrink``, no convolution pads: h' = h - (k - 1), and likewise w'. The adapter: down to d, norm,
    GELU; on the patches a depthwise convolution, norm, GELU and a pointwise layer, on the P prefix tokens
    (CLS) a layer of their own; then norm and GELU of all, and up. The residual of the patches is one
    convolution at full width, that of the prefix the identity. Without ``shrink`` the residual is x.

    A batch norm takes its statistics over the batch and the tokens, prefix and patches alike.

    Args:
        width: D.
        grid: (h, w) of the patches that come in.
        num_prefix: P.
        drop: what acts on the adapter's result in training.
    """

    def __init__(
        self, width: int, grid: Grid, num_prefix: int, form: InterLayerForm, drop: nn.Module
    ) -> None:
        super().__init__()
        d, k, wide = form.bottleneck, form.kernel, form.bottleneck * form.multiplier
        less = k - 1 if form.shrink else 0
        padding = 0 if form.shrink else k // 2
        self.grid, self.num_prefix = grid, num_prefix
        #: (h', w') of the patches that come out.
        self.out_grid: Grid = (grid[0] - less, grid[1] - less)
        self.down = nn.Linear(width, d)
        self.norm1 = token_norm(d, form.norm)
        self.conv = nn.Conv2d(d, wide, k, padding=padding, groups=d)
        self.norm2 = token_norm(wide, form.norm)
        self.pointwise = nn.Linear(wide, d)
        self.prefix = nn.Linear(d, d) if num_prefix else None
        self.norm3 = token_norm(d, form.norm)
        self.up = nn.Linear(d, width)
        for layer in (self.down, self.up, self.pointwise, self.prefix):
            if layer is not None:
                draw_xavier(layer)
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]  # it has a bias
        self.residual = residual_of_patches(width, k, form) if form.shrink else None
        self.drop = drop

    def forward(self, tokens: Tensor) -> Tensor:
        added: Tensor = self.drop(self.adapter(tokens))
        if self.residual is None:
            return tokens + added
        prefix, patches = parted(tokens, self.num_prefix, self.grid)
        shrunk = tokens_of(self.residual(images_of(patches, self.grid)))
        return torch.cat([prefix, shrunk], dim=1) + added

    def adapter(self, tokens: Tensor) -> Tensor:
        """The branch beside the residual, before anything is dropped: [B, P + h'·w', D]."""
        narrow = gelu(self.norm1(self.down(tokens)))
        prefix, patches = parted(narrow, self.num_prefix, self.grid)
        mixed = self.norm2(tokens_of(self.conv(images_of(patches, self.grid))))
        both = self.pointwise(gelu(mixed))
        if self.prefix is not None:
            both = torch.cat([self.prefix(prefix), both], dim=1)
        return widened(gelu(self.norm3(both)), self.up)

    def macs(self) -> int:
        """Of one image."""
        patches_in = self.grid[0] * self.grid[1]
        patches = self.out_grid[0] * self.out_grid[1]
        residual = self.residual.weight.numel() if isinstance(self.residual, nn.Conv2d) else 0
        return (
            (self.num_prefix + patches_in) * self.down.weight.numel()
            + patches * (self.conv.weight.numel() + self.pointwise.weight.numel() + residual)
            + self.num_prefix * (0 if self.prefix is None else self.prefix.weight.numel())
            + (self.num_prefix + patches) * self.up.weight.numel()
        )


class TokenBatchNorm(nn.BatchNorm1d):
    """Batch norm over all tokens of all images, [B, S, C] → [B, S, C], without a transposed copy."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(0, 1)).view_as(input)


def token_norm(channels: int, kind: Norm) -> nn.Module:
    """The norm of tokens [B, S, C] that an option names."""
    if kind == "batch":
        return TokenBatchNorm(channels)
    return nn.LayerNorm(channels) if kind == "layer" else nn.Identity()


def residual_of_patches(width: int, kernel: int, form: InterLayerForm) -> nn.Module:
    """The convolution [B, D, h, w] → [B, D, h', w'] on the residual of a shrinking module.

    ``near_ones``: weights N(1, 0.001²), about the *sum* over the window, as upstream starts; ``mean``: 1/k².
    """
    if form.residual == "avg_pool":
        return nn.AvgPool2d(kernel, stride=1)
    groups = width if form.residual == "depthwise" else 1
    conv = nn.Conv2d(width, width, kernel, groups=groups, bias=False)
    if form.residual == "dense" or form.residual_init == "xavier":
        nn.init.xavier_uniform_(conv.weight)
    elif form.residual_init == "near_ones":
        nn.init.normal_(conv.weight, mean=1.0, std=0.001)
    else:
        nn.init.constant_(conv.weight, 1.0 if form.residual_init == "ones" else 1 / kernel**2)
    return conv
