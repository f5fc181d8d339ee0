"""TransFG as arkel23/DownSamplingInterLayerAdapter at 9b2248c has it, on a ViT that keeps all its blocks."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from fgvc.checkpoints.glsim_vit import take_block
from fgvc.checkpoints.ila_vit import ila_repo_spec, norm_eps, require_added, take_head, take_vit
from fgvc.checkpoints.ledger import Ledger, Settings
from fgvc.checkpoints.loading import load
from fgvc.checkpoints.registry import upstream
from fgvc.methods.transfg import TransFG, TransFGOptions

#: Of the contrastive loss in this code.
_CONTRAST_WEIGHT = 0.1


@upstream("ilarepo_psm")
def ilarepo_psm(ledger: Ledger, settings: Settings) -> nn.Module:
    """`TransFG` with one block more than the config's encoder: the code's ``aggregator`` is the last one."""
    require_added(settings, selector=("psm",))
    settings.require("classifier_aux", "cont", False)
    settings.require("aggregator", True)
    settings.require("aggregator_num_hidden_layers", 1)
    vit, head = take_vit(ledger), take_head(ledger)
    spec = ila_repo_spec(vit, settings, len(head["head.weight"]))
    depth = spec.shape["depth"]
    block = take_block(ledger, "aggregator.blocks.0.")
    vit |= {f"backbone.vit.blocks.{depth}.{name}": tensor for name, tensor in block.items()}
    contrasts = settings.get("classifier_aux", False) == "cont"
    options = TransFGOptions(
        patch_stride=None,
        contrast_weight=_CONTRAST_WEIGHT if contrasts else 0.0,
        head_init="xavier",
        norm_eps=norm_eps(settings),
    )
    spec = replace(spec, shape={**spec.shape, "depth": depth + 1})
    return load(TransFG(spec, options), vit | head)
