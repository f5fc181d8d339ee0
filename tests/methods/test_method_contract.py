"""The contract that every registered method class keeps, on each kind of backbone that it is meant for.

A new class needs one line in `BACKBONES`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from fgvc import create_model, list_methods
from fgvc.config.recipe import Recipe
from fgvc.errors import FgvcError
from fgvc.methods import Method, MethodOutput, registered
from fgvc.methods.checkpoints import load_checkpoint
from fgvc.training.optimization import classification_loss
from fgvc.training.shared_draws import SharedDraws

CLASSES, BATCH = 5, 4


@dataclass(frozen=True)
class Case:
    """A backbone small enough for a CPU, and options other than the defaults, if any.

    ``size`` is a small image side that the backbone takes; 224 and 448 must work as well. ``moving`` names
    buffers that every training step moves, whatever trains.
    """

    backbone: str
    size: int = 64
    options: dict[str, Any] = field(default_factory=dict)
    moving: frozenset[str] = frozenset()


_PIM = {"fpn_size": 32, "num_selects": [0.75, 0.5, 0.5, 0.5], "combiner_dropout": 0.0}
#: Of IELT's votes, for the 16 patches of a small image.
FEW_VOTES = {"vote_perhead": 6, "total_num": 20, "key_tokens": 6}

#: Class → where it is tested. Give a class one line for each kind of backbone that it behaves otherwise on.
BACKBONES: dict[str, list[Case]] = {
    "adapter": [
        Case("vit_pico_patch16_224"),
        Case("test_vit", options={"kind": "convpass", "activation": "quickgelu", "scale": 0.1}),
        Case("test_vit2", options={"path": "pfeiffer", "up_init": "zeros"}),
        Case("test_vit3", options={"kind": "convpass", "where": ["mlp"], "conv_init": "identity"}),
    ],
    "cal": [
        Case("test_resnet", options={"num_attentions": 4}, moving=frozenset({"centers.center"})),
        Case(
            "tf_efficientnet_lite0",
            options={"num_attentions": 4, "eval_mode": "single2", "centers": "float16"},
            moving=frozenset({"centers.center"}),
        ),
        Case(
            "vit_pico_patch16_224",
            options={"num_attentions": 4, "eval_mode": "none1"},
            moving=frozenset({"centers.center"}),
        ),
        Case(
            "test_vit",
            options={"num_attentions": 4, "cls_token": False, "norm_eps": 1e-12, "head_init": "xavier"},
            moving=frozenset({"centers.center"}),
        ),
    ],
    "cnn": [Case("tf_efficientnet_lite0"), Case("test_resnet", options={"head_init": "default"})],
    "ffvt": [
        Case("vit_pico_patch16_224"),
        Case("test_vit", options={"num_token": 3, "include_cls": False, "last_block_init": "pretrained"}),
        Case("test_vit", options={"feature_fusion": False}),
        Case("test_vit", options={"last_block_init": "xavier", "last_norm_init": "pretrained"}),
    ],
    "glsim": [
        Case("vit_pico_patch16_224"),
        Case("test_vit", options={"crop_cls": "own", "tokens": "raw"}),
        Case(
            "vit_pico_patch16_224",
            options={"score": "rollout", "aggregator": "none", "classifier": "avg_cls", "crop_cls": "own"},
        ),
        Case("test_vit2", options={"select": "tokens", "aggregator": "dwsc", "classifier": "avg_cls"}),
    ],
    "ielt": [
        Case("vit_pico_patch16_224", options=FEW_VOTES, moving=frozenset({"selection.steps"})),
        Case(
            "test_vit",
            options={**FEW_VOTES, "last_block_init": "pretrained", "select_init": "uniform"},
            moving=frozenset({"selection.steps"}),
        ),
    ],
    "ifa": [Case("vit_pico_patch16_224"), Case("test_vit3", options={"head_init": "zeros"})],
    "ila": [
        Case("vit_pico_patch16_224", options={"ds_blocks": [1]}),
        Case("test_vit", options={"ds_blocks": [0], "adapter": "adapter", "same_blocks": "rest"}),
        Case("test_vit3", options={"ds_blocks": [1], "adapter": "convpass", "norm": "layer"}),
    ],
    "isqrtcov": [
        Case("test_resnet", options={"reduced": 8}),
        Case("tf_efficientnet_lite0", options={"reduced": 16, "mirror": False, "iterations": 3}),
        Case("vit_pico_patch16_224", options={"reduced": 8, "iterations": 1}),
        Case("test_vit", options={"reduced": 8, "mirror": False, "cls_token": False}),
    ],
    "lora": [
        Case("vit_pico_patch16_224"),
        Case("test_vit", options={"targets": ["q", "k", "v"], "rank": 2}),
    ],
    # Without the graph's own dropout, which would pass for coupling.
    "pim": [
        Case("vit_pico_patch16_224", options=_PIM | {"num_selects": [12, 10, 8, 6]}),
        Case("tf_efficientnet_lite0", 96, options=_PIM | {"select_weight": 0.3}),
        Case("test_resnet", options=_PIM | {"predict": "top_k", "heads": 2, "drop_weight": 0.5}),
        Case("swin_tiny_patch4_window7_224", options=_PIM | {"predict": "combiner"}),
    ],
    "sc4001": [
        Case("vit_pico_patch16_224", options=FEW_VOTES, moving=frozenset({"selection.steps"})),
        Case(
            "test_vit",
            options={**FEW_VOTES, "merge_inattentive": True, "kernel": "learnable", "dilations": [1, 2]},
            moving=frozenset({"selection.steps"}),
        ),
        Case(
            "test_vit",
            options={**FEW_VOTES, "triplet_weight": 0.0, "upstream_index_shift": True},
            moving=frozenset({"selection.steps"}),
        ),
    ],
    "transfg": [
        Case("vit_pico_patch16_224"),
        Case("test_vit", options={"patch_stride": None, "contrast_weight": 0.0}),
        Case("test_vit", options={"last_block_init": "pretrained", "contrast_weight": 0.1}),
    ],
    # Without the graph's own dropout, which would pass for coupling.
    "simtrans": [
        Case("vit_pico_patch16_224", options={"gcn_dropout": 0.0}),
        Case(
            "test_vit",
            options={"patch_stride": None, "sil_layers": [-1], "contrast_weight": 0, "gcn_dropout": 0.0},
        ),
    ],
    "vit": [
        Case("vit_pico_patch16_224"),
        Case("test_vit2"),
        Case("test_vit3", options={"pool": "patches"}),
        Case("test_vit2", options={"pool": "flatten", "head_init": "default"}),
        Case("test_vit", options={"pool": "bilinear", "projection": 8}),
    ],
    "vpt": [
        Case("vit_pico_patch16_224"),
        Case("test_vit3", options={"deep": False, "num_prompts": 3}),
        Case("test_vit2", options={"projection": 4, "head_init": "rare"}),
    ],
    "vqt": [
        Case("vit_pico_patch16_224"),
        Case("test_vit2", options={"num_queries": 3, "feature_order": "cls_last"}),
        Case("test_vit3", options={"normalize": False, "head_init": "rare"}),
    ],
}


def _cases() -> Iterator[Any]:
    for name in registered():
        for case in BACKBONES.get(name, [None]):
            yield pytest.param((name, case), id=f"{name}-{case.backbone if case else 'no line in BACKBONES'}")


@pytest.fixture(params=_cases())
def subject(request: pytest.FixtureRequest) -> tuple[str, Case]:
    name, case = request.param
    if case is None:
        pytest.fail(
            f"the method class '{name}' has no line in BACKBONES; add one to {Path(__file__).name}: "
            f'"{name}": [Case("vit_pico_patch16_224")] for a ViT, Case("tf_efficientnet_lite0") for a CNN'
        )
    return name, case


def build(subject: tuple[str, Case], size: int | None = None, **more: Any) -> Method:
    """A model whose every parameter was moved away from its initial value.

    A head of zeros would hide the gradient of everything before it.
    """
    name, case = subject
    torch.manual_seed(0)
    options = {**case.options, **more}
    model = create_model(
        name, backbone=case.backbone, num_classes=CLASSES, image_size=size or case.size, **options
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def pictures(size: int, count: int = BATCH, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


#: The first and the last image are of one class, which losses on pairs and triplets need.
LABELS = torch.tensor([0, 1, 2, 0])


def test_the_table_names_only_classes_that_exist() -> None:
    assert set(BACKBONES) <= set(registered())
    assert list_methods() == sorted(registered())


# --- what comes out -------------------------------------------------------------------------------


def check_output(output: MethodOutput, batch: int, size: int) -> None:
    """Every field that is present has its documented shape."""
    assert output.logits.shape == (batch, CLASSES)
    assert output.logits.isfinite().all()
    assert all(logits.shape[-1] == CLASSES for logits in output.aux_logits.values())
    assert all(e.ndim == 2 and len(e) == batch for e in output.embeddings.values())
    if output.crops is not None:
        assert output.crops.ndim == 5
        assert (output.crops.shape[0], *output.crops.shape[2:]) == (batch, 3, size, size)
    if output.boxes is not None:
        assert output.boxes.shape == (batch, output.boxes.shape[1], 4)
        y0, x0, y1, x1 = output.boxes.unbind(-1)
        assert ((y0 >= 0) & (y0 < y1) & (y1 <= size) & (x0 >= 0) & (x0 < x1) & (x1 <= size)).all()
        assert output.crops is None or output.crops.shape[1] == output.boxes.shape[1]
    if output.masks:
        assert output.grid is not None
        patches = output.grid[0] * output.grid[1]
        assert all(mask.shape == (batch, patches) for mask in output.masks.values())
    assert all(loss.shape == () for loss in output.losses.values())


@pytest.mark.parametrize("size", [224, 448])
def test_both_sizes_of_the_paper_at_batch_1(subject: tuple[str, Case], size: int) -> None:
    model = build(subject, size).eval()
    with torch.inference_mode():
        check_output(model(pictures(size, 1)), 1, size)


def test_a_batch_in_both_modes(subject: tuple[str, Case]) -> None:
    model = build(subject)
    size = subject[1].size
    check_output(model.train()(pictures(size)), BATCH, size)
    with torch.inference_mode():
        check_output(model.eval()(pictures(size)), BATCH, size)


def test_eval_is_deterministic_whatever_is_dropped_in_training(subject: tuple[str, Case]) -> None:
    model = build(subject, dropout=0.3, stochastic_depth=0.3).eval()
    images = pictures(subject[1].size)
    with torch.inference_mode():
        torch.manual_seed(1)
        first = model(images).logits
        torch.manual_seed(2)
        assert torch.equal(first, model(images).logits)


def test_what_the_recipe_drops_is_dropped_in_training(subject: tuple[str, Case]) -> None:
    model = build(subject, dropout=0.5).train()
    images = pictures(subject[1].size)
    torch.manual_seed(1)
    first = model(images).logits
    torch.manual_seed(2)
    assert not torch.equal(first, model(images).logits)


def test_a_prediction_does_not_depend_on_the_rest_of_its_batch(subject: tuple[str, Case]) -> None:
    model = build(subject).eval()
    images = pictures(subject[1].size)
    with torch.inference_mode():
        alone = torch.cat([model(image[None]).logits for image in images])
        torch.testing.assert_close(model(images).logits, alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_passes_are_what_the_backbone_sees(subject: tuple[str, Case], training: bool) -> None:
    """Counted at the backbone's first layer with weights; crops stacked into one batch count as well."""
    model = build(subject).train(training)
    first = next(m for m in model.backbone.modules() if list(m.parameters(recurse=False)) and is_leaf(m))
    seen: list[int] = []
    first.register_forward_hook(lambda _module, inputs, _out: seen.append(len(inputs[0])))
    with torch.inference_mode():
        model(pictures(subject[1].size))
    assert sum(seen) == BATCH * (model.training_passes() if training else model.forward_passes())


def is_leaf(module: nn.Module) -> bool:
    return not list(module.children())


# --- losses and gradients -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["class ids", "class ids, smoothed", "soft targets"])
def test_the_loss_has_named_finite_terms_and_their_sum(subject: tuple[str, Case], kind: str) -> None:
    model = build(subject).train()
    targets = LABELS
    if kind == "soft targets":
        targets = 0.7 * nn.functional.one_hot(LABELS, CLASSES) + 0.3 / CLASSES
    smoothing = 0.1 if kind == "class ids, smoothed" else 0.0
    recipe = Recipe(epochs=1, batch_size=1, learning_rate=1, label_smoothing=smoothing)
    model.classification_loss = classification_loss(recipe, mixes=kind == "soft targets")
    terms = model.loss(model(pictures(subject[1].size)), targets)
    assert len(terms) >= 2
    assert all(isinstance(name, str) and value.shape == () for name, value in terms.items())
    assert all(value.isfinite() for value in terms.values())
    parts = torch.stack([value for name, value in terms.items() if name != "total"])
    torch.testing.assert_close(terms["total"], parts.sum())
    assert terms["total"].requires_grad


def gradients(model: Method, images: Tensor, targets: Tensor) -> dict[str, Tensor | None]:
    model.zero_grad(set_to_none=True)
    model.loss(model(images), targets)["total"].backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_all_means_that_the_gradient_reaches_every_parameter(subject: tuple[str, Case]) -> None:
    model = build(subject).train()
    model.set_trainable("all")
    found = gradients(model, pictures(subject[1].size), LABELS)
    assert [name for name, gradient in found.items() if gradient is None or not gradient.any()] == []


def test_patterns_mean_these_parameters_and_no_others(subject: tuple[str, Case]) -> None:
    """Nor does anything else change: a frozen batch norm keeps its statistics."""
    model = build(subject).train()
    names = [name for name, _ in model.named_parameters()]
    patterns = [names[0], f"{names[-1].rpartition('.')[0]}.*"]
    wanted = {name for name in names if any(fnmatch.fnmatchcase(name, p) for p in patterns)}
    assert 0 < len(wanted) < len(names)
    model.set_trainable(patterns)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == wanted
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = gradients(model.train(), pictures(subject[1].size), LABELS)
    assert {name for name, gradient in found.items() if gradient is not None} == wanted
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    after = model.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == wanted | subject[1].moving


def test_a_pattern_that_matches_nothing_is_an_error(subject: tuple[str, Case]) -> None:
    model = build(subject)
    name = next(iter(dict(model.named_parameters())))
    misspelt = name[:-1] + "x"
    with pytest.raises(FgvcError, match="matches no parameter") as caught:
        model.set_trainable([name, misspelt])
    assert misspelt in str(caught.value) and name in (caught.value.cure or "")


@pytest.mark.parametrize("frozen", [False, True], ids=["all train", "the head trains"])
def test_batch_coupled_says_the_truth(subject: tuple[str, Case], frozen: bool) -> None:
    """Not coupled: the gradient of a batch is the mean of its halves' gradients. Coupled: it is not.

    Halves, since batch norm refuses single images.
    """
    model = build(subject)
    last = list(dict(model.named_parameters()))[-1].rpartition(".")[0]
    model.set_trainable([f"{last}.*"] if frozen else "all")
    model.double().train()  # so that rounding cannot pass for coupling
    images = pictures(subject[1].size).double()
    together = gradients(model, images, LABELS)
    halves = (slice(0, BATCH // 2), slice(BATCH // 2, BATCH))
    apart = [gradients(model, images[half], LABELS[half]) for half in halves]
    difference = scale = 0.0
    for name, gradient in together.items():
        if gradient is not None:
            mean = torch.stack([g[name] for g in apart]).mean(dim=0)
            difference += (gradient - mean).square().sum().item()
            scale += gradient.square().sum().item()
    is_coupled = (difference / scale) ** 0.5 > 1e-6
    assert model.batch_coupled == is_coupled


def test_an_image_sees_the_same_beside_any_others(subject: tuple[str, Case]) -> None:
    """What the loss reads of an image is the same on one device and on several, which share a batch.

    Rows of several looks stand look by look. Batch norms, which GPUs synchronise, are frozen here.
    """
    model = build(subject, gcn_dropout=0.1) if subject[0] == "simtrans" else build(subject)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.requires_grad_(False)
    model.double().train()
    images = pictures(subject[1].size).double()
    torch.manual_seed(3)
    together = rows_of(model(images))
    for own in ([0, 3], [1, 2]):
        torch.manual_seed(3)
        with SharedDraws(BATCH, own):
            apart = rows_of(model(images[own]))
        assert model.couples_forward or all(
            torch.allclose(apart[name], rows.unflatten(0, (-1, BATCH))[:, own].flatten(0, 1), atol=1e-12)
            for name, rows in together.items()
        )


def rows_of(output: MethodOutput) -> dict[str, Tensor]:
    return {"logits": output.logits, **output.aux_logits, **output.embeddings}


# --- state and options ----------------------------------------------------------------------------


def test_state_comes_back_from_safetensors_to_the_byte(subject: tuple[str, Case], tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    model = build(subject)
    images = pictures(subject[1].size)
    model.train()(images)  # moves what buffers there are
    model.eval()
    safetensors.torch.save_file(model.state_dict(), first)
    other = create_model(
        subject[0],
        backbone=subject[1].backbone,
        num_classes=CLASSES,
        image_size=subject[1].size,
        **subject[1].options,
    ).eval()
    load_checkpoint(other, first)
    safetensors.torch.save_file(other.state_dict(), second)
    assert first.read_bytes() == second.read_bytes()
    with torch.inference_mode():
        assert torch.equal(model(images).logits, other(images).logits)


def test_a_checkpoint_of_another_model_is_refused(subject: tuple[str, Case], tmp_path: Path) -> None:
    model = build(subject)
    path = tmp_path / "model.safetensors"
    state = dict(model.state_dict())
    dropped = list(state)[-1]
    safetensors.torch.save_file({k: v for k, v in state.items() if k != dropped}, path)
    with pytest.raises(FgvcError, match="does not fit the model"):
        load_checkpoint(model, path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FgvcError, match="no safetensors file, or a damaged one"):
        load_checkpoint(model, path)
    with pytest.raises(FgvcError, match="does not exist"):
        load_checkpoint(model, tmp_path / "nothing.safetensors")


def test_an_unknown_option_is_answered_with_the_nearest(subject: tuple[str, Case]) -> None:
    name, _ = subject
    option = next(iter(registered()[name].Options.__dataclass_fields__), None)
    if option is None:
        pytest.skip(f"'{name}' has no options")
    with pytest.raises(FgvcError) as caught:
        build(subject, **{f"{option}x": "cls"})
    assert f"'{name}' has no option '{option}x'; did you mean '{option}'?" in str(caught.value)
    with pytest.raises(FgvcError, match="not possible"):
        build(subject, **{option: "no such value"})


def test_the_same_seed_builds_the_same_model(subject: tuple[str, Case]) -> None:
    one, other = build(subject).state_dict(), build(subject).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


# --- the registry ---------------------------------------------------------------------------------


def test_an_unknown_class_is_answered_with_the_nearest() -> None:
    with pytest.raises(FgvcError, match="did you mean 'vit'"):
        create_model("vits", backbone="vit_pico_patch16_224", num_classes=2)


def test_two_classes_of_one_name_are_refused() -> None:
    from fgvc.methods import register

    class Impostor(Method):
        name = "vit"

    with pytest.raises(ValueError, match="two methods are called 'vit'"):
        register(Impostor)
    assert registered()["vit"] is not Impostor
