"""From renamed tensors to a model: the geometry of a ViT read from shapes, and a strict load."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor, nn

from fgvc.checkpoints.ledger import Settings
from fgvc.errors import FgvcError
from fgvc.methods import ModelSpec

#: The architecture whose shape is then given number by number.
_PLAIN_VIT = "vit_base_patch16_224"


def vit_spec(
    state: Mapping[str, Tensor],
    settings: Settings,
    *,
    num_classes: int,
    heads: int,
    prefix_in_positions: int = 1,
    patch_stride: int | None = None,
    default_dropout: float = 0.0,
    **more: Any,
) -> ModelSpec:
    """The geometry of a plain ViT from its tensors under timm's names, checked against the config.

    Args:
        heads: attention heads, which no shape tells.
        prefix_in_positions: tokens besides the patches that the position embedding covers.
        patch_stride: of patches that overlap; then only the config knows the image size.
        default_dropout: upstream's own, where the config names neither dropout nor stochastic depth (``sd``);
            the one takes the place of the other (transformer.py at 99cc474).
        more: further arguments of timm's VisionTransformer.

    Raises FgvcError when config and shapes contradict each other.
    """
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    patches = state["pos_embed"].shape[1] - prefix_in_positions
    stride = patch_stride or patch
    image_size = (isqrt(patches) - 1) * stride + patch
    if stride != patch:
        # The pixels that are left over beside the last patch leave no trace in the shapes.
        asked = int(settings.get("image_size", image_size))
        image_size = asked if image_size <= asked < image_size + stride else image_size
    if isqrt(patches) ** 2 != patches or width % heads:
        raise FgvcError(
            f"this is no square ViT: {patches} positions, width {width}, {heads} heads",
            cure="is the config that of this checkpoint?",
        )
    for key, found in (
        ("hidden_size", width),
        ("intermediate_size", hidden),
        ("num_hidden_layers", depth),
        ("num_layers", depth),
        ("image_size", image_size),
        ("num_classes", num_classes),
    ):
        settings.agree(key, found)
    shape = {
        "patch_size": patch,
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
        "mlp_ratio": hidden / width,
        **more,
    }
    stochastic_depth = float(settings.get("sd", 0.0))
    return ModelSpec(
        backbone=_PLAIN_VIT,
        num_classes=num_classes,
        image_size=image_size,
        stochastic_depth=stochastic_depth,
        dropout=0.0 if stochastic_depth else float(settings.get("hidden_dropout_prob", default_dropout)),
        shape=shape,
    )


def load(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Load every tensor of the model, strictly. Raises FgvcError with torch's list of what does not fit."""
    try:
        model.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        _, _, listed = str(error).partition("\n")
        raise FgvcError(f"the upstream tensors do not fit the model: {' '.join(listed.split())}") from None
    return model
