"""SIM-Trans checkpoints of PKU-ICST-MIPL/SIM-Trans_ACMMM2022 at d862e46."""

from __future__ import annotations

from torch import nn

from fgvc.checkpoints.jeonsworld_vit import DROPOUT, take_encoder
from fgvc.checkpoints.ledger import Ledger, Settings
from fgvc.checkpoints.loading import load, vit_spec
from fgvc.checkpoints.registry import upstream
from fgvc.errors import FgvcError
from fgvc.methods.simtrans import SIMTrans, SIMTransOptions
from fgvc.methods.structure_learning import NODE_FEATURES

_STRUCTURE = "transformer.encoder.part_structure."
#: Modules that the code creates, sized for 37 x 37 patches, and that no forward pass reads.
_UNUSED = (
    "transformer.embeddings.struc_token",
    "transformer.embeddings.struct_head.",
    f"{_STRUCTURE}fc1.",
    f"{_STRUCTURE}struct_head.",
    f"{_STRUCTURE}struct_head_new.",
)
#: Batch norm, linear layer, batch norm, (ELU,) linear layer.
_LINEAR = ("weight", "bias")
_NORM = (*_LINEAR, "running_mean", "running_var", "num_batches_tracked")
_HEAD = {0: _NORM, 1: _LINEAR, 2: _NORM, 4: _LINEAR}
#: Blocks, the part layer among them: the numbers of those with a structure are written into the code.
_DEPTH = 12


@upstream("simtrans")
def simtrans(ledger: Ledger, settings: Settings) -> nn.Module:
    """`SIMTrans` with dropout off in evaluation; ``upstream_eval_dropout: true`` in the config turns it on.

    ``smoothing_value`` is of the training loss, which the recipe has here.
    """
    settings.require("split", "overlap", "non-overlap")
    encoder = take_encoder(ledger, last_block="part_layer", last_norm="part_norm")
    state = {f"backbone.vit.{name}": tensor for name, tensor in encoder.items()}
    state["structure.first"] = ledger.take(f"{_STRUCTURE}gcn.gc1.weight")
    state["structure.second"] = ledger.take(f"{_STRUCTURE}gcn.gc2.weight")
    for place, kinds in _HEAD.items():
        state |= {f"head.{place}.{kind}": ledger.take(f"part_head.{place}.{kind}") for kind in kinds}
    for prefix in _UNUSED:
        for name in ledger.names(prefix):
            ledger.drop(name, "no forward pass of this code reads it")
    settings.require("gcn", [NODE_FEATURES, *state["structure.second"].shape])
    stride = settings.get("slide_step", 12) if settings.get("split", "non-overlap") == "overlap" else None
    spec = vit_spec(
        encoder,
        settings,
        num_classes=len(state["head.4.weight"]),
        heads=settings.get("num_heads", max(encoder["cls_token"].shape[-1] // 64, 1)),
        patch_stride=stride,
        default_dropout=DROPOUT,
    )
    if spec.shape["depth"] != _DEPTH:
        raise FgvcError(
            f"the checkpoint has {spec.shape['depth']} blocks, and SIM-Trans is written for {_DEPTH}",
            cure="is it of another method?",
        )
    options = SIMTransOptions(
        patch_stride=stride,
        gcn_hidden=len(state["structure.second"]),
        head_hidden=len(state["head.1.weight"]),
        upstream_eval_dropout=settings.get("upstream_eval_dropout", False),
    )
    return load(SIMTrans(spec, options), state)
