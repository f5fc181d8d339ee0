"""The contract of a method: what goes in, what comes out, what trains; and the registry of all methods."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fgvc.errors import FgvcError, UnknownNameError, available, nearest


@dataclass
class MethodOutput:
    """What a forward pass returns. Only ``logits`` is required.

    Attributes:
        logits: [B, K], the prediction that accuracy is measured on.
        aux_logits: further logits […, K] by name.
        embeddings: [B, D] by name, for metric losses.
        crops: [B, C, 3, S, S], image regions that the method looked at again.
        boxes: [B, C, 4], their (y0, x0, y1, x1) in pixels, half-open.
        masks: [B, N] scores over the patch grid by name.
        selected: indices of patches or tokens by name.
        grid: (h, w) of that grid.
        losses: scalars by name that need the model's own state.
    """

    logits: Tensor
    aux_logits: dict[str, Tensor] = field(default_factory=dict)
    embeddings: dict[str, Tensor] = field(default_factory=dict)
    crops: Tensor | None = None
    boxes: Tensor | None = None
    masks: dict[str, Tensor] = field(default_factory=dict)
    selected: dict[str, Tensor] = field(default_factory=dict)
    grid: tuple[int, int] | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSpec:
    """What every method is built from, besides its own options.

    Attributes:
        backbone: timm name.
        num_classes: K.
        image_size: S, in pixels.
        stochastic_depth, stochastic_depth_decay, dropout: as in the recipe.
        shape: timm's arguments for a backbone whose shape has no name (see `TokenBackbone`); no variant has
            them, foreign checkpoints may.
    """

    backbone: str
    num_classes: int
    image_size: int
    stochastic_depth: float = 0.0
    stochastic_depth_decay: str = "uniform"
    dropout: float = 0.0
    shape: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NoOptions:
    """For methods without options."""


class Method(nn.Module):
    """Base of all method classes.

    A subclass sets ``Options`` (a frozen dataclass), calls ``super().__init__(spec, options)``, makes
    ``self.backbone``, and defines `forward`; `loss` when cross-entropy on ``logits`` is not the whole story.
    """

    name: ClassVar[str]
    Options: ClassVar[type] = NoOptions
    #: True when the loss or the forward pass couples the images of a batch (see `batch_coupled`).
    couples_batch: ClassVar[bool] = False
    #: True when they meet in the forward pass already, and not in batch norms alone. The loss may couple them
    #: on several devices, which collect what it reads; a forward pass that does is refused there.
    couples_forward: ClassVar[bool] = False
    #: True when the method is a head on what one pass of its backbone gives (see `backbone_features`).
    is_head_on_features: ClassVar[bool] = False

    backbone: nn.Module
    #: Whether modules in which nothing trains stay in evaluation mode during training (no dropout, no
    #: stochastic depth in them), as VPT does; False: they train like the rest, as the ILA code base does.
    frozen_eval: bool = True

    def __init__(self, spec: ModelSpec, options: Any) -> None:
        super().__init__()
        self.spec = spec
        self.options = options
        #: Cross-entropy, smoothed when the recipe says so; takes class ids [B] or soft targets [B, K].
        self.classification_loss: nn.Module = nn.CrossEntropyLoss()

    def weights_loaded(self) -> None:
        """Called once the backbone holds the weights that it starts from, be they pre-trained or drawn.

        The place for parameters that start as a copy of the backbone's.
        """

    def begin_training(self, passes_per_epoch: int) -> None:
        """Called before the first training step, and again where a run is resumed, before its state is there.

        The place for what is counted in epochs; a pass is one forward and backward pass of a micro-batch.
        """

    def forward(self, images: Tensor) -> MethodOutput:
        """images [B, 3, S, S], normalised floats."""
        raise NotImplementedError

    def backbone_features(self, images: Tensor) -> Tensor:
        """All that the head reads of the backbone, [B, …]: `forward` is `from_features` of it.

        Raises NotImplementedError unless `is_head_on_features`.
        """
        raise NotImplementedError

    def from_features(self, features: Tensor) -> MethodOutput:
        """The prediction from what `backbone_features` gave.

        Raises NotImplementedError unless `is_head_on_features`.
        """
        raise NotImplementedError

    def loss(self, output: MethodOutput, targets: Tensor) -> dict[str, Tensor]:
        """Named loss terms and their ``total``.

        Args:
            targets: class ids [B] (int64) or soft targets [B, K].
        """
        terms = {"cross_entropy": self.classification_loss(output.logits, targets), **output.losses}
        return {**terms, "total": torch.stack(list(terms.values())).sum()}

    def head_logits(self, output: MethodOutput) -> dict[str, Tensor]:  # noqa: ARG002
        """Further predictions [B, K] by name, from what a forward pass returned; none by default.

        Evaluation scores them beside ``logits`` (``heads_top1_pct`` in metrics.json); no table shows them.
        They are no part of the forward pass, so that a prediction does not pay for them.
        """
        return {}

    def heat_map(self, images: Tensor, classes: Tensor) -> Tensor | None:  # noqa: ARG002
        """How probable one class [B] of each image is at each place, [B, h, w]; None: it cannot say."""
        return None

    def forward_passes(self) -> int:
        """How many times the backbone sees an image-sized input for one prediction."""
        return 1

    def training_passes(self) -> int:
        """How many times the backbone sees an image-sized input for one image of a training step."""
        return self.forward_passes()

    def closed_form_macs(self) -> int | None:
        """MACs of one image's prediction on paper (see `fgvc.backbones.closed_form`), or None: no formula."""
        return None

    def selection_macs(self) -> int:
        """MACs spent on choosing tokens or regions, a part of the whole; 0 where nothing is chosen."""
        return 0

    @property
    def batch_coupled(self) -> bool:
        """Whether an image's gradient depends on the rest of its batch (which then may not be split)."""
        if self.couples_batch or self.couples_forward:
            return True
        return any(isinstance(m, _BatchNorm) and norm_trains(m) for m in self.modules())

    def train(self, mode: bool = True) -> Self:
        """As in torch, but a batch norm whose parameters are frozen keeps its statistics, too.

        With `frozen_eval`, every module in which nothing trains stays in evaluation mode.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm) and not norm_trains(module):
                module.eval()
        if mode and self.frozen_eval:
            for module in frozen_modules(self):
                module.eval()
        return self

    def set_trainable(self, patterns: Iterable[str] | str) -> None:
        """Say what trains: ``"all"``, or shell-style patterns of parameter names.

        Raises FgvcError for a pattern that matches nothing.
        """
        chosen = ["*"] if patterns == "all" else list(patterns)
        names = [name for name, _ in self.named_parameters()]
        for pattern in chosen:
            if not fnmatch.filter(names, pattern):
                guess = nearest(pattern, names)
                raise FgvcError(
                    f"the pattern '{pattern}' in 'train' matches no parameter of {self.name}",
                    cure=(f"the nearest is '{guess}'; " if guess else "")
                    + "all of them: fgvc describe METHOD",
                )
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(any(fnmatch.fnmatchcase(name, p) for p in chosen))


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """The largest parts of a model that have parameters of which none trains."""
    found: list[nn.Module] = []
    for child in model.children():
        parameters = list(child.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            found.append(child)
        else:
            found += frozen_modules(child)
    return found


def norm_trains(norm: _BatchNorm) -> bool:
    """Whether a batch norm follows the images: it has parameters that train, or none at all."""
    own = list(norm.parameters(recurse=False))
    return not own or any(parameter.requires_grad for parameter in own)


_REGISTRY: dict[str, type[Method]] = {}


def register(cls: type[Method]) -> type[Method]:
    """Class decorator: make a method known under its ``name``."""
    if cls.name in _REGISTRY and _REGISTRY[cls.name] is not cls:
        raise ValueError(f"two methods are called '{cls.name}'")
    _REGISTRY[cls.name] = cls
    return cls


def registered() -> dict[str, type[Method]]:
    """All method classes by name (importing `fgvc.methods` registers them)."""
    return dict(sorted(_REGISTRY.items()))


def method_class(name: str) -> type[Method]:
    """The class called ``name``. Raises UnknownNameError with the nearest one."""
    try:
        return _REGISTRY[name]
    except KeyError:
        raise UnknownNameError("method class", name, _REGISTRY, listing="fgvc list classes") from None


def make_options(cls: type[Method], given: dict[str, Any]) -> Any:
    """The options dataclass of ``cls`` filled with ``given``.

    Raises FgvcError for an unknown option or a value that the dataclass refuses (ValueError).
    """
    known = [f.name for f in dataclasses.fields(cls.Options)]
    for key in given:
        if key not in known:
            guess = nearest(key, known)
            raise FgvcError(
                f"the method '{cls.name}' has no option '{key}'"
                + (f"; did you mean '{guess}'?" if guess else ""),
                key=f"options.{key}",
                cure=available("option", known, f"fgvc describe {cls.name}"),
            )
    try:
        return cls.Options(**given)
    except (TypeError, ValueError) as error:
        raise FgvcError(f"the options of '{cls.name}' are not possible: {error}", key="options") from None
