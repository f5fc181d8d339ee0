"""What SIM-Trans does, option by option, on models of a few thousand parameters.

Loops stand for what is vectorised; its graph is tested in test_structure_learning.py, parity with the
original code in test_golden_simtrans.py.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from fgvc.backbones.timm_models import parameter_count
from fgvc.errors import FgvcError
from fgvc.methods import ModelSpec
from fgvc.methods.build import create_model
from fgvc.methods.checkpoints import load_checkpoint
from fgvc.methods.simtrans import SIMTrans, SIMTransOptions, adaptive_contrast

TINY = {"embed_dim": 32, "depth": 4, "num_heads": 2}
PICO = "vit_pico_patch16_224"


def tiny(image_size: int = 64, spec: dict[str, Any] | None = None, **options: Any) -> SIMTrans:
    """A model in evaluation mode whose structure vectors are large enough to be seen."""
    torch.manual_seed(0)
    geometry = ModelSpec(PICO, 5, image_size, shape=TINY, **(spec or {}))
    model = SIMTrans(geometry, SIMTransOptions(**{"patch_stride": None, **options})).eval()
    with torch.no_grad():
        model.structure.first.mul_(300)
        model.structure.second.mul_(30)
    return model


def pictures(count: int = 3, size: int = 64, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


# --- the model ------------------------------------------------------------------------------------


def test_what_each_block_is_given_and_what_the_head_reads() -> None:
    """Written out: CLS plus structure goes on to the next block, patches as they are, and is kept."""
    model, images, given, left, structures = tiny(), pictures(), [], [], []
    for block in model.backbone.blocks:
        block.register_forward_hook(lambda _m, seen, _out: given.append(seen[0]))
        block.register_forward_hook(lambda _m, _in, out: left.append(out))
    model.structure.register_forward_hook(lambda _m, _in, out: structures.append(out))
    with torch.no_grad():
        output = model(images)
    assert model.levels == (1, 2, 3) and len(structures) == 3
    assert torch.equal(given[1], left[0])
    levels = []
    for i, structure in zip(model.levels, structures, strict=True):
        assert structure.vector.abs().max() > 1e-2
        levels.append(left[i][:, 0] + structure.vector)
        if i < 3:
            torch.testing.assert_close(given[i + 1][:, 0], levels[-1])
            assert torch.equal(given[i + 1][:, 1:], left[i][:, 1:])
    normed = [model.backbone.norm(level) for level in levels]
    torch.testing.assert_close(output.logits, model.head(torch.cat(normed, dim=1)))
    torch.testing.assert_close(output.embeddings["part"], normed[-1])


def test_the_attention_that_counts_is_that_of_the_block_itself() -> None:
    model, images, given = tiny(sil_layers=[-2, -1]), pictures(), []
    attention = model.backbone.blocks[2].attn
    attention.register_forward_hook(lambda _m, seen, _out: given.append(seen[0]))
    with torch.no_grad():
        output = model(images)
        q, k = (attention.qkv(given[0]).chunk(3, dim=-1)[part] for part in (0, 1))
    sums = torch.zeros(3, 17)
    for head in (slice(0, 16), slice(16, 32)):
        sums += (q[:, :1, head] @ k[:, :, head].mT / 4).softmax(dim=-1)[:, 0]
    torch.testing.assert_close(output.masks["attention_2"], sums[:, 1:])
    assert set(output.masks) == {"attention_2", "object_2", "attention_3", "object_3"}
    assert torch.equal(output.selected["reference_2"], sums[:, 1:].argmax(dim=1, keepdim=True))
    assert not output.masks["attention_2"].requires_grad


@pytest.mark.parametrize("size", [224, 304, 448])
@pytest.mark.parametrize(
    ("stride", "side"), [(12, {224: 18, 304: 25, 448: 37}), (None, {224: 14, 304: 19, 448: 28})]
)
def test_sizes_of_the_code(size: int, stride: int | None, side: dict[int, int]) -> None:
    model = tiny(size, patch_stride=stride)
    with torch.inference_mode():
        output = model(pictures(2, size))
    assert output.logits.shape == (2, 5) and output.grid == (side[size],) * 2
    assert output.masks["object_3"].shape == (2, side[size] ** 2)
    assert output.selected["reference_3"].shape == (2, 1)


def test_patches_of_14_pixels_and_registers() -> None:
    model = create_model(
        "simtrans", backbone="vit_small_patch14_reg4_dinov2", num_classes=2, image_size=56
    ).eval()
    with torch.inference_mode():
        output = model(pictures(1, 56))
    assert output.grid == (4, 4) and output.masks["attention_11"].shape == (1, 16)
    assert (output.masks["attention_11"].sum(dim=1) < model.backbone.heads).all()


def test_dropout_is_off_in_evaluation_unless_upstreams_mistake_is_asked_for() -> None:
    images = pictures()
    for mistake in (False, True):
        model = tiny(upstream_eval_dropout=mistake)
        with torch.inference_mode():
            first, second = model(images).logits, model(images).logits
        assert torch.equal(first, second) != mistake
        assert not torch.equal(model.train()(images).logits, model(images).logits)


def test_a_batch_is_its_images_one_by_one() -> None:
    model, images = tiny(), pictures(5)
    with torch.inference_mode():
        together = model(images)
        alone = [model(image[None]) for image in images]
    torch.testing.assert_close(together.logits, torch.cat([out.logits for out in alone]))
    for name, indices in together.selected.items():
        assert torch.equal(indices, torch.cat([out.selected[name] for out in alone]))


def test_a_reloaded_model_predicts_the_same(tmp_path: Path) -> None:
    """After some steps, which move the statistics of the head's batch norms."""
    model, images = tiny().train(), pictures(4)
    for _ in range(3):
        model(images)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "m.safetensors")
    torch.manual_seed(9)
    other = SIMTrans(model.spec, model.options).eval()
    load_checkpoint(other, tmp_path / "m.safetensors")
    with torch.inference_mode():
        assert torch.equal(other(images).logits, model.eval()(images).logits)


def test_a_copy_reads_its_own_attention() -> None:
    """As the moving average of the weights does."""
    model, images = tiny(), pictures()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        before = twin(images).logits
        for parameter in model.backbone.parameters():
            parameter.add_(torch.randn_like(parameter))
        assert torch.equal(twin(images).logits, before)


# --- loss -----------------------------------------------------------------------------------------


def contrast_by_loops(embeddings: Tensor, labels: Tensor, margin: float) -> float:
    count, total = len(labels), 0.0
    cosine = [[cosine_similarity(a, b, dim=0).item() for b in embeddings] for a in embeddings]
    for i in range(count):
        others = [j for j in range(count) if labels[j] == labels[i] and j != i]
        own = sum((1 - cosine[i][j]) / 2 for j in others) / (len(others) or 1)
        for j in range(count):
            if labels[j] == labels[i]:
                total += 1 - cosine[i][j]
            elif margin + own - (1 - cosine[i][j]) / 2 >= 0:
                total += 1 + cosine[i][j]
    return total / count**2


@pytest.mark.parametrize("margin", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 0, 2, 1], [0, 1, 2, 3, 4, 5, 6], [0] * 7])
def test_the_contrastive_term_is_a_sum_over_pairs(labels: list[int], margin: float) -> None:
    embeddings = torch.randn(7, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = contrast_by_loops(embeddings, torch.tensor(labels), margin)
    assert adaptive_contrast(embeddings, torch.tensor(labels), margin).item() == pytest.approx(expected)


def test_a_negative_counts_up_to_the_margin() -> None:
    """Two classes of one image each: the distance is 0.3 where the cosine is 0.4."""
    for cosine, counts in ((0.4 + 1e-6, True), (0.4 - 1e-6, False)):
        pair = torch.tensor([[1.0, 0.0], [cosine, (1 - cosine**2) ** 0.5]], dtype=torch.float64)
        loss = adaptive_contrast(pair, torch.tensor([0, 1]), 0.3).item()
        assert loss == pytest.approx(2 * (1 + cosine) / 4 if counts else 0.0, abs=1e-9)


def test_images_alone_in_their_class_have_no_distance_to_it() -> None:
    """Their own rounding error must not decide which negatives count."""
    embeddings = torch.randn(64, 48, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(64)
    loss = adaptive_contrast(embeddings, labels, 0.5).item()
    assert loss == pytest.approx(contrast_by_loops(embeddings.double(), labels, 0.5), rel=1e-2)


def test_terms_weights_and_mixed_images() -> None:
    images, labels = pictures(4), torch.tensor([0, 0, 1, 2])
    model = tiny(contrast_weight=0.5)
    output = model(images)
    terms = model.loss(output, labels)
    contrast = adaptive_contrast(output.embeddings["part"], labels, 0.3)
    torch.testing.assert_close(terms["contrastive"], 0.5 * contrast)
    soft = 0.8 * nn.functional.one_hot(labels, 5) + 0.04
    torch.testing.assert_close(model.loss(output, soft)["contrastive"], 0.5 * contrast)
    assert set(tiny(contrast_weight=0).loss(output, labels)) == {"cross_entropy", "total"}


def test_one_image_cannot_be_trained_on() -> None:
    model = tiny()
    assert model(pictures(1)).logits.shape == (1, 5)
    with pytest.raises(FgvcError, match="batch norm, which cannot be trained on one image") as caught:
        model.train()(pictures(1))
    assert caught.value.key == "recipe.batch_size" and "two images at least" in (caught.value.cure or "")
    model.set_trainable(["head.4.*"])
    assert model.train()(pictures(1)).logits.shape == (1, 5) and not model.batch_coupled


def test_what_couples_the_images_of_a_batch() -> None:
    model = tiny()
    assert model.batch_coupled
    model.set_trainable(["structure.*"])
    assert model.batch_coupled
    model = tiny(contrast_weight=0)
    assert model.batch_coupled
    model.set_trainable(["structure.*"])
    assert not model.batch_coupled


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", ["random", "pretrained"])
def test_the_last_block_is_drawn_anew_or_kept(init: str) -> None:
    model = tiny(last_block_init=init)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.weights_loaded()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert all(name.startswith("backbone.vit.blocks.3.") for name in changed)
    assert bool(changed) == (init == "random")


def test_defaults_are_those_of_the_code() -> None:
    assert SIMTransOptions() == SIMTransOptions(
        patch_stride=12, sil_layers=(-3, -2, -1), gcn_hidden=512, gcn_dropout=0.1, head_hidden=1024,
        contrast_weight=1.0, contrast_margin=0.3, last_block_init="random", upstream_eval_dropout=False,
    )  # fmt: skip
    with torch.device("meta"):
        model = create_model("simtrans", backbone="vit_base_patch16_224", num_classes=200, image_size=448)
    assert isinstance(model, SIMTrans) and model.levels == (9, 10, 11) and model.backbone.grid == (37, 37)


def test_extra_parameters_are_those_of_the_specification() -> None:
    """On ViT-B/16 beside a plain ViT with a linear head: GCN 394,240; head 2.36 M + 1024·K."""
    with torch.device("meta"):
        ours, plain = (
            create_model(method, backbone="vit_base_patch16_224", num_classes=200, **options)
            for method, options in (("simtrans", {"patch_stride": 16}), ("vit", {}))
        )
    assert parameter_count(ours.structure) == 2 * 512 + 512 * 768 == 394_240
    norms = 2 * 2304 + 2 * 1024
    assert parameter_count(ours.head) == norms + 2304 * 1024 + 1024 + 1024 * 200 + 200
    assert parameter_count(ours.backbone) == parameter_count(plain.backbone)
    extra = parameter_count(ours) - parameter_count(plain)
    assert extra == 394_240 + parameter_count(ours.head) - (768 + 1) * 200 == 2_812_416


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"sil_layers": []}, "sil_layers=[]"),
        ({"sil_layers": ["last"]}, "a list of block numbers"),
        ({"last_block_init": "zeros"}, "possible: pretrained, random"),
        ({"gcn_dropout": 1.0}, "a rate lies in [0, 1)"),
        ({"gcn_hidden": 0}, "gcn_hidden=0"),
        ({"head_hidden": 0}, "head_hidden=0"),
        ({"contrast_margin": -0.1}, "contrast_margin=-0.1"),
        ({"patch_stride": 0}, "patch_stride=0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(FgvcError, match="not possible") as caught:
        create_model("simtrans", backbone=PICO, num_classes=2, image_size=64, **options)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("backbone", "options", "reason"),
    [
        (PICO, {"sil_layers": [-5, -1]}, r"sil_layers=\[-5, -1\] is not possible with 4 blocks"),
        (PICO, {"sil_layers": [1, 2]}, "the last one among them"),
        (PICO, {"sil_layers": [3, 2]}, "in order"),
        (PICO, {"sil_layers": [3, -1]}, "different blocks"),
        (PICO, {"sil_layers": [3, 4]}, "with 4 blocks"),
        (PICO, {"patch_stride": 17}, "a patch stride of 17 is impossible"),
        ("test_vit2", {}, "reads the attention of the CLS token, and 'test_vit2' has none"),
    ],
)
def test_options_that_do_not_fit_the_backbone_are_refused(
    backbone: str, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(FgvcError, match=reason):
        create_model("simtrans", backbone=backbone, num_classes=2, image_size=64, **options)


def test_blocks_may_be_counted_from_either_end() -> None:
    assert tiny(sil_layers=[2, 3]).levels == tiny(sil_layers=[-2, -1]).levels == (2, 3)
    assert tiny(sil_layers=[-1]).head[0].num_features == 32


# --- devices and precision ------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_read_back_from_the_device(training: bool) -> None:
    """Where there are no values, none can be read."""
    with torch.device("meta"):
        model = tiny(spec={"stochastic_depth": 0.1, "dropout": 0.1}).train(training)
        output = model(torch.empty(2, 3, 64, 64))
        model.loss(output, torch.empty(2, dtype=torch.long))["total"].backward()
    assert output.logits.shape == (2, 5)


def test_low_precision_training_has_its_structure_in_single_precision() -> None:
    model, given, found = tiny().train(), [], []
    model.structure.rate = 0.0
    model.structure.register_forward_hook(lambda _m, seen, _out: given.append(seen))
    model.structure.register_forward_hook(lambda _m, _in, out: found.append(out))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(pictures())
        terms = model.loss(output, torch.tensor([0, 0, 1]))
    terms["total"].backward()
    for seen, structure in zip(list(given), list(found), strict=True):
        assert structure.vector.dtype == structure.weights.dtype == torch.float32
        assert torch.equal(model.structure(*seen).vector, structure.vector)
    assert terms["contrastive"].dtype == torch.float32
