"""GPUs on loan: two jobs of a user never share one, unless the settings ask for it.

A job holds a lock file for each GPU that it uses, named by the GPU's UUID, in a folder that all jobs of the
user on this machine see. The kernel frees the locks of a job that dies, however it dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from fgvc.device import Gpu, choose_device, visible_gpus
from fgvc.errors import FgvcError, first_few
from fgvc.provenance.locks import LockHeldError, exclusive_lock

#: Seconds between two looks for a free device.
POLL_S = 0.5
#: How long another job may take to choose; it looks at a few files.
CHOOSING_S = 60.0


def lease_folder() -> Path:
    """Where the locks are. Not $XDG_RUNTIME_DIR, which a job from cron or a cluster does not have."""
    return Path(f"/tmp/fgvc-gpu-{os.getuid()}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def lease(
    names: Sequence[str],
    count: int,
    doing: str,
    *,
    folder: Path,
    jobs_per_name: int = 1,
    on_wait: Callable[[str], None] = say,
    poll_s: float = POLL_S,
) -> Iterator[list[str]]:
    """Hold ``count`` different ones of ``names`` for the length of the block; waits until so many are free.

    All are taken at once or none, so that two jobs never wait for one another. What fewest jobs use is taken
    first, then what stands first.

    Args:
        doing: for those who wait ("training typefaces/vit_pico/224 seed 1").
        folder: of the lock files; made where it is missing.
        jobs_per_name: how many jobs may hold the same name.
        on_wait: called once with a sentence when waiting begins.

    Raises FgvcError when there are not so many names, or the folder belongs to someone else.
    """
    if count > len(names):
        raise FgvcError(
            f"{count} devices are wanted, and there are {len(names)}: {first_few(names)}",
            cure=f"use --devices {len(names)}" if names else "use --device cpu",
        )
    _make_private(folder)
    told = False
    while True:
        with contextlib.ExitStack() as held:
            taken = _take(held, names, count, doing, folder, jobs_per_name)
            if taken:
                yield taken
                return
        if not told:
            on_wait(f"waiting for {_wanted(count)}: {_users(folder, names)}")
            told = True
        time.sleep(poll_s)


def _take(
    held: contextlib.ExitStack, names: Sequence[str], count: int, doing: str, folder: Path, jobs: int
) -> list[str]:
    """Enter the locks of ``count`` names into ``held``; [] when too few are free."""
    taken: list[str] = []
    with exclusive_lock(folder / "choosing", "choosing a device", wait_s=CHOOSING_S):
        for place in range(jobs):
            for name in names:
                if name in taken:
                    continue
                with contextlib.suppress(LockHeldError):
                    held.enter_context(exclusive_lock(_file(folder, name, place), doing))
                    taken.append(name)
                if len(taken) == count:
                    return taken
    return []


def _file(folder: Path, name: str, place: int) -> Path:
    return folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', name)}.{place}"


def _wanted(count: int) -> str:
    return "a free device" if count == 1 else f"{count} free devices"


def _users(folder: Path, names: Sequence[str]) -> str:
    found = []
    for name in names:
        with contextlib.suppress(OSError, ValueError, KeyError):
            record = json.loads(_file(folder, name, 0).read_text(encoding="utf-8"))
            found.append(f"{name} is lent to process {record['pid']} ({record['doing']})")
    return first_few(found, 3) or "all are in use"


def _make_private(folder: Path) -> None:
    """Make the folder, and refuse one that another user made: /tmp belongs to all."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise FgvcError(
            "the folder of the GPU locks belongs to another user", file=folder, cure="have it removed"
        )


@contextlib.contextmanager
def leased_devices(
    wanted: str, count: int, doing: str, *, jobs_per_gpu: int = 1
) -> Iterator[list[torch.device]]:
    """``count`` devices of the kind ``wanted``, for this process alone while the block lasts.

    ``auto`` and ``cuda`` choose GPUs that are free among those of ``CUDA_VISIBLE_DEVICES``; ``cuda:1`` waits
    for that one. GPUs that SLURM gave this job, no more than are wanted, need no lease. The CPU is lent to
    all; several of its "devices" are several processes.

    Raises FgvcError for a device that is not here, and when there are too few.
    """
    device = choose_device(wanted)
    if device.type != "cuda":
        if count > 1 and device.type != "cpu":
            raise FgvcError(
                f"one run cannot use several devices of the kind '{device.type}'", cure="use --devices 1"
            )
        yield [device] * count
        return
    gpus = [gpu for gpu in visible_gpus() if device.index in (None, gpu.index)]
    if count == len(gpus) and assigned_by_slurm():
        yield _devices(gpus, [gpu.uuid for gpu in gpus])
        return
    uuids = [gpu.uuid for gpu in gpus]
    with lease(uuids, count, doing, folder=lease_folder(), jobs_per_name=jobs_per_gpu) as taken:
        yield _devices(gpus, taken)


def assigned_by_slurm() -> bool:
    """Whether SLURM gave this job its GPUs; then it sees to it that no other has them."""
    return any(os.environ.get(name) for name in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS"))


def _devices(gpus: Sequence[Gpu], uuids: Sequence[str]) -> list[torch.device]:
    chosen = [torch.device("cuda", gpu.index) for gpu in gpus if gpu.uuid in uuids]
    if len(chosen) == 1:
        # What names no index (pinned memory, a new stream) then means this one, and wakes no other.
        torch.cuda.set_device(chosen[0])
    return chosen
