"""LoRA: low-rank updates of the query and value projections of a frozen ViT.

Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022, §4.1 (h = W₀x + (α/r)·B·A·x,
A drawn at random, B zero) and §4.2 (applied to W_q and W_v). The ILA tables have no LoRA; the bottleneck here
is as wide as their adapters'.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from fgvc.backbones.blocks import check_blocks
from fgvc.backbones.closed_form import encoder_macs, is_plain
from fgvc.backbones.tokens import TokenBackbone
from fgvc.errors import FgvcError
from fgvc.methods.base import Method, MethodOutput, ModelSpec, register
from fgvc.methods.heads import HEAD_INITS, HeadInit, check_choice, linear_head, token_backbone
from fgvc.methods.vit import ViT, ViTOptions

#: In the order in which timm's joint projection has them.
_PROJECTIONS = ("q", "k", "v")


@dataclass(frozen=True)
class LoRAOptions:
    """Options of `LoRA`.

    Attributes:
        rank: r.
        alpha: α; updates are scaled by α / r.
        targets: the projections that are updated, of ``q``, ``k`` and ``v``.
        head_init: ``zeros``, ``xavier`` or torch's ``default``.
        norm_eps: eps of the encoder's norms; None: the backbone's.
    """

    rank: int = 8
    alpha: float = 8.0
    targets: tuple[str, ...] = ("q", "v")
    head_init: HeadInit = "zeros"
    norm_eps: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))
        check_choice("head_init", self.head_init, HEAD_INITS)
        if self.rank < 1:
            raise ValueError(f"rank={self.rank}; at least 1")
        known = set(self.targets) <= set(_PROJECTIONS)
        if not self.targets or not known or len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets={list(self.targets)}; some of [q, k, v], such as [q, v]")


class LowRankUpdate(nn.Module):
    """(α/r)·B·A·x for some parts of a joint projection, x [B, S, D] → [B, S, 3·D].

    ``down`` holds A of each target, [t·r, D]; ``up`` their B, [t, D, r].
    """

    def __init__(self, width: int, options: LoRAOptions) -> None:
        super().__init__()
        self.places = tuple(_PROJECTIONS.index(target) for target in options.targets)
        self.scale = options.alpha / options.rank
        self.down = nn.Parameter(torch.empty(len(self.places) * options.rank, width))
        self.up = nn.Parameter(torch.zeros(len(self.places), width, options.rank))
        nn.init.kaiming_uniform_(self.down, a=sqrt(5))  # torch's start of a linear layer

    def placed_up(self) -> Tensor:
        """All B at their places in one matrix [3·D, t·r], zero elsewhere."""
        width = self.up.shape[1]
        rows = [
            pad(up.t(), (place * width, (2 - place) * width))
            for place, up in zip(self.places, self.up, strict=True)
        ]
        return torch.cat(rows).t()

    def add(self, _layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Hook on the joint projection: its result [B, S, 3·D] with the update, in one product."""
        narrow = linear(inputs[0], self.down).flatten(0, 1)
        updated = torch.addmm(output.flatten(0, 1), narrow, self.placed_up().t(), alpha=self.scale)
        return updated.view_as(output)

    def weight(self) -> Tensor:
        """The update as a matrix [3·D, D]."""
        return self.scale * self.placed_up() @ self.down


@register
class LoRA(Method):
    """A ViT whose attention projections have low-rank updates, with fused attention; a linear head on CLS."""

    name = "lora"
    Options = LoRAOptions
    backbone: TokenBackbone
    options: LoRAOptions

    def __init__(self, spec: ModelSpec, options: LoRAOptions) -> None:
        super().__init__(spec, options)
        self.backbone = token_backbone(spec, norm_eps=options.norm_eps)
        check_blocks(self.backbone.blocks)
        self.lora = nn.ModuleList()
        for block in self.backbone.blocks:
            joint = getattr(block.attn, "qkv", None)
            if not isinstance(joint, nn.Linear) or joint.out_features != 3 * self.backbone.width:
                raise FgvcError(
                    f"the attention of '{spec.backbone}' has no joint projection of queries, keys and values",
                    cure="use a ViT with timm's plain attention (vit_…, deit_…, dinov2)",
                )
            update = LowRankUpdate(self.backbone.width, options)
            joint.register_forward_hook(update.add)
            self.lora.append(update)
        self.head = linear_head(self.backbone.width, spec.num_classes, options.head_init)

    def forward(self, images: Tensor) -> MethodOutput:
        tokens = self.backbone(images)
        return MethodOutput(logits=self.head(self.backbone.cls(tokens)), grid=self.backbone.grid)

    def merged(self) -> ViT:
        """A plain `ViT` that computes the same: the updates are part of its weights and cost nothing more."""
        options = self.options
        plain = ViT(replace(self.spec), ViTOptions(head_init=options.head_init, norm_eps=options.norm_eps))
        state = {name: t for name, t in self.state_dict().items() if not name.startswith("lora.")}
        plain.load_state_dict(state)
        with torch.no_grad():
            for i, update in enumerate(self.lora):
                plain.get_parameter(f"backbone.vit.blocks.{i}.attn.qkv.weight").add_(update.weight())  # type: ignore[operator]
        return plain.to(self.head.weight.device).train(self.training)

    def closed_form_macs(self) -> int | None:
        """Per token and block t·r·D for the products with A, three times that with all B in one matrix."""
        backbone = self.backbone
        if not is_plain(backbone):
            return None
        height, width = backbone.grid
        tokens = backbone.num_prefix + height * width
        rank = len(self.options.targets) * self.options.rank
        updates = backbone.depth * tokens * 4 * rank * backbone.width
        return encoder_macs(backbone) + updates + self.head.weight.numel()
