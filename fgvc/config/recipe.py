"""The training recipe: everything that may change the numbers of a run, and nothing else.

Augmentation presets follow the GLSim code base (configs/augs/*.yaml at 99cc474): each preset fixes label
smoothing, stochastic depth, erasing and mixing, unless the recipe names its own value.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from fgvc.config.base import Model

Augmentation = Literal["none", "weak", "medium", "strong"]

#: What a preset implies for the keys that a recipe leaves at null.
PRESETS: dict[str, dict[str, float]] = {
    "none": {},
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


#: Keys that came after the first runs. Where they say nothing new they are no part of a run's identity, so
#: that the runs that were made without them stay what they are.
LATER_KEYS = (
    "samples_per_class",
    "learning_rate_factors",
    "warmup_epochs",
    "resize",
    "interpolation",
    "train_crop",
    "brightness_jitter",
    "contrast_jitter",
    "saturation_jitter",
    "blur_probability",
    "sharpen_probability",
    "frozen_features",
)
#: Of two keys that say the same in different units, a recipe's own replaces its base's.
_INSTEAD = {"warmup_epochs": "warmup_steps", "warmup_steps": "warmup_epochs"}


class Recipe(Model):
    """How a variant is trained. Keys left at null take the value of the augmentation preset."""

    epochs: int = Field(gt=0, le=10_000, description="passes over the training split")
    batch_size: int = Field(gt=0, le=65_536, description="images per forward pass")
    accumulate: int = Field(1, gt=0, description="forward passes per optimizer step")
    samples_per_class: int | None = Field(
        None,
        ge=2,
        description="K: each batch holds K images of each of batch_size / K classes; null: images are drawn "
        "one by one",
    )

    optimizer: Literal["sgd", "momentum", "adam", "adamw", "lamb"] = Field(
        "sgd", description="timm's name; 'sgd' has Nesterov momentum, 'momentum' has not"
    )
    learning_rate: float = Field(gt=0, le=100, description="used where no suite searches the learning rate")
    learning_rate_factors: dict[str, Annotated[float, Field(gt=0, le=10_000)]] = Field(
        default_factory=dict,
        description="by name pattern of parameters, such as 'backbone.*': what the learning rate of these is "
        "multiplied by, warm-up and end included; 1 where no pattern matches",
    )
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, le=10)
    clip_grad_norm: float | None = Field(1.0, gt=0, description="null: no clipping")

    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = Field(500, ge=0, description="linear warm-up, in optimizer steps")
    warmup_epochs: float | None = Field(
        None, ge=0, le=10_000, description="linear warm-up in epochs, in the place of warmup_steps"
    )
    warmup_learning_rate: float = Field(1e-6, ge=0)
    min_learning_rate: float = Field(1e-5, ge=0)

    augmentation: Augmentation = Field(
        "medium", description="none: training images are prepared as test images are"
    )
    resize_ratio: float = Field(1.34, ge=1, le=4, description="resized side over image size")
    resize: Literal["square", "short_side"] = Field(
        "square", description="short_side: images keep their shape, and the shorter side is resized"
    )
    interpolation: Literal["bicubic", "bilinear"] = Field("bicubic", description="of the resize")
    train_crop: Literal["random", "centre"] = Field(
        "random", description="which part of the resized image is trained on; the test takes the centre"
    )
    brightness_jitter: float = Field(
        0.0, ge=0, le=1, description="brightness times a factor from [1 - x, 1 + x], in training"
    )
    contrast_jitter: float = Field(0.0, ge=0, le=1, description="likewise")
    saturation_jitter: float = Field(0.0, ge=0, le=1, description="likewise")
    blur_probability: float = Field(
        0.0, ge=0, le=1, description="of a Gaussian blur in training: 5 x 5, sigma from [0.1, 5] pixels"
    )
    sharpen_probability: float = Field(0.0, ge=0, le=1, description="of sharpness 1.5 in training")
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
    frozen_features: Literal["each_step", "once"] = Field(
        "each_step",
        description="once: what a head reads of a frozen backbone is computed before the first step; refused "
        "where they would not be the same in each epoch",
    )
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="evaluate an exponential moving average of the weights"
    )
    channels_last: bool = Field(False, description="memory format; faster for CNNs")
    threads: int = Field(1, gt=0, le=256, description="torch threads; byte-identity depends on their number")
    eval_batch_size: int = Field(32, gt=0)

    @field_validator("samples_per_class")
    @classmethod
    def _makes_whole_classes(cls, images: int | None, others: ValidationInfo) -> int | None:
        batch = others.data.get("batch_size")
        if images is not None and batch is not None and (batch % images or batch < 2 * images):
            raise ValueError(
                f"a batch_size of {batch} cannot hold so many images of each of two classes or more"
            )
        return images

    @field_validator("train_crop")
    @classmethod
    def _crops_once(cls, crop: str, others: ValidationInfo) -> str:
        if crop == "centre" and others.data.get("augmentation") == "strong":
            raise ValueError("'strong' augmentation crops in a way of its own")
        return crop

    @model_validator(mode="after")
    def _possible(self) -> Recipe:
        if self.min_learning_rate > self.learning_rate:
            raise ValueError("min_learning_rate is larger than learning_rate")
        if self.warmup_epochs is not None and "warmup_steps" in self.model_fields_set:
            raise ValueError("both warmup_steps and warmup_epochs are given; remove one")
        return self

    def warmup(self, total_steps: int) -> int:
        """Optimizer steps of warm-up in a run of ``total_steps``."""
        if self.warmup_epochs is None:
            return self.warmup_steps
        return round(self.warmup_epochs * total_steps / self.epochs)

    def overridden(self, own: dict[str, Any]) -> dict[str, Any]:
        """The keys that this recipe sets, those in ``own`` with their values there; still to be validated."""
        replaced = {_INSTEAD[key] for key, value in own.items() if key in _INSTEAD and value is not None}
        base = self.model_dump(exclude_unset=True)
        return {key: value for key, value in base.items() if key not in replaced} | own

    def identity(self) -> dict[str, Any]:
        """Every value of a resolved recipe that a run's numbers may depend on."""
        fields = type(self).model_fields
        return {
            key: value
            for key, value in self.model_dump().items()
            if key not in LATER_KEYS or value != fields[key].get_default(call_default_factory=True)
        }

    def resolved(self) -> Recipe:
        """The recipe with every preset value written out; what the digest is taken of."""
        preset = PRESETS[self.augmentation]
        filled: dict[str, Any] = {
            key: preset.get(key, 0.0) for key in _PRESET_KEYS if getattr(self, key) is None
        }
        if self.warmup_epochs is not None:
            filled["warmup_steps"] = 0
        # Dropout and stochastic depth replace one another in the presets.
        if filled.get("dropout") and (self.stochastic_depth or 0.0) > 0:
            filled["dropout"] = 0.0
        return self.model_copy(update=filled)
