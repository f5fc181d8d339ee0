"""ILA and ILA++: a frozen ViT whose grid of patches shrinks between blocks through small trained modules.

Source: arXiv 2409.11051 (down-sampling inter-layer adapters for ultra-fine-grained recognition), code
arkel23/DownSamplingInterLayerAdapter at 9b2248c. Written from a description of what that code computes, and
compared with its outputs (tests/methods/test_golden_ila.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from fgvc.backbones.blocks import branch_drop, check_blocks
from fgvc.backbones.closed_form import block_macs, embedding_macs, is_plain
from fgvc.backbones.tokens import TokenBackbone
from fgvc.errors import FgvcError
from fgvc.methods.adapters import AdapterOptions, BlockAdapters, Grid
from fgvc.methods.base import Method, MethodOutput, ModelSpec, register
from fgvc.methods.heads import HEAD_INITS, HeadInit, check_choice, linear_head, token_backbone
from fgvc.methods.inter_layer import InterLayerAdapter, InterLayerForm, Norm, Residual, ResidualInit


@dataclass(frozen=True)
class ILAOptions:
    """Options of `ILA`; the defaults are those of the code at 9b2248c as its README trains ILA.

    Attributes:
        ds_blocks: blocks, counted from 0, after which the grid shrinks.
        same_blocks: blocks after which a module stands that keeps the grid; ``rest``: after all others.
        bottleneck: d, the width inside modules and adapters.
        kernel: k, side of the convolutions; a shrinking module takes k - 1 patches off each side of the grid.
        multiplier: outputs of the bottleneck's depthwise convolution per channel.
        norm: of the modules, at three places: ``batch``, ``layer`` or ``none``.
        residual: what shrinks the tokens at full width: ``depthwise`` or ``dense`` convolution, ``avg_pool``.
        ds_init: start of the depthwise one: ``near_ones`` (about a *sum* over the window, upstream),
            ``ones``, ``mean`` or ``xavier``.
        drop_path: chance of leaving a module's adapter out in training; above 0 it takes the place of the
            recipe's dropout there.
        adapter: beside both branches of every block: ``none`` (ILA), ``adapter`` (ILA++) or ``convpass``.
        head_init: ``xavier``, ``zeros`` or torch's ``default``.
        norm_eps: eps of the encoder's norms; None: the backbone's. Upstream: 1e-12.
    """

    ds_blocks: tuple[int, ...] = (3, 7)
    same_blocks: tuple[int, ...] | Literal["rest"] = ()
    bottleneck: int = 8
    kernel: int = 3
    multiplier: int = 1
    norm: Norm = "batch"
    residual: Residual = "depthwise"
    ds_init: ResidualInit = "near_ones"
    drop_path: float = 0.0
    adapter: Literal["none", "adapter", "convpass"] = "none"
    head_init: HeadInit = "xavier"
    norm_eps: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ds_blocks", _blocks("ds_blocks", self.ds_blocks))
        if self.same_blocks != "rest":
            object.__setattr__(self, "same_blocks", _blocks("same_blocks", self.same_blocks))
            if set(self.ds_blocks) & set(self.same_blocks):
                raise ValueError("a block stands in ds_blocks and in same_blocks; it has one module at most")
        check_choice("norm", self.norm, ("batch", "layer", "none"))
        check_choice("residual", self.residual, ("depthwise", "dense", "avg_pool"))
        check_choice("ds_init", self.ds_init, ("near_ones", "ones", "mean", "xavier"))
        check_choice("adapter", self.adapter, ("none", "adapter", "convpass"))
        check_choice("head_init", self.head_init, HEAD_INITS)
        if self.bottleneck < 1 or self.multiplier < 1:
            raise ValueError("bottleneck and multiplier are at least 1")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel}; an odd number")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path={self.drop_path}; a rate lies in [0, 1)")


def _blocks(option: str, given: object) -> tuple[int, ...]:
    numbers = tuple(given) if isinstance(given, (list, tuple)) else None
    if numbers is None or not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise ValueError(f"{option}={given!r}; a list of block numbers such as [3, 7]")
    if len(set(numbers)) != len(numbers):
        raise ValueError(f"{option}={list(numbers)}; each block once")
    return numbers


@register
class ILA(Method):
    """One pass over fewer and fewer patches; a linear head on CLS.

    After the blocks of ``ds_blocks`` an `InterLayerAdapter` shrinks the grid: of 14 × 14 patches 12 × 12,
    then 10 × 10 are left (197, 145, 101 tokens with CLS); of 28 × 28 in the end 24 × 24 (785, 677, 577). With
    ``adapter`` every block has adapters beside its branches as well (ILA++).
    """

    name = "ila"
    Options = ILAOptions
    backbone: TokenBackbone
    options: ILAOptions

    def __init__(self, spec: ModelSpec, options: ILAOptions) -> None:
        super().__init__(spec, options)
        self.backbone = token_backbone(spec, norm_eps=options.norm_eps)
        check_blocks(self.backbone.blocks)
        self._require_blocks()
        #: By the number of the block that they stand after.
        self.between = nn.ModuleDict()
        #: (h, w) of the patches that each block sees.
        self.grids: list[Grid] = []
        grid = self.backbone.grid
        for i in range(self.backbone.depth):
            self.grids.append(grid)
            if i in options.ds_blocks or options.same_blocks == "rest" or i in options.same_blocks:
                module = self._module(grid, shrink=i in options.ds_blocks)
                self.between[str(i)], grid = module, module.out_grid
        #: One a block, or none.
        self.adapters = nn.ModuleList(self._block_adapters() if options.adapter != "none" else ())
        self.head = linear_head(self.backbone.width, spec.num_classes, options.head_init)

    def _require_blocks(self) -> None:
        """Raise FgvcError unless the blocks exist and leave some patches."""
        options, depth = self.options, self.backbone.depth
        same = () if options.same_blocks == "rest" else options.same_blocks
        last = max((*options.ds_blocks, *same), default=0)
        if last >= depth:
            raise FgvcError(
                f"a module is to stand after block {last}, but '{self.spec.backbone}' has the blocks "
                f"0 … {depth - 1}",
                key="options.ds_blocks",
                cure="name blocks that it has",
            )
        left = min(self.backbone.grid) - len(options.ds_blocks) * (options.kernel - 1)
        if left < 1:
            raise FgvcError(
                f"{len(options.ds_blocks)} modules with kernel {options.kernel} leave no patch of a grid of "
                f"{self.backbone.grid[0]} × {self.backbone.grid[1]}",
                key="options.ds_blocks",
                cure="use larger images, or shrink the grid less often",
            )

    def _module(self, grid: Grid, *, shrink: bool) -> InterLayerAdapter:
        options = self.options
        form = InterLayerForm(
            bottleneck=options.bottleneck,
            kernel=options.kernel,
            multiplier=options.multiplier,
            norm=options.norm,
            shrink=shrink,
            residual=options.residual,
            residual_init=options.ds_init,
        )
        drop = branch_drop(0.0 if options.drop_path else self.spec.dropout, options.drop_path)
        return InterLayerAdapter(self.backbone.width, grid, self.backbone.num_prefix, form, drop)

    def _block_adapters(self) -> list[BlockAdapters]:
        options = self.options
        kind: Any = options.adapter
        form = AdapterOptions(kind, options.bottleneck, options.kernel)
        return [
            BlockAdapters(self.backbone, block, form, grid, self.spec.dropout)
            for block, grid in zip(self.backbone.blocks, self.grids, strict=True)
        ]

    def forward(self, images: Tensor) -> MethodOutput:
        backbone = self.backbone
        tokens = backbone.embed(images)
        for i, block in enumerate(backbone.blocks):
            tokens = self.adapters[i](block, tokens) if len(self.adapters) else block(tokens)
            if str(i) in self.between:
                tokens = self.between[str(i)](tokens)
        return MethodOutput(logits=self.head(backbone.cls(backbone.norm(tokens))), grid=backbone.grid)

    def closed_form_macs(self) -> int | None:
        """Blocks over the tokens that are left to each, modules, adapters, head."""
        backbone = self.backbone
        if not is_plain(backbone):
            return None
        prefix, patches = backbone.num_prefix, [h * w for h, w in self.grids]
        total = embedding_macs(backbone) + self.head.weight.numel()
        total += sum(block_macs(backbone, prefix + n) for n in patches)
        modules: list[Any] = [*self.between.values()]
        total += sum(module.macs() for module in modules)
        adapters: list[Any] = [*self.adapters]
        total += sum(one.macs(prefix, n) for one, n in zip(adapters, patches, strict=False))
        return int(total)
