"""What the recipe says is what the optimizer does: schedule, losses, mixing, clipping, what trains."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fgvc import create_model
from fgvc.config.recipe import Recipe
from fgvc.data.loading import Batch
from fgvc.errors import FgvcError
from fgvc.methods import Method
from fgvc.training.engine import Outcome, Trainer, autocast
from fgvc.training.optimization import Schedule, classification_loss, make_mixing, make_optimizer, mix
from fgvc.training.progress import TrainingProgress
from fgvc.training.resume import ResumeState

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "lr_schedules_a.json"
CLASSES, BATCH, SIZE = 3, 4, 32


def recipe(**more: Any) -> Recipe:
    facts = {
        "epochs": 2,
        "batch_size": BATCH,
        "learning_rate": 0.1,
        "augmentation": "weak",
        "warmup_steps": 0,
    }
    return Recipe.model_validate({**facts, **more}).resolved()


def a_model(**more: Any) -> Method:
    torch.manual_seed(0)
    return create_model("vit", backbone="test_vit", num_classes=CLASSES, image_size=SIZE, **more)


def batches(count: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        images = torch.randn(BATCH, 3, SIZE, SIZE, generator=generator)
        labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
        yield Batch(images, labels, torch.arange(BATCH))


def a_trainer(model: Method, its: Recipe, per_epoch: int = 3, rate: float | None = None) -> Trainer:
    return Trainer(
        model,
        its,
        learning_rate=rate or its.learning_rate,
        seed=1,
        num_classes=CLASSES,
        batches_per_epoch=per_epoch,
        device=torch.device("cpu"),
    )


def run_it(trainer: Trainer, folder: Path) -> Outcome:
    with (folder / "log").open("w") as stream:
        progress = TrainingProgress("x", 2, trainer.total_steps, 0, folder / "progress.json", stream)
        count = trainer.total_steps * trainer.accumulate
        return trainer.train(batches(count), ResumeState(folder, "x"), progress, save_every_s=1e9)


# --- the schedule ---------------------------------------------------------------------------------


def rates(its: Recipe, total_steps: int, count: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=its.learning_rate)
    schedule = Schedule(optimizer, its, total_steps)
    found = []
    for step in range(count):
        schedule.set(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_the_cosine_schedule_is_upstream_s_step_by_step() -> None:
    """Of GLSim's scheduler.py: the learning rate after k updates."""
    golden = json.loads(GOLDEN.read_text())["schedules"]["glsim_cosine"]
    args = golden["args"]
    its = recipe(
        learning_rate=args["lr"],
        warmup_steps=args["warm"],
        warmup_learning_rate=args["wl"],
        min_learning_rate=args["ml"],
    )
    found = rates(its, args["epochs"] * args["iters"], len(golden["lr"]))
    assert found == pytest.approx(golden["lr"], rel=1e-9)
    assert len(found) > args["epochs"] * args["iters"] / 2


def test_the_constant_schedule_warms_up_and_stays() -> None:
    its = recipe(schedule="constant", learning_rate=0.2, warmup_steps=4, warmup_learning_rate=0.0)
    assert rates(its, 10, 10) == pytest.approx([0.0, 0.05, 0.1, 0.15, *[0.2] * 6], rel=1e-6)


def test_the_rate_of_a_step_does_not_depend_on_the_steps_before() -> None:
    its = recipe(warmup_steps=3)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=its.learning_rate)
    Schedule(optimizer, its, 20).set(11)
    assert optimizer.param_groups[0]["lr"] == rates(its, 20, 12)[11]


def test_a_run_ends_near_the_smallest_rate(tmp_path: Path) -> None:
    trainer = a_trainer(a_model(), recipe(min_learning_rate=1e-5, epochs=4))
    outcome = run_it(trainer, tmp_path)
    assert outcome.status == "ok" and outcome.steps == 12
    seen = [row["learning_rate"] for row in outcome.history]
    assert seen == sorted(seen, reverse=True) and seen[-1] < 0.1 * seen[0]


# --- the optimizer --------------------------------------------------------------------------------


def test_only_what_trains_is_given_to_the_optimizer_and_norms_do_not_decay() -> None:
    model = a_model()
    model.set_trainable(["head.*", "backbone.vit.norm.*"])
    optimizer = make_optimizer(model, recipe(optimizer="adamw", weight_decay=0.05), 0.1)
    by_id = {id(p): name for name, p in model.named_parameters()}
    decays = {
        by_id[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    expected = {
        "head.weight": 0.05,
        "head.bias": 0,
        "backbone.vit.norm.weight": 0,
        "backbone.vit.norm.bias": 0,
    }
    assert decays == expected


@pytest.mark.parametrize(("name", "nesterov"), [("sgd", True), ("momentum", False)])
def test_sgd_is_nesterov_s_as_in_timm(name: str, nesterov: bool) -> None:
    optimizer = make_optimizer(a_model(), recipe(optimizer=name, momentum=0.8), 0.1)
    assert [(g["nesterov"], g["momentum"]) for g in optimizer.param_groups] == [
        (nesterov, 0.8) for _ in optimizer.param_groups
    ]


def test_what_does_not_train_does_not_change(tmp_path: Path) -> None:
    model = a_model()
    model.set_trainable(["head.*"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run_it(a_trainer(model, recipe(weight_decay=0.1)), tmp_path)
    changed = {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    assert changed == {"head.weight", "head.bias"}


def test_clipping_limits_the_step(tmp_path: Path) -> None:
    """With plain SGD from rest, the first step's length is rate × norm of the clipped gradient."""
    lengths = {}
    for clip in (None, 0.01):
        model = a_model()
        with torch.no_grad():
            model.head.weight.normal_()
        before = nn.utils.parameters_to_vector(model.parameters()).clone()
        its = recipe(clip_grad_norm=clip, momentum=0.0, optimizer="momentum", epochs=1, schedule="constant")
        run_it(a_trainer(model, its, per_epoch=1), tmp_path)
        lengths[clip] = (nn.utils.parameters_to_vector(model.parameters()) - before).norm().item()
    assert lengths[0.01] == pytest.approx(0.1 * 0.01, rel=1e-3)
    assert lengths[None] > 10 * lengths[0.01]


def test_accumulated_micro_batches_are_one_large_batch(tmp_path: Path) -> None:
    """For a loss that is a mean over images, two halves make the whole."""
    its = recipe(momentum=0.0, optimizer="momentum", epochs=1, dropout=0.0, schedule="constant")
    small = a_model()
    run_it(a_trainer(small, its.model_copy(update={"accumulate": 2}), per_epoch=2), tmp_path)
    large = a_model()
    trainer = a_trainer(large, its, per_epoch=1)
    one, two = batches(2)
    whole = Batch(torch.cat([one.images, two.images]), torch.cat([one.targets, two.targets]), one.indices)
    with (tmp_path / "log").open("w") as stream:
        progress = TrainingProgress("x", 1, 1, 0, tmp_path / "progress.json", stream)
        trainer.train(iter([whole]), ResumeState(tmp_path, "x"), progress, save_every_s=1e9)
    for (name, a), b in zip(small.named_parameters(), large.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)


def test_the_result_is_the_moving_average_where_there_is_one(tmp_path: Path) -> None:
    trainer = a_trainer(a_model(), recipe(ema_decay=0.5))
    run_it(trainer, tmp_path)
    averaged = dict(trainer.final_model().named_parameters())
    assert averaged.keys() == dict(trainer.model.named_parameters()).keys()
    assert not torch.equal(averaged["head.weight"], trainer.model.head.weight)
    plain = a_trainer(a_model(), recipe())
    assert plain.final_model() is plain.model


# --- losses and mixing ----------------------------------------------------------------------------


def test_the_loss_is_smoothed_or_soft_as_the_recipe_says() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    logp = logits.log_softmax(dim=1)[0]
    hard, label = -logp[0], torch.tensor([0])
    assert classification_loss(recipe(), mixes=False)(logits, label) == pytest.approx(hard.item())
    smoothed = classification_loss(recipe(label_smoothing=0.1), mixes=False)(logits, label)
    assert smoothed.item() == pytest.approx((0.9 * hard - 0.1 * logp.mean()).item())
    soft = torch.tensor([[0.5, 0.5, 0.0]])
    found = classification_loss(recipe(), mixes=True)(logits, soft)
    assert found.item() == pytest.approx((-0.5 * logp[0] - 0.5 * logp[1]).item())


def test_mixing_mixes_images_and_targets_by_the_same_share() -> None:
    mixing = make_mixing(recipe(mixup_alpha=1.0, mix_probability=1.0), CLASSES)
    assert mixing is not None
    labels = torch.tensor([0, 1, 2, 0])
    images = labels.float()[:, None, None, None].expand(4, 3, 8, 8)
    torch.manual_seed(0)
    mixed, targets = mix(mixing, images, labels)
    assert targets.shape == (4, CLASSES)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))
    torch.testing.assert_close(mixed[:, 0, 0, 0], targets @ torch.arange(3.0), rtol=1e-4, atol=1e-4)


def test_mixing_smooths_the_targets_once() -> None:
    """timm's mixing smooths them already; the loss for soft targets must not do it again."""
    its = recipe(label_smoothing=0.3, mixup_alpha=1.0, mix_probability=1.0)
    mixing = make_mixing(its, CLASSES)
    assert mixing is not None
    mixing.mixup_enabled = False
    _, targets = mix(mixing, torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]))
    torch.testing.assert_close(targets[0], torch.tensor([0.8, 0.1, 0.1]))
    assert type(classification_loss(its, mixes=True)).__name__ == "SoftTargetCrossEntropy"


@pytest.mark.parametrize("count", [1, 3])
def test_an_odd_batch_can_be_mixed(count: int) -> None:
    mixing = make_mixing(recipe(mixup_alpha=1.0, mix_probability=1.0), CLASSES)
    assert mixing is not None
    images, targets = mix(mixing, torch.zeros(count, 3, 8, 8), torch.zeros(count, dtype=torch.long))
    assert len(images) == len(targets) == max(1, count - count % 2)


def test_nothing_is_mixed_unless_the_recipe_says_so() -> None:
    assert make_mixing(recipe(), CLASSES) is None
    assert make_mixing(recipe(mixup_alpha=1.0, mix_probability=0.0), CLASSES) is None


# --- precision ------------------------------------------------------------------------------------


def test_half_precision_on_a_cpu_is_refused_and_bfloat16_is_not() -> None:
    cpu = torch.device("cpu")
    with pytest.raises(FgvcError, match="fp16, which needs a GPU") as caught:
        autocast(cpu, recipe(precision="fp16"))
    assert "precision: fp32" in str(caught.value)
    with autocast(cpu, recipe(precision="bf16")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with autocast(cpu, recipe()):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


# --- divergence -----------------------------------------------------------------------------------


@pytest.mark.parametrize("per_epoch", [3, 120])
def test_a_loss_that_is_not_finite_ends_the_run_soon(tmp_path: Path, per_epoch: int) -> None:
    """At the end of the epoch, or of every fifty steps where epochs are long."""
    its = recipe(clip_grad_norm=None, epochs=2, dropout=0.0)
    outcome = run_it(a_trainer(a_model(), its, per_epoch, rate=1e30), tmp_path)
    assert outcome.status == "diverged" and outcome.steps == min(per_epoch, 50)
    assert f"not finite at step {outcome.steps} of {2 * per_epoch} (epoch 1)" in (outcome.cause or "")


def test_weights_that_blow_up_in_the_very_last_step_are_a_diverged_run(tmp_path: Path) -> None:
    """No loss is computed after it."""
    model = a_model()
    with torch.no_grad():
        model.head.weight.normal_()
    its = recipe(clip_grad_norm=None, epochs=1, optimizer="momentum", momentum=0.0, schedule="constant")
    outcome = run_it(a_trainer(model, its, per_epoch=1, rate=1e38), tmp_path)
    if outcome.status == "ok":
        pytest.fail(f"the largest weight is {max(p.abs().max().item() for p in model.parameters())}")
    assert outcome.status == "diverged" and "weights are not finite" in (outcome.cause or "")
