"""What choosing regions really costs here: counted on the code that the methods run, and with its memory.

A ViT is run block by block on the meta device, once alone and once with a choice; the operations are those
inside of the choice, the memory is what the whole pass needs more than the pass alone. Formulas of others for
the same choices: `fgvc.cost.published_formulas`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from fgvc.backbones.attention import AttentionRecorder, QueriesAndKeys
from fgvc.backbones.attention_chain import LayerAttention, chained_cls_row, rollout, run_and_read
from fgvc.backbones.tokens import TokenBackbone
from fgvc.cost.dispatch import count_call, count_dispatch
from fgvc.cost.published_formulas import Geometry
from fgvc.methods.ffvt import FFVTOptions, mutual_attention
from fgvc.methods.glsim import GLSimOptions
from fgvc.methods.similarity_crop import most_similar, similarity

#: Where attention maps come from that are needed in full: see `run_and_read`.
Maps = Literal["kept", "recomputed"]
T = TypeVar("T")


@dataclass(frozen=True)
class MeasuredChoice:
    """One image's choice, as the code here makes it.

    Attributes:
        macs: multiply-accumulates of its matrix products.
        other_ops: its other operations (softmax, elementwise work, ranking).
        extra_peak_bytes: by how much the pass with it needs more memory at its worst moment, in float32.
    """

    macs: int
    other_ops: int
    extra_peak_bytes: int

    @property
    def flops(self) -> int:
        """Two a multiply-accumulate, one each other operation."""
        return 2 * self.macs + self.other_ops


class _Meter:
    """Counts the calls of the functions that it is put around."""

    def __init__(self) -> None:
        self.macs = self.other_ops = 0

    def around(self, choose: Callable[[T], Tensor]) -> Callable[[T], Tensor]:
        def counted(seen: T) -> Tensor:
            results: list[Tensor] = []
            count = count_call(lambda: results.append(choose(seen)), [torch.empty(0, device="meta")])
            self.macs += count.macs
            self.other_ops += sum(count.other_ops.values())
            return results[0]

        return counted


#: Runs all blocks on tokens [1, S, D] and makes a choice meanwhile; returns the tokens and what was chosen.
Choice = Callable[[TokenBackbone, Tensor, _Meter, Maps], tuple[Tensor, Tensor]]


def _psm(backbone: TokenBackbone, tokens: Tensor, meter: _Meter, maps: Maps) -> tuple[Tensor, Tensor]:
    """As `fgvc.methods.transfg`: for each head the patch to which attention leads, before the last block."""

    def choose(layers: Sequence[LayerAttention]) -> Tensor:
        return chained_cls_row(layers)[:, :, backbone.num_prefix :].argmax(dim=-1)

    tokens, chosen = run_and_read([*backbone.blocks][:-1], tokens, meter.around(choose), maps)
    return backbone.blocks[-1](tokens), chosen


def _rollout(backbone: TokenBackbone, tokens: Tensor, meter: _Meter, maps: Maps) -> tuple[Tensor, Tensor]:
    """Attention rollout through all blocks."""
    return run_and_read([*backbone.blocks], tokens, meter.around(rollout), maps)


def _maws(backbone: TokenBackbone, tokens: Tensor, meter: _Meter, _maps: Maps) -> tuple[Tensor, Tensor]:
    """As `fgvc.methods.ffvt`: the tokens of each layer that CLS and they agree on, before the last block."""

    def choose(layer: QueriesAndKeys) -> Tensor:
        return mutual_attention(layer).topk(FFVTOptions().num_token).indices

    with AttentionRecorder([*backbone.blocks][:-1]).reading(meter.around(choose)) as chosen:
        for block in backbone.blocks:
            tokens = block(tokens)
    return tokens, torch.stack(chosen)


def _gls(backbone: TokenBackbone, tokens: Tensor, meter: _Meter, _maps: Maps) -> tuple[Tensor, Tensor]:
    """As `fgvc.methods.glsim`: the patches most similar to CLS after the last norm."""

    def choose(seen: Tensor) -> Tensor:
        scores = similarity(backbone.cls(seen), backbone.patches(seen), GLSimOptions().metric)
        return most_similar(scores, GLSimOptions().metric, GLSimOptions().top_k)

    for block in backbone.blocks:
        tokens = block(tokens)
    return tokens, meter.around(choose)(backbone.norm(tokens))


def _nothing(backbone: TokenBackbone, tokens: Tensor, _meter: _Meter, _maps: Maps) -> tuple[Tensor, Tensor]:
    for block in backbone.blocks:
        tokens = block(tokens)
    return tokens, tokens[:, :0]


#: The choices that there is code for here, by column of the published table.
CHOICES: Mapping[str, Choice] = MappingProxyType(
    {"psm": _psm, "attention_rollout": _rollout, "maws": _maws, "gls": _gls}
)


class _Pass(nn.Module):
    """A ViT without its head, block by block, with a choice."""

    def __init__(self, backbone: TokenBackbone, choice: Choice, maps: Maps) -> None:
        super().__init__()
        self.backbone, self.choice, self.maps = backbone, choice, maps
        self.meter = _Meter()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        tokens, chosen = self.choice(self.backbone, self.backbone.embed(images), self.meter, self.maps)
        return self.backbone.norm(tokens), chosen


def measured_choices(backbone: str, image_size: int, maps: Maps = "kept") -> dict[str, MeasuredChoice]:
    """What each choice of `CHOICES` costs one image on a timm ViT at image size S, patches without overlap.

    Args:
        maps: attention maps that are needed in full are ``kept`` from the pass, or ``recomputed`` from
            queries and keys, a few rows at a time. The methods do the first as far as memory allows.

    Raises FgvcError for a backbone that is no ViT, and for a size that does not fit it.
    """
    with torch.device("meta"):
        vit = TokenBackbone(backbone, image_size)
    alone = count_dispatch(_Pass(vit, _nothing, maps), image_size).peak_bytes
    found = {}
    for name, choice in CHOICES.items():
        run = _Pass(vit, choice, maps)
        peak = count_dispatch(run, image_size).peak_bytes
        found[name] = MeasuredChoice(run.meter.macs, run.meter.other_ops, peak - alone)
    return found


def geometry_of(backbone: str, image_size: int, classes: int) -> Geometry:
    """The numbers of a timm ViT that the formulas need. Errors as of `measured_choices`."""
    with torch.device("meta"):
        vit = TokenBackbone(backbone, image_size)
    return Geometry(
        image_size,
        patch_size=vit.patch_size,
        stride=vit.patch_stride,
        width=vit.width,
        depth=vit.depth,
        heads=vit.heads,
        classes=classes,
    )
