"""Small modules beside the branches of frozen blocks: adapters and convolutional bypasses (ConvPass).

Source: Houlsby et al., Parameter-Efficient Transfer Learning for NLP, ICML 2019 (the bottleneck); Pfeiffer et
al., AdapterFusion, EACL 2021 (one a block, after it); Jie and Deng, Convolutional Bypasses Are Better Vision
Transformer Adapters, 2022 (arXiv 2207.07039), code JieShibo/PETL-ViT at 026e4f1 (convpass/vtab); both in the
form of the ILA tables: arkel23/DownSamplingInterLayerAdapter at 9b2248c (modules_others/adapters.py). Written
from descriptions of what that code computes, and compared with its outputs
(tests/methods/test_golden_adapters.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from fgvc.backbones.blocks import branch_drop, check_blocks, run_block, stochastic_depth
from fgvc.backbones.closed_form import block_macs, embedding_macs, is_plain
from fgvc.backbones.tokens import TokenBackbone
from fgvc.methods.base import Method, MethodOutput, ModelSpec, register
from fgvc.methods.heads import (
    HEAD_INITS,
    HeadInit,
    check_choice,
    draw_xavier,
    linear_head,
    token_backbone,
)

Grid = tuple[int, int]


def quick_gelu(x: Tensor) -> Tensor:
    """x·σ(1.702·x), ConvPass's own activation."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": gelu, "quickgelu": quick_gelu}


@dataclass(frozen=True)
class AdapterOptions:
    """Options of `Adapters`; the defaults are those of the ILA code base at 9b2248c.

    Attributes:
        kind: ``adapter`` (down, activation, up) or ``convpass`` (with a convolution in between).
        bottleneck: h, the width in between.
        kernel: side of ConvPass's convolution, an odd number.
        path: ``parallel``: beside a branch, reading what that reads. ``pfeiffer``: after the block, reading
            its output; one a block, whatever ``where`` says.
        where: branches that have one, ``attn`` and ``mlp``. Only ``mlp`` is the ILA code's path "ours".
        scale: s, which multiplies what is added.
        activation: ``gelu`` or ``quickgelu`` (ConvPass's original).
        up_init: ``xavier``, or ``zeros``: a start that changes nothing (ConvPass's original).
        conv_init: ``xavier``, or ``identity`` (ConvPass's original).
        inner_dropout: rate before the up-projection (ConvPass's original: 0.1).
        head_init: ``xavier``, ``zeros`` or torch's ``default``.
        norm_eps: eps of the encoder's norms; None: the backbone's. The ILA code base has 1e-12.
    """

    kind: Literal["adapter", "convpass"] = "adapter"
    bottleneck: int = 8
    kernel: int = 3
    path: Literal["parallel", "pfeiffer"] = "parallel"
    where: tuple[str, ...] = ("attn", "mlp")
    scale: float = 1.0
    activation: Literal["gelu", "quickgelu"] = "gelu"
    up_init: Literal["xavier", "zeros"] = "xavier"
    conv_init: Literal["xavier", "identity"] = "xavier"
    inner_dropout: float = 0.0
    head_init: HeadInit = "xavier"
    norm_eps: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", tuple(self.where))
        check_choice("kind", self.kind, ("adapter", "convpass"))
        check_choice("path", self.path, ("parallel", "pfeiffer"))
        check_choice("activation", self.activation, tuple(ACTIVATIONS))
        check_choice("up_init", self.up_init, ("xavier", "zeros"))
        check_choice("conv_init", self.conv_init, ("xavier", "identity"))
        check_choice("head_init", self.head_init, HEAD_INITS)
        if self.bottleneck < 1:
            raise ValueError(f"bottleneck={self.bottleneck}; at least 1")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel}; an odd number")
        if not self.where or not set(self.where) <= {"attn", "mlp"}:
            raise ValueError(f"where={list(self.where)}; possible: [attn, mlp], [attn] or [mlp]")
        if not 0 <= self.inner_dropout < 1:
            raise ValueError(f"inner_dropout={self.inner_dropout}; a rate lies in [0, 1)")


class Adapter(nn.Module):
    """s · drop(up(act(down(x)))), [B, S, D] → [B, S, D].

    Args:
        width: D.
        drop: what acts on the whole, as on a branch of the block: dropout, stochastic depth.
    """

    def __init__(self, width: int, options: AdapterOptions, drop: nn.Module) -> None:
        super().__init__()
        self.down = nn.Linear(width, options.bottleneck)
        self.up = nn.Linear(options.bottleneck, width)
        draw_xavier(self.down)
        draw_xavier(self.up)
        if options.up_init == "zeros":
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)
        self.scale = options.scale
        self.activation = ACTIVATIONS[options.activation]
        self.inner_dropout = nn.Dropout(options.inner_dropout)
        self.drop = drop

    def forward(self, tokens: Tensor) -> Tensor:
        narrow = self.inner_dropout(self.mix(self.activation(self.down(tokens))))
        added: Tensor = self.drop(widened(narrow, self.up))
        return added if self.scale == 1 else self.scale * added

    def mix(self, narrow: Tensor) -> Tensor:
        """What happens in the bottleneck, [B, S, h] → [B, S, h]."""
        return narrow

    def macs(self, prefix: int, patches: int) -> int:
        """Of one image with so many tokens."""
        return (prefix + patches) * (self.down.weight.numel() + self.up.weight.numel())


class ConvPass(Adapter):
    """An adapter with act(conv(u)) in the bottleneck: each patch sees its neighbours.

    Each prefix token goes through the same convolution as an image of one pixel, which only the kernel's
    centre sees.

    Args:
        grid: (h, w) of the patches.
        num_prefix: tokens before them.
    """

    def __init__(
        self, width: int, options: AdapterOptions, drop: nn.Module, grid: Grid, num_prefix: int
    ) -> None:
        super().__init__(width, options, drop)
        h = options.bottleneck
        self.grid, self.num_prefix = grid, num_prefix
        self.conv = nn.Conv2d(h, h, options.kernel, padding=options.kernel // 2)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]  # it has a bias
        if options.conv_init == "xavier":
            nn.init.xavier_uniform_(self.conv.weight)
        else:
            nn.init.dirac_(self.conv.weight)

    def mix(self, narrow: Tensor) -> Tensor:
        prefix, patches = parted(narrow, self.num_prefix, self.grid)
        mixed = tokens_of(self.conv(images_of(patches, self.grid)))
        if self.num_prefix:
            centre = self.conv.kernel_size[0] // 2
            alone = linear(prefix, self.conv.weight[:, :, centre, centre], self.conv.bias)
            mixed = torch.cat([alone, mixed], dim=1)
        return self.activation(mixed)

    def macs(self, prefix: int, patches: int) -> int:
        centre = self.conv.in_channels * self.conv.out_channels
        return super().macs(prefix, patches) + prefix * centre + patches * self.conv.weight.numel()


def widened(narrow: Tensor, up: nn.Linear) -> Tensor:
    """``up(narrow)``, [B, S, h] → [B, S, D] for h much smaller than D.

    With the weight as [h, D] in memory its gradient is the product [h, B·S]·[B·S, D], which CPUs compute in a
    quarter of the time of the transposed one that `torch.nn.Linear` asks for.
    """
    wide = torch.addmm(up.bias, narrow.flatten(0, 1), up.weight.t().contiguous())
    return wide.view(*narrow.shape[:2], -1)


def parted(tokens: Tensor, num_prefix: int, grid: Grid) -> tuple[Tensor, Tensor]:
    """Prefix tokens and the patches after them, of [B, S, C].

    Not as two slices: the gradient of each would be as large as ``tokens``, with zeros for the other.
    """
    prefix, patches = torch.split(tokens, [num_prefix, grid[0] * grid[1]], dim=1)
    return prefix, patches


def images_of(tokens: Tensor, grid: Grid) -> Tensor:
    """Patch tokens [B, h·w, C] as images [B, C, h, w] in memory order "channels last", which costs at most a
    copy where the tokens are a part of a longer sequence. Convolutions are fastest on such images.
    """
    return tokens.reshape(-1, *grid, tokens.shape[-1]).permute(0, 3, 1, 2)


def tokens_of(images: Tensor) -> Tensor:
    """The inverse of `images_of`: [B, C, h, w] → [B, h·w, C], without a copy for "channels last"."""
    return images.permute(0, 2, 3, 1).flatten(1, 2)


class BlockAdapters(nn.Module):
    """The adapters of one block, and how it runs with them.

    Args:
        grid: (h, w) of the patches that the block sees.
    """

    def __init__(
        self,
        backbone: TokenBackbone,
        block: nn.Module,
        options: AdapterOptions,
        grid: Grid,
        dropout: float,
    ) -> None:
        super().__init__()

        def one() -> Adapter:
            drop = branch_drop(dropout, stochastic_depth(block))
            if options.kind == "adapter":
                return Adapter(backbone.width, options, drop)
            return ConvPass(backbone.width, options, drop, grid, backbone.num_prefix)

        self.after = one() if options.path == "pfeiffer" else None
        beside = () if self.after else options.where
        self.attn = one() if "attn" in beside else None
        self.mlp = one() if "mlp" in beside else None

    def forward(self, block: nn.Module, tokens: Tensor) -> Tensor:
        tokens = run_block(block, tokens, self.attn, self.mlp)
        return tokens if self.after is None else tokens + self.after(tokens)

    def macs(self, prefix: int, patches: int) -> int:
        """Of one image with so many tokens, without the block itself."""
        return sum(part.macs(prefix, patches) for part in (self.after, self.attn, self.mlp) if part)


@register
class Adapters(Method):
    """A ViT with adapters in every block, which train while the block does not; a linear head on CLS."""

    name = "adapter"
    Options = AdapterOptions
    backbone: TokenBackbone
    options: AdapterOptions

    def __init__(self, spec: ModelSpec, options: AdapterOptions) -> None:
        super().__init__(spec, options)
        self.backbone = token_backbone(spec, norm_eps=options.norm_eps)
        check_blocks(self.backbone.blocks)
        self.adapters = nn.ModuleList(
            BlockAdapters(self.backbone, block, options, self.backbone.grid, spec.dropout)
            for block in self.backbone.blocks
        )
        self.head = linear_head(self.backbone.width, spec.num_classes, options.head_init)

    def forward(self, images: Tensor) -> MethodOutput:
        backbone = self.backbone
        tokens = backbone.embed(images)
        for block, adapters in zip(backbone.blocks, self.adapters, strict=True):
            tokens = adapters(block, tokens)
        return MethodOutput(logits=self.head(backbone.cls(backbone.norm(tokens))), grid=backbone.grid)

    def closed_form_macs(self) -> int | None:
        """Per token and adapter 2·D·h, and h²·k² for ConvPass's convolution (h² at a prefix token)."""
        backbone = self.backbone
        if not is_plain(backbone):
            return None
        height, width = backbone.grid
        added = sum(one.macs(backbone.num_prefix, height * width) for one in self.adapters)  # type: ignore[operator]
        blocks = backbone.depth * block_macs(backbone)
        return embedding_macs(backbone) + blocks + added + self.head.weight.numel()
