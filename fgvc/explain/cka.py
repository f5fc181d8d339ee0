"""How alike the layers of a network represent images: centred kernel alignment (CKA).

Source: Nguyen, Raghu and Kornblith, Do Wide and Deep Networks Learn the Same Things?, ICLR 2021, eq. 2–4
(minibatch CKA with the unbiased HSIC of Song et al., JMLR 2012); compute_feature_metrics.py of arkel23/GLSim
at 99cc474 for features flattened or pooled, and its use on attention maps in the ILA paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fgvc.errors import FgvcError, first_few

#: Below this many rows the unbiased HSIC divides by 0.
FEWEST_ROWS = 4


def gram(features: Tensor) -> Tensor:
    """X·Xᵀ of the rows of ``features`` [n, …], flattened, in float32, with a zero diagonal: [n, n].

    In float32 whatever the precision of the network: sums over a whole feature map overflow in fp16.
    """
    rows = features.detach().flatten(1).float()
    product = rows @ rows.T
    return product.fill_diagonal_(0.0)


def unbiased_hsic(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741 -- the letters of the formula
    """HSIC₁ of two Gram matrices [n, n] with zero diagonals, a scalar in float64.

    [tr(KL) + (1ᵀK1)(1ᵀL1) / ((n-1)(n-2)) - 2·1ᵀKL1 / (n-2)] / (n(n-3)).
    """
    n = len(k)
    k, l = k.double(), l.double()  # noqa: E741
    k_sums, l_sums = k.sum(dim=0), l.sum(dim=0)
    trace = (k * l.T).sum()
    whole = k_sums.sum() * l_sums.sum() / ((n - 1) * (n - 2))
    return (trace + whole - 2 * (k_sums @ l_sums) / (n - 2)) / (n * (n - 3))


class MinibatchCka:
    """CKA between all pairs of layers, from one minibatch after another.

    HSIC is averaged over minibatches before the ratio is formed; so memory does not grow with the dataset.
    Minibatches must have the same images for all layers and at least four of them; fewer are left out, as
    the last batch of a dataset may be.

    Example:
        >>> cka = MinibatchCka()
        >>> for images in batches:
        ...     cka.add([gram(layer) for layer in layers_of(images)])
        >>> cka.value()  # [layers, layers]
    """

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self.batches = 0

    def add(self, grams: Sequence[Tensor]) -> None:
        """Take one minibatch: the `gram` matrix of each layer, in order."""
        if len(grams[0]) < FEWEST_ROWS:
            return
        values = torch.stack([torch.stack([unbiased_hsic(k, other) for other in grams]) for k in grams])
        self._sum = values if self._sum is None else self._sum + values
        self.batches += 1

    def value(self) -> Tensor:
        """CKA [layers, layers], float64, its diagonal as it comes out (1).

        Raises FgvcError when no minibatch had four images, and when a layer tells no image from another.
        """
        if self._sum is None:
            raise FgvcError(
                f"CKA needs batches of at least {FEWEST_ROWS} images",
                cure="use a larger batch or more images",
            )
        own = self._sum.diagonal().sqrt()
        silent = [str(layer) for layer, size in enumerate(own.tolist(), 1) if not size > 0]
        if silent:
            raise FgvcError(
                f"CKA is 0 / 0: the same for all images is layer {first_few(silent)}",
                cure="use a network that was trained, and images that differ",
            )
        return self._sum / (own[:, None] * own[None, :])


def pooled_rows(tokens: Tensor, side: int = 7) -> Tensor:
    """Tokens [B, S, D] on a coarser grid, as rows [B·S', D].

    The patch grid is averaged to ``side`` × ``side``; where S is no square the first token is CLS and stays.
    """
    batch, length, width = tokens.shape
    has_cls = int(length**0.5) ** 2 != length
    grid = int((length - has_cls) ** 0.5)
    maps = tokens[:, has_cls:].transpose(1, 2).reshape(batch, width, grid, grid)
    pooled = nn.functional.adaptive_avg_pool2d(maps, side).flatten(2).transpose(1, 2)
    return torch.cat([tokens[:, :has_cls], pooled], dim=1).reshape(-1, width)


def mean_norm(rows: Tensor) -> Tensor:
    """Mean L2 norm of the rows [n, D], a scalar."""
    lengths: Tensor = torch.linalg.vector_norm(rows.float(), dim=1)
    return lengths.mean()


def mean_distance(rows: Tensor, *, normalised: bool = False) -> Tensor:
    """Mean L2 distance between different rows [n, D], a scalar.

    Args:
        normalised: distances are brought to 0 … 1 first (by the least and the largest).
    """
    distances = torch.cdist(rows.float(), rows.float())
    if normalised:
        distances = (distances - distances.min()) / (distances.max() - distances.min())
    mean: Tensor = distances.sum() / distances.count_nonzero()
    return mean


def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """Biased linear CKA of two sets of rows [n, D], [n, E], a scalar.

    Columns are centred, then rows normalised, as cka.py of edward62740/SC4001-Project at cb581f1 has it.
    """

    def prepared(rows: Tensor) -> Tensor:
        centred = rows.float() - rows.float().mean(dim=0)
        lengths: Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
        return centred / lengths

    x, y = prepared(x), prepared(y)
    cross, own_x, own_y = (torch.linalg.matrix_norm(m) for m in (x.T @ y, x.T @ x, y.T @ y))
    alike: Tensor = cross**2 / (own_x * own_y)
    return alike
