"""The last encoder block of methods that give it another input than its pre-training did.

TransFG, FFVT and SIM-Trans feed it a CLS token and selected patches, or read structure from it; their code
bases draw its weights anew and leave the pre-trained ones of block 12 unused.
"""

from __future__ import annotations

from typing import Literal

from timm.layers import Mlp
from torch import nn

LastBlockInit = Literal["pretrained", "random"]
LAST_BLOCK_INITS = ("pretrained", "random")


def draw_block(block: nn.Module) -> None:
    """Draw the weights of a timm encoder block as the code bases do that descend from jeonsworld's ViT.

    The two layers of the MLP: Xavier-uniform weights, biases N(0, 1e-6²). Everything else: torch's defaults.
    Source: TACJu/TransFG at 9336fba, models/modeling.py (class Mlp; the attention keeps nn.Linear's own).
    """
    for module in block.modules():
        if isinstance(module, (nn.Linear, nn.LayerNorm)):
            module.reset_parameters()
    for module in block.modules():
        if isinstance(module, Mlp):
            for layer in (module.fc1, module.fc2):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.normal_(layer.bias, std=1e-6)
