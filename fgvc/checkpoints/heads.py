"""Heads on a frozen ViT, of arkel23/DownSamplingInterLayerAdapter at 9b2248c."""

from __future__ import annotations

from torch import nn

from fgvc.checkpoints.ila_vit import ila_repo_spec, norm_eps, require_added, take_head, take_vit
from fgvc.checkpoints.ledger import Ledger, Settings
from fgvc.checkpoints.loading import load
from fgvc.checkpoints.registry import upstream
from fgvc.errors import FgvcError
from fgvc.methods.vit import ViT, ViTOptions

#: The code's ``classifier`` where its ViT has no CLS token, and the head that reads the patches.
_HEADS = ("pool", "lrblp")


@upstream("petl_linear")
def petl_linear(ledger: Ledger, settings: Settings) -> nn.Module:
    """`ViT` with a linear head on CLS."""
    require_added(settings)
    vit, head = take_vit(ledger), take_head(ledger)
    spec = ila_repo_spec(vit, settings, len(head["head.weight"]))
    return load(ViT(spec, ViTOptions(head_init="xavier", norm_eps=norm_eps(settings))), vit | head)


@upstream("petl_head")
def petl_head(ledger: Ledger, settings: Settings) -> nn.Module:
    """`ViT` without a CLS token; its head reads the mean patch (``pool``) or a bilinear form of narrower
    patches (``lrblp``).

    Raises FgvcError for the other heads, whose tensors no fixture shows.
    """
    classifier = settings.get("classifier")
    if classifier not in _HEADS:
        raise FgvcError(
            f"upstream checkpoints with classifier={classifier!r} are not supported",
            key="classifier",
            cure=f"supported: {', '.join(_HEADS)}; with a CLS token, the method is petl_linear",
        )
    require_added(settings, classifier=classifier)
    state, eps = take_vit(ledger, has_cls=False), norm_eps(settings)
    low_rank = classifier == "lrblp"
    theirs = {"head": "head.blp_head" if low_rank else "head.head.1"}
    if low_rank:
        theirs["projection"] = "head.lr_proj"
    layers = {
        f"{ours}.{kind}": ledger.take(f"{name}.{kind}")
        for ours, name in theirs.items()
        for kind in ("weight", "bias")
    }
    if low_rank:
        width = len(layers["projection.weight"])
        settings.agree("class_proj_size", width)
        options = ViTOptions(pool="bilinear", projection=width, head_init="xavier", norm_eps=eps)
    else:
        options = ViTOptions(pool="patches", head_init="xavier", norm_eps=eps)
    spec = ila_repo_spec(state, settings, len(layers["head.weight"]))
    return load(ViT(spec, options), state | layers)
