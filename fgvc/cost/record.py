"""The cost record of a method: MACs by three counts, parameters, passes, memory; no weights, no data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from fgvc.backbones.timm_models import parameter_count
from fgvc.config.project import Project
from fgvc.cost.closed_form import ClosedForm, closed_form
from fgvc.cost.dispatch import DispatchCount, count_dispatch
from fgvc.cost.tracing import TraceCount, count_fvcore
from fgvc.errors import FgvcError
from fgvc.methods import Method, registered
from fgvc.methods.build import build_variant, create_model
from fgvc.methods.checkpoints import saved_names
from fgvc.provenance.files import write_json
from fgvc.provenance.machine import package_versions

#: Independent counts agree when they differ by no more than this.
AGREEMENT_PCT = 1.0
#: As the models of ``params/`` have it; below it, most networks have no pixel left at their end.
MIN_IMAGE_SIZE = 16
_PACKAGES = ("torch", "timm", "fvcore")

UNITS = (
    "One image, inference. One MAC (multiply-accumulate) is two FLOPs; G is 10^9, M is 10^6, MiB is 2^20 "
    "bytes. macs_g and flops_g count convolutions, matrix products and attention; other_ops_g counts all "
    "other operations."
)
_ACTIVATIONS = (
    "activation_mib_estimate is the sum of what every computing operator of one forward pass writes in "
    "float32, at batch 1, without what is overwritten in place: an estimate of what training keeps for the "
    "backward pass"
)
_STATE = (
    "state_mib is the model's state (parameters and buffers) in float32; checkpoint_mib is what a checkpoint "
    "holds: of a frozen backbone, nothing that its weights file has"
)


@dataclass(frozen=True)
class CostTarget:
    """A model whose cost is asked for.

    Attributes:
        name: a variant id, or a method class when ``backbone`` is given.
        image_size: S in pixels.
        num_classes: K.
        backbone: timm name.
        options: options of the method class.

    Raises FgvcError for an impossible size or number of classes, and for options given with a variant.
    """

    project: Project
    name: str
    image_size: int
    num_classes: int
    backbone: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.image_size < MIN_IMAGE_SIZE:
            raise FgvcError(
                f"image size {self.image_size} is too small", cure=f"use at least {MIN_IMAGE_SIZE} pixels"
            )
        if self.num_classes < 1:
            raise FgvcError(f"{self.num_classes} classes are not possible", cure="use at least 1")
        if self.backbone is not None:
            return
        if self.name in registered() and self.name not in self.project.names("method"):
            raise FgvcError(
                f"'{self.name}' is a method class, no variant, and needs a backbone",
                cure=f"fgvc cost {self.name} --backbone NAME, or one of the variants (fgvc list methods)",
            )
        if self.options:
            raise FgvcError(
                f"the variant '{self.name}' has its own options",
                cure="give options with a method class and a backbone",
            )

    def build(self, device: str) -> Method:
        """The model with weights as initialised, on ``cpu`` or ``meta``.

        Raises FgvcError (unknown variant, class, backbone or option; a size that does not fit).
        """
        with torch.random.fork_rng(devices=[]), torch.device(device):
            torch.default_generator.manual_seed(0)  # for methods whose work depends on values
            if self.backbone is None:
                return build_variant(
                    self.project, self.name, self.image_size, self.num_classes, with_weights=False
                )
            return create_model(
                self.name,
                backbone=self.backbone,
                num_classes=self.num_classes,
                image_size=self.image_size,
                project=self.project,
                **self.options,
            )

    def checkpoint_names(self, model: Method) -> list[str]:
        """Names of the tensors of ``model`` that a checkpoint holds."""
        part = self.backbone is None and self.project.variant(self.name).keeps_own_part
        return saved_names(model, whole=not part)


def cost_record(
    project: Project,
    target: str,
    image_size: int,
    num_classes: int,
    backbone: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a method costs at one image size, as a JSON-like record with the same bytes each time.

    Args:
        target: a variant id, or a method class together with ``backbone``.
        image_size: S in pixels.
        num_classes: K.
        backbone: timm name, with a method class.
        options: the method class's options.

    Raises FgvcError (unknown variant, class, backbone or option; a size that does not fit).
    """
    asked = CostTarget(project, target, image_size, num_classes, backbone, options or {})
    dispatch = _dispatch_count(asked)
    model = asked.build("cpu")
    state = model.state_dict()
    trace, formula = count_fvcore(model, image_size), closed_form(model)
    difference_pct = _difference_pct(dispatch, trace, formula)
    return {
        "method": target,
        "method_class": model.name,
        "backbone": model.spec.backbone,
        "image_size": image_size,
        "classes": num_classes,
        "macs_g": _giga(dispatch.macs),
        "flops_g": _giga(2 * dispatch.macs),
        "params_m": parameter_count(model) / 1e6,
        "trainable_params_m": parameter_count(model, trainable_only=True) / 1e6,
        "forward_passes": model.forward_passes(),
        "training_passes": model.training_passes(),
        "selection_macs_g": _giga(model.selection_macs()),
        "other_ops_g": _giga(sum(dispatch.other_ops.values())),
        "other_ops_by_kind_g": {kind: _giga(count) for kind, count in dispatch.other_ops.items()},
        "state_mib": _mib(4 * sum(tensor.numel() for tensor in state.values())),
        "checkpoint_mib": _mib(4 * sum(state[name].numel() for name in asked.checkpoint_names(model))),
        "activation_mib_estimate": _mib(dispatch.activation_bytes),
        "peak_activation_mib_estimate": _mib(dispatch.peak_bytes),
        "counts": {
            "dispatch_macs_g": _giga(dispatch.macs),
            "dispatch_device": dispatch.device,
            "fvcore_macs_g": _giga(trace.macs),
            "closed_form_macs_g": None if formula.macs is None else _giga(formula.macs),
            "closed_form_reason": formula.reason,
        },
        "agreement_pct": round(difference_pct, 4),
        "agreement": _agreement(difference_pct, dispatch, trace, formula),
        "uncounted_ops": dict(dispatch.uncounted_ops),
        "fvcore_unsupported_ops": dict(trace.unsupported_ops),
        "units": UNITS,
        "notes": [_ACTIVATIONS, _STATE],
        "packages": _packages(),
    }


def write_cost(project: Project, method: str, image_size: int, num_classes: int) -> dict[str, Any]:
    """Write ``results/cost/M/S/C.json`` of a variant, whole or not at all, and return the record."""
    record = cost_record(project, method, image_size, num_classes)
    write_json(project.paths.cost(method, image_size, num_classes), record)
    return record


def quick_macs(
    project: Project,
    target: str,
    image_size: int,
    num_classes: int,
    backbone: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> int:
    """MACs (not GMACs) of one image's inference by the headline count alone, in a fraction of a second.

    Arguments and errors as of `cost_record`.
    """
    asked = CostTarget(project, target, image_size, num_classes, backbone, options or {})
    return _dispatch_count(asked).macs


def _dispatch_count(target: CostTarget) -> DispatchCount:
    """On the meta device; on the CPU where a method reads values of tensors, which meta tensors lack."""
    try:
        return count_dispatch(target.build("meta"), target.image_size)
    except (RuntimeError, AssertionError):
        model = target.build("cpu")
    try:
        return count_dispatch(model, target.image_size)
    except (RuntimeError, AssertionError) as error:  # timm asserts the size of its images
        raise FgvcError(
            f"'{target.name}' on '{model.spec.backbone}' cannot be run at image size {target.image_size}: "
            f"{str(error).splitlines()[0]}",
            cure="use a larger image size, or one that the backbone was made for",
        ) from error


def _counts(dispatch: DispatchCount, trace: TraceCount, formula: ClosedForm) -> dict[str, int]:
    counts = {"dispatch": dispatch.macs, "fvcore": trace.macs}
    return counts if formula.macs is None else {**counts, "closed form": formula.macs}


def _difference_pct(dispatch: DispatchCount, trace: TraceCount, formula: ClosedForm) -> float:
    """The largest difference between two of the counts, in percent of the headline count."""
    counts = _counts(dispatch, trace, formula).values()
    return 100 * (max(counts) - min(counts)) / max(dispatch.macs, 1)


def _agreement(difference_pct: float, dispatch: DispatchCount, trace: TraceCount, formula: ClosedForm) -> str:
    if difference_pct <= AGREEMENT_PCT:
        return f"within {AGREEMENT_PCT:g} %"
    counts = _counts(dispatch, trace, formula)
    text = f"the counts differ by {difference_pct:.2f} %: " + ", ".join(
        f"{name} {_giga(macs):.6g} GMACs" for name, macs in counts.items()
    )
    for counter, unknown in (("dispatch", dispatch.uncounted_ops), ("fvcore", trace.unsupported_ops)):
        if unknown:
            listed = ", ".join(f"{name} ×{calls}" for name, calls in unknown.items())
            text += f"; {counter} does not price: {listed}"
    return text


def _packages() -> dict[str, str]:
    """Versions without the build (``+cpu``), on which no count depends."""
    versions = package_versions()
    return {name: (versions[name] or "missing").partition("+")[0] for name in _PACKAGES}


def _giga(count: int) -> float:
    return count / 1e9


def _mib(size_bytes: int) -> float:
    return round(size_bytes / 2**20, 3)
