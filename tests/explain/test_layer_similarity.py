"""How alike the blocks of a ViT are: the record of a run, and methods that do unusual things with blocks."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fgvc import create_model
from fgvc.backbones import attention_chain
from fgvc.config.project import Project
from fgvc.data.loading import Sample
from fgvc.errors import FgvcError
from fgvc.evaluation.predict import images_of
from fgvc.explain.layer_similarity import (
    BATCH,
    IMAGES,
    LayerSimilarity,
    minibatches,
    write_layer_similarity,
)
from fgvc.methods.build import build_variant
from fgvc.methods.checkpoints import load_checkpoint

SIZE = 64
Trained = Callable[..., Path]


# --- in the open: float64, map by map, and the sums over distinct images that define the estimate --


def whole_map(attention: Any, given: Tensor) -> Tensor:
    """softmax(q·kᵀ/√d) [B, H, S, S] from the rows of the joint projection, head by head."""
    d, width = attention.head_dim, attention.num_heads * attention.head_dim
    weights, biases = attention.qkv.weight.split(width), attention.qkv.bias.split(width)
    q, k = (given @ w.T + b for w, b in zip(weights[:2], biases[:2], strict=True))
    heads = range(0, width, d)
    return torch.stack(
        [(q[..., h : h + d] @ k[..., h : h + d].mT / d**0.5).softmax(dim=-1) for h in heads], dim=1
    )


def hsic(k: np.ndarray, other: np.ndarray) -> float:
    """The unbiased estimate by its definition: a mean over all quadruples of different rows."""
    i, j, q, r = np.array(list(permutations(range(len(k)), 4))).T
    return float((k[i, j] * other[i, j] + k[i, j] * other[q, r] - 2 * k[i, j] * other[i, q]).mean())


def cka(layers: list[Tensor]) -> np.ndarray:
    rows = [layer.flatten(1).numpy() for layer in layers]
    grams = [x @ x.T for x in rows]
    values = np.array([[hsic(a, b) for b in grams] for a in grams])
    return values / np.sqrt(np.outer(values.diagonal(), values.diagonal()))


def in_the_open(model: Any, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Attention maps and features of all blocks, each recomputed from what goes into its block."""
    inputs: list[Tensor] = []
    for block in model.backbone.blocks:
        block.register_forward_pre_hook(lambda _block, given: inputs.append(given[0]))
    with torch.no_grad():
        model(images)
        blocks = list(zip(model.backbone.blocks, inputs, strict=True))
        maps = [whole_map(block.attn, block.norm1(x)) for block, x in blocks]
        features = [block.norm2(x + block.attn(block.norm1(x))) for block, x in blocks]
    return maps, features


@pytest.mark.parametrize(("method", "tokens"), [("plain", [17] * 4), ("ila", [17, 17, 5, 5])])
def test_the_record_of_a_run_is_what_a_direct_computation_gives(
    tiny: Project, trained: Trained, method: str, tokens: list[int]
) -> None:
    directory = trained(method)
    record = write_layer_similarity(tiny, "tiny", method, SIZE, 1)
    file = tiny.root / f"results/cka/tiny/{method}/{SIZE}/seed1.json"
    assert json.loads(file.read_text()) == record
    run = json.loads((directory / "run.json").read_text())
    model = build_variant(tiny, method, SIZE, 3, with_weights=False)
    load_checkpoint(model, directory / "model.safetensors")
    shown = images_of(tiny, run, "test")
    images = torch.stack([shown[0, i][0] for i in range(len(shown))]).double()  # type: ignore[index]
    for name, layers in zip(
        ("attention", "features"), in_the_open(model.double().eval(), images), strict=True
    ):
        truth = cka(layers)
        print(f"{method} {name}: largest difference {np.abs(np.array(record[name]) - truth).max():.1e}")
        np.testing.assert_allclose(record[name], truth, rtol=0, atol=2e-6)
        others = truth[~np.eye(4, dtype=bool)]
        assert record[f"{name}_mean_off_diagonal"] == pytest.approx(others.mean(), abs=2e-6)
    assert (record["tokens"], record["images"], record["status"]) == (tokens, 12, "ok")
    assert record["model_sha256"] == run["model_sha256"]


# --- methods that do more than run their blocks ----------------------------------------------------


def made(method: str, **options: Any) -> Any:
    torch.manual_seed(0)
    model = create_model(
        method, backbone="vit_pico_patch16_224", num_classes=3, image_size=SIZE, **options
    ).eval()
    for name, parameter in model.named_parameters():
        if "qkv" in name:  # maps that differ from image to image
            nn.init.normal_(parameter, std=0.2)
    return model


def compare(backbone: Any, model: Any, count: int = 6) -> LayerSimilarity:
    compared = LayerSimilarity(backbone)
    compared.add(model, torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)))
    return compared


def assert_alike(one: LayerSimilarity, other: LayerSimilarity) -> None:
    assert one.tokens == other.tokens
    for a, b in ((one.attention, other.attention), (one.features, other.features)):
        assert abs(a.value()[0, -1]) < 0.999, "a comparison that could fail"
        torch.testing.assert_close(a.value(), b.value(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["vit", "ifa", "glsim", "vqt"])
def test_what_a_method_does_besides_its_first_pass_does_not_count(method: str) -> None:
    """Crops go through the blocks, queries through the norms once more."""
    model = made(method)
    assert_alike(compare(model.backbone, model), compare(model.backbone, model.backbone))


def test_updates_of_projections_count() -> None:
    model = made("lora")
    for update in model.lora:
        nn.init.normal_(update.up, std=0.5)
    merged = model.merged()
    assert_alike(compare(model.backbone, model), compare(merged.backbone, merged))


@pytest.mark.parametrize(("method", "last"), [("transfg", 3), ("ffvt", 37)])
def test_a_pass_may_bring_the_images_in_groups(
    method: str, last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where maps are kept for a few images at a time; the last block sees what was chosen."""
    options = {"patch_stride": None} if method == "transfg" else {}
    model = made(method, **options)
    at_once = compare(model.backbone, model)
    monkeypatch.setattr(attention_chain, "_MOST_KEPT", {"cpu": 1})
    monkeypatch.setattr(attention_chain, "_ENOUGH_KEPT", {"cpu": 1})
    assert_alike(compare(model.backbone, model), at_once)
    assert at_once.tokens == [17, 17, 17, last]


def test_prompts_belong_to_the_maps() -> None:
    model = made("vpt", num_prompts=7)
    assert compare(model.backbone, model).tokens == [24] * 4


class Half(nn.Module):
    """Runs half of its blocks."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.backbone.embed(images)
        return self.backbone.blocks[:2](tokens)  # type: ignore[no-any-return]


class Double(nn.Module):
    """Shows its blocks every image twice at once."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(torch.cat([images, images]))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("wrapped", "named"), [(Half, "once: 3, 4"), (Double, "once: 1, 2, 3, 4")])
def test_blocks_that_do_not_see_the_images_are_named(wrapped: type[nn.Module], named: str) -> None:
    backbone = made("vit").backbone
    with pytest.raises(FgvcError, match=f"these of 4 blocks do not see each image of a batch {named}"):
        compare(backbone, wrapped(backbone))


def test_nothing_is_left_on_the_model() -> None:
    model = made("vit")
    compare(model.backbone, model)
    assert not any(module._forward_hooks for module in model.modules())


# --- which images ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [4, 12, 33, 100, 256, 300, 5000])
def test_minibatches_span_the_list(count: int) -> None:
    samples = [Sample(i, f"{i}.png") for i in range(count)]
    chosen, size = minibatches(samples)
    assert len(set(chosen)) == len(chosen) == min(count, IMAGES) and size <= BATCH
    batches = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    assert all(len(batch) >= 4 for batch in batches), "none is too small to count"
    for batch in batches:
        places = sorted(sample.class_id for sample in batch)
        assert places[0] <= count / 8 and places[-1] >= count * 7 / 8 - 1


# --- mistakes --------------------------------------------------------------------------------------


def refused(project: Project, method: str, dataset: str = "tiny", seed: int = 1) -> FgvcError:
    with pytest.raises(FgvcError) as caught:
        write_layer_similarity(project, dataset, method, SIZE, seed)
    assert not project.paths.layer_similarity(dataset, method, SIZE, seed).exists()
    return caught.value


def test_a_cnn_has_no_such_layers(tiny: Project) -> None:
    error = refused(tiny, "cnn")
    assert "'cnn' runs on ResNet, and layers are compared of ViTs only" in str(error)
    assert error.where == "params/methods/cnn.yaml, key 'backbone'"


def test_a_run_that_is_not_there_comes_with_the_command_that_makes_it(tiny: Project) -> None:
    command = f"snakemake --cores 1 -- results/runs/tiny/plain/{SIZE}/seed77/run.json"
    assert command in str(refused(tiny, "plain", seed=77))


def test_four_images_are_needed(tiny: Project, trained: Trained) -> None:
    trained("plain", "few")
    error = refused(tiny, "plain", "few")
    assert "'few' has 3 test image(s); unbiased CKA needs 4 at least" in str(error)
    assert error.where == "results/splits/few/test.csv"


def test_a_diverged_run_has_a_record_that_says_so(tiny: Project, trained: Trained) -> None:
    file = trained("plain") / "run.json"
    kept, target = file.read_text(), tiny.paths.layer_similarity("tiny", "plain", SIZE, 1)
    target.unlink(missing_ok=True)
    try:
        file.write_text(json.dumps({**json.loads(kept), "status": "diverged", "cause": "the loss is NaN"}))
        record = write_layer_similarity(tiny, "tiny", "plain", SIZE, 1)
        assert (record["status"], record["cause"]) == ("diverged", "the loss is NaN")
        assert "attention" not in record and json.loads(target.read_text()) == record
    finally:
        file.write_text(kept)
        target.unlink(missing_ok=True)


def test_a_run_of_another_recipe_is_refused(tiny: Project, trained: Trained) -> None:
    trained("plain")
    tiny.paths.layer_similarity("tiny", "plain", SIZE, 1).unlink(missing_ok=True)
    path = tiny.root / "params/methods/plain.yaml"
    kept = path.read_text()
    try:
        path.write_text(kept.replace("epochs: 1", "epochs: 2"))
        error = refused(Project(tiny.root), "plain")
        assert "no longer the one that this run was trained with" in str(error)
    finally:
        path.write_text(kept)


def test_a_network_that_is_no_sequence_of_tokens_is_refused() -> None:
    with pytest.raises(FgvcError, match="the blocks of a Linear are not compared"):
        LayerSimilarity(nn.Linear(2, 2))
