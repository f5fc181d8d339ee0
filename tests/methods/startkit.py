"""Models that start from given tensors, as if these had been fetched."""

from __future__ import annotations

from collections.abc import Callable

import safetensors.torch
from torch import Tensor

from fgvc.backbones.convert import vit_npz_to_timm
from fgvc.backbones.weights import load_into
from fgvc.checkpoints.jeonsworld_vit import take_block
from fgvc.checkpoints.ledger import Ledger
from fgvc.config.project import Project
from fgvc.methods import Method
from fgvc.provenance.digests import file_sha256
from fgvc.provenance.files import write_json

ProjectFactory = Callable[..., Project]


def start_from(model: Method, state: dict[str, Tensor], project: Project) -> None:
    """Load tensors under timm's names through the registry of weights, and let the method set up the rest."""
    path = project.paths.weights("w")
    path.parent.mkdir(parents=True)
    safetensors.torch.save_file(state, path)
    write_json(project.paths.weights_record("w"), {"sha256": file_sha256(path)})
    load_into(model.backbone, project, "w", "zoom_linear")
    model.weights_loaded()


def npz_and_expected(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of an ``npz_…`` fixture: the arrays under timm's names, and what upstream made of them, likewise."""
    arrays = {n.removeprefix("npz."): t for n, t in tensors.items() if n.startswith("npz.")}
    ledger = Ledger({n.removeprefix("out.state."): t for n, t in tensors.items() if n.startswith("out.")})
    embeddings, layers = "transformer.embeddings.", "transformer.encoder.layer."
    expected = {
        "cls_token": ledger.take(f"{embeddings}cls_token"),
        "pos_embed": ledger.take(f"{embeddings}position_embeddings"),
        "patch_embed.proj.weight": ledger.take(f"{embeddings}patch_embeddings.weight"),
        "patch_embed.proj.bias": ledger.take(f"{embeddings}patch_embeddings.bias"),
    }
    for i in sorted({name.split(".")[3] for name in ledger.names(layers)}):
        expected |= {f"blocks.{i}.{n}": t for n, t in take_block(ledger, f"{layers}{i}.").items()}
    for name in ledger.names():
        expected[name.replace("transformer.encoder.part_norm", "norm")] = ledger.take(name)
    return vit_npz_to_timm(arrays), expected
