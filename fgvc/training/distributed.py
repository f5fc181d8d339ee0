"""The processes that train one run together, one on each device.

Every process takes its images of each batch (`RankBatches`), and runs them through its own copy of the model.
What the loss reads is then collected (`Peers.whole`), so that every process computes the loss of the whole
batch; and the gradients of all are summed before the update (`Peers.sum_gradients`). So sums over an epoch
are those of one process, with no image counted twice, and methods whose loss couples the images of a batch
need no care of their own. Gradients are summed in the order of the parameters and not as they become ready:
overlapping the sums with the backward pass would make the last bits depend on where a run was resumed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fgvc.data.loading import Batches, EpochBatches
from fgvc.device import is_out_of_memory
from fgvc.errors import FgvcError
from fgvc.methods import Method, MethodOutput
from fgvc.methods.base import norm_trains
from fgvc.training.shared_draws import SharedDraws

#: Gradients are summed in pieces of about this many numbers, so that their copy stays small.
PIECE_NUMBERS = 2**23


class PeerLostError(FgvcError):
    """Another process of the run died, or did not answer in time."""


class Peers:
    """One process alone; `DevicePeers` is one of several."""

    rank = 0
    count = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes state, progress and records."""
        return self.rank == 0

    def share(self, batches: EpochBatches, mixes: bool) -> Batches:  # noqa: ARG002
        """This process's images of each batch. Raises FgvcError when there is not one for each process."""
        return batches

    def images(self, own: int) -> int:
        """Images of the whole batch, of which ``own`` are this process's."""
        return own

    def draws(self) -> contextlib.AbstractContextManager[object]:
        """Around a forward pass: what is random is that of one process with the whole batch."""
        return contextlib.nullcontext()

    def whole(
        self, output: MethodOutput, targets: Tensor, labels: Tensor
    ) -> tuple[MethodOutput, Tensor, Tensor]:
        """What the loss reads, of the whole batch, in its order; gradients flow into the own images."""
        return output, targets, labels

    def sum_gradients(self, model: nn.Module) -> None:
        """Add up every process's gradients."""

    def any(self, flag: bool) -> bool:
        """Whether one process says so."""
        return flag

    def largest(self, value: float | None) -> float | None:
        return value

    def check_same(self, model: nn.Module, when: str) -> None:
        """Raises FgvcError unless every process holds the same weights, bit by bit."""


@dataclass(frozen=True)
class Seat:
    """A process's place among those of a run.

    Attributes:
        rank, count: which of how many.
        device: torch's name, ``cuda:1``.
        meeting: file through which they find one another.
        timeout_s: how long a process waits for the others.
    """

    rank: int
    count: int
    device: str
    meeting: Path
    timeout_s: float


class RankBatches(Batches):
    """The images of one process, of each batch of a run.

    Args:
        batches: of the whole run.
        positions: which images of each batch.
    """

    def __init__(self, batches: EpochBatches, positions: list[int]) -> None:
        self.batches, self.positions = batches, positions

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self.batches:
            yield [batch[position] for position in self.positions]


def positions_of(rank: int, count: int, batch_size: int, mixes: bool) -> tuple[int, list[int]]:
    """``(images of the whole batch, places of those that are this process's)``.

    Consecutive images. Where images are mixed, an image and its partner go to the same process: timm mixes
    the i-th from the front with the i-th from the back, and an odd batch loses its last (see `mix`).

    Raises FgvcError when a process would have none.
    """
    units = batch_size // 2 if mixes else batch_size
    if units < count:
        raise FgvcError(
            f"a batch of {batch_size} images cannot be split between {count} devices"
            + (", two at least for each where images are mixed" if mixes else ""),
            key="recipe.batch_size",
            cure=f"use at most {units} devices (--devices)",
        )
    own = list(range(rank * units // count, (rank + 1) * units // count))
    if not mixes:
        return batch_size, own
    return 2 * units, own + [2 * units - 1 - position for position in reversed(own)]


class DevicePeers(Peers):
    """One of several processes; they take every step together.

    Every method but ``share`` and ``draws`` is called by all of them at the same moment of a step.
    """

    def __init__(self, seat: Seat) -> None:
        self.seat, self.rank, self.count = seat, seat.rank, seat.count
        self.batch, self.positions = 0, torch.empty(0, dtype=torch.int64)

    @classmethod
    @contextlib.contextmanager
    def joined(cls, seat: Seat) -> Iterator[DevicePeers]:
        """Meet the others; a process that fails inside of the block leaves without a word to them."""
        backend = "cpu:gloo,cuda:nccl" if seat.device.startswith("cuda") else "gloo"
        with _telling("meeting the others"):
            dist.init_process_group(
                backend,
                store=dist.FileStore(str(seat.meeting), seat.count),  # type: ignore[attr-defined]
                rank=seat.rank,
                world_size=seat.count,
                timeout=timedelta(seconds=seat.timeout_s),
            )
        yield cls(seat)
        dist.destroy_process_group()

    def share(self, batches: EpochBatches, mixes: bool) -> Batches:
        self.batch, own = positions_of(self.rank, self.count, batches.batch_size, mixes)
        self.positions = torch.tensor(own)
        return RankBatches(batches, own)

    def images(self, own: int) -> int:  # noqa: ARG002
        return self.batch

    def draws(self) -> contextlib.AbstractContextManager[object]:
        return SharedDraws(self.batch, self.positions.tolist())

    def whole(
        self, output: MethodOutput, targets: Tensor, labels: Tensor
    ) -> tuple[MethodOutput, Tensor, Tensor]:
        """Rows stand look by look, as `SharedDraws` takes them; ``losses`` are means. The rest is cut."""
        weight = len(self.positions) / self.batch
        collected = replace(
            MethodOutput(self._rows(output.logits)),
            aux_logits={name: self._rows(rows) for name, rows in output.aux_logits.items()},
            embeddings={name: self._rows(rows) for name, rows in output.embeddings.items()},
            losses={name: self._sum(weight * value) for name, value in output.losses.items()},
        )
        return collected, self._rows(targets), self._rows(labels)

    def _rows(self, own: Tensor) -> Tensor:
        """[V·b, …] of every process → [V·B, …]."""
        looks = own.reshape(-1, len(self.positions), *own.shape[1:])
        positions = self.positions.to(own.device)
        everyone = looks.new_zeros(len(looks), self.batch, *looks.shape[2:])
        everyone[:, positions] = looks.detach()
        self._reduce(everyone)  # each row has one owner, the others add zeros
        whole: Tensor = everyone.index_copy(1, positions, looks).flatten(0, 1)
        return whole

    def _sum(self, own: Tensor) -> Tensor:
        """The sum over processes, with the gradient of the own part."""
        total = own.detach().clone()
        self._reduce(total)
        return total + (own - own.detach())  # the same bits in every process

    def sum_gradients(self, model: nn.Module) -> None:
        piece: list[Tensor] = []
        for parameter in model.parameters():
            if parameter.grad is None:
                continue
            if piece and (
                piece[0].dtype != parameter.grad.dtype
                or sum(g.numel() for g in piece) + parameter.grad.numel() > PIECE_NUMBERS
            ):
                self._sum_piece(piece)
                piece = []
            piece.append(parameter.grad)
        if piece:
            self._sum_piece(piece)

    def _sum_piece(self, gradients: list[Tensor]) -> None:
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self._reduce(flat)
        for gradient, total in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))

    def any(self, flag: bool) -> bool:
        said = torch.tensor(int(flag))
        self._reduce(said, dist.ReduceOp.MAX)
        return bool(said)

    def largest(self, value: float | None) -> float | None:
        if value is None:
            return None
        found = torch.tensor(value, dtype=torch.float64)
        self._reduce(found, dist.ReduceOp.MAX)
        return found.item()

    def check_same(self, model: nn.Module, when: str) -> None:
        highest = torch.stack([_bits(tensor) for tensor in model.state_dict().values()]).cpu()
        lowest = highest.clone()
        self._reduce(highest, dist.ReduceOp.MAX)
        self._reduce(lowest, dist.ReduceOp.MIN)
        if not torch.equal(highest, lowest):
            raise FgvcError(
                f"the devices' weights are no longer the same {when}",
                cure="run it again: it goes on from its last state; if this comes again, a device is faulty",
            )

    def _reduce(self, tensor: Tensor, how: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> None:
        with _telling("a step"):
            dist.all_reduce(tensor, how)


def _bits(tensor: Tensor) -> Tensor:
    """The sum of a tensor's bit patterns, read as integers; int64."""
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.detach().contiguous().view(-1).view(integers[tensor.element_size()]).sum(dtype=torch.int64)


def synchronised(model: Method, device: torch.device) -> Method:
    """The model with batch norms that see the whole batch, on several devices.

    Raises FgvcError for one that cannot be trained on several devices of this kind.
    """
    if model.couples_forward:
        raise _refused(model, "couples the images of a batch in its forward pass")
    norms = [name for name, m in model.named_modules() if isinstance(m, _BatchNorm) and norm_trains(m)]
    if not norms:
        return model
    if device.type != "cuda":
        raise _refused(
            model, f"has batch norms that train ({norms[0]}), which torch synchronises only between GPUs"
        )
    converted: Method = convert_sync_batchnorm(model)
    return converted


def _refused(model: Method, why: str) -> FgvcError:
    return FgvcError(
        f"{model.name} cannot be trained on several devices like this: it {why}",
        cure="train it on one device (--devices 1)",
    )


@contextlib.contextmanager
def _telling(what: str) -> Iterator[None]:
    """Turn torch's error about a lost peer into `PeerLostError`."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise PeerLostError(f"a process of the run was lost in {what}: {error}") from error
