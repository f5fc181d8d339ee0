"""The training loop, from top to bottom.

Everything random is a function of seed and step or of seed, epoch and sample; so a run that was killed at any
step and started again ends with the same bytes as one that was not (CPU, fp32).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from fgvc.config.recipe import Recipe
from fgvc.data.loading import Batch
from fgvc.device import give_back, is_out_of_memory
from fgvc.errors import FgvcError
from fgvc.methods import Method
from fgvc.methods.checkpoints import saved_names
from fgvc.provenance.stopping import StopRequest
from fgvc.training.distributed import Peers
from fgvc.training.memory import MicroBatches, shared_out_of_memory, too_large
from fgvc.training.optimization import (
    Schedule,
    base_rate,
    classification_loss,
    make_mixing,
    make_optimizer,
    mix,
    seed_step,
)
from fgvc.training.progress import TrainingProgress
from fgvc.training.resume import ResumeState

#: Steps between two checks that the loss is finite (each check waits for the device).
FINITE_CHECK_STEPS = 50


@dataclass
class Pass:
    """What one forward and backward pass tells: ``share`` of a micro-batch's images, its loss terms."""

    share: float
    terms: dict[str, Tensor]
    correct: Tensor
    images: int


@dataclass
class Epoch:
    """Running sums over the epoch under way; kept on the device until someone asks."""

    loss: Tensor
    correct: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    images: int = 0
    batches: int = 0

    @classmethod
    def new(cls, device: torch.device) -> Epoch:
        dtype = torch.float32 if device.type == "mps" else torch.float64
        return cls(torch.zeros((), dtype=dtype, device=device), torch.zeros((), dtype=dtype, device=device))

    def add(self, micro_batch: list[Pass]) -> None:
        for done in micro_batch:
            self.loss += done.share * done.terms["total"]
            for name, value in done.terms.items():
                if name != "total":
                    so_far = self.terms.get(name, torch.zeros_like(self.loss))
                    self.terms[name] = so_far + done.share * value
            self.correct += done.correct
            self.images += done.images
        self.batches += 1

    def means(self) -> tuple[float, float]:
        """(mean loss of a batch, train accuracy in %)."""
        return self.loss.item() / max(self.batches, 1), 100 * self.correct.item() / max(self.images, 1)

    def row(self, epoch: int, learning_rate: float) -> dict[str, float]:
        """One line of history.csv. No timings: the file is the same bytes after a resume."""
        loss, top1_pct = self.means()
        named = {f"loss_{name}": v.item() / self.batches for name, v in sorted(self.terms.items())}
        return {
            "epoch": epoch,
            "learning_rate": learning_rate,
            "train_loss": loss,
            **(named if len(named) > 1 else {}),
            "train_top1_pct": top1_pct,
        }


@dataclass
class Outcome:
    """What `Trainer.train` ends with: ``ok``, ``diverged`` (with a cause) or ``stopped`` (by a signal)."""

    status: str
    history: list[dict[str, float]]
    steps: int
    cause: str | None = None


class Trainer:
    """One run's model, optimizer, schedule and state.

    Args:
        model: on ``device`` already, with what trains marked.
        batches_per_epoch: micro-batches; ``accumulate`` of them make a step.
        peers: the processes that train this run, of which this is one.
        whole_state: False leaves out of all that is saved what the backbone's weights file has.
    """

    def __init__(
        self,
        model: Method,
        recipe: Recipe,
        *,
        learning_rate: float,
        seed: int,
        num_classes: int,
        batches_per_epoch: int,
        device: torch.device,
        peers: Peers | None = None,
        whole_state: bool = True,
    ) -> None:
        self.model, self.recipe, self.seed, self.device = model, recipe, seed, device
        self.peers = peers or Peers()
        self.accumulate = min(recipe.accumulate, batches_per_epoch)
        self.steps_per_epoch = batches_per_epoch // self.accumulate
        self.total_steps = recipe.epochs * self.steps_per_epoch
        self._saved = saved_names(model, whole=whole_state)
        model.begin_training(passes_per_epoch=self.steps_per_epoch * self.accumulate)
        self.mixing = make_mixing(recipe, num_classes)
        model.classification_loss = classification_loss(recipe, mixes=self.mixing is not None)
        self.optimizer = make_optimizer(model, recipe, learning_rate)
        self.schedule = Schedule(self.optimizer, recipe, self.total_steps)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self.ema = ModelEmaV3(model, decay=recipe.ema_decay) if recipe.ema_decay else None
        self.step = 0
        self.history: list[dict[str, float]] = []
        self.epoch = Epoch.new(device)
        self.memory = MicroBatches()
        #: Asked between steps; one that nobody listens with by default.
        self.stop = StopRequest(environment={})
        #: On how many devices the run was trained: (steps done before, devices) where it began or changed.
        self.devices: list[tuple[int, int]] = [(0, self.peers.count)]
        #: Whether batches hold what the backbone gives, in the place of images (see `frozen_features`).
        self.on_features = False
        #: The step's micro-batches done so far.
        self._done: list[list[Pass]] = []

    # --- state ------------------------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs besides its recipe; tensors and plain values only."""
        return {
            "model": self._kept(self.model),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self._kept(self.ema.module) if self.ema else None,
            "history": self.history,
            "devices": self.devices,
            "epoch": {
                "loss": self.epoch.loss,
                "correct": self.epoch.correct,
                "terms": self.epoch.terms,
                "images": self.epoch.images,
                "batches": self.epoch.batches,
            },
            "memory": self.memory.state(),
        }

    def load_state(self, step: int, state: dict[str, Any]) -> None:
        self.step = step
        self._put_back(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema:
            self._put_back(self.ema.module, state["ema"])
        self.history = state["history"]
        self.devices = state["devices"]
        if self.devices[-1][1] != self.peers.count:
            self.devices.append((step, self.peers.count))
        sums = state["epoch"]
        self.epoch = Epoch(
            sums["loss"].to(self.device),
            sums["correct"].to(self.device),
            {name: value.to(self.device) for name, value in sums["terms"].items()},
            sums["images"],
            sums["batches"],
        )
        self.memory = MicroBatches(**state["memory"])

    def _kept(self, model: nn.Module) -> dict[str, Tensor]:
        state = model.state_dict()
        return {name: state[name] for name in self._saved}

    def _put_back(self, model: nn.Module, kept: dict[str, Tensor]) -> None:
        """The tensors of a state; whatever it leaves out is as the weights file has it."""
        misfit = model.load_state_dict(kept, strict=False)
        if misfit.unexpected_keys or set(kept) != set(self._saved):
            raise RuntimeError("a state of this very run does not fit it")  # a defect: its digest was right

    @property
    def first_batch(self) -> int:
        """The micro-batch that the next step begins with, counted over the whole run."""
        return self.step * self.accumulate

    def final_model(self) -> nn.Module:
        """The model whose weights are the result: the moving average where there is one."""
        module: nn.Module = self.ema.module if self.ema else self.model
        return module

    def final_state(self) -> dict[str, Tensor]:
        """What a checkpoint of `final_model` holds."""
        return self._kept(self.final_model())

    # --- the loop ---------------------------------------------------------------------------------
    def train(
        self, batches: Iterator[Batch], resume: ResumeState, progress: TrainingProgress, save_every_s: float
    ) -> Outcome:
        """Take every remaining step. State is saved every ``save_every_s`` seconds and when stopped.

        Raises FgvcError when an image cannot be decoded, or memory does not suffice whatever is done.
        """
        self.model.train()
        if self.peers.count > 1:
            self.memory.join(self.step + 1, self.peers.images(0))
        saved, saved_step = time.monotonic(), self.step
        while self.step < self.total_steps and not self.peers.any(self.stop.is_due()):
            with self.stop.timing("step"):
                self.schedule.set(self.step)
                images = self._one_step(batches, progress)
            self.step += 1
            epoch = math.ceil(self.step / self.steps_per_epoch)
            ends_epoch = self.step % self.steps_per_epoch == 0
            if (ends_epoch or self.step % FINITE_CHECK_STEPS == 0) and not math.isfinite(
                self.epoch.loss.item()
            ):
                cause = f"the loss is not finite at step {self.step} of {self.total_steps} (epoch {epoch})"
                return Outcome("diverged", self.history, self.step, cause)
            progress.step(epoch, self.step, images, self.epoch.means)
            if ends_epoch:
                self._end_epoch(epoch, progress)
            due = time.monotonic() - saved >= save_every_s or self.stop.should_save()
            if due and self.step < self.total_steps:
                self._save(resume)
                saved, saved_step = time.monotonic(), self.step
        if self.peers.any(self.stop.is_due()):
            if saved_step < self.step:
                self._save(resume)
            return Outcome("stopped", self.history, self.step)
        if not all(parameter.isfinite().all() for parameter in self.final_model().parameters()):
            cause = f"the weights are not finite after the last step ({self.step})"
            return Outcome("diverged", self.history, self.step, cause)
        return Outcome("ok", self.history, self.step)

    def _save(self, resume: ResumeState) -> None:
        if not self.peers.is_first:
            return  # it has the same state
        with self.stop.timing("save"):
            resume.save(self.step, self.state())

    def _one_step(self, batches: Iterator[Batch], progress: TrainingProgress) -> int:
        """Forward and backward over the micro-batches of one step, then one update. Returns its images."""
        taken: list[Batch] = []
        while not self._gradients(batches, taken):
            # Some gradients of the step are there and some are not: it begins anew, with the same pictures.
            self._forget_step()
            size = self.memory.halve(self.model, self.step + 1, len(taken[0].targets))
            progress.say(f"out of memory at step {self.step + 1}; from here on {size} images a pass")
        try:
            self._update()
        except Exception as error:
            if is_out_of_memory(error):
                raise too_large(self.step + 1) from error
            raise
        for micro_batch in self._done:
            self.epoch.add(micro_batch)
        self._done = []
        return sum(self.peers.images(len(batch.targets)) for batch in taken)

    def _gradients(self, batches: Iterator[Batch], taken: list[Batch]) -> bool:
        """Accumulate the gradients of one step. False where memory did not suffice.

        Args:
            taken: the step's batches so far; those that it lacks are taken and added.
        """
        for micro in range(self.accumulate):
            if micro == len(taken):
                try:
                    taken.append(next(batches))
                except StopIteration:  # the sampler and the step count disagree: a defect, no user's mistake
                    raise RuntimeError(
                        f"the loader ended at step {self.step} of {self.total_steps}"
                    ) from None
            try:
                self._accumulate(taken[micro], micro)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if self.peers.count > 1:
                    raise shared_out_of_memory(self.step + 1, self.peers.count) from error
                return False
        return True

    def _forget_step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self._done = []
        give_back(self.device)

    def _update(self) -> None:
        self.peers.sum_gradients(self.model)
        self.scaler.unscale_(self.optimizer)
        if self.recipe.clip_grad_norm is not None:
            trained = [p for p in self.model.parameters() if p.requires_grad]
            nn.utils.clip_grad_norm_(trained, self.recipe.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update(self.model, step=self.step)

    def _accumulate(self, batch: Batch, micro: int) -> None:
        """Forward and backward over one micro-batch, in as many passes as memory asks for."""
        images = batch.images.to(self.device, non_blocking=True)
        labels = batch.targets.to(self.device, non_blocking=True)
        if self.recipe.channels_last and not self.on_features:
            images = images.contiguous(memory_format=torch.channels_last)
        parts = self.memory.parts
        # As a recipe with batches of that size and more of them a step would be seeded.
        seed_step(self.seed, self.step, micro * parts)
        targets = labels
        if self.mixing is not None:
            images, targets = mix(self.mixing, images, labels)
            labels = labels[: len(images)]
        passes: list[Pass] = []
        chunks = zip(images.chunk(parts), targets.chunk(parts), labels.chunk(parts), strict=True)
        for part, (some_images, some_targets, some_labels) in enumerate(chunks):
            if part:
                seed_step(self.seed, self.step, micro * parts + part)
            share = len(some_images) / len(images)
            passes.append(self._one_pass(some_images, some_targets, some_labels, share))
        self._done.append(passes)

    def _one_pass(self, images: Tensor, targets: Tensor, labels: Tensor, share: float) -> Pass:
        """One forward and backward pass; ``share`` is that of its images in the micro-batch."""
        with autocast(self.device, self.recipe):
            with self.peers.draws():
                output = self.model.from_features(images) if self.on_features else self.model(images)
            output, targets, labels = self.peers.whole(output, targets, labels)
            terms = self.model.loss(output, targets)
        scaled = self.scaler.scale(terms["total"] * share / self.accumulate)
        scaled.backward()  # type: ignore[no-untyped-call]
        correct = (output.logits.detach().argmax(dim=1) == labels).sum()
        return Pass(share, {name: value.detach() for name, value in terms.items()}, correct, len(labels))

    def _end_epoch(self, epoch: int, progress: TrainingProgress) -> None:
        row = self.epoch.row(epoch, base_rate(self.optimizer))
        self.history.append(row)
        progress.epoch(epoch, self.step, row["train_loss"], row["train_top1_pct"])
        self.epoch = Epoch.new(self.device)
        self.peers.check_same(self.model, f"after epoch {epoch}")


def autocast(device: torch.device, recipe: Recipe) -> torch.autocast:
    """Mixed precision as the recipe says. Raises FgvcError for fp16 on a CPU."""
    if recipe.precision == "fp16" and device.type == "cpu":
        raise FgvcError(
            "this recipe trains in fp16, which needs a GPU",
            key="recipe.precision",
            cure="run it on a GPU, or make a variant with precision: fp32",
        )
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[recipe.precision]
    return torch.autocast(device.type, dtype=dtype, enabled=recipe.precision != "fp32")
