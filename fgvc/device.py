"""Choosing the device: ``auto`` means cuda, then mps, then cpu; the same in every verb."""

from __future__ import annotations

import os
from typing import Any

import torch

from fgvc.errors import FgvcError


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
    return torch.device(wanted)


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


def set_threads(threads: int) -> None:
    """Use ``threads`` torch threads for everything that follows (part of the recipe: bytes depend on it)."""
    torch.set_num_threads(threads)


def loader_workers(setting: int | str, device: torch.device) -> int:
    """Number of decoding processes: what the settings say, or enough to feed a GPU, or none on a CPU."""
    if isinstance(setting, int):
        return setting
    if device.type == "cuda":
        return max(1, min(8, len(os.sched_getaffinity(0)) - 1))
    return 0


def peak_device_memory_mib(device: torch.device) -> float | None:
    """Largest memory that torch allocated on a GPU so far; None on other devices."""
    if device.type != "cuda":
        return None
    return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
