"""``python -m benchmarks [NAME …]``: measure, print, and write ``benchmarks/results/NAME.json``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks import cal, glsim, memory, models, parts, petl, selection, simtrans, token_methods, training
from benchmarks.harness import Measurement
from fgvc.errors import FgvcError, UnknownNameError
from fgvc.provenance.machine import code_identity, host, package_versions

RESULTS = Path(__file__).parent / "results"
BENCHMARKS: dict[str, Callable[[], Iterator[Measurement]]] = {
    "models": models.run,
    "glsim": glsim.run,
    "cal": cal.run,
    "simtrans": simtrans.run,
    "training": training.run,
    "token_methods": token_methods.run,
    "parts": parts.run,
    "petl": petl.run,
    "selection": selection.run,
    "memory": memory.run,
}


def main(names: list[str]) -> None:
    """Run the named benchmarks (default: all)."""
    for name in names:
        if name not in BENCHMARKS:
            raise UnknownNameError("benchmark", name, BENCHMARKS)
    print(f"ratios of paired times, median (min–max); {torch.get_num_threads()} torch threads", flush=True)
    for name in names or BENCHMARKS:
        ratios = []
        for ratio in BENCHMARKS[name]():
            print(ratio.line(), flush=True)
            ratios.append(ratio.record())
        machine = host()
        record = {
            "benchmark": name,
            "ratios": ratios,
            "threads": torch.get_num_threads(),
            "processor": machine["processor"],
            "cores": machine["cores"],
            "packages": package_versions(),
            "commit": code_identity()["commit"],
        }
        (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except FgvcError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
