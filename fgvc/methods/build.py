"""Building models: by class (`create_model`, for use from Python) and by variant (for the verbs)."""

from __future__ import annotations

from typing import Any

from fgvc.backbones.weights import fits, load_into
from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.methods import Method, ModelSpec, method_class
from fgvc.methods.base import make_options


def create_model(
    method: str,
    *,
    backbone: str,
    num_classes: int,
    image_size: int = 224,
    weights: str | None = None,
    project: Project | None = None,
    stochastic_depth: float = 0.0,
    stochastic_depth_decay: str = "uniform",
    dropout: float = 0.0,
    position_resize: str = "timm",
    **options: Any,
) -> Method:
    """Build a method on a backbone.

    Args:
        method: method class, as `list_methods` names them.
        backbone: timm name.
        num_classes: K.
        image_size: S in pixels.
        weights: id in ``params/weights`` of fetched weights; None starts from scratch.
        project: where ``weights`` are looked up (default: the project around the working directory).
        options: the method's own options.

    Raises FgvcError (unknown method, backbone or option; size that does not fit; weights not fetched).

    Example:
        >>> model = create_model("vit", backbone="vit_pico_patch16_224", num_classes=21)
        >>> model(images).logits  # images [B, 3, 224, 224] → [B, 21]
    """
    cls = method_class(method)
    spec = ModelSpec(backbone, num_classes, image_size, stochastic_depth, stochastic_depth_decay, dropout)
    model = cls(spec, make_options(cls, options))
    if weights is not None:
        project = project or Project.find()
        if not fits(project.weights(weights), backbone):
            raise FgvcError(
                f"the weights '{weights}' fit {project.weights(weights).architecture}, not {backbone}",
                cure="fgvc list weights",
            )
        load_into(model.backbone, project, weights, position_resize)
    model.weights_loaded()
    return model


def build_variant(
    project: Project,
    name: str,
    image_size: int,
    num_classes: int,
    *,
    with_weights: bool,
    dataset: str | None = None,
) -> Method:
    """The model of a variant: class, options, regularisation and what trains as its YAML says.

    Args:
        dataset: id of the dataset it is for, whose own options and recipe count; None: those for all others.
        with_weights: load the variant's pre-trained weights (not needed when a checkpoint follows).
    """
    variant = project.variant(name)
    recipe = variant.recipe_on(dataset).resolved()
    try:
        model = create_model(
            variant.method,
            backbone=variant.backbone,
            num_classes=num_classes,
            image_size=image_size,
            weights=variant.weights if with_weights else None,
            project=project,
            stochastic_depth=recipe.stochastic_depth or 0.0,
            stochastic_depth_decay=recipe.stochastic_depth_decay,
            dropout=recipe.dropout or 0.0,
            position_resize=variant.position_resize,
            **variant.options_on(dataset),
        )
        model.set_trainable(variant.train)
        model.frozen_eval = variant.frozen_mode == "eval"
    except FgvcError as error:
        if error.file is None:
            error.file = project.paths.shown(project.file("method", name))
        raise
    return model
