"""The token interface: any timm ViT as a sequence of tokens, whatever its patches, registers and prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import PatchEmbed, trunc_normal_
from timm.models import VisionTransformer
from torch import Tensor, nn

from fgvc.backbones.timm_models import build_timm, set_norm_eps, set_uniform_stochastic_depth
from fgvc.errors import FgvcError


def is_vit(backbone: str) -> bool:
    """Whether `TokenBackbone` takes this timm model. Raises UnknownNameError for a name that timm lacks."""
    with torch.device("meta"):
        return isinstance(build_timm(backbone), VisionTransformer)


class TokenBackbone(nn.Module):
    """A timm ViT without its classifier.

    A sequence has S = ``num_prefix`` + N tokens: the CLS token (if the model has one), the registers, then
    the N = h·w patches in row-major order. D is ``width``.

    Args:
        backbone: timm name of a ViT (CLS token, registers, any patch size: DeiT, DINOv2 …).
        image_size: side of the square input in pixels; a multiple of the patch size, unless patches overlap.
        patch_stride: pixels from one patch to the next; None: the patch size. Smaller ones overlap (TransFG,
            §3.1): ⌊(S - P) / stride⌋ + 1 patches a side, and the last pixels may belong to none.
        stochastic_depth: drop rate of residual branches.
        stochastic_depth_decay: ``uniform`` (the same in each block) or ``linear`` (timm's, from 0).
        dropout: rate after the attention projection and after the MLP.
        norm_eps: eps of all norms; None: the model's own.
        final_norm: False: tokens stay as the last block leaves them.
        with_cls: False: the sequence goes without the CLS token that the model has, and without its position;
            the last norm stays where it is (the ILA code base, for heads on patches).
        shape: timm's arguments (``embed_dim``, ``depth``, ``num_heads`` …) for a ViT whose shape has no name.

    Raises FgvcError when the model is no ViT or the size does not fit its patches.
    """

    def __init__(
        self,
        backbone: str,
        image_size: int,
        *,
        patch_stride: int | None = None,
        stochastic_depth: float = 0.0,
        stochastic_depth_decay: str = "uniform",
        dropout: float = 0.0,
        norm_eps: float | None = None,
        final_norm: bool = True,
        with_cls: bool = True,
        shape: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        shape = dict(shape or {})
        with torch.device("meta"):
            plan = build_timm(backbone, **shape)
        patch = getattr(getattr(plan, "patch_embed", None), "patch_size", None)
        #: Whether pre-trained weights hold a CLS token that this sequence goes without.
        self.leaves_out_cls = not with_cls and getattr(plan, "cls_token", None) is not None
        if self.leaves_out_cls:  # timm would else look for the token, or for a norm behind its mean pooling
            shape |= {"class_token": False, "global_pool": "avg", "fc_norm": False}
        if patch is None:
            raise FgvcError(
                f"the backbone '{backbone}' is not a ViT",
                cure="use a ViT backbone, or the method class 'cnn'",
            )
        stride = patch[0] if patch_stride is None else patch_stride
        _check_stride(backbone, image_size, patch[0], stride)
        if stride == patch[0] and image_size % stride:
            raise FgvcError(
                f"image size {image_size} is not a multiple of the patch size {patch[0]} of '{backbone}'",
                cure=f"use {image_size // patch[0] * patch[0]} or {(image_size // patch[0] + 1) * patch[0]}",
            )
        vit = build_timm(
            backbone,
            img_size=image_size,
            drop_path_rate=stochastic_depth,
            proj_drop_rate=dropout,
            **shape,
        )
        if not isinstance(vit, VisionTransformer):
            raise FgvcError(
                f"the backbone '{backbone}' is not a plain ViT",
                cure="use a timm name that begins with vit_ or deit_",
            )
        if stochastic_depth_decay == "uniform":
            set_uniform_stochastic_depth(vit, stochastic_depth)
        if not final_norm:
            vit.norm = vit.fc_norm = nn.Identity()
        if norm_eps is not None:
            set_norm_eps(vit, norm_eps)
        vit.attn_pool = None  # a pooling head with weights of its own (SigLIP): no part of the tokens
        self.vit = vit
        self.image_size = image_size
        self.patch_size: int = patch[0]
        self.width: int = vit.embed_dim
        self.depth: int = len(vit.blocks)
        self.heads: int = vit.blocks[0].attn.num_heads
        self.has_cls: bool = vit.cls_token is not None
        self.has_final_norm = final_norm
        self.num_prefix: int = vit.num_prefix_tokens
        self.num_registers: int = vit.num_reg_tokens
        self.patch_stride: int = stride
        side = (image_size - self.patch_size) // stride + 1
        self.grid: tuple[int, int] = (side, side)
        if stride != self.patch_size:
            self._overlap_patches()

    def _overlap_patches(self) -> None:
        """Move the patches closer together and make room for the positions of the larger grid."""
        embedding, positions = self.vit.patch_embed, self.vit.pos_embed
        if not isinstance(embedding, PatchEmbed) or positions is None:
            raise FgvcError(
                f"the patches of '{self.vit.__class__.__name__}' cannot overlap",
                cure="use a ViT with plain patches and a learnt position embedding",
            )
        prefix = positions.shape[1] - embedding.num_patches
        count = self.grid[0] * self.grid[1]
        embedding.proj.stride = (self.patch_stride, self.patch_stride)
        embedding.grid_size, embedding.num_patches = self.grid, count
        drawn = torch.empty(1, prefix + count, self.width, device=positions.device)
        self.vit.pos_embed = nn.Parameter(trunc_normal_(drawn, std=0.02))

    @property
    def blocks(self) -> nn.Sequential:
        return self.vit.blocks  # type: ignore[no-any-return]

    @property
    def norm(self) -> nn.Module:
        """The final LayerNorm over all tokens."""
        return self.vit.norm  # type: ignore[no-any-return]

    @property
    def patch_norm(self) -> nn.Module:
        """The norm behind the mean over patches, where a model has it in place of `norm`; or an identity."""
        return self.vit.fc_norm  # type: ignore[no-any-return]

    @property
    def norm_eps(self) -> float:
        """The eps of the norms in the blocks."""
        return float(self.vit.blocks[0].norm1.eps)

    @property
    def cls_token(self) -> nn.Parameter | None:
        """The learnt CLS token [1, 1, D] before positions are added, where the model has one."""
        return self.vit.cls_token  # type: ignore[no-any-return]

    def embed(self, images: Tensor, cls_token: Tensor | None = None) -> Tensor:
        """Patches, prefix and position embedding: [B, 3, S, S] → [B, num_prefix + N, D].

        Args:
            cls_token: [1, 1, D], takes the place of the model's own CLS token, which it must have.
        """
        tokens = self.vit.patch_embed(images)
        tokens = self.vit._pos_embed(tokens)
        if cls_token is not None:
            # timm adds positions in several ways; exchanging the token afterwards holds for all of them. The
            # model's own then gets two gradients that cancel to the bit.
            exchanged = tokens[:, :1] + (cls_token - self.vit.cls_token)
            tokens = torch.cat([exchanged, tokens[:, 1:]], dim=1)
        return self.vit.norm_pre(tokens)  # type: ignore[no-any-return]

    def forward(self, images: Tensor, cls_token: Tensor | None = None) -> Tensor:
        """All tokens after the last block and the final norm (if any), [B, num_prefix + N, D].

        Models that are pre-trained with mean pooling have no norm there but one in `mean_patch`.

        Args:
            cls_token: as in `embed`.
        """
        return self.norm(self.blocks(self.embed(images, cls_token)))  # type: ignore[no-any-return]

    def cls(self, tokens: Tensor) -> Tensor:
        """The CLS token [B, D]; `mean_patch` where the model has no CLS token."""
        return tokens[:, 0] if self.has_cls else self.mean_patch(tokens)

    def mean_patch(self, tokens: Tensor) -> Tensor:
        """The mean patch token [B, D], normalised here where the model normalises after its mean pooling."""
        return self.patch_norm(self.patches(tokens).mean(dim=1))  # type: ignore[no-any-return]

    def patches(self, tokens: Tensor) -> Tensor:
        """The patch tokens [B, N, D], without CLS and registers."""
        return tokens[:, self.num_prefix :]


def _check_stride(backbone: str, image_size: int, patch_size: int, stride: int) -> None:
    if not 1 <= stride <= patch_size:
        raise FgvcError(
            f"a patch stride of {stride} is impossible: patches of '{backbone}' have {patch_size} pixels",
            key="options.patch_stride",
            cure=f"use 1 … {patch_size} ({patch_size}: patches do not overlap)",
        )
    if image_size < patch_size:
        raise FgvcError(
            f"image size {image_size} is smaller than a patch of '{backbone}'",
            cure=f"use at least {patch_size}",
        )
