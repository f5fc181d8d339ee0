"""Comparison with recorded outputs of original code (`shared/golden`), for every method that has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from torch import Tensor, nn

from fgvc.checkpoints import from_upstream

Record = Callable[[str, object], None]


@dataclass(frozen=True)
class Golden:
    facts: dict[str, Any]
    tensors: dict[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): t for n, t in self.tensors.items() if n.startswith(prefix)}


@pytest.fixture
def golden(shared: Path, request: pytest.FixtureRequest) -> Golden:
    file = shared / "golden" / f"{request.param}.safetensors"
    return Golden(json.loads(file.with_suffix(".json").read_text()), safetensors.torch.load_file(file))


def compare(got: dict[str, Tensor], golden: Golden, record_property: Record) -> None:
    """Every output of the fixture is there; floats within 1e-4 · max(1, max|ref|), integers exactly.

    Gradients, of which only CAL's fixture has some, within ten times as much, as its JSON says.
    """
    expected = golden.part("out.")
    assert set(expected) == set(golden.facts["outputs"])
    assert set(expected) - set(got) == set()
    wrong = {}
    for name, reference in expected.items():
        assert got[name].shape == reference.shape, name
        difference = (got[name].detach().double() - reference.double()).abs().max().item()
        share = 1e-3 if ".grad_" in name else 1e-4
        limit = share * max(1.0, reference.abs().max().item()) if reference.is_floating_point() else 0.0
        record_property(name, difference)
        print(f"{golden.facts['fixture']:20} {name:14} {difference:.2e} (limit {limit:.1e})")
        if not difference <= limit:
            wrong[name] = (difference, limit)
    assert wrong == {}


class Watch:
    """Keeps what modules put out (or take in), call by call."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Tensor]] = {}

    def outputs(self, name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _m, _in, out: self.seen.setdefault(name, []).append(out))

    def inputs(self, name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _m, given, _out: self.seen.setdefault(name, []).append(given[0]))


def trained_names(golden: Golden) -> set[str]:
    """Parameters of our model that hold what the fixture says its code trains.

    Found by changing just these tensors of the upstream state and looking where the change arrives, so that
    no table of names is repeated here.
    """
    method, config, state = golden.facts["method"], golden.facts["config"], golden.part("state.")
    trains = {name.removeprefix("model.") for name in golden.facts["trainable_names"]}
    assert trains <= set(state)
    changed = {name: tensor + 1 if name in trains else tensor for name, tensor in state.items()}
    before = dict(from_upstream(method, state, config).named_parameters())
    after = dict(from_upstream(method, changed, config).named_parameters())
    return {name for name, tensor in before.items() if not tensor.equal(after[name])}


def matching(model: nn.Module, patterns: list[str]) -> set[str]:
    """Parameters of a model that a variant's patterns (``train``) name."""
    names = [name for name, _ in model.named_parameters()]
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}
