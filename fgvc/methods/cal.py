"""CAL: attention maps that are taught to be better than random ones, and looks at what they attend to.

Source: Rao et al., Counterfactual Attention Learning for Fine-Grained Visual Categorization and
Re-identification, ICCV 2021, arXiv 2108.08728; code raoyongming/CAL at 0ba9d50 (``models/cal.py``,
``utils.py``, ``train_distributed.py``, ``infer.py``), which follows WS-DAN; on a ViT after
arkel23/FGIR-Backbones at 61dc269 and arkel23/DownSamplingInterLayerAdapter at 9b2248c. Written from a
description of what that code computes, and compared with CAL's outputs (tests/methods/test_golden_cal.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fgvc.backbones.tokens import TokenBackbone
from fgvc.methods.attention_crop import attention_crops, attention_drops
from fgvc.methods.base import Method, MethodOutput, ModelSpec, register
from fgvc.methods.bilinear import (
    CENTER_DTYPES,
    AttentionMaps,
    Centers,
    at_least_single,
    bilinear_pool,
    uniform_pool,
)
from fgvc.methods.heads import HeadInit, check_choice
from fgvc.methods.map_backbone import check_output_stride, feature_maps, map_backbone, map_macs

Range = tuple[float, float]


@dataclass(frozen=True)
class EvalMode:
    """What is looked at for a prediction.

    Attributes:
        crops: (threshold as a share of the map's maximum, padding as a share of the side) of each crop.
        mirrored: whether all of it is done with the mirrored image as well.
    """

    crops: tuple[tuple[float, float], ...]
    mirrored: bool

    @property
    def passes(self) -> int:
        return (1 + len(self.crops)) * (2 if self.mirrored else 1)


#: ``none1`` is CAL-NC of FGIR-Backbones, ``single2`` upstream's validation during training, ``multi8`` its
#: test (infer.py), which the paper's numbers are from. The digit is the number of passes.
EVAL_MODES = {
    "none1": EvalMode((), mirrored=False),
    "single2": EvalMode(((0.1, 0.05),), mirrored=False),
    "multi8": EvalMode(((0.3, 0.1), (0.2, 0.1), (0.1, 0.05)), mirrored=True),
}


@dataclass(frozen=True)
class CALOptions:
    """Options of `CAL`; the defaults are those of the code at 0ba9d50.

    Attributes:
        eval_mode: one of `EVAL_MODES`.
        num_attentions: M.
        attention_norm_eps: eps of the batch norm that the maps go through.
        output_stride: pixels of the image a side for one cell of the feature map: 16 takes the stride out of
            a ResNet's last stage, 32 keeps it. None: 16 for a ResNet, any other network's own.
        crop_share, drop_share: in training, the range that thresholds are drawn from, as shares of the map's
            maximum.
        crop_padding: in training, around a crop's box, as a share of the image's side.
        feature_scale: what features of length 1 are multiplied with before the classifier (of WS-DAN).
        raw_weight, aug_weight, effect_weight, center_weight: of the terms of the loss (see `CAL.loss`).
        center_rate: β, how fast the centres move.
        cls_token: False: a ViT sees its patches alone. Either way the feature map is the patches.
        norm_eps: eps of a ViT's norms; None: the backbone's. GLSim's and ILA's code bases have 1e-12.
        centers: how they are kept: ``float32``, ``float16``, or ``none``: no centre loss (their K·M·C numbers
            are 1.3 GB in float32 for iNat17's classes on a ResNet-101).
        head_init: torch's ``default``, ``zeros``, or ``xavier`` (ILA code base).
    """

    eval_mode: str = "multi8"
    num_attentions: int = 32
    attention_norm_eps: float = 1e-3
    output_stride: int | None = None
    crop_share: Range = (0.4, 0.6)
    crop_padding: float = 0.1
    drop_share: Range = (0.2, 0.5)
    feature_scale: float = 100.0
    raw_weight: float = 1 / 3
    aug_weight: float = 2 / 3
    effect_weight: float = 1.0
    center_weight: float = 1.0
    center_rate: float = 0.05
    centers: str = "float32"
    cls_token: bool = True
    norm_eps: float | None = None
    head_init: HeadInit = "default"

    def __post_init__(self) -> None:
        check_choice("eval_mode", self.eval_mode, tuple(EVAL_MODES))
        check_choice("centers", self.centers, (*CENTER_DTYPES, "none"))
        check_choice("head_init", self.head_init, ("default", "zeros", "xavier"))
        if self.num_attentions < 1:
            raise ValueError(f"num_attentions={self.num_attentions}; at least one map is needed")
        check_output_stride(self.output_stride)
        for name in ("crop_share", "drop_share"):
            low, high = getattr(self, name)
            if not 0 <= low <= high <= 1:
                raise ValueError(f"{name}=[{low}, {high}] is no range of shares between 0 and 1")
        if not 0 <= self.crop_padding < 1:
            raise ValueError(f"crop_padding={self.crop_padding} is no share of the side between 0 and 1")


class TrainingDraws:
    """All that a training step draws, from torch's generator (which the engine seeds step by step).

    `CAL.draws` holds one; the comparison with recorded steps puts another in its place.
    """

    def maps(self, attention: Tensor) -> Tensor:
        """Indices [B, 2] of the map to crop by and the map to drop, with replacement.

        A map of [B, M, h, w] is drawn with probability ∝ √(its sum + 1e-6). Through the running sum and not
        torch's multinomial, which stops with an error where the maps of a diverged run are not finite.
        """
        edges = (attention.float().sum(dim=(2, 3)) + 1e-6).sqrt().cumsum(dim=1)
        places = torch.rand(len(edges), 2, device=edges.device) * edges[:, -1:]
        drawn = torch.searchsorted(edges, places, right=True)
        return drawn.clamp(max=edges.shape[1] - 1)  # when the product rounds up to the last edge

    def shares(self, images: Tensor, bounds: Range) -> Tensor:
        """One threshold for each image, [B]."""
        low, high = bounds
        return low + (high - low) * torch.rand(len(images), device=images.device)

    def counterfactual(self, attention: Tensor) -> Tensor:
        """Maps of the same shape, uniform in [0, 2)."""
        return 2 * torch.rand_like(attention)


@dataclass(frozen=True)
class _Look:
    """One pass: logits and effect [B, K], pooled features [B, M·C], attention [B, M, h, w]."""

    logits: Tensor
    effect: Tensor
    pooled: Tensor
    attention: Tensor


@register
class CAL(Method):
    """Bilinear attention pooling, with attention that must predict better than a random one does.

    The prediction ``logits`` is p = W·(100·f) over pooled features f, averaged over what ``eval_mode`` looks
    at; in training it is that of the whole image. The effect p − W·(100·f̄), with f̄ pooled under random maps
    (in evaluation: maps that are 1 everywhere), is trained to tell the class as well; it predicts nothing.

    Outputs besides the logits: ``aux_logits``: ``raw`` [B, K] of the whole image, ``effect`` ([B, K] in
    evaluation, averaged as the logits are; [3B, K] in training: image, crop, drop), in training ``aug``
    [2B, K] (crops, then drops); ``embeddings["pooled"]`` [B, M·C] (index m·C + c) of the whole image;
    ``crops``, ``boxes`` (of ``multi8`` three of the image, then three of the mirrored image, whose boxes are
    given in the pixels of the image as it came in); ``masks``: ``attention`` and ``attention_max``, mean and
    maximum over the M maps.

    Args:
        backbone: takes the place of ``spec.backbone``: a module [B, 3, S, S] → [B, C, h, w] with ``width`` C,
            for checkpoints of networks that timm lacks.
    """

    name = "cal"
    Options = CALOptions
    options: CALOptions

    def __init__(self, spec: ModelSpec, options: CALOptions, backbone: nn.Module | None = None) -> None:
        super().__init__(spec, options)
        if backbone is None:
            backbone = map_backbone(
                spec, options.output_stride, cls_token=options.cls_token, norm_eps=options.norm_eps
            )
        self.backbone = backbone
        self.width = int(self.backbone.width)  # type: ignore[arg-type]
        pooled_width = options.num_attentions * self.width
        self.draws = TrainingDraws()
        self.attentions = AttentionMaps(self.width, options.num_attentions, options.attention_norm_eps)
        self.centers = (
            None
            if options.centers == "none"
            else Centers(spec.num_classes, pooled_width, options.center_rate, options.centers)
        )
        # A ViT drops inside of its blocks.
        self.dropout = nn.Dropout(0.0 if isinstance(self.backbone, TokenBackbone) else spec.dropout)
        self.fc = nn.Linear(pooled_width, spec.num_classes, bias=False)
        if options.head_init == "zeros":
            nn.init.zeros_(self.fc.weight)
        elif options.head_init == "xavier":
            nn.init.xavier_uniform_(self.fc.weight)

    @property
    def batch_coupled(self) -> bool:
        """A step of the centres is one over all images of a class in the batch."""
        return super().batch_coupled or self.centers is not None

    def forward(self, images: Tensor) -> MethodOutput:
        return self._train_step(images) if self.training else self._predict(images)

    # --- one look ---------------------------------------------------------------------------------
    def feature_maps(self, images: Tensor) -> Tensor:
        """The last feature map [B, C, h, w]; of a ViT, its patch tokens in their places.

        Raises FgvcError when the network has no feature maps of this form.
        """
        return feature_maps(self.backbone, images, self.spec.backbone)

    def _look(self, images: Tensor) -> _Look:
        features = self.feature_maps(images)
        attention = at_least_single(self.attentions(features))
        pooled = bilinear_pool(features, attention)
        logits = self._classify(pooled)
        if self.training:
            counterfactual = bilinear_pool(features, self.draws.counterfactual(attention))
        else:
            counterfactual = uniform_pool(features, self.options.num_attentions)
        return _Look(logits, logits - self._classify(counterfactual), pooled, attention)

    def _classify(self, pooled: Tensor) -> Tensor:
        return self.fc(self.dropout(self.options.feature_scale * pooled))  # type: ignore[no-any-return]

    # --- training ---------------------------------------------------------------------------------
    def _train_step(self, images: Tensor) -> MethodOutput:
        """The image, and then what one drawn map attends to and the image without what another does."""
        options, draws = self.options, self.draws
        first = self._look(images)
        with torch.no_grad():
            chosen = draws.maps(first.attention)
            maps = first.attention.gather(
                1, chosen[:, :, None, None].expand(-1, -1, *first.attention.shape[2:])
            )
            crop_share = draws.shares(images, options.crop_share)
            crops, boxes = attention_crops(images, maps[:, 0], crop_share, options.crop_padding)
            drops = attention_drops(images, maps[:, 1], draws.shares(images, options.drop_share))
        again = self._look(torch.cat([crops, drops]))
        return MethodOutput(
            logits=first.logits,
            aux_logits={
                "raw": first.logits,
                "aug": again.logits,
                "effect": torch.cat([first.effect, again.effect]),
            },
            embeddings={"pooled": first.pooled},
            crops=crops[:, None],
            boxes=boxes[:, None],
            **_masks(first.attention),
        )

    def loss(self, output: MethodOutput, targets: Tensor) -> dict[str, Tensor]:
        """CE(p)/3 + CE(p_aug)·2/3 + CE(p_effect) + the centre loss, each CE a mean over its B, 2B or 3B rows.

        The centres move here, where the classes are known; for soft targets the largest is the class. An
        output of evaluation has neither crops nor drops to be right about: then cross-entropy on its logits.
        """
        if "aug" not in output.aux_logits:
            return super().loss(output, targets)
        options = self.options
        terms = {
            name: weight
            * self.classification_loss(logits, torch.cat([targets] * (len(logits) // len(targets))))
            for name, weight, logits in (
                ("raw", options.raw_weight, output.aux_logits["raw"]),
                ("aug", options.aug_weight, output.aux_logits["aug"]),
                ("effect", options.effect_weight, output.aux_logits["effect"]),
            )
        }
        if self.centers is not None:
            classes = targets if targets.ndim == 1 else targets.argmax(dim=1)
            terms["center"] = options.center_weight * self.centers(output.embeddings["pooled"], classes)
        return {**terms, "total": torch.stack(list(terms.values())).sum()}

    # --- evaluation -------------------------------------------------------------------------------
    def _predict(self, images: Tensor) -> MethodOutput:
        """The mean over the image, its crops and, with a mirror, the same of the mirrored image."""
        mode, count = EVAL_MODES[self.options.eval_mode], len(images)
        views = torch.cat([images, images.flip(-1)]) if mode.mirrored else images
        first = self._look(views)
        looks, crops, boxes = [first], [], []
        for share, padding in mode.crops:
            region, box = attention_crops(views, first.attention.mean(dim=1), share, padding)
            looks.append(self._look(region))
            crops.append(region)
            boxes.append(box)
        return MethodOutput(
            logits=_average([look.logits for look in looks], count),
            aux_logits={
                "raw": first.logits[:count],
                "effect": _average([look.effect for look in looks], count),
            },
            embeddings={"pooled": first.pooled[:count]},
            crops=_beside(torch.stack(crops, dim=1), count) if crops else None,
            boxes=_beside(_unmirrored(torch.stack(boxes, dim=1), count, images.shape[-1]), count)
            if boxes
            else None,
            **_masks(first.attention[:count]),
        )

    # --- cost -------------------------------------------------------------------------------------
    def forward_passes(self) -> int:
        return EVAL_MODES[self.options.eval_mode].passes

    def training_passes(self) -> int:
        """The image, the crop and the drop, whatever evaluation looks at."""
        return 3

    def closed_form_macs(self) -> int | None:
        """Each pass: the network, the maps' convolution, the pooling, and the classifier on f and on f̄."""
        one, cells = map_macs(self.backbone, self.spec.image_size)
        if one is None:
            return None
        pooled = self.options.num_attentions * self.width
        one += 2 * pooled * cells + 2 * pooled * self.fc.out_features
        return self.forward_passes() * one


def _masks(attention: Tensor) -> dict[str, Any]:
    """The fields of a `MethodOutput` for maps [B, M, h, w]."""
    maps = attention.detach().flatten(2)
    return {
        "masks": {"attention": maps.mean(dim=1), "attention_max": maps.amax(dim=1)},
        "grid": (attention.shape[2], attention.shape[3]),
    }


def _average(logits: list[Tensor], count: int) -> Tensor:
    """The mean over all looks; each is [V·B, K], image by image and mirrored image by mirrored image."""
    mean = torch.stack(logits).mean(dim=0)
    return mean.reshape(-1, count, mean.shape[1]).mean(dim=0)


def _beside(regions: Tensor, count: int) -> Tensor:
    """[V·B, C, …] → [B, V·C, …]."""
    return torch.cat(torch.split(regions, count), dim=1)


def _unmirrored(boxes: Tensor, count: int, width: int) -> Tensor:
    """Boxes [V·B, C, 4]: those after the first ``count``, of mirrored images, in the pixels of the images."""
    y0, x0, y1, x1 = boxes[count:].unbind(-1)
    return torch.cat([boxes[:count], torch.stack([y0, width - x1, y1, width - x0], dim=-1)])
