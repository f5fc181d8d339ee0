"""The training recipe: everything that may change the numbers of a run, and nothing else.

Augmentation presets follow the GLSim code base (configs/augs/*.yaml at 99cc474): each preset fixes label
smoothing, stochastic depth, erasing and mixing, unless the recipe names its own value.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from fgvc.config.base import Model

Augmentation = Literal["weak", "medium", "strong"]

#: What a preset implies for the keys that a recipe leaves at null.
PRESETS: dict[str, dict[str, float]] = {
    "weak": {"dropout": 0.1},
    "medium": {"label_smoothing": 0.1, "stochastic_depth": 0.1, "random_erasing": 0.3},
    "strong": {
        "label_smoothing": 0.1,
        "stochastic_depth": 0.1,
        "random_erasing": 0.3,
        "mixup_alpha": 1.0,
        "cutmix_alpha": 1.0,
        "mix_probability": 0.5,
    },
}
_PRESET_KEYS = (
    "label_smoothing",
    "stochastic_depth",
    "dropout",
    "random_erasing",
    "mixup_alpha",
    "cutmix_alpha",
    "mix_probability",
)


class Recipe(Model):
    """How a variant is trained. Keys left at null take the value of the augmentation preset."""

    epochs: int = Field(gt=0, le=10_000, description="passes over the training split")
    batch_size: int = Field(gt=0, le=65_536, description="images per forward pass")
    accumulate: int = Field(1, gt=0, description="forward passes per optimizer step")

    optimizer: Literal["sgd", "momentum", "adam", "adamw", "lamb"] = Field(
        "sgd", description="timm's name; 'sgd' has Nesterov momentum, 'momentum' has not"
    )
    learning_rate: float = Field(gt=0, le=100, description="used where no suite searches the learning rate")
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, le=10)
    clip_grad_norm: float | None = Field(1.0, gt=0, description="null: no clipping")

    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = Field(500, ge=0, description="linear warm-up, in optimizer steps")
    warmup_learning_rate: float = Field(1e-6, ge=0)
    min_learning_rate: float = Field(1e-5, ge=0)

    augmentation: Augmentation = "medium"
    resize_ratio: float = Field(1.34, ge=1, le=4, description="resized side over image size")
    normalisation: Literal["weights", "imagenet", "half"] = Field(
        "weights", description="mean and std: those of the weights, ImageNet's, or 0.5"
    )
    label_smoothing: float | None = Field(None, ge=0, lt=1)
    stochastic_depth: float | None = Field(None, ge=0, lt=1)
    stochastic_depth_decay: Literal["uniform", "linear"] = Field(
        "uniform", description="the same rate in each block, or growing from 0"
    )
    dropout: float | None = Field(None, ge=0, lt=1)
    random_erasing: float | None = Field(None, ge=0, le=1)
    mixup_alpha: float | None = Field(None, ge=0)
    cutmix_alpha: float | None = Field(None, ge=0)
    mix_probability: float | None = Field(None, ge=0, le=1)

    precision: Literal["fp32", "fp16", "bf16"] = Field(
        "fp32", description="automatic mixed precision when not fp32"
    )
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="evaluate an exponential moving average of the weights"
    )
    channels_last: bool = Field(False, description="memory format; faster for CNNs")
    threads: int = Field(1, gt=0, le=256, description="torch threads; byte-identity depends on their number")
    eval_batch_size: int = Field(32, gt=0)

    @model_validator(mode="after")
    def _possible(self) -> Recipe:
        if self.min_learning_rate > self.learning_rate:
            raise ValueError("min_learning_rate is larger than learning_rate")
        return self

    def resolved(self) -> Recipe:
        """The recipe with every preset value written out; what the digest is taken of."""
        preset = PRESETS[self.augmentation]
        filled: dict[str, Any] = {
            key: preset.get(key, 0.0) for key in _PRESET_KEYS if getattr(self, key) is None
        }
        # Dropout and stochastic depth replace one another in the presets.
        if filled.get("dropout") and (self.stochastic_depth or 0.0) > 0:
            filled["dropout"] = 0.0
        return self.model_copy(update=filled)
