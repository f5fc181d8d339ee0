"""What a run is: the values that its numbers depend on, and their digest.

Two runs with the same identity give the same bytes on the same kind of machine; a run whose identity
differs is another experiment and never takes the place of the first.
"""

from __future__ import annotations

from typing import Any

from fgvc.config.project import Project
from fgvc.config.stages import version
from fgvc.provenance.digests import value_sha256


def recipe_identity(project: Project, dataset: str, method: str) -> dict[str, Any]:
    """Everything of ``params/`` that may change the numbers of a variant on a dataset.

    Titles, notes and sources are left out; presets are written out.
    """
    variant = project.variant(method)
    recipe = variant.recipe_on(dataset).resolved().identity()
    # The learning rate of a run is given by its own path (a search's candidate, or the choice).
    recipe.pop("learning_rate")
    # Only where something is frozen, so that the runs of all others keep their identity.
    frozen = {} if variant.train == "all" else {"frozen_mode": variant.frozen_mode}
    return {
        **frozen,
        "method": variant.method,
        "backbone": variant.backbone,
        "weights": variant.weights,
        "options": variant.options_on(dataset),
        "position_resize": variant.position_resize,
        "train": variant.train,
        "recipe": recipe,
        "dataset": project.dataset(dataset).numeric_facts(),
        "stage_version": version("train"),
    }


def recipe_sha256(project: Project, dataset: str, method: str) -> str:
    """Digest of `recipe_identity`; it stands among the params of the training rules."""
    return value_sha256(recipe_identity(project, dataset, method))
