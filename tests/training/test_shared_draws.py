"""Each process draws what one process with the whole batch draws, and keeps the numbers of its own images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.functional import dropout, scaled_dot_product_attention

from fgvc.errors import FgvcError
from fgvc.training.shared_draws import SharedDraws

WHOLE, SHARES = 6, ([0, 1, 4, 5], [2, 3])

#: What a model may do with rows [b, …] of images that is random.
DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda rows: dropout(rows, 0.4),
    "dropout in place": lambda rows: dropout(rows.clone(), 0.4, inplace=True),
    "stochastic depth": lambda rows: DropPath(0.5).train()(rows),
    "numbers in [0, 1)": lambda rows: torch.rand(len(rows), 3),
    "of the same shape": torch.rand_like,
    "normal": lambda rows: torch.randn(len(rows), 2, dtype=torch.float64),
    "whole numbers": lambda rows: torch.randint(10**9, (len(rows), 2)),
    "whole numbers from a range": lambda rows: torch.randint(5, 10**9, (len(rows),)),
    "in place": lambda rows: rows.new_empty(len(rows), 7).uniform_(-1, 1),
    "coins": lambda rows: rows.new_empty(rows.shape).bernoulli_(0.3),
    "channels last": lambda rows: dropout(rows.contiguous(memory_format=torch.channels_last), 0.4),
    "axes exchanged": lambda rows: dropout(rows.transpose(1, 3), 0.4),
    "attention that drops some": lambda rows: scaled_dot_product_attention(rows, rows, rows, dropout_p=0.5),
    "attention that drops nothing": lambda rows: scaled_dot_product_attention(rows, rows, rows),
    "one after another": lambda rows: dropout(dropout(rows, 0.2) + torch.rand(len(rows), 1, 1, 1), 0.3),
    "in half precision": lambda rows: dropout(rows.bfloat16(), 0.4),
}


PICTURES = torch.randn(WHOLE, 3, 4, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", DRAWS)
def test_an_image_meets_the_numbers_of_the_whole_batch(name: str) -> None:
    torch.manual_seed(7)
    together, after = DRAWS[name](PICTURES), torch.get_rng_state()
    for own in SHARES:
        rows = PICTURES[own]
        torch.manual_seed(7)
        with SharedDraws(WHOLE, own):
            apart = DRAWS[name](rows)
        assert torch.equal(apart, together[own])
        assert torch.equal(torch.get_rng_state(), after), "what is drawn next would differ"


def test_two_looks_at_each_image_stand_one_after_the_other() -> None:
    torch.manual_seed(7)
    first, second = dropout(torch.cat([PICTURES, PICTURES]), 0.4).chunk(2)
    for own in SHARES:
        torch.manual_seed(7)
        with SharedDraws(WHOLE, own):
            apart = dropout(torch.cat([PICTURES[own], PICTURES[own]]), 0.4)
        assert torch.equal(apart, torch.cat([first[own], second[own]]))


def test_gradients_pass_the_same_mask() -> None:
    layer = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(60, 2))
    torch.manual_seed(7)
    layer(PICTURES).sum().backward()
    together, total = layer[2].weight.grad.clone(), torch.zeros_like(layer[2].weight)
    for own in SHARES:
        layer.zero_grad()
        torch.manual_seed(7)
        with SharedDraws(WHOLE, own):
            out = layer(PICTURES[own])
        out.sum().backward()
        total += layer[2].weight.grad
    torch.testing.assert_close(total, together)


@pytest.mark.parametrize(
    "draw",
    [
        lambda rows: torch.multinomial(rows.flatten(1).softmax(1), 2),
        lambda rows: torch.bernoulli(rows.sigmoid()),
        lambda _: torch.randperm(60),
        lambda _: torch.rand(3),
        lambda _: torch.rand(()),
    ],
    ids=["multinomial", "by their own odds", "order", "no row an image", "one number"],
)
def test_numbers_that_are_of_no_image_are_refused(draw: Callable[[Tensor], Tensor]) -> None:
    rows = PICTURES[SHARES[1]]
    with pytest.raises(FgvcError, match="cannot share") as caught, SharedDraws(WHOLE, SHARES[1]):
        draw(rows)
    assert "--devices 1" in (caught.value.cure or "")


def test_outside_of_the_block_nothing_is_changed() -> None:
    torch.manual_seed(7)
    expected = torch.rand(2, 3)
    with SharedDraws(WHOLE, SHARES[1]):
        pass
    torch.manual_seed(7)
    assert torch.equal(torch.rand(2, 3), expected)
