"""How many parameters train, counted from the models themselves: no weights, no data, no cost record."""

from __future__ import annotations

from collections.abc import Sequence

from fgvc.backbones.timm_models import parameter_count
from fgvc.config.project import Project
from fgvc.cost.record import CostTarget


def trainable_by_dataset(
    project: Project, method: str, image_size: int, datasets: Sequence[str]
) -> dict[str, int]:
    """The parameters that a variant trains on each of some datasets, whose heads differ by their classes.

    Models are built on the meta device, one a number of classes: a fraction of a second each.

    Args:
        image_size: S in pixels; where position embeddings train, their number depends on it.

    Raises FgvcError (unknown variant; a size that does not fit).
    """
    classes = {dataset: project.dataset(dataset).classes for dataset in datasets}
    counts = {
        k: parameter_count(CostTarget(project, method, image_size, k).build("meta"), trainable_only=True)
        for k in sorted(set(classes.values()))
    }
    return {dataset: counts[k] for dataset, k in classes.items()}
