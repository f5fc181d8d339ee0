"""Which run is meant: its ids, its inputs, its identity, and where its results go."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from fgvc.backbones.weights import read_record
from fgvc.config.identity import recipe_identity
from fgvc.config.project import Project
from fgvc.config.recipe import Recipe
from fgvc.data.loading import Sample
from fgvc.data.splits import read_split
from fgvc.data.transforms import Triple, normalisation
from fgvc.errors import FgvcError
from fgvc.provenance.digests import value_sha256
from fgvc.provenance.files import read_json

TrainSplit = Literal["train", "train_val"]


@dataclass(frozen=True)
class RunSpec:
    """One training run.

    Attributes:
        dataset, method: ids.
        image_size: S in pixels.
        seed: K.
        learning_rate: peak learning rate.
        split: ``train_val`` for final runs; ``train`` for a learning-rate search, evaluated on val.
    """

    project: Project
    dataset: str
    method: str
    image_size: int
    seed: int
    learning_rate: float
    split: TrainSplit = "train_val"

    def __post_init__(self) -> None:
        if self.split not in get_args(TrainSplit):
            raise FgvcError(
                f"nothing is trained on the split '{self.split}'",
                cure="train_val (final runs) or train (learning-rate search)",
            )
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise FgvcError(
                f"a learning rate of {self.learning_rate:g} is not possible",
                cure="give one above 0, such as 0.003",
            )

    @property
    def is_search(self) -> bool:
        return self.split == "train"

    @property
    def directory(self) -> Path:
        """Where the results go."""
        paths = self.project.paths
        if self.is_search:
            return paths.sweep_dir(self.dataset, self.method, self.image_size, self.learning_rate)
        return paths.run_dir(self.dataset, self.method, self.image_size, self.seed)

    @property
    def state_directory(self) -> Path:
        return self.project.paths.state_dir(self.directory)

    @property
    def label(self) -> str:
        """For logs: ``typefaces/vit_pico/224 seed 1``, or ``… lr 0.01 (search)``."""
        which = f"lr {self.learning_rate:g} (search)" if self.is_search else f"seed {self.seed}"
        return f"{self.dataset}/{self.method}/{self.image_size} {which}"

    @property
    def recipe(self) -> Recipe:
        return self.project.variant(self.method).recipe_on(self.dataset).resolved()

    @cached_property
    def split_record(self) -> dict[str, Any]:
        record: dict[str, Any] = read_json(
            self.project.paths.split_record(self.dataset), made_by=f"fgvc data split {self.dataset}"
        )
        return record

    @property
    def num_classes(self) -> int:
        return self.project.dataset(self.dataset).classes

    def samples(self, split: str) -> list[Sample]:
        """The rows of a prepared split list, in its order."""
        return [Sample(c, p) for c, p in read_split(self.project, self.dataset, split)]

    @cached_property
    def weights_record(self) -> dict[str, Any] | None:
        """The record of the pre-trained weights, None from scratch."""
        name = self.project.variant(self.method).weights
        return None if name is None else read_record(self.project, name)

    @property
    def frozen_backbone_sha256(self) -> str | None:
        """Digest of the weights file that checkpoints of this run lean on; None where they are whole."""
        record = self.weights_record
        return record["sha256"] if record and self.project.variant(self.method).keeps_own_part else None

    def mean_std(self) -> tuple[Triple, Triple]:
        """How inputs are normalised."""
        record = self.weights_record
        mean = tuple(record["mean"]) if record else None
        std = tuple(record["std"]) if record else None
        return normalisation(self.recipe, mean, std)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Every value that the numbers of this run depend on, data and weights included."""
        parts = self.split_record["parts"]
        return {
            **recipe_identity(self.project, self.dataset, self.method),
            "dataset_id": self.dataset,
            "tree_sha256": self.split_record["tree_sha256"],
            "split": self.split,
            # Of the file: the order of its rows decides the order of training.
            "split_sha256": parts[self.split]["file_sha256"],
            "num_classes": self.num_classes,
            "weights_sha256": self.weights_record["sha256"] if self.weights_record else None,
            "image_size": self.image_size,
            "seed": self.seed,
            "learning_rate": self.learning_rate,
        }

    @cached_property
    def sha256(self) -> str:
        """Digest of `identity`."""
        return value_sha256(self.identity)


def chosen_rate(project: Project, dataset: str, method: str, image_size: int) -> float:
    """The learning rate that the search chose for a cell.

    Raises FgvcError when there is no choice yet, naming what makes it.
    """
    path = project.paths.lr_choice(dataset, method, image_size)
    if not path.is_file():
        raise FgvcError(
            f"no learning rate was chosen for {dataset}/{method}/{image_size} yet",
            file=project.paths.shown(path),
            cure=f"give one with --lr, or let it be chosen:\n"
            f"snakemake --cores 1 -- {project.paths.shown(path)}",
        )
    return float(read_json(path)["learning_rate"])
