"""Aggregators of GLSim: what lets the token of the image see those of the crop, or the chosen patches.

Each takes a sequence [B, L, D] and returns one [B, L', D], normalised; row 0 stands for the image.

Source: arXiv 2407.12891; arkel23/GLSim at 99cc474 (glsim.py, and timm_glsim.py for the convolutions).
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from fgvc.backbones.timm_models import draw_block, encoder_block

AGGREGATORS = ("transformer", "dwsc", "conv", "none")


class TransformerAggregator(nn.Module):
    """One pre-norm encoder block without positions, then a LayerNorm. [B, L, D] → [B, L, D].

    Args:
        width: D.
        heads: attention heads.
        mlp_ratio: width of the MLP's hidden layer in D.
        norm_eps: of the block's LayerNorms; ``final_norm_eps``: of the last one.
        dropout: after the attention projection and after the MLP, as in the encoder.
        stochastic_depth: drop rate of the two residual branches, as in the encoder.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        *,
        norm_eps: float,
        final_norm_eps: float,
        dropout: float,
        stochastic_depth: float,
    ) -> None:
        super().__init__()
        self.block = encoder_block(
            width,
            heads,
            mlp_ratio,
            norm_eps=norm_eps,
            dropout=dropout,
            stochastic_depth=stochastic_depth,
        )
        self.width, self.hidden = width, int(width * mlp_ratio)
        self.norm = nn.LayerNorm(width, eps=final_norm_eps)
        draw_block(self.block, xavier_attention=True)  # as upstream initialises its whole network (glsim.py)

    def forward(self, rows: Tensor) -> Tensor:
        return self.norm(self.block(rows))  # type: ignore[no-any-return]

    def macs(self, length: int) -> int:
        """For one sequence of ``length`` rows; attention counts (see `fgvc.backbones.closed_form`)."""
        d = self.width
        return 4 * length * d**2 + 2 * length**2 * d + 2 * length * d * self.hidden


class ConvAggregator(nn.Module):
    """A convolution as long as the sequence, which leaves one row: [B, L, D] → [B, 1, D].

    Args:
        width: D.
        length: L.
        separable: False: LayerNorm → dense convolution → LayerNorm (upstream's ``conv``). True: LayerNorm →
            depthwise convolution → LayerNorm → GELU → pointwise layer → LayerNorm (upstream's ``dwsc``).
        norm_eps: of all its LayerNorms.
    """

    def __init__(self, width: int, length: int, *, separable: bool, norm_eps: float) -> None:
        super().__init__()
        norm = partial(nn.LayerNorm, width, eps=norm_eps)
        self.norm_in = norm()
        self.conv = nn.Conv1d(width, width, length, groups=width if separable else 1)
        self.pointwise = (
            nn.Sequential(norm(), nn.GELU(), nn.Linear(width, width)) if separable else nn.Identity()
        )
        self.norm = norm()

    def forward(self, rows: Tensor) -> Tensor:
        mixed = self.conv(self.norm_in(rows).transpose(1, 2)).transpose(1, 2)
        return self.norm(self.pointwise(mixed))  # type: ignore[no-any-return]

    def macs(self, length: int) -> int:
        """For one sequence of ``length`` rows, which must be the L that it was built for."""
        width = self.conv.out_channels
        if self.conv.groups == 1:
            return length * width**2
        return length * width + width**2


class NoAggregator(nn.Identity):
    """Leaves the rows as they are."""

    def macs(self, length: int) -> int:  # noqa: ARG002
        return 0


Aggregator = TransformerAggregator | ConvAggregator | NoAggregator
