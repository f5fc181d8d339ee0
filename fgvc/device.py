"""Choosing the device: ``auto`` means cuda, then mps, then cpu; the same in every verb."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from dataclasses import dataclass
from typing import Any

import torch

from fgvc.errors import FgvcError

#: Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

#: How backends without an exception of their own say it.
_NO_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


def choose_device(wanted: str = "auto") -> torch.device:
    """The torch device behind ``auto``, ``cuda`` (``cuda:1`` …), ``mps`` or ``cpu``.

    Raises FgvcError for a device that this machine does not have.
    """
    name = wanted.partition(":")[0]
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    if not available.get(name, False):
        there = ", ".join(kind for kind, is_there in available.items() if is_there)
        raise FgvcError(
            f"there is no device '{wanted}' here",
            cure=f"use --device auto, or one of: {there} (fgvc doctor says what was found)",
        )
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise FgvcError(
            f"'{wanted}' names no device", cure="use --device auto, cuda, cuda:1, mps or cpu"
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        there = ", ".join(f"cuda:{index}" for index in range(torch.cuda.device_count()))
        raise FgvcError(
            f"there is no device '{wanted}' here", cure=f"use --device auto, or one of: {there}, cpu"
        )
    return device


@dataclass(frozen=True)
class Gpu:
    """A CUDA device that this process may use: torch's index, the driver's UUID, and its name."""

    index: int
    uuid: str
    name: str


def visible_gpus() -> list[Gpu]:
    """The CUDA devices of this process, in torch's order (``CUDA_VISIBLE_DEVICES`` decides which)."""
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append(Gpu(index, str(properties.uuid), properties.name))
    return found


def describe_device(device: torch.device) -> dict[str, Any]:
    """For records: kind, name and memory."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return {
            "kind": "cuda",
            "name": properties.name,
            "memory_mib": properties.total_memory // 2**20,
            "cuda": torch.version.cuda,
        }
    return {"kind": device.type, "name": device.type}


def prepare_process(threads: int) -> None:
    """Set up this process for training or evaluation.

    Args:
        threads: torch threads for everything that follows (part of the recipe: bytes depend on it).
    """
    torch.set_num_threads(threads)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Tell glibc to reuse the memory of a step's activations instead of giving it back to the kernel.

    Each step frees and asks for the same large blocks; with the defaults the kernel maps and clears them
    every time (a tenth of a CNN's training time on a CPU: benchmarks/results). Elsewhere nothing is done.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for parameter, value in ((_M_MMAP_THRESHOLD, 1 << 30), (_M_TRIM_THRESHOLD, 2**31 - 1)):
            mallopt(parameter, value)


def loader_workers(setting: int | str, device: torch.device, devices: int = 1) -> int:
    """Number of decoding processes: what the settings say, or enough to feed a GPU, or none on a CPU.

    Args:
        devices: how many of a run share this machine's cores.
    """
    if isinstance(setting, int):
        return setting
    if device.type == "cuda":
        return max(1, min(8, (len(os.sched_getaffinity(0)) - 1) // devices))
    return 0


def peak_device_memory_mib(device: torch.device) -> float | None:
    """Largest memory that torch allocated on a GPU so far; None on other devices."""
    if device.type != "cuda":
        return None
    return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception of torch says that an allocation failed, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def give_back(device: torch.device) -> None:
    """Return what torch keeps of freed memory to the device. To be called outside of the except block, whose
    exception keeps the failed pass's activations alive."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
