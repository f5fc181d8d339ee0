"""Parts that several methods share."""

from __future__ import annotations

from math import log
from typing import Literal

from torch import nn

from fgvc.backbones.tokens import TokenBackbone
from fgvc.methods.base import ModelSpec

HeadInit = Literal["zeros", "default", "xavier", "rare"]
HEAD_INITS = ("zeros", "default", "xavier", "rare")
#: A class's probability where a head starts with ``rare``.
_RARE = 0.01
#: Of the last encoder block, where a method gives it another input than its pre-training did.
LastBlockInit = Literal["pretrained", "random"]
LAST_BLOCK_INITS = ("pretrained", "random")


def linear_head(width: int, num_classes: int, init: HeadInit = "zeros") -> nn.Linear:
    """The classifier [B, width] → [B, K].

    ``zeros`` starts from the uniform prediction, as the GLSim code base does (glsim.py), and makes the
    first step independent of a random head; ``default`` is torch's initialisation; ``xavier`` as in
    `draw_xavier`, with which the ILA code base starts; ``rare`` is VPT's: Kaiming-normal weights (fan-out)
    and the bias -ln((1 - 0.01) / 0.01), with which a sigmoid would say 0.01 (KMnP/vpt at 4410440, mlp.py).
    """
    head = nn.Linear(width, num_classes)
    if init == "zeros":
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    elif init == "xavier":
        draw_xavier(head)
    elif init == "rare":
        nn.init.kaiming_normal_(head.weight, mode="fan_out")
        nn.init.constant_(head.bias, -log((1 - _RARE) / _RARE))
    return head


def draw_xavier(layer: nn.Linear) -> None:
    """Xavier-uniform weights, biases N(0, 1e-6²): every new layer of arkel23's code bases (vit.py)."""
    nn.init.xavier_uniform_(layer.weight)
    nn.init.normal_(layer.bias, std=1e-6)


def check_choice(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless ``value`` is one of ``allowed`` (for use in ``__post_init__``)."""
    if value not in allowed:
        raise ValueError(f"{option}={value!r}; possible: {', '.join(allowed)}")


def token_backbone(
    spec: ModelSpec,
    *,
    norm_eps: float | None = None,
    final_norm: bool = True,
    patch_stride: int | None = None,
    with_cls: bool = True,
) -> TokenBackbone:
    """The ViT that a spec asks for. Arguments and errors as of `TokenBackbone`."""
    return TokenBackbone(
        spec.backbone,
        spec.image_size,
        patch_stride=patch_stride,
        stochastic_depth=spec.stochastic_depth,
        stochastic_depth_decay=spec.stochastic_depth_decay,
        dropout=spec.dropout,
        norm_eps=norm_eps,
        final_norm=final_norm,
        with_cls=with_cls,
        shape=spec.shape,
    )
