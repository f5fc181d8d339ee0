"""SIM-Trans' structure learning: the graph in closed form against the dense one, its nodes, its gradient."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import dropout, leaky_relu
from torch.utils._python_dispatch import TorchDispatchMode

from fgvc.methods.structure_learning import StructureLearning, polar

GRID = (4, 5)


def attention_rows(count: int = 3, heads: int = 2, patches: int = 20, seed: int = 1) -> Tensor:
    """CLS rows as softmax makes them, CLS itself left out; in float64."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, heads, patches + 1, generator=generator, dtype=torch.float64)
    return scores.softmax(dim=-1)[..., 1:]


def learner(rate: float = 0.1, **options: Any) -> StructureLearning:
    torch.manual_seed(0)
    module = StructureLearning(8, 16, rate, **options).double().eval()
    with torch.no_grad():
        module.first.mul_(100)
    return module


def dense(module: StructureLearning, weights: Tensor, features: Tensor, kept: Tensor | float = 1.0) -> Tensor:
    """Both graph convolutions at all nodes, with the adjacency [B, N, N] that the paper writes down."""
    adjacency = weights[:, :, None] * weights[:, None]
    hidden = leaky_relu(adjacency @ features @ module.first, 0.2).relu() * kept
    return leaky_relu(adjacency @ hidden @ module.second, 0.2)


def at(nodes: Tensor, reference: Tensor) -> Tensor:
    return torch.stack([row[int(index)] for row, index in zip(nodes, reference, strict=True)])


def test_the_graph_at_its_reference_node_is_that_of_the_dense_adjacency() -> None:
    module = learner()
    structure = module(attention_rows(), GRID)
    expected = at(dense(module, structure.weights, structure.features), structure.reference)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(structure.vector, expected)


@pytest.mark.parametrize(("training", "keep"), [(True, 0.7 * 0.7), (False, 0.7)])
def test_and_with_dropout(training: bool, keep: float) -> None:
    """In training two dropouts between the layers and one at the end; with upstream's flag one in evaluation.

    The dense form is given the masks that the module draws: [B, N, hidden], then [B, D].
    """
    module = learner(0.3, upstream_eval_dropout=True).train(training)
    torch.manual_seed(5)
    structure = module(attention_rows(), GRID)
    torch.manual_seed(5)
    kept = torch.empty(3, 20, 16, dtype=torch.float64).bernoulli_(keep) / keep
    expected = dense(module, structure.weights, structure.features, kept)
    expected = dropout(at(expected, structure.reference), 0.3, training)
    assert 0 < (kept == 0).double().mean() < 1
    torch.testing.assert_close(structure.vector, expected)


def test_the_object_is_where_attention_is_above_its_mean() -> None:
    rows = attention_rows()
    structure = learner()(rows, GRID)
    for b in range(3):
        sums = [sum(rows[b, h, n].item() for h in range(2)) for n in range(20)]
        mean = sum(sums) / 20
        assert structure.on_object[b].tolist() == [float(s > mean) for s in sums]
        assert structure.attention[b].tolist() == pytest.approx(sums)
        expected = [s / 2 if s > mean else 0.0 for s in sums]
        assert structure.weights[b].tolist() == pytest.approx(expected)
        assert structure.reference[b].item() == sums.index(max(sums))


def test_features_are_distance_and_angle_from_the_reference_node() -> None:
    """The angle from the row axis, in (0, 1]: its order of arguments is upstream's."""
    structure = learner()(attention_rows(), GRID)
    for b in range(3):
        i0, j0 = divmod(int(structure.reference[b]), 5)
        for n in range(20):
            down, along = (n // 5 - i0) / 4, (n % 5 - j0) / 5
            angle = (math.atan2(along, down) / math.pi + 1) / 2
            expected = [math.hypot(down, along), angle] if structure.on_object[b, n] else [0.0, 0.0]
            assert structure.features[b, n].tolist() == pytest.approx(expected)
    straight = polar(torch.tensor([12]), (5, 5))[0].unflatten(0, (5, 5))
    assert straight[3, 2].tolist() == pytest.approx([0.2, 0.5])
    assert straight[2, 4].tolist() == pytest.approx([0.4, 0.75])
    assert straight[1, 2].tolist() == pytest.approx([0.2, 1.0])


def test_a_shifted_object_has_the_same_structure() -> None:
    """Attention moved over the grid moves the reference node, and nothing else."""
    blob = torch.tensor([[1.0, 3.0, 2.0], [2.0, 5.0, 1.0]], dtype=torch.float64)
    module, found = learner(), []
    for top, left in ((0, 0), (5, 3), (2, 7)):
        row = torch.full((10, 10), 0.01, dtype=torch.float64)
        row[top : top + 2, left : left + 3] = blob
        structure = module(row.reshape(1, 1, 100) / 20, (10, 10))
        assert structure.reference.item() == (top + 1) * 10 + left + 1
        pattern = structure.features[0].unflatten(0, (10, 10))[top : top + 2, left : left + 3]
        found.append((pattern, structure.vector))
    for pattern, vector in found[1:]:
        torch.testing.assert_close(pattern, found[0][0])
        torch.testing.assert_close(vector, found[0][1])


def test_even_attention_has_no_structure() -> None:
    structure = learner()(torch.full((1, 2, 20), 0.03125, dtype=torch.float64), GRID)
    assert not structure.on_object.any() and not structure.vector.any()


def test_the_gradient_flows_through_the_weights_on_the_object() -> None:
    module, rows = learner(), attention_rows().requires_grad_()
    structure = module(rows, GRID)
    structure.vector.square().sum().backward()
    assert rows.grad is not None and module.first.grad.any() and module.second.grad.any()
    on_object = structure.on_object[:, None].expand_as(rows) > 0
    assert rows.grad[on_object].all() and not rows.grad[~on_object].any()
    rows = attention_rows(1).requires_grad_()
    fewer = learner()
    assert torch.autograd.gradcheck(lambda r: fewer(r, GRID).vector, rows)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor made."""

    elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [t for t in (out if isinstance(out, tuple) else (out,)) if isinstance(t, Tensor)]
        self.elements = max(self.elements, *(t.numel() for t in made)) if made else self.elements
        return out


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_as_large_as_the_adjacency(training: bool) -> None:
    """37 x 37 patches, those of 448 pixels with a stride of 12."""
    module, patches = StructureLearning(8, 16, 0.1).train(training), 37 * 37
    rows = torch.rand(1, 2, patches).requires_grad_()
    with Largest() as largest:
        module(rows, (37, 37)).vector.sum().backward()
    assert largest.elements <= 16 * patches
    with Largest() as largest:
        torch.ones(1, patches, 1) @ torch.ones(1, 1, patches)
    assert largest.elements == patches**2
