"""What ``fgvc pretrain`` does, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FaceRecipe:
    """The recipe of the shipped weights; every number that the result depends on besides the faces.

    Attributes:
        renders: pictures of text drawn of each face, ``held_out`` of them never trained on.
        side_px: side that a picture is resized to: what fine-tuning at 224 resizes to (1.34 · 224), so that
            letters have the same size in patches.
        crop_px: side of the random crop that is trained on: 49 tokens, a fifth of the cost of 224.
        epochs: one crop of each training picture makes an epoch.
        learning_rate: peak of AdamW, for embeddings, norms and classifiers.
        matrix_learning_rate: peak of Muon, for the matrices of the blocks: on 64 faces it learnt in 160 steps
            what AdamW alone had not in 200 (15 against 6 % of training crops).
        warmup_share: share of the steps in which the learning rate rises (half a cosine up, half down).
    """

    architecture: str = "vit_pico_patch16_224"
    renders: int = 60
    held_out: int = 6
    side_px: int = 300
    crop_px: int = 112
    epochs: int = 40
    batch_size: int = 128
    learning_rate: float = 1.5e-3
    matrix_learning_rate: float = 0.02
    warmup_share: float = 0.1
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    clip_grad_norm: float = 1.0
    seed: int = 1
    threads: int = 2


#: Name of the result in ``params/weights``.
WEIGHTS = "vit_pico_patch16_224.debian_faces"
