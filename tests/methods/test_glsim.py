"""What GLSim does, option by option, on models of a few thousand parameters.

The crop is compared with a plain loop over images; parity with the original code is in test_golden_glsim.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fgvc.backbones.tokens import TokenBackbone
from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.methods import ModelSpec
from fgvc.methods.build import create_model
from fgvc.methods.glsim import GLSim, GLSimOptions
from fgvc.methods.similarity_crop import (
    boxes_around,
    crop_and_resize,
    most_similar,
    random_patches,
    similarity,
)
from fgvc.provenance.digests import file_sha256
from fgvc.provenance.files import write_json

TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2}
PICO = "vit_pico_patch16_224"


def tiny(
    image_size: int = 64, backbone: str = PICO, spec: dict[str, Any] | None = None, **options: Any
) -> GLSim:
    """A model whose head is not zero, so that logits tell things apart."""
    torch.manual_seed(0)
    geometry = ModelSpec(backbone, 5, image_size, shape=TINY, **(spec or {}))
    return GLSim(geometry, GLSimOptions(**{"head_init": "default", **options})).eval()


def pictures(count: int = 3, size: int = 64, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


# --- similarity -----------------------------------------------------------------------------------


def test_metrics_are_what_they_are_called() -> None:
    one, many = pictures(2).flatten(1)[:, :16], pictures(2).flatten(1)[:, 16 : 16 * 5].unflatten(1, (4, 16))
    for b in range(2):
        for n in range(4):
            x, y = one[b].double(), many[b, n].double()
            expected = {
                "cos": x @ y / (x.norm() * y.norm()),
                "l1": (x - y).abs().sum() / 16,
                "l2": ((x - y) ** 2).sum() / 16,
            }
            for metric, value in expected.items():
                assert similarity(one, many, metric)[b, n].item() == pytest.approx(value.item(), rel=1e-5)


@pytest.mark.parametrize("metric", ["cos", "l1", "l2"])
def test_the_patch_that_equals_the_image_is_chosen_first(metric: str) -> None:
    tokens = pictures(4).flatten(1)[:, : 16 * 9].unflatten(1, (9, 16)).clone()
    tokens[:, 6] = tokens[:, 0]
    scores = similarity(tokens[:, 0], tokens[:, 1:], metric)
    assert most_similar(scores, metric, 3)[:, 0].tolist() == [5] * 4


def test_ranks_are_decided_in_single_precision() -> None:
    half = pictures(1).flatten(1)[:, :64].unflatten(1, (4, 16)).half()
    assert similarity(half[:, 0], half, "l2").dtype == torch.float32


# --- boxes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patches", "upstream", "inclusive"),
    [
        ([5, 10], (4, 4, 8, 8), (4, 4, 12, 12)),
        ([7], (4, 12, 8, 16), (4, 12, 8, 16)),  # a single patch is kept whole
        ([4, 6], (4, 0, 8, 8), (4, 0, 8, 12)),  # one row: only columns lose their last
        ([0, 15], (0, 0, 12, 12), (0, 0, 16, 16)),
        ([15, 11, 15], (8, 12, 12, 16), (8, 12, 16, 16)),
    ],
)
def test_the_two_ends_of_a_box(
    patches: list[int], upstream: tuple[int, ...], inclusive: tuple[int, ...]
) -> None:
    """On 4 × 4 patches of 4 pixels; upstream's box stops where the last patch chosen begins."""
    for end, expected in (("upstream", upstream), ("inclusive", inclusive)):
        assert tuple(boxes_around(torch.tensor([patches]), (4, 4), 4, end)[0].tolist()) == expected


def cut_one_by_one(images: Tensor, boxes: Tensor) -> Tensor:
    crops = []
    for image, box in zip(images, boxes.tolist(), strict=True):
        y0, x0, y1, x1 = box
        region = image[None, :, y0:y1, x0:x1].double()
        crops.append(nn.functional.interpolate(region, image.shape[1:], mode="bilinear", align_corners=True))
    return torch.cat(crops)


@pytest.mark.parametrize("size", [56, 448])
def test_a_crop_is_the_resized_slice(size: int) -> None:
    """Also of boxes one pixel high, at the borders, and of the whole image."""
    boxes = torch.tensor(
        [[0, 0, size, size], [0, 0, 14, 14], [size - 14, 14, size, size], [5, 9, 6, 40], [20, 20, 21, 21]]
    )
    images = pictures(len(boxes), size)
    difference = (crop_and_resize(images, boxes) - cut_one_by_one(images, boxes)).abs().max()
    assert difference < 1e-6 * size * images.abs().max()


def test_half_precision_images_are_cut_as_precisely() -> None:
    images, boxes = pictures(2, 448), torch.tensor([[[16, 32, 400, 416]], [[0, 0, 448, 448]]])[:, 0]
    crops = crop_and_resize(images.half(), boxes)
    assert crops.dtype == torch.float16
    assert (crops - cut_one_by_one(images.half(), boxes)).abs().max() < 4e-3  # half of an ulp at 4


def test_gradients_flow_through_the_crop_into_the_box_and_nowhere_else() -> None:
    images = pictures(1).requires_grad_()
    crop_and_resize(images, torch.tensor([[16, 32, 48, 64]])).sum().backward()
    assert images.grad is not None
    inside = images.grad[:, :, 16:48, 32:64]
    assert inside.all() and images.grad.sum() == pytest.approx(inside.sum().item())


# --- random anchors -------------------------------------------------------------------------------


def test_random_patches_come_from_the_whole_grid() -> None:
    """Upstream's are always among the first (quirk Q3). 512 × 8 draws from 196: each about 21 times."""
    images = pictures(512, 4)
    for training in (True, False):
        torch.manual_seed(0)
        counts = random_patches(images, 196, 8, training=training).flatten().bincount(minlength=196)
        assert len(counts) == 196 and counts.min() >= 4 and counts.max() <= 50


def test_in_evaluation_random_patches_belong_to_the_image() -> None:
    images = pictures(6)
    drawn = random_patches(images, 16, 8, training=False)
    assert torch.equal(random_patches(images.flip(0), 16, 8, training=False).flip(0), drawn)
    assert len(drawn.unique(dim=0)) == 6
    model = tiny(anchors="random")
    assert torch.equal(model(images).logits, model(images).logits)
    model.train()
    assert not torch.equal(model(images).boxes, model(images).boxes)


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"metric": "dot"}, "metric='dot'; possible: cos, l1, l2"),
        ({"top_k": 0}, "top_k=0"),
        ({"aggregator": "conv"}, "select=tokens"),
        ({"aggregator": "dwsc"}, "select=tokens"),
        ({"select": "tokens", "crop_cls": "own"}, "no second pass"),
        ({"select": "tokens", "aggregator": "none"}, "nobody reads the tokens"),
        ({"crop_end": "exclusive"}, "possible: upstream, inclusive"),
        ({"classifier": "mean"}, "possible: cls, avg_cls, max_cls"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(FgvcError, match="not possible") as caught:
        create_model("glsim", backbone=PICO, num_classes=2, image_size=64, **options)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("backbone", "options", "reason"),
    [
        (PICO, {"top_k": 17}, "top_k=17, but 64 pixels a side are 16 patches"),
        (PICO, {"aggregator_heads": 3}, "do not divide the width 128"),
        ("test_vit2", {"crop_cls": "own"}, "has no CLS token"),
    ],
)
def test_options_that_do_not_fit_the_backbone_are_refused(
    backbone: str, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(FgvcError, match=reason):
        create_model("glsim", backbone=backbone, num_classes=2, image_size=64, **options)


def test_the_crop_is_of_the_box_around_the_chosen_patches() -> None:
    images = pictures()
    for end in ("upstream", "inclusive"):
        model = tiny(crop_end=end, top_k=3)
        output = model(images)
        chosen = most_similar(output.masks["gls"], "cos", 3)
        boxes = boxes_around(chosen, (4, 4), 16, end)
        assert torch.equal(output.boxes[:, 0], boxes)
        assert torch.equal(output.crops[:, 0], crop_and_resize(images, boxes))
        assert output.grid == (4, 4) and output.masks["gls"].shape == (3, 16)


def test_two_passes_and_their_aggregation() -> None:
    """Written out: tokens, crop, tokens again, the two CLS rows, block, norm, head on the first."""
    model, images = tiny(), pictures()
    output = model(images)
    assert output.crops is not None
    rows = torch.stack([model.backbone(images)[:, 0], model.backbone(output.crops[:, 0])[:, 0]], dim=1)
    mixed = model.aggregator.norm(model.aggregator.block(rows))
    torch.testing.assert_close(output.embeddings["cls"], mixed[:, 0])
    torch.testing.assert_close(output.logits, model.head(mixed[:, 0]))
    assert not torch.allclose(output.logits, model.head(rows[:, 0]), atol=1e-3)


@pytest.mark.parametrize(("classifier", "reduce"), [("avg_cls", Tensor.mean), ("max_cls", Tensor.amax)])
def test_a_classifier_of_all_rows(classifier: str, reduce: Any) -> None:
    model, images = tiny(classifier=classifier, aggregator="none"), pictures()
    output = model(images)
    both = torch.stack([model.head(model.backbone(x)[:, 0]) for x in (images, output.crops[:, 0])], dim=1)
    torch.testing.assert_close(output.logits, reduce(both, dim=1))


@pytest.mark.parametrize("aggregator", ["transformer", "dwsc", "conv"])
def test_selected_tokens_are_aggregated_without_a_second_pass(aggregator: str) -> None:
    model, images = tiny(select="tokens", aggregator=aggregator, top_k=5), pictures()
    given: list[Tensor] = []
    model.aggregator.register_forward_hook(lambda _m, inputs, _out: given.append(inputs[0]))
    output = model(images)
    assert output.crops is None and output.boxes is None and model.forward_passes() == 1
    tokens = model.backbone(images)
    for b in range(len(images)):
        order = output.masks["gls"][b].argsort(descending=True)[:5].tolist()
        expected = torch.stack([tokens[b, 0], *(tokens[b, 1 + n] for n in order)])
        torch.testing.assert_close(given[0][b], expected)
    assert model.aggregator(given[0]).shape == (3, 6 if aggregator == "transformer" else 1, 32)


def test_convolutions_follow_their_definition() -> None:
    """Separable: LN, depthwise over the sequence, LN, GELU, pointwise, LN. Dense: LN, convolution, LN."""
    rows = pictures(2).flatten(1)[:, : 6 * 32].unflatten(1, (6, 32))
    separable = tiny(select="tokens", aggregator="dwsc", top_k=5).aggregator
    depthwise = (separable.norm_in(rows) * separable.conv.weight[:, 0].T).sum(dim=1) + separable.conv.bias
    norm, _, pointwise = separable.pointwise
    expected = separable.norm(pointwise(nn.functional.gelu(norm(depthwise))))
    torch.testing.assert_close(separable(rows)[:, 0], expected)
    dense = tiny(select="tokens", aggregator="conv", top_k=5).aggregator
    mixed = torch.einsum("bld,edl->be", dense.norm_in(rows), dense.conv.weight) + dense.conv.bias
    torch.testing.assert_close(dense(rows)[:, 0], dense.norm(mixed))


def test_norm_eps_reaches_every_norm() -> None:
    def found(model: GLSim) -> set[float]:
        return {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)}

    assert found(tiny()) == {1e-6}
    assert found(tiny(norm_eps=1e-12)) == {1e-12}
    model = tiny(norm_eps=1e-12, aggregator_norm_eps=1e-5)
    assert found(model) == {1e-12, 1e-5} and model.aggregator.norm.eps == 1e-5


def test_raw_tokens_are_those_of_the_last_block() -> None:
    model, images = tiny(tokens="raw"), pictures()
    blocks: list[Tensor] = []
    model.backbone.blocks.register_forward_hook(lambda _m, _in, out: blocks.append(out))
    scores = model(images).masks["gls"]
    torch.testing.assert_close(scores, similarity(blocks[0][:, 0], blocks[0][:, 1:], "cos"))
    assert not any(name.startswith("backbone.vit.norm.") for name in model.state_dict())


def test_the_aggregator_drops_what_the_encoder_drops() -> None:
    model = tiny(spec={"stochastic_depth": 0.3, "dropout": 0.2})
    inner, block = model.backbone.blocks[-1], model.aggregator.block
    assert block.drop_path1.drop_prob == block.drop_path2.drop_prob == inner.drop_path1.drop_prob == 0.3
    assert block.attn.proj_drop.p == block.mlp.drop2.p == inner.attn.proj_drop.p == 0.2


# --- the crop's own CLS token ---------------------------------------------------------------------


def test_an_own_cls_token_changes_the_second_pass_only() -> None:
    shared, own, images = tiny(), tiny(crop_cls="own"), pictures()
    own.load_state_dict(shared.state_dict(), strict=False)
    own.weights_loaded()
    assert torch.equal(own(images).logits, shared(images).logits)
    with torch.no_grad():
        own.crop_cls.copy_(torch.randn_like(own.crop_cls))
    moved, before = own(images), shared(images)
    assert torch.equal(moved.boxes, before.boxes) and torch.equal(moved.masks["gls"], before.masks["gls"])
    assert not torch.allclose(moved.logits, before.logits, atol=1e-3)


@pytest.mark.parametrize("no_embed_class", [False, True])
def test_the_exchanged_token_is_the_models_in_every_way_of_adding_positions(no_embed_class: bool) -> None:
    """And the model's own token gets no gradient from a pass that it is not in."""
    backbone = TokenBackbone(
        PICO, 64, shape={**TINY, "reg_tokens": 2, "no_embed_class": no_embed_class}
    ).eval()
    images, other = pictures(), torch.randn(1, 1, 32, requires_grad=True)
    tokens = backbone(images, cls_token=other)
    tokens.square().sum().backward()
    assert other.grad is not None and other.grad.any()
    assert backbone.vit.cls_token.grad is None or not backbone.vit.cls_token.grad.any()
    with torch.no_grad():
        backbone.vit.cls_token.copy_(other)
    torch.testing.assert_close(backbone(images), tokens)


@pytest.mark.parametrize("tokens", ["normed", "raw"])
def test_an_own_cls_token_starts_as_the_pretrained_one(
    project_factory: Callable[..., Project], tokens: str
) -> None:
    about = {
        "title": "t", "architecture": PICO, "format": "timm", "mean": [0.5] * 3, "std": [0.5] * 3,
        "source": {"kind": "url", "url": "https://example.org/w", "file": "w", "sha256": "0" * 64},
        "pretraining": [], "licence": "none", "citation": "none",
    }  # fmt: skip
    project = project_factory(files={"params/weights/w.yaml": about})
    torch.manual_seed(1)
    state = {n: torch.randn_like(t) for n, t in TokenBackbone(PICO, 224).vit.state_dict().items()}
    path = project.paths.weights("w")
    path.parent.mkdir(parents=True)
    safetensors.torch.save_file(state, path)
    write_json(project.paths.weights_record("w"), {"sha256": file_sha256(path)})
    model = create_model(
        "glsim", backbone=PICO, num_classes=2, image_size=64, weights="w", project=project,
        crop_cls="own", tokens=tokens,
    )  # fmt: skip
    assert torch.equal(model.crop_cls, state["cls_token"])
    assert torch.equal(model.backbone.vit.cls_token, state["cls_token"])


# --- other backbones, devices ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [56, 448])
def test_registers_and_patches_of_14_pixels(size: int) -> None:
    """As in DINOv2 with registers, batch 1: no register is ever a patch, boxes are multiples of 14."""
    model = tiny(size, "vit_small_patch14_reg4_dinov2", crop_cls="own")
    side = size // 14
    with torch.inference_mode():
        tokens, output = model.backbone(pictures(1, size)), model(pictures(1, size))
    assert tokens.shape[1] == 1 + 4 + side**2 and output.masks["gls"].shape == (1, side**2)
    torch.testing.assert_close(output.masks["gls"], similarity(tokens[:, 0], tokens[:, 5:], "cos"))
    assert output.boxes is not None and not (output.boxes % 14).any()
    assert output.crops is not None and output.crops.shape == (1, 1, 3, size, size)


def test_distilled_and_cls_free_backbones_serve() -> None:
    for backbone in ("deit_tiny_distilled_patch16_224", "vit_little_patch16_reg4_gap_256"):
        output = tiny(backbone=backbone)(pictures())
        assert output.masks["gls"].shape == (3, 16) and output.logits.isfinite().all()


class NoValuesRead(TorchDispatchMode):
    """Refuses operators that wait for a device: reading a value, and shapes that depend on values."""

    REFUSED = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "item", "equal")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.name().partition("::")[2].partition(".")[0]
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        masked = any(index is not None and index.dtype == torch.bool for index in indices)
        assert not masked and not name.startswith(self.REFUSED), f"{func.name()} waits for the device"
        return func(*args, **(kwargs or {}))


VARIED: list[dict[str, Any]] = [
    {},
    {"crop_cls": "own", "tokens": "raw", "metric": "l1", "crop_end": "inclusive"},
    {"anchors": "random", "aggregator": "none", "classifier": "avg_cls", "metric": "l2"},
    {"select": "tokens", "aggregator": "dwsc"},
]


@pytest.mark.parametrize("options", VARIED)
@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_read_back_from_the_device(options: dict[str, Any], training: bool) -> None:
    model = tiny(spec={"stochastic_depth": 0.1, "dropout": 0.1}, **options).train(training)
    images, labels = pictures(), torch.arange(3)
    with NoValuesRead():
        model.loss(model(images), labels)["total"].backward()
    with torch.device("meta"):  # where there are no values
        shapes = GLSim(ModelSpec(PICO, 5, 64, shape=TINY), GLSimOptions(**options)).train(training)
        assert shapes(torch.empty(2, 3, 64, 64)).logits.shape == (2, 5)


def test_the_check_for_values_can_fail() -> None:
    with NoValuesRead(), pytest.raises(AssertionError, match="waits for the device"):
        pictures()[pictures() > 0]


def test_low_precision_training_ranks_and_crops_in_single_precision() -> None:
    model, images = tiny().train(), pictures()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(images)
        loss = model.loss(output, torch.arange(3))["total"]
    loss.backward()
    assert output.masks["gls"].dtype == torch.float32 and output.crops.dtype == torch.float32
    assert torch.equal(output.crops[:, 0], crop_and_resize(images, output.boxes[:, 0]))


def test_the_aggregator_draws_query_key_and_value_as_layers_of_their_own() -> None:
    """Xavier's bound √(6 / 2D) for each; of the three as one layer it would be √(6 / 4D)."""
    torch.manual_seed(0)
    qkv = create_model("glsim", backbone="vit_pico_patch16_224", num_classes=3).aggregator.block.attn.qkv
    width = qkv.in_features
    bound = (6 / (2 * width)) ** 0.5
    assert 0.98 * bound < float(qkv.weight.abs().max()) <= bound
