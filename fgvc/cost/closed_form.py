"""The third count: the method's own formula, evaluated on its geometry."""

from __future__ import annotations

from dataclasses import dataclass

from fgvc.backbones.features import FeatureBackbone
from fgvc.methods import Method


@dataclass(frozen=True)
class ClosedForm:
    """MACs of one image's prediction on paper, or the reason why there is no number."""

    macs: int | None
    reason: str | None = None


def closed_form(model: Method) -> ClosedForm:
    """The formula of ``model`` (`Method.closed_form_macs`), or why it has none."""
    macs = model.closed_form_macs()
    if macs is not None:
        return ClosedForm(macs)
    if isinstance(model.backbone, FeatureBackbone):
        return ClosedForm(None, "products stand between this network's layers; the other two counts stand")
    return ClosedForm(None, f"the method '{model.name}' gives no formula for '{model.spec.backbone}'")
