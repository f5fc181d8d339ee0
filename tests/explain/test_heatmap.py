"""Heat maps that depend on the class; the verb is tried in tests/cli/test_cli_own_pim.py."""

from __future__ import annotations

import pytest
import torch

from fgvc import create_model
from fgvc.errors import FgvcError
from fgvc.explain.heatmap import class_heat_map

SIZE, CLASSES = 64, 5


def images() -> torch.Tensor:
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def test_each_class_has_a_map_of_its_own() -> None:
    """And they share out each place: over all classes they add up to 1."""
    torch.manual_seed(0)
    options = {"fpn_size": 32, "num_selects": [12, 10, 8, 6]}
    model = create_model(
        "pim", backbone="vit_pico_patch16_224", num_classes=CLASSES, image_size=SIZE, **options
    ).train()
    maps = [class_heat_map(model, images(), torch.full((2,), c)) for c in range(CLASSES)]
    assert all(one.shape == (2, 4, 4) for one in maps) and not model.training
    for first in range(CLASSES):
        for second in range(first):
            assert (maps[first] - maps[second]).abs().amax(dim=(1, 2)).min() > 1e-3
    torch.testing.assert_close(torch.stack(maps).sum(dim=0), torch.ones(2, 4, 4))
    mixed = class_heat_map(model, images(), torch.tensor([3, 1]))
    torch.testing.assert_close(mixed, torch.stack([maps[3][0], maps[1][1]]))


def test_a_method_without_such_a_map_says_so() -> None:
    model = create_model("vit", backbone="vit_pico_patch16_224", num_classes=CLASSES, image_size=SIZE)
    with pytest.raises(FgvcError, match="'vit' cannot say where it sees a class"):
        class_heat_map(model, images(), torch.tensor([0, 1]))
