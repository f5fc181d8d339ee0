"""Starting the processes of a run on several devices, watching them, and ending all when one fails.

The parent trains nothing: it holds the run's lock and the devices' leases, passes signals on, and says what
went wrong. A process whose parent is gone ends at once.
"""

from __future__ import annotations

import contextlib
import math
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
from fgvc.provenance.stopping import StoppedError, StopRequest
from fgvc.training.distributed import DevicePeers, PeerLostError, Seat

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
    def has_left(self) -> bool:
        """Whether it ended where the others did not."""
        if self.answer is None or self.answer.kind == "result":
            return False
        # One that was stopped between two steps was stopped with the others, and has told how far they came.
        return not (self.answer.kind == "exit" and self.answer.value[1])

    @property
    def name(self) -> str:
        return f"process {self.seat.rank + 1} of {self.seat.count} ({self.seat.device})"


def launch(
    work: Callable[..., Any],
    arguments: Sequence[Any],
    devices: Sequence[torch.device],
    timeout_s: float,
    stop: StopRequest,
) -> Any:
    """Call ``work(*arguments, device, peers, stop)`` in one process for each device; all must end well.

    Args:
        work: a function of a module, and arguments that pickle takes.
        timeout_s: how long a process waits for the others before it gives up.
        stop: passed on. A process listens for itself as well: clusters send their signals to all.

    Returns what the first process returns. Raises the FgvcError of a process that raised one, StoppedError
    when they were asked to stop, and FgvcError when a process died or did not answer.
    """
    with tempfile.TemporaryDirectory(prefix="fgvc-run-", ignore_cleanup_errors=True) as folder:
        meeting = Path(folder) / "meeting"
        seats = [Seat(i, len(devices), str(d), meeting, timeout_s) for i, d in enumerate(devices)]
        ranks: list[_Rank] = []
        with contextlib.ExitStack() as started, stop.deferred():
            started.callback(_end, ranks)
            with _stop_signals_blocked():
                ranks += [_start(seat, work, arguments, stop) for seat in seats]
            _watch(ranks, stop)
            return _conclusion(ranks, stop)


def _start(seat: Seat, work: Callable[..., Any], arguments: Sequence[Any], stop: StopRequest) -> _Rank:
    # Of a server that imports everything once and never touches a GPU, which no fork survives.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, work.__module__])
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(
        target=_rank_main, args=(seat, work, arguments, stop, sending), name=f"rank {seat.rank}"
    )
    process.start()
    sending.close()
    return _Rank(seat, process, receiving)


@contextlib.contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """Processes started inside of the block keep stop signals waiting until they let them through."""
    resource_tracker.ensure_running()  # else it is started with the first process, and unblocks them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, StopRequest.SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch(ranks: list[_Rank], stop: StopRequest) -> None:
    """Wait until each has answered; after one left the others, only as long as a farewell takes."""
    passed_on, deadline = False, math.inf
    while waiting := [rank for rank in ranks if rank.answer is None]:
        if time.monotonic() > deadline:
            return
        if stop.is_due() and not passed_on:
            passed_on = True
            for rank in waiting:
                rank.process.terminate()
        connection.wait([rank.answers for rank in waiting], timeout=POLL_S)
        for rank in waiting:
            rank.look()
        if deadline == math.inf and any(rank.has_left for rank in ranks):
            deadline = time.monotonic() + FAREWELL_S


def _end(ranks: list[_Rank]) -> None:
    """No process is left, whatever happened; one that answered well may end by itself."""
    for rank in ranks:
        if rank.answer is not None:
            rank.process.join(FAREWELL_S)
        rank.process.kill()
        rank.process.join()


def _conclusion(ranks: list[_Rank], stop: StopRequest) -> Any:
    """The first process's result; or the most telling failure, raised."""
    answers = [rank.answer for rank in ranks]
    stopped = [a.value for a in answers if a and a.kind == "exit"]
    if stopped or (stop.is_due() and not all(a and a.kind == "result" for a in answers)):
        # A process that was told at another moment than the others may have left them without a word.
        reason, done = stopped[0] if stopped else ("", "")
        raise stop.error(done, reason)
    for kind in ("error", "gone", "defect", "lost"):
        for rank in ranks:
            if rank.answer is not None and rank.answer.kind == kind:
                _raise(rank, ranks)
    return answers[0].value if answers[0] else None


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
    seat: Seat,
    work: Callable[..., Any],
    arguments: Sequence[Any],
    stop: StopRequest,
    answers: connection.Connection,
) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # All processes are on this machine; its name may lead nowhere, or out of it.
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(variable, "lo0" if sys.platform == "darwin" else "lo")
    device = torch.device(seat.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Not as the connection would pickle it: tensors would be lent by a process that is about to end.
    answers.send_bytes(pickle.dumps(_answer(seat, work, (*arguments, device), stop)))


def _answer(seat: Seat, work: Callable[..., Any], arguments: Sequence[Any], stop: StopRequest) -> Answer:
    try:
        with stop:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, StopRequest.SIGNALS)
            with DevicePeers.joined(seat) as peers:
                return Answer("result", work(*arguments, peers, stop))
    except StoppedError as stopped:
        return Answer("exit", (stopped.reason, stopped.done))
    except KeyboardInterrupt:
        return Answer("exit", ("SIGINT", ""))
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
