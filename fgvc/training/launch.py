"""Starting the processes of a run on several devices, watching them, and ending all when one fails.

The parent trains nothing: it holds the run's lock and the devices' leases, passes signals on, and says what
went wrong. A process whose parent is gone ends at once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch

from fgvc.errors import FgvcError, one_line
from fgvc.training.distributed import DevicePeers, PeerLostError, Seat

#: Signals that ask a run to stop; they reach a process that has nothing to save only once it can save.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: How long the others may take, after one has failed, to say what they know.
FAREWELL_S = 2.0
POLL_S = 0.2

_ERROR_KEYS = ("problem", "file", "line", "key", "cure")

#: ``exit``: it was asked to stop and did; ``error``: a mistake that a user can mend; ``lost``: another
#: process was lost; ``defect``: anything else that it could still tell; ``gone``: it ended without a word.
Kind = Literal["result", "exit", "error", "lost", "defect", "gone"]


@dataclass(frozen=True)
class Answer:
    """The last word of a process."""

    kind: Kind
    value: Any = None


@dataclass
class _Rank:
    seat: Seat
    process: ForkServerProcess
    answers: connection.Connection
    answer: Answer | None = None

    def look(self) -> None:
        """Take its answer if there is one; a process that ended without any is gone."""
        has_ended = self.process.exitcode is not None
        if self.answers.poll():
            with contextlib.suppress(EOFError):
                self.answer = pickle.loads(self.answers.recv_bytes())
                return
        if has_ended:
            self.answer = Answer("gone", self.process.exitcode)

    @property
    def name(self) -> str:
        return f"process {self.seat.rank + 1} of {self.seat.count} ({self.seat.device})"


def launch(
    work: Callable[..., Any], arguments: Sequence[Any], devices: Sequence[torch.device], timeout_s: float
) -> Any:
    """Call ``work(*arguments, device, peers)`` in one process for each device; all must end well.

    Args:
        work: a function of a module, and arguments that pickle takes.
        timeout_s: how long a process waits for the others before it gives up.

    Returns what the first process returns. Raises the FgvcError of a process that raised one, SystemExit with
    the first one's code when they were asked to stop, and FgvcError when a process died or did not answer.
    """
    with tempfile.TemporaryDirectory(prefix="fgvc-run-", ignore_cleanup_errors=True) as folder:
        meeting = Path(folder) / "meeting"
        seats = [Seat(i, len(devices), str(d), meeting, timeout_s) for i, d in enumerate(devices)]
        ranks: list[_Rank] = []
        with contextlib.ExitStack() as started, _signals_passed_on(ranks) as received:
            started.callback(_end, ranks)
            with _stop_signals_blocked():
                ranks += [_start(seat, work, arguments) for seat in seats]
            _watch(ranks)
            return _conclusion(ranks, received)


def _start(seat: Seat, work: Callable[..., Any], arguments: Sequence[Any]) -> _Rank:
    # Of a server that imports everything once and never touches a GPU, which no fork survives.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, work.__module__])
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(
        target=_rank_main, args=(seat, work, arguments, sending), name=f"rank {seat.rank}"
    )
    process.start()
    sending.close()
    return _Rank(seat, process, receiving)


@contextlib.contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """Processes started inside of the block keep stop signals waiting until they let them through."""
    resource_tracker.ensure_running()  # else it is started with the first process, and unblocks them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _signals_passed_on(ranks: list[_Rank]) -> Iterator[list[int]]:
    """Stop signals go to ``ranks``, a list that the block fills; a second one ends them all.

    Gives the list of those received.
    """
    received: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        for rank in ranks:
            if rank.process.pid is not None and rank.process.exitcode is None:
                os.kill(rank.process.pid, number)

    previous = {number: signal.signal(number, pass_on) for number in STOP_SIGNALS}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _watch(ranks: list[_Rank]) -> None:
    """Wait until each has answered; after a failure, only as long as a farewell takes."""
    deadline: float | None = None
    while waiting := [rank for rank in ranks if rank.answer is None]:
        if deadline is not None and time.monotonic() > deadline:
            return
        connection.wait([rank.answers for rank in waiting], timeout=POLL_S)
        for rank in waiting:
            rank.look()
        if deadline is None and any(r.answer and r.answer.kind not in ("result", "exit") for r in ranks):
            deadline = time.monotonic() + FAREWELL_S


def _end(ranks: list[_Rank]) -> None:
    """No process is left, whatever happened; one that answered well may end by itself."""
    for rank in ranks:
        if rank.answer is not None and rank.answer.kind in ("result", "exit"):
            rank.process.join(FAREWELL_S)
        rank.process.kill()
        rank.process.join()


def _conclusion(ranks: list[_Rank], received: list[int]) -> Any:
    """The first process's result; or the most telling failure, raised."""
    if received and Answer("gone", -received[0]) in [rank.answer for rank in ranks]:
        raise SystemExit(128 + received[0])  # it was stopped where it had nothing to save
    for kind in ("error", "gone", "defect", "lost"):
        for rank in ranks:
            if rank.answer is not None and rank.answer.kind == kind:
                _raise(rank, ranks)
    first = ranks[0].answer
    if first is not None and first.kind == "exit":
        raise SystemExit(first.value)
    return first.value if first is not None else None


def _raise(rank: _Rank, ranks: list[_Rank]) -> NoReturn:
    answer = rank.answer or Answer("gone")
    again = "run the same command again: it goes on from the last saved state"
    match answer.kind:
        case "error":
            raise FgvcError(**answer.value)
        case "gone":
            how = (
                f"was killed by {signal.Signals(-answer.value).name}"
                if answer.value < 0
                else f"ended with code {answer.value}"
            )
            raise FgvcError(f"{rank.name} {how}; the others were stopped", cure=again)
        case "defect":
            raise FgvcError(
                f"{rank.name} failed: {answer.value[0]}",
                cure="this is a defect, not your mistake; add --debug for the traceback, and report it",
            ) from RuntimeError(answer.value[1])
        case _:
            silent = [r.name for r in ranks if r.answer is None]
            raise FgvcError(
                f"{', '.join(silent) or 'a process'} did not answer the others within "
                f"{rank.seat.timeout_s:g} s; all were stopped",
                cure=f"{again}\nif it only was slow, raise device_timeout_s in params/config.yaml",
            )


# --- in the process of a device -----------------------------------------------------------------------


def _rank_main(
    seat: Seat, work: Callable[..., Any], arguments: Sequence[Any], answers: connection.Connection
) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # All processes are on this machine; its name may lead nowhere, or out of it.
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(variable, "lo0" if sys.platform == "darwin" else "lo")
    device = torch.device(seat.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Not as the connection would pickle it: tensors would be lent by a process that is about to end.
    answers.send_bytes(pickle.dumps(_answer(seat, work, (*arguments, device))))


def _answer(seat: Seat, work: Callable[..., Any], arguments: Sequence[Any]) -> Answer:
    try:
        with DevicePeers.joined(seat) as peers:
            return Answer("result", work(*arguments, peers))
    except SystemExit as stop:
        return Answer("exit", stop.code)
    except PeerLostError as error:
        return Answer("lost", error.problem)
    except FgvcError as error:
        return Answer("error", {key: getattr(error, key) for key in _ERROR_KEYS})
    except Exception as error:
        return Answer("defect", (one_line(f"{type(error).__name__}: {error}"), traceback.format_exc()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
