"""ResNets of torchvision whose modules upstream put into a sequence: which one it is, and timm's names."""

from __future__ import annotations

from collections.abc import Iterable

from fgvc.errors import FgvcError

#: Blocks of the four stages, and whether a block has three convolutions → the network.
_RESNETS: dict[tuple[int, ...], str] = {
    (3, 4, 6, 3, False): "resnet34",
    (3, 4, 6, 3, True): "resnet50",
    (3, 4, 23, 3, True): "resnet101",
}
#: torchvision's modules by their places in the sequence.
_PLACES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def which_resnet(names: Iterable[str]) -> str:
    """The ResNet that has tensors of these names (torchvision's). Raises FgvcError for any other network."""
    parts = [name.split(".") for name in names]
    blocks = [len({part[1] for part in parts if part[0] == f"layer{stage}"}) for stage in range(1, 5)]
    found = _RESNETS.get((*blocks, any("conv3" in part for part in parts)))
    if found is None:
        raise FgvcError(
            f"the network of this checkpoint is not known ({len(parts)} tensors)",
            cure=f"supported: {', '.join(_RESNETS.values())}",
        )
    return found


def resnet_name(name: str) -> str:
    """``4.0.conv1.weight`` → ``layer1.0.conv1.weight``; a name that begins with no place stays as it is."""
    place, _, rest = name.partition(".")
    return f"{_PLACES.get(place, place)}.{rest}"
