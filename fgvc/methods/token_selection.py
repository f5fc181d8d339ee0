"""What methods share that hand a few chosen tokens to the last block, instead of all of them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fgvc.backbones.timm_models import draw_block
from fgvc.backbones.tokens import TokenBackbone
from fgvc.errors import FgvcError

#: Of the block that chosen tokens go through: as it was pre-trained, or drawn anew; see `start_last_block`.
SelectionBlockInit = Literal["pretrained", "random", "xavier"]
SELECTION_BLOCK_INITS = ("pretrained", "random", "xavier")


def require_cls_and_trunk(backbone: TokenBackbone, name: str, method: str) -> None:
    """Raise FgvcError unless there is a CLS token, and a block before the last one."""
    if not backbone.has_cls:
        raise FgvcError(
            f"{method} chooses tokens by the attention of the CLS token, and '{name}' has none",
            key="backbone",
            cure="use a ViT with a CLS token (vit_…, deit_…, dinov2)",
        )
    if backbone.depth < 2:
        raise FgvcError(
            f"{method} chooses tokens before the last block, and '{name}' has but one block", key="backbone"
        )


def start_last_block(block: nn.Module, init: SelectionBlockInit) -> None:
    """Have a block that holds pre-trained weights start as ``init`` says.

    ``random`` as in TransFG's and FFVT's code; ``xavier`` as in the ILA code base, where every linear layer
    is drawn Xavier-uniform, those of the attention as well (see `draw_block`).
    """
    if init != "pretrained":
        draw_block(block, xavier_attention=init == "xavier")


def gather_tokens(tokens: Tensor, indices: Tensor) -> Tensor:
    """tokens [B, S, D], indices [B, m] → [B, m, D]."""
    return tokens.gather(1, indices[:, :, None].expand(-1, -1, tokens.shape[-1]))


def histogram(indices: Tensor, patches: int) -> Tensor:
    """How often each patch was chosen, [B, patches]; of the indices [B, m] negative ones are no patch."""
    counts = torch.zeros(len(indices), patches, device=indices.device)
    return counts.scatter_add_(1, indices.clamp(min=0), (indices >= 0).to(counts.dtype))
