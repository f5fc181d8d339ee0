"""A method variant (``params/methods/M.yaml``) and the weights it starts from (``params/weights/B.yaml``)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fgvc.config.base import Model
from fgvc.config.recipe import Recipe


class Variant(Model):
    """What a variant id means: class, backbone, options, recipe and what trains.

    ``recipe`` may name a base in ``params/recipes/`` (key ``base``); the keys beside it override the base.
    """

    method: str = Field(description="method class, as in `fgvc list methods`")
    title: str = Field(description="column heading, the method's name in the field")
    group: str = Field(description="group heading in tables, such as CNN-based or ViT-based")
    backbone: str = Field(description="timm model name, or one of ours")
    backbone_title: str = Field(description="the backbone as column headings name it")
    weights: str | None = Field(description="id in params/weights, or null: from scratch")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the method class")
    dataset_options: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="by dataset id: options that are otherwise on this dataset"
    )
    position_resize: Literal["timm", "zoom_linear"] = Field(
        "timm", description="how a position embedding of another size is resized"
    )
    train: list[str] | Literal["all"] = Field("all", description="name patterns of the parameters that train")
    frozen_mode: Literal["eval", "train"] = Field(
        "eval", description="mode, during training, of the parts of the model in which nothing trains"
    )
    recipe: Recipe
    dataset_recipe: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="by dataset id: keys of the recipe that are otherwise on this dataset",
    )
    source: str = Field(description="where the recipe comes from: paper, code at a commit, or ours")
    notes: str | None = None

    @property
    def keeps_own_part(self) -> bool:
        """Whether a checkpoint leaves out the frozen backbone, which its weights file has."""
        return self.train != "all" and self.weights is not None

    @property
    def has_vit(self) -> bool:
        """Whether its backbone is a ViT, by timm's name for it: no model is built."""
        return self.backbone.startswith(("vit_", "deit"))

    def options_on(self, dataset: str | None) -> dict[str, Any]:
        """Options of the method class on a dataset (None: on none in particular)."""
        return self.options | self.dataset_options.get(dataset or "", {})

    def recipe_on(self, dataset: str | None) -> Recipe:
        """The recipe on a dataset (None: on none in particular)."""
        own = self.dataset_recipe.get(dataset or "")
        if not own:
            return self.recipe
        return Recipe.model_validate(self.recipe.overridden(own))


class UrlSource(Model):
    """A file on the network (or, under its name, in a mirror)."""

    kind: Literal["url"]
    url: str = Field(pattern=r"^https?://")
    other_urls: list[Annotated[str, Field(pattern=r"^https?://")]] = Field(
        default_factory=list, description="asked next, in order; they hold the same bytes"
    )
    file: str = Field(
        pattern=r"^[\w-]+(\.[\w-]+)*$", description="file name, also below the mirror's weights/ folder"
    )
    bytes: int | None = Field(None, gt=0)
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{8,64}$", description="whole or first digits")
    md5: str | None = Field(None, pattern=r"^[0-9a-f]{6,32}$", description="whole or first digits")


class PackageSource(Model):
    """A file inside a Python package from PyPI."""

    kind: Literal["package"]
    package: str = Field(description="distribution name on PyPI")
    module: str
    file: str = Field(description="path inside the module's folder")
    bytes: int | None = Field(None, gt=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class ShippedSource(Model):
    """A file that this project made and carries, below ``params/weights``; no network is needed."""

    kind: Literal["shipped"]
    file: str = Field(
        pattern=r"^[\w-]+(\.[\w-]+)*(/[\w-]+(\.[\w-]+)*)*$", description="path below params/weights"
    )
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Weights(Model):
    """Pre-trained weights: where they come from, how they are read, and how their inputs are normalised."""

    title: str
    architecture: str = Field(description="timm model name, or one of ours")
    source: Annotated[UrlSource | PackageSource | ShippedSource, Field(discriminator="kind")]
    format: Literal["vit_npz", "timm", "dinov2", "swin", "ordered"] = Field(
        description="vit_npz: original JAX ViT; timm: timm's names; dinov2, swin: their authors' names; "
        "ordered: same tensors, other names"
    )
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pretraining: list[str] = Field(description="image sets they saw, for overlap warnings")
    licence: str
    citation: str
    unverified: list[str] = Field(
        default_factory=list, description="facts that nobody verified; told whenever they are fetched"
    )
    notes: str | None = None

    @model_validator(mode="after")
    def _vouched_for(self) -> Weights:
        source = self.source
        if isinstance(source, UrlSource) and not (source.sha256 or source.md5 or self.unverified):
            raise ValueError(
                "a digest is needed (sha256 or md5, at least their first digits); where none is known, "
                "'unverified' must say so, and the first fetch is trusted"
            )
        return self
