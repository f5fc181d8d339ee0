"""VPT: learnt prompts in the sequence of a frozen ViT, at its input (shallow) or at every block (deep).

Source: Jia et al., Visual Prompt Tuning, ECCV 2022, arXiv 2203.12119, §3.2, code KMnP/vpt at 4410440
(vit_prompt/vit.py); in the form of the ILA table: arkel23/DownSamplingInterLayerAdapter at 9b2248c. Written
from a description of what that code computes, and compared with its outputs
(tests/methods/test_golden_prompts.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fgvc.backbones.closed_form import block_macs, embedding_macs, is_plain
from fgvc.backbones.tokens import TokenBackbone
from fgvc.methods.base import Method, MethodOutput, ModelSpec, register
from fgvc.methods.heads import HEAD_INITS, HeadInit, check_choice, linear_head, token_backbone
from fgvc.methods.prompts import Prompts, check_rate


@dataclass(frozen=True)
class VPTOptions:
    """Options of `VPT`.

    Attributes:
        num_prompts: n. VPT searches {1, 5, 10, 50, 100, 200}; the table of ILA has 100.
        deep: fresh prompts at every block; False: at the first only, from where they go on.
        prompt_dropout: rate on prompts in training; None: the recipe's dropout.
        projection: width of the prompts before one linear layer takes them to that of the tokens; None: none.
        head_init: ``xavier`` (ILA code), ``rare`` (VPT's own), ``zeros`` or torch's ``default``.
        norm_eps: eps of the encoder's norms; None: the backbone's. VPT: 1e-6, the ILA code: 1e-12.
    """

    num_prompts: int = 10
    deep: bool = True
    prompt_dropout: float | None = None
    projection: int | None = None
    head_init: HeadInit = "xavier"
    norm_eps: float | None = None

    def __post_init__(self) -> None:
        check_choice("head_init", self.head_init, HEAD_INITS)
        check_rate("prompt_dropout", self.prompt_dropout)
        if self.num_prompts < 1:
            raise ValueError(f"num_prompts={self.num_prompts}; at least 1")
        if self.projection is not None and self.projection < 1:
            raise ValueError(f"projection={self.projection}; at least 1, or null")
        if not isinstance(self.deep, bool):
            raise ValueError(f"deep={self.deep!r}; true or false")


@register
class VPT(Method):
    """One pass over [CLS, n prompts, patches]; a linear head on CLS.

    Prompts stand behind the whole prefix (CLS and registers) and have no positions. Deep: before each block
    the n tokens there give way to that block's own. The ILA code adds them before every block and removes
    them after it, which computes the same.
    """

    name = "vpt"
    Options = VPTOptions
    backbone: TokenBackbone
    options: VPTOptions

    def __init__(self, spec: ModelSpec, options: VPTOptions) -> None:
        super().__init__(spec, options)
        self.backbone = token_backbone(spec, norm_eps=options.norm_eps)
        self.prompts = Prompts(
            self.backbone,
            layers=self.backbone.depth if options.deep else 1,
            count=options.num_prompts,
            dropout=spec.dropout if options.prompt_dropout is None else options.prompt_dropout,
            projection=options.projection,
        )
        self.head = linear_head(self.backbone.width, spec.num_classes, options.head_init)

    def forward(self, images: Tensor) -> MethodOutput:
        backbone = self.backbone
        tokens = backbone.embed(images)
        for layer, block in enumerate(backbone.blocks):
            if layer < self.prompts.layers:
                tokens = self._prompted(tokens, layer)
            tokens = block(tokens)
        tokens = backbone.norm(tokens)
        if not backbone.has_cls:  # then patches are averaged, and prompts are none
            tokens = self._without_prompts(tokens)
        return MethodOutput(logits=self.head(backbone.cls(tokens)), grid=backbone.grid)

    def _prompted(self, tokens: Tensor, layer: int) -> Tensor:
        """Tokens with the prompts of a layer, in the place of those before (the first layer: of none)."""
        prefix = self.backbone.num_prefix
        old = self.prompts.count if layer else 0
        prompts = self.prompts(layer, len(tokens))
        return torch.cat([tokens[:, :prefix], prompts, tokens[:, prefix + old :]], dim=1)

    def _without_prompts(self, tokens: Tensor) -> Tensor:
        prefix = self.backbone.num_prefix
        return torch.cat([tokens[:, :prefix], tokens[:, prefix + self.prompts.count :]], dim=1)

    def closed_form_macs(self) -> int | None:
        """Blocks over n tokens more than the plain ViT has."""
        backbone = self.backbone
        if not is_plain(backbone):
            return None
        height, width = backbone.grid
        tokens = backbone.num_prefix + self.prompts.count + height * width
        blocks = backbone.depth * block_macs(backbone, tokens)
        return embedding_macs(backbone) + blocks + self.prompts.macs() + self.head.weight.numel()
