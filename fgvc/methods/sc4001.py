"""SC4001: IELT on DINOv2, with votes spread on several scales, a token for the rest, and a triplet loss.

Source: edward62740/SC4001-Project at cb581f1 (README; models/IELT_DINOv2.py, losses/loss.py), derived from
IELT (see `fgvc.methods.ielt`). Written from a description of what that code computes, and compared with its
outputs (tests/methods/test_golden_sc4001.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from torch import Tensor

from fgvc.methods.base import MethodOutput, ModelSpec, register
from fgvc.methods.ielt import IELT, ExtraBlocks, IELTOptions
from fgvc.methods.triplet import BatchHardTriplet
from fgvc.methods.voting import SelectInit


@dataclass(frozen=True)
class SC4001Options(IELTOptions):
    """Options of `SC4001`: those of `IELTOptions` and these; the defaults are those of the code at cb581f1.

    Attributes:
        dilations: of the kernels that spread the votes; the largest result at a patch counts.
        merge_inattentive: each layer contributes the patches that it did not choose as one more token. The
            README has it as a contribution, the code leaves it out unless told otherwise.
        upstream_index_shift: take the token *before* each chosen one, as the code for DINOv2 does by mistake
            (CLS in the place of the first patch); for parity with its checkpoints.
        triplet_weight: of the batch-hard triplet loss on the trunk's CLS token; 0: there is none.
        triplet_margin: 1.0 is what upstream's code passes, whatever its configuration says (0.2).
    """

    select_init: SelectInit = "uniform"
    extra_blocks: ExtraBlocks = "dino"
    dilations: Sequence[int] = (1, 2, 4)
    merge_inattentive: bool = False
    upstream_index_shift: bool = False
    triplet_weight: float = 0.1
    triplet_margin: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "dilations", tuple(self.dilations))
        if not self.dilations or not all(isinstance(d, int) and d >= 1 for d in self.dilations):
            raise ValueError(f"dilations={list(self.dilations)}; a list of whole numbers such as [1, 2, 4]")
        for name in ("triplet_weight", "triplet_margin"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}; not below 0")


@register
class SC4001(IELT):
    """`IELT` with votes on several scales and, if asked for, merged tokens; its loss compares images.

    Where no class has two images in a batch, the triplet loss is 0: batches should hold several images of
    each of their classes.
    """

    name = "sc4001"
    Options = SC4001Options
    options: SC4001Options

    def __init__(self, spec: ModelSpec, options: SC4001Options) -> None:
        self.dilations = tuple(options.dilations)
        self.merges, self.index_shift = options.merge_inattentive, options.upstream_index_shift
        super().__init__(spec, options)
        self.triplet = BatchHardTriplet(options.triplet_margin)

    def loss(self, output: MethodOutput, targets: Tensor) -> dict[str, Tensor]:
        """That of `IELT` and, if it has a weight, the batch-hard triplet loss of the trunk's CLS token."""
        terms = super().loss(output, targets)
        if self.options.triplet_weight > 0:
            terms["triplet"] = self.options.triplet_weight * self.triplet(
                output.embeddings["trunk_cls"], targets
            )
            terms["total"] = terms["total"] + terms["triplet"]
        return terms

    @property
    def batch_coupled(self) -> bool:
        """The triplet loss compares images, unless nothing trains that its embedding depends on."""
        vit = self.backbone.vit
        after = {id(p) for p in chain(vit.blocks[-1].parameters(), vit.norm.parameters())}
        trains = any(p.requires_grad for p in vit.parameters() if id(p) not in after)
        return super().batch_coupled or (self.options.triplet_weight > 0 and trains)
