"""Under what conditions a speed was measured; they name its file: ``cpu-fp32-b8-t2``, ``cuda-bf16-b64``."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from fgvc.config.base import Model
from fgvc.errors import FgvcError

DeviceKind = Literal["cpu", "cuda", "mps"]
Precision = Literal["fp32", "fp16", "bf16"]

#: The form of `Conditions.text`, for the rules' wildcard too.
PATTERN = r"(?:cpu-(?:fp32|bf16)-b[1-9][0-9]*-t[1-9][0-9]*|(?:cuda|mps)-(?:fp32|fp16|bf16)-b[1-9][0-9]*)"


class Conditions(Model):
    """Device, precision, batch size and, on a CPU, threads of a measurement."""

    device: DeviceKind
    precision: Precision = Field("fp32", description="of inference; training runs as its recipe says")
    batch_size: int = Field(8, ge=1, le=65536, description="images of a batch for throughput")
    threads: int | None = Field(None, ge=1, le=1024, description="torch threads; on a CPU only")

    @model_validator(mode="after")
    def _possible(self) -> Conditions:
        if self.device == "cpu" and self.threads is None:
            raise ValueError("a measurement on a CPU names its threads")
        if self.device != "cpu" and self.threads is not None:
            raise ValueError("threads are named for a CPU only")
        if self.device == "cpu" and self.precision == "fp16":
            raise ValueError("fp16 needs a GPU; use fp32 or bf16")
        return self

    @property
    def text(self) -> str:
        """As it stands in paths."""
        threads = f"-t{self.threads}" if self.threads is not None else ""
        return f"{self.device}-{self.precision}-b{self.batch_size}{threads}"

    @property
    def title(self) -> str:
        """For people: ``CPU, 2 threads, fp32, batches of 8``."""
        threads = f", {self.threads} thread{'s' if self.threads != 1 else ''}" if self.threads else ""
        return f"{self.device.upper()}{threads}, {self.precision}, batches of {self.batch_size}"

    @staticmethod
    def parse(text: str) -> Conditions:
        """The conditions that ``text`` names. Raises FgvcError for a text of another form."""
        if not re.fullmatch(PATTERN, text):
            raise FgvcError(
                f"'{text}' names no conditions of a measurement",
                cure="write them like cpu-fp32-b8-t2 (device, precision, batch size, threads), cuda-bf16-b64",
            )
        device, precision, batch, *threads = text.split("-")
        return Conditions(
            device=device,
            precision=precision,
            batch_size=int(batch[1:]),
            threads=int(threads[0][1:]) if threads else None,
        )
