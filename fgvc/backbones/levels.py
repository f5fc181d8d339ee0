"""Four feature maps of a network, one a level, for methods that read several depths at once.

A level is a map [B, C, h, w] of a CNN, or a sequence [B, S, C] of a transformer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import ResNet
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn
from torch.func import functional_call

from fgvc.backbones.closed_form import layer_sum
from fgvc.backbones.timm_models import base_name, build_timm
from fgvc.backbones.tokens import TokenBackbone
from fgvc.errors import FgvcError

LEVELS = 4


@dataclass(frozen=True)
class Level:
    """The shape of one level.

    Attributes:
        width: C.
        grid: (h, w).
        prefix: tokens before those of the grid (CLS, registers).
    """

    width: int
    grid: tuple[int, int]
    prefix: int = 0

    @property
    def locations(self) -> int:
        """S = prefix + h·w."""
        return self.prefix + self.grid[0] * self.grid[1]


class LevelBackbone(nn.Module):
    """A ResNet, EfficientNet or Swin Transformer of timm, seen as four levels.

    ResNet: the outputs of its four stages. EfficientNet: those of its last four stages, of which two may be
    of one size. Swin: each of the first three levels is taken behind the merging of patches that follows its
    stage, the last one behind the last stage, all without the final norm. Swin's authors and timm before 0.8
    merge at the end of a stage, timm since then at the beginning of the next; both give these levels.
    Source: the layers that chou141253/FGVC-PIM at 348edd9 reads (models/builder.py).

    Args:
        backbone: timm name.
        image_size: side of the square input in pixels.
        stochastic_depth: drop rate of residual branches, growing linearly with depth (timm's rule).
        dropout: rate after attention projections and MLPs of a Swin; nothing else has a place for it.
        norm_eps: eps of the batch norms; None: timm's own.
        shape: timm's arguments for a Swin whose shape has no name.

    Raises FgvcError for any other network.
    """

    def __init__(
        self,
        backbone: str,
        image_size: int,
        *,
        stochastic_depth: float = 0.0,
        dropout: float = 0.0,
        norm_eps: float | None = None,
        shape: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        name = base_name(backbone)
        with torch.device("meta"):
            plain = build_timm(name)
        kwargs: dict[str, Any] = {"drop_path_rate": stochastic_depth, **(shape or {})}
        if isinstance(plain, SwinTransformer):
            kwargs |= {"img_size": image_size, "proj_drop_rate": dropout}
        elif not isinstance(plain, ResNet | EfficientNet):
            raise FgvcError(
                f"'{backbone}' has no four levels of features that are known here",
                key="backbone",
                cure="use a ResNet, an EfficientNet, a Swin Transformer or a plain ViT",
            )
        self.cnn = build_timm(name, **kwargs)
        #: Whether levels are sequences [B, S, C] and not maps [B, C, h, w].
        self.sequences = isinstance(self.cnn, SwinTransformer)
        #: Tensors of pre-trained weights that belong to what is left out here.
        self.unused = self._leave_out_the_end()
        if norm_eps is not None:
            for module in self.cnn.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eps = norm_eps
        self.image_size = image_size
        self.levels = self._shapes()

    def _leave_out_the_end(self) -> tuple[str, ...]:
        network = self.cnn
        if isinstance(network, SwinTransformer):
            if not isinstance(network.layers[0].downsample, nn.Identity):
                raise FgvcError(
                    "this timm merges patches at the end of a stage of a Swin Transformer",
                    cure="pip install 'timm>=1'",
                )
            network.norm = nn.Identity()
            return ("norm.",)
        if isinstance(network, EfficientNet):
            network.conv_head = network.bn2 = nn.Identity()
            return ("conv_head.", "bn2.")
        return ()

    def forward(self, images: Tensor) -> list[Tensor]:
        """images [B, 3, S, S] → four levels, each [B, C, h, w] or [B, h·w, C]."""
        return [m.flatten(1, 2) if self.sequences else m for m in self._maps(images)]

    def _maps(self, images: Tensor) -> list[Tensor]:
        """As `forward`, a Swin's as [B, h, w, C]."""
        network = self.cnn
        if isinstance(network, SwinTransformer):
            return _swin_maps(network, images)
        maps = []
        if isinstance(network, ResNet):
            features = network.maxpool(network.act1(network.bn1(network.conv1(images))))
            stages = [network.layer1, network.layer2, network.layer3, network.layer4]
        else:
            assert isinstance(network, EfficientNet)
            features = network.bn1(network.conv_stem(images))
            stages = list(network.blocks)
        for stage in stages:
            features = stage(features)
            maps.append(features)
        return maps[-LEVELS:]

    def _shapes(self) -> tuple[Level, ...]:
        """Read off a pass over shapes alone."""
        mode = self.training
        state = {n: t.to("meta") for n, t in (*self.named_parameters(), *self.named_buffers())}
        images = torch.empty(1, 3, self.image_size, self.image_size, device="meta")
        with torch.no_grad():
            maps = functional_call(_Maps(self.eval()), {f"of.{n}": t for n, t in state.items()}, (images,))
        self.train(mode)
        if self.sequences:
            return tuple(Level(m.shape[3], (m.shape[1], m.shape[2])) for m in maps)
        return tuple(Level(m.shape[1], (m.shape[2], m.shape[3])) for m in maps)

    def closed_form_macs(self) -> int | None:
        """MACs of one image's pass, or None for a network with attention other than a Swin's."""
        if isinstance(self.cnn, SwinTransformer):
            return swin_macs(self.cnn)
        layers = layer_sum(self, self.image_size)
        return None if layers is None else layers.macs


class _Maps(nn.Module):
    """`LevelBackbone._maps` as a module, so that it can be called with other tensors."""

    def __init__(self, of: LevelBackbone) -> None:
        super().__init__()
        self.of = of

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.of._maps(images)


def _swin_maps(swin: SwinTransformer, images: Tensor) -> list[Tensor]:
    """[B, h, w, C] behind each merging of patches and behind the last stage."""
    features, maps = swin.patch_embed(images), []
    for place, stage in enumerate(swin.layers):
        features = stage.downsample(features)
        if place > 0:
            maps.append(features)
        features = stage.blocks(features)
    return [*maps, features]


def swin_macs(swin: SwinTransformer) -> int:
    """MACs of one image's pass, on paper; maps are padded to whole windows inside of the attention.

    A block on h·w tokens of width D, P with the padding, in windows of M tokens: 4·P·D² + 2·P·M·D, and the
    MLP's 8·h·w·D²; merging patches: 8·D² for each merged one. Source: Liu et al., Swin Transformer, ICCV
    2021, §3.2, equation (2).
    """
    height, width = swin.patch_embed.grid_size
    projection = swin.patch_embed.proj
    macs: int = height * width * projection.weight.numel()
    for place, stage in enumerate(swin.layers):
        if place > 0:
            height, width = ceil(height / 2), ceil(width / 2)
            macs += height * width * stage.downsample.reduction.weight.numel()
        for block in stage.blocks:
            rows, columns = block.window_size
            padded = ceil(height / rows) * rows * ceil(width / columns) * columns
            mlp = block.mlp.fc1.weight.numel() + block.mlp.fc2.weight.numel()
            macs += padded * (4 * block.dim**2 + 2 * rows * columns * block.dim) + height * width * mlp
    return macs


def token_levels(backbone: TokenBackbone) -> tuple[Level, ...]:
    """The shapes of what `block_outputs` returns. Raises FgvcError for a ViT of fewer than four blocks."""
    if backbone.depth < LEVELS:
        raise FgvcError(
            f"the backbone has {backbone.depth} blocks, and {LEVELS} are read",
            key="backbone",
            cure="use a deeper ViT",
        )
    return (Level(backbone.width, backbone.grid, backbone.num_prefix),) * LEVELS


def block_outputs(backbone: TokenBackbone, images: Tensor) -> list[Tensor]:
    """What the last four blocks of a ViT leave: all tokens, prefix included, [B, num_prefix + N, D]."""
    tokens, outputs = backbone.embed(images), []
    for block in backbone.blocks:
        tokens = block(tokens)
        outputs.append(tokens)
    return outputs[-LEVELS:]
