"""iSQRT-COV checkpoints: jiangtaoxie/fast-MPN-COV at c430c78 (pre-trained or fine-tuned), and
Hawkeye-FineGrained/Hawkeye at 626ad69.
"""

from __future__ import annotations

from torch import Tensor, nn

from fgvc.checkpoints.ledger import Ledger, Settings
from fgvc.checkpoints.loading import load
from fgvc.checkpoints.registry import upstream
from fgvc.checkpoints.torchvision_resnet import resnet_name, which_resnet
from fgvc.methods import ModelSpec
from fgvc.methods.covariance import CovariancePooling
from fgvc.methods.isqrt_cov import ISqrtCov, ISqrtCovOptions

State = dict[str, Tensor]

#: n of the code's class where nobody says another; its networks say 5.
_CLASS_ITERATIONS = 3
#: Convolution and batch norm of the reduction: in the code's pooling module; in its own networks; and by
#: their places where such a network was made a sequence for fine-tuning (they follow layer4, place 7).
_IN_POOLING = ("conv_dr_block.0", "conv_dr_block.1")
_IN_NETWORK = ("layer_reduce", "layer_reduce_bn")
_IN_SEQUENCE = ("8", "9")


@upstream("mpncov_head")
def mpncov_head(ledger: Ledger, settings: Settings) -> nn.Module:
    """`CovariancePooling` alone, whose vectors lack the code's last axis of length 1."""
    state = _take_reduction(ledger, "", _IN_POOLING)
    reduced, width = state["reduction.0.weight"].shape[:2]
    settings.agree("input_dim", width)
    settings.agree("dimension_reduction", reduced)
    iterations = _iterations(settings, _CLASS_ITERATIONS)
    return load(CovariancePooling(width, reduced, iterations), state)


@upstream("mpncov")
def mpncov(ledger: Ledger, settings: Settings) -> nn.Module:
    """`ISqrtCov` on a ResNet.

    A network with the reduction inside is one of fast-MPN-COV's own, whose last stage has no stride; one with
    the reduction in a module of its own is a plain ResNet (Hawkeye). ``output_stride`` in the config says
    otherwise, and ``mirror`` whether a prediction looks at the mirror image, too (default: only for the
    former, as its authors test).
    """
    if ledger.names("features."):  # fine-tuned with fast-MPN-COV
        network, pooling = "features.", "representation."
    elif ledger.names("backbone."):
        network, pooling = "backbone.", "pool."
    else:  # fast-MPN-COV's on ImageNet
        network, pooling = "", ""
    own = not ledger.names(f"{pooling}conv_dr_block.")
    layers = (_IN_SEQUENCE if network else _IN_NETWORK) if own else _IN_POOLING
    reduction = _take_reduction(ledger, network if own else pooling, layers)
    theirs = "classifier" if network else "fc"
    head = {f"head.{kind}": ledger.take(f"{theirs}.{kind}") for kind in ("weight", "bias")}
    trunk = {resnet_name(name.removeprefix(network)): ledger.take(name) for name in ledger.names(network)}
    name = which_resnet(trunk)
    settings.require("arch", name, f"mpncov{name}")
    settings.agree("num_classes", len(head["head.weight"]))
    settings.agree("dimension_reduction", len(reduction["reduction.0.weight"]))
    options = ISqrtCovOptions(
        reduced=len(reduction["reduction.0.weight"]),
        iterations=_iterations(settings, ISqrtCovOptions.iterations),
        output_stride=settings.get("output_stride", 16 if own else 32),
        mirror=settings.get("mirror", own),
    )
    model = ISqrtCov(ModelSpec(name, len(head["head.weight"]), settings.get("image_size", 448)), options)
    state = {f"backbone.cnn.{key}": tensor for key, tensor in trunk.items()}
    state |= {f"pooling.{key}": tensor for key, tensor in reduction.items()}
    return load(model, state | head)


def _take_reduction(ledger: Ledger, prefix: str, layers: tuple[str, str]) -> State:
    convolution, norm = (f"{prefix}{layer}." for layer in layers)
    state = {"reduction.0.weight": ledger.take(f"{convolution}weight")}
    for kind in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        state[f"reduction.1.{kind}"] = ledger.take(f"{norm}{kind}")
    return state


def _iterations(settings: Settings, default: int) -> int:
    """n; with the code's other switches it is another model, which nothing here computes."""
    for switch in ("is_sqrt", "is_vec"):
        settings.require(switch, True)
    return int(settings.get("iterNum", default))
