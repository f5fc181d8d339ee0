"""What CAL does, option by option, on models of a few thousand parameters.

Its parts are tested in test_cal_parts.py; parity with the original code is in test_golden_cal.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fgvc import create_model
from fgvc.backbones.closed_form import encoder_macs
from fgvc.backbones.features import FeatureBackbone
from fgvc.cost import count_dispatch
from fgvc.errors import FgvcError
from fgvc.methods.attention_crop import attention_crops, attention_drops
from fgvc.methods.bilinear import bilinear_pool
from fgvc.methods.cal import CAL, EVAL_MODES, TrainingDraws
from fgvc.methods.similarity_crop import crop_and_resize

SIZE, MAPS, CLASSES = 64, 4, 5


def tiny(
    backbone: str = "test_resnet", size: int = SIZE, *, seed: int = 0, dropout: float = 0.0, **options: Any
) -> CAL:
    torch.manual_seed(seed)
    options = {"num_attentions": MAPS, **options}
    model = create_model(
        "cal", backbone=backbone, num_classes=CLASSES, image_size=size, dropout=dropout, **options
    )
    assert isinstance(model, CAL)
    return model.eval()


def pictures(count: int = 3, size: int = SIZE, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


LABELS = torch.tensor([0, 1, 1])


class Fixed(TrainingDraws):
    """The same for each image, so that images do not share a generator; or given maps."""

    def __init__(self, counterfactual: Tensor | None = None) -> None:
        self.given = counterfactual

    def maps(self, attention: Tensor) -> Tensor:
        return torch.tensor([[0, 1]]).expand(len(attention), -1)

    def shares(self, images: Tensor, bounds: tuple[float, float]) -> Tensor:
        return torch.full((len(images),), sum(bounds) / 2)

    def counterfactual(self, attention: Tensor) -> Tensor:
        return torch.full_like(attention, 0.5) if self.given is None else self.given


# --- pooling and effect ---------------------------------------------------------------------------


def test_the_classifier_reads_map_by_map() -> None:
    """A weight on map 2 and channel 1 reads feature 2·C + 1 and nothing else (spec §9 f)."""
    model, images = tiny(eval_mode="none1"), pictures()
    with torch.no_grad():
        model.fc.weight.zero_()[3, 2 * model.width + 1] = 1.0
        features = model.feature_maps(images)
        attention = model.attentions(features)
        output = model(images)
    mean = (attention[:, 2] * features[:, 1]).mean(dim=(1, 2))
    assert torch.equal(output.logits[:, 3].sign(), mean.sign())
    torch.testing.assert_close(output.logits[:, 3], 100 * output.embeddings["pooled"][:, 2 * model.width + 1])
    assert not output.logits[:, [0, 1, 2, 4]].any()


def test_the_effect_is_zero_when_the_counterfactual_is_the_attention() -> None:
    model, images = tiny().train(), pictures()
    with torch.no_grad():
        features = model.feature_maps(images)
        model.draws = Fixed(model.attentions(features))
        assert not model._look(images).effect.any()
        model.draws = Fixed()
        assert model._look(images).effect.any()


def test_in_evaluation_the_counterfactual_attends_to_everything_alike() -> None:
    model, images = tiny(eval_mode="none1"), pictures()
    with torch.no_grad():
        ones = torch.ones(3, MAPS, 4, 4)
        expected = model.fc(100 * bilinear_pool(model.feature_maps(images), ones))
        output = model(images)
    torch.testing.assert_close(output.logits - output.aux_logits["effect"], expected)


# --- centres --------------------------------------------------------------------------------------


def test_centres_move_in_training_only_and_soft_targets_count_by_their_largest() -> None:
    model, images = tiny(), pictures()
    assert model.centers is not None
    model.train()
    output = model(images)
    model.centers.eval()
    model.loss(output, LABELS)
    assert not model.centers.center.any()
    model.centers.train()
    soft = 0.7 * nn.functional.one_hot(LABELS, CLASSES) + 0.3 / CLASSES
    model.loss(output, soft)
    assert model.centers.center.any(dim=1).tolist() == [True, True, False, False, False]


def test_half_precision_centres_and_none() -> None:
    full, half, none = (tiny(centers=c).train() for c in ("float32", "float16", "none"))
    for model in (full, half, none):
        model.draws = Fixed()
        terms = model.loss(model(pictures()), LABELS)
        assert ("center" in terms) == (model is not none)
    assert half.centers is not None and full.centers is not None
    assert half.state_dict()["centers.center"].dtype == torch.float16
    torch.testing.assert_close(half.centers.center.float(), full.centers.center, rtol=1e-3, atol=1e-6)
    assert none.centers is None and not any("center" in name for name in none.state_dict())


def test_without_centres_and_moving_norms_images_are_not_coupled() -> None:
    """Then the gradient of a batch is the mean of its images' gradients."""
    model = tiny("vit_pico_patch16_224", centers="none")
    model.set_trainable(["fc.*"])
    model.double().train()
    model.draws = Fixed()
    assert not model.batch_coupled and tiny("vit_pico_patch16_224").batch_coupled
    images = pictures().double()

    def gradient(chosen: slice) -> Tensor:
        model.zero_grad()
        model.loss(model(images[chosen]), LABELS[chosen])["total"].backward()
        assert model.fc.weight.grad is not None
        return model.fc.weight.grad.clone()

    alone = torch.stack([gradient(slice(i, i + 1)) for i in range(3)]).mean(dim=0)
    torch.testing.assert_close(gradient(slice(0, 3)), alone)


# --- what a training step draws -------------------------------------------------------------------


def test_a_training_step_sees_the_image_its_crop_and_its_drop() -> None:
    model, images = tiny().train(), pictures()
    model.draws = Fixed()
    inputs: list[Tensor] = []
    maps: list[Tensor] = []
    model.backbone.register_forward_hook(lambda _m, given, _out: inputs.append(given[0]))
    model.attentions.register_forward_hook(lambda _m, _in, out: maps.append(out.detach()))
    output = model(images)
    crops, boxes = attention_crops(images, maps[0][:, 0], 0.5, 0.1)
    drops = attention_drops(images, maps[0][:, 1], 0.35)
    assert len(inputs) == 2
    torch.testing.assert_close(inputs[1], torch.cat([crops, drops]))
    torch.testing.assert_close(output.boxes[:, 0], boxes)
    assert output.aux_logits["aug"].shape == (6, CLASSES) and output.aux_logits["effect"].shape == (
        9,
        CLASSES,
    )
    assert torch.equal(output.logits, output.aux_logits["raw"])


def test_the_loss_is_the_weighted_sum_of_its_four_terms() -> None:
    options = {"raw_weight": 0.5, "aug_weight": 0.25, "effect_weight": 2.0, "center_weight": 3.0}
    model = tiny(**options).train()
    output = model(pictures())
    terms = model.loss(output, LABELS)
    entropy = nn.functional.cross_entropy
    aux, twice = output.aux_logits, torch.cat([LABELS] * 2)
    torch.testing.assert_close(terms["raw"], 0.5 * entropy(aux["raw"], LABELS))
    torch.testing.assert_close(terms["aug"], 0.25 * entropy(aux["aug"], twice))
    torch.testing.assert_close(terms["effect"], 2 * entropy(aux["effect"], torch.cat([twice, LABELS])))
    torch.testing.assert_close(terms["center"], 3 * output.embeddings["pooled"].square().sum() / 3)
    torch.testing.assert_close(terms["total"], sum(terms[n] for n in ("raw", "aug", "effect", "center")))
    evaluated = tiny()(pictures())
    assert model.loss(evaluated, LABELS)["total"] == entropy(evaluated.logits, LABELS)


# --- evaluation -----------------------------------------------------------------------------------


def test_eight_passes_averaged_by_hand() -> None:
    """Image and mirrored image; each whole and in three crops by its mean map."""
    model, none, images = tiny(), tiny(eval_mode="none1"), pictures()
    with torch.inference_mode():
        output = model(images)
        total, effects, regions, boxes = [], [], [], []
        for seen in (images, images.flip(-1)):
            whole = none(seen)
            total.append(whole.logits)
            effects.append(whole.aux_logits["effect"])
            maps = whole.masks["attention"].unflatten(1, (4, 4))
            for share, padding in ((0.3, 0.1), (0.2, 0.1), (0.1, 0.05)):
                crops, box = attention_crops(seen, maps, share, padding)
                total.append(none(crops).logits)
                effects.append(none(crops).aux_logits["effect"])
                regions.append(crops)
                boxes.append(box)
    torch.testing.assert_close(output.logits, torch.stack(total).mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        output.aux_logits["effect"], torch.stack(effects).mean(dim=0), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(output.crops, torch.stack(regions, dim=1))
    assert torch.equal(output.boxes[:, :3], torch.stack(boxes[:3], dim=1))
    assert len(total) == model.forward_passes() == 8


def test_boxes_of_the_mirrored_image_are_given_in_the_pixels_of_the_image() -> None:
    """Cut from the image and mirrored, such a box is the crop that was looked at."""
    images = pictures()
    output = tiny()(images)
    for c in range(6):
        cut = crop_and_resize(images, output.boxes[:, c])
        expected = cut if c < 3 else cut.flip(-1)
        torch.testing.assert_close(output.crops[:, c], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mode", list(EVAL_MODES))
def test_evaluation_draws_nothing_and_changes_nothing(mode: str) -> None:
    model, images = tiny(eval_mode=mode, dropout=0.5), pictures()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    first = model(images)
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(first.logits, model(images).logits)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.forward_passes() == int(mode[-1])


@pytest.mark.parametrize("mode", list(EVAL_MODES))
def test_an_evaluation_does_not_depend_on_the_batch(mode: str) -> None:
    model, images = tiny(eval_mode=mode), pictures(5)
    with torch.inference_mode():
        together = model(images)
        alone = [model(image[None]) for image in images]
    torch.testing.assert_close(together.logits, torch.cat([o.logits for o in alone]), rtol=1e-4, atol=1e-4)
    if together.boxes is not None:
        assert torch.equal(together.boxes, torch.cat([o.boxes for o in alone if o.boxes is not None]))


def test_a_trained_model_predicts_the_same_when_it_is_loaded_again(tmp_path: Path) -> None:
    model, images = tiny().train(), pictures()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        model.loss(model(images), LABELS)["total"].backward()
        optimizer.step()
    safetensors.torch.save_file(model.state_dict(), tmp_path / "m")
    other = tiny(seed=7)
    other.load_state_dict(safetensors.torch.load_file(tmp_path / "m"))
    assert torch.equal(other(images).logits, model.eval()(images).logits)
    assert other.centers is not None and other.centers.center.any()


# --- backbones ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "backbone", ["test_resnet", "resnet18d", "resnetaa50", "test_efficientnet", "test_convnext"]
)
def test_any_cnn_serves(backbone: str) -> None:
    output = tiny(backbone, eval_mode="none1")(pictures(2))
    assert output.grid is not None and output.logits.isfinite().all()
    expected = 4 if "resnet" in backbone else 2
    assert output.grid == (expected, expected)


@pytest.mark.parametrize("backbone", ["vit_pico_patch16_224", "test_vit2", "vit_little_patch16_reg4_gap_256"])
def test_of_a_vit_the_patch_tokens_are_the_feature_map(backbone: str) -> None:
    """With CLS token or not, with registers; normalised also where the model does that after its mean."""
    model, images = tiny(backbone, eval_mode="single2"), pictures()
    with torch.inference_mode():
        output, tokens = model(images), model.backbone(images)
        features = model.feature_maps(images)
        patches = model.backbone.vit.fc_norm(tokens[:, model.backbone.num_prefix :])
    assert output.grid == (4, 4) and output.crops is not None
    torch.testing.assert_close(features[:, :, 1, 2], patches[:, 1 * 4 + 2])


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "resnet18d", "resnetaa50"])
def test_output_stride_16_has_the_weights_and_no_dilation(backbone: str) -> None:
    """Also where a ResNet pools in its shortcuts, or against aliasing."""
    fine, coarse = tiny(backbone, num_attentions=1), tiny(backbone, num_attentions=1, output_stride=32)
    assert {n: t.shape for n, t in fine.state_dict().items()} == {
        n: t.shape for n, t in coarse.state_dict().items()
    }
    with torch.inference_mode():
        assert fine.feature_maps(pictures(1)).shape[2:] == (4, 4)
        assert coarse.feature_maps(pictures(1)).shape[2:] == (2, 2)
    convolutions = [m for m in fine.backbone.modules() if isinstance(m, nn.Conv2d)]
    assert {m.dilation for m in convolutions} == {(1, 1)}
    assert isinstance(fine.backbone, FeatureBackbone)
    assert all(m.stride == (1, 1) for m in fine.backbone.cnn.layer4.modules() if isinstance(m, nn.Conv2d))


def test_the_finer_stage_computes_what_its_definition_says() -> None:
    """The last stage of a ResNet-18 written out with torch's functions, stride 1."""
    model = tiny("resnet18", num_attentions=1)
    cnn, seen = model.backbone.cnn, {}
    cnn.layer3.register_forward_hook(lambda _m, _in, out: seen.update(x=out))
    with torch.inference_mode():
        found = model.feature_maps(pictures(1))
        x = seen["x"]
        for block in cnn.layer4:
            inner = block.bn1(nn.functional.conv2d(x, block.conv1.weight, padding=1)).relu()
            inner = block.bn2(nn.functional.conv2d(inner, block.conv2.weight, padding=1))
            if block.downsample is not None:
                x = block.downsample[1](nn.functional.conv2d(x, block.downsample[0].weight))
            x = (x + inner).relu()
    torch.testing.assert_close(found, x)


# --- options, precision, devices, cost ------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"eval_mode": "multi4"}, "possible: none1, single2, multi8"),
        ({"centers": "int8"}, "possible: float32, float16, none"),
        ({"num_attentions": 0}, "at least one map"),
        ({"output_stride": 8}, "possible: 16, 32"),
        ({"crop_share": (0.6, 0.4)}, "crop_share=[0.6, 0.4] is no range"),
        ({"drop_share": [0.2, 1.5]}, "drop_share=[0.2, 1.5] is no range"),
        ({"crop_padding": 1.0}, "crop_padding=1.0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(FgvcError, match="not possible") as caught:
        tiny(**options)
    assert reason in str(caught.value)


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "vit_pico_patch16_224"])
def test_an_output_stride_of_what_is_no_resnet_is_refused(backbone: str) -> None:
    with pytest.raises(FgvcError, match="no ResNet") as caught:
        tiny(backbone, output_stride=16)
    assert caught.value.key == "options.output_stride"


def test_a_network_without_feature_maps_is_refused() -> None:
    with pytest.raises(FgvcError, match="no maps"), torch.inference_mode():
        tiny("swin_tiny_patch4_window7_224", 224, eval_mode="none1")(pictures(1, 224))


def test_low_precision_training_pools_and_crops_in_single_precision() -> None:
    model, images = tiny().train(), pictures()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(images)
        loss = model.loss(output, LABELS)["total"]
    loss.backward()
    assert output.embeddings["pooled"].dtype == torch.float32
    torch.testing.assert_close(output.embeddings["pooled"].norm(dim=1), torch.ones(3))
    assert output.crops.dtype == torch.float32 and output.masks["attention"].dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


class NoValuesRead(TorchDispatchMode):
    """Refuses operators that wait for a device: reading a value, and shapes that depend on values."""

    REFUSED = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "item", "equal", "multinomial")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.name().partition("::")[2].partition(".")[0]
        assert not name.startswith(self.REFUSED), f"{func.name()} waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_read_back_from_the_device(training: bool) -> None:
    model = tiny().train(training)
    with NoValuesRead():
        model.loss(model(pictures()), LABELS)["total"].backward()
    with torch.device("meta"):
        shapes = tiny().train(training)
        assert shapes(torch.empty(2, 3, SIZE, SIZE)).logits.shape == (2, CLASSES)


def test_every_pass_counts_and_a_vit_has_a_formula() -> None:
    costs = [count_dispatch(tiny(eval_mode=mode), SIZE).macs for mode in EVAL_MODES]
    assert [cost / costs[0] for cost in costs] == [1, 2, 8]
    for mode in EVAL_MODES:
        vit = tiny("vit_pico_patch16_224", eval_mode=mode)
        assert vit.closed_form_macs() == count_dispatch(vit, SIZE).macs
    one = encoder_macs(vit.backbone) + 2 * MAPS * 128 * 16 + 2 * MAPS * 128 * CLASSES
    assert vit.closed_form_macs() == 8 * one and tiny().closed_form_macs() == costs[-1]


def test_the_classifier_of_a_resnet101_is_thirteen_million_parameters() -> None:
    """M·C·K, as many numbers in the centres, and 2·M·C·K products a pass (spec §3)."""
    with torch.device("meta"):
        model = create_model("cal", backbone="resnet101", num_classes=200, image_size=448)
    assert isinstance(model, CAL) and model.centers is not None
    assert model.fc.weight.numel() == model.centers.center.numel() == 32 * 2048 * 200
