"""Peak memory of methods against the plain ViT's: the largest resident set of a process that does one thing.

A process each, on Linux. Two ratios: of the whole process, and of what it grew by after all imports, weights
included.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

#: Method, its options as Python text.
METHODS = (("transfg", "patch_stride=16"), ("transfg", "patch_stride=12"), ("ffvt", ""))
#: The larger batch shows that what is kept does not grow with it.
SHAPES = {"inference": ((224, 8), (448, 2), (448, 16)), "training": ((224, 8), (448, 2))}

_SCRIPT = """
import re, sys, torch
import fgvc.methods
from fgvc import create_model
def resident(kind):
    return int(re.search(kind + r":\\s+(\\d+) kB", open("/proc/self/status").read()).group(1)) / 1024
torch.set_num_threads(1)
method, how, size, batch, options = sys.argv[1:]
size, batch = int(size), int(batch)
torch.randn(2, 3, 64, 64) @ torch.randn(64, 64)
images = torch.randn(batch, 3, size, size)
open("/proc/self/clear_refs", "w").write("5")  # from here on the peak is of what follows, not of imports
before = resident("VmRSS")
model = create_model(
    method, backbone="vit_tiny_patch16_224", num_classes=200, image_size=size, **eval(f"dict({options})")
)
model.train(how == "training")
for _ in range(3):
    if how == "training":
        model.zero_grad(set_to_none=True)
        model.loss(model(images), torch.arange(batch))["total"].backward()
    else:
        with torch.inference_mode():
            model(images)
print(before, resident("VmHWM"))
"""


@dataclass(frozen=True)
class Peaks:
    """Peak resident MiB of ours and of the plain ViT, and how much of it was there before the model."""

    name: str
    ours_mib: float
    reference_mib: float
    ours_before_mib: float
    reference_before_mib: float

    @property
    def whole(self) -> float:
        return self.ours_mib / self.reference_mib

    @property
    def grown(self) -> float:
        grown = self.reference_mib - self.reference_before_mib
        return (self.ours_mib - self.ours_before_mib) / grown

    def record(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ratio_of_process": round(self.whole, 3),
            "ratio_of_growth": round(self.grown, 3),
            "ours_peak_mib": round(self.ours_mib, 1),
            "reference_peak_mib": round(self.reference_mib, 1),
            "reference_before_mib": round(self.reference_before_mib, 1),
        }

    def line(self) -> str:
        return f"{self.name:<66} {self.whole:5.2f}  (growth alone {self.grown:.2f})"


def _peak(method: str, how: str, size: int, batch: int, options: str) -> tuple[float, float]:
    command = [sys.executable, "-c", _SCRIPT, method, how, str(size), str(batch), options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, peak = done.stdout.split()
    return float(before), float(peak)


def run() -> Iterator[Peaks]:
    """Goal: 1.3. At most 96 MiB of attention maps are kept, whatever the batch."""
    for how, shapes in SHAPES.items():
        for size, batch in shapes:
            plain_before, plain = _peak("vit", how, size, batch, "")
            for method, options in METHODS:
                before, peak = _peak(method, how, size, batch, options)
                title = f"{method} {options}".strip()
                name = f"{title}, {size} px, batch {batch}: peak memory, {how} / vit"
                yield Peaks(name, peak, plain, before, plain_before)
