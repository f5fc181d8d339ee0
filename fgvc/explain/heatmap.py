"""Where a method sees a class: a map for each image and class that was asked for.

chou141253/FGVC-PIM at 348edd9 (heat.py) puts a constant in the place of the classifier, so that its map is
the same for every class; here the classifiers are read (`fgvc.methods.pim_heads.class_heat`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fgvc.config.project import Project
from fgvc.data.loading import ImageSet, Sample
from fgvc.data.splits import read_class_names
from fgvc.device import choose_device, prepare_process
from fgvc.errors import FgvcError, UnknownNameError
from fgvc.evaluation.predict import frozen_model, pipeline_of
from fgvc.methods import Method
from fgvc.provenance.files import read_json


def class_heat_map(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """How probable a class is at each place of each image.

    Args:
        images: [B, 3, S, S], normalised.
        classes: one class id for each image, [B].

    Returns [B, H, W] in 0…1 on the model's own grid. Raises FgvcError for a method that has no such map.
    """
    model.eval()
    with torch.inference_mode():
        heat = model.heat_map(images, classes) if isinstance(model, Method) else None
    if heat is None:
        raise FgvcError(
            f"the method '{getattr(model, 'name', type(model).__name__)}' cannot say where it sees a class",
            cure="it takes a method that classifies every place of an image: pim",
        )
    return heat


@dataclass(frozen=True)
class Heat:
    """A heat map of one image.

    Attributes:
        pixels: the image as the model sees it, [S, S, 3] in 0…1.
        heat: [H, W] in 0…1.
        class_name: of which class the map is.
        predicted: the name of the class that the model predicts, and ``probability`` what it gives it.
    """

    pixels: np.ndarray
    heat: np.ndarray
    class_name: str
    predicted: str
    probability: float


def heat_of_image(
    project: Project, directory: Path, image: str, class_name: str | None = None, device: str | None = None
) -> Heat:
    """The heat map of an image by the run in ``directory``.

    Args:
        image: a file, or the path of an image inside the run's dataset.
        class_name: None: the class that the model predicts.

    Raises FgvcError when there is no such run or image, the checkpoint is not the recorded one, the class is
    not known, or the method has no heat map.
    """
    record = read_json(directory / "run.json")
    names = read_class_names(project, record["dataset"])
    if class_name is not None and class_name not in names:
        raise UnknownNameError("class", class_name, names, key="--class")
    prepare_process(project.variant(record["method"]).recipe_on(record["dataset"]).threads)
    root, path = _place(project, record["dataset"], image)
    pipeline, mean, std = pipeline_of(project, record)
    item = ImageSet(root, [Sample(0, path)], pipeline, None)[0, 0]
    if isinstance(item, FgvcError):
        raise item
    chosen = choose_device(device or project.settings.device)
    model = frozen_model(project, directory, record).to(chosen).eval()
    inputs = item[0][None].to(chosen)
    with torch.inference_mode():
        probabilities = model(inputs).logits[0].float().softmax(dim=0)
    best = int(probabilities.argmax())
    shown = best if class_name is None else names.index(class_name)
    heat = class_heat_map(model, inputs, torch.tensor([shown], device=chosen))[0]
    pixels = item[0] * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    return Heat(
        pixels.clamp(0, 1).permute(1, 2, 0).numpy(),
        heat.float().cpu().numpy(),
        names[shown],
        names[best],
        float(probabilities[best]),
    )


def _place(project: Project, dataset: str, image: str) -> tuple[Path, str]:
    """The folder of an image, and its path in there."""
    file, folder = Path(image).expanduser(), project.paths.data_dir(dataset)
    if file.is_file():
        return file.parent, file.name
    if (folder / image).is_file():
        return folder, image
    raise FgvcError(
        "there is no such image",
        file=image,
        cure=f"give a file, or the path of an image below {project.paths.shown(folder)}",
    )
