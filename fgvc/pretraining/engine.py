"""The pre-training loop, from top to bottom.

Order is a function of seed and epoch, crops and colours of seed and step: a run that was killed and started
again ends with the same bytes (same machine, same number of threads).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own name for it
from torch import Tensor, nn

import fgvc.backbones.timm_models  # noqa: F401 -- registers our architectures with timm
from fgvc.errors import FgvcError
from fgvc.pretraining.pictures import colour, random_crops
from fgvc.pretraining.recipe import FaceRecipe
from fgvc.provenance.digests import seed_from
from fgvc.training.progress import TrainingProgress
from fgvc.training.resume import ResumeState

#: Images that are evaluated at once.
EVALUATION_BATCH = 128


@dataclass(frozen=True)
class Accuracy:
    """Top-1 on held-out pictures in %: of the centre crop, and of five crops' mean log-probabilities."""

    centre_pct: float
    five_crops_pct: float
    pictures: int


class FacePretrainer:
    """One pre-training: pictures, model, optimizer and what is needed to go on after a kill.

    Args:
        drawn: [faces, renders, S, S] uint8 coverage; the last ``recipe.held_out`` renders are not trained on.
    """

    def __init__(self, drawn: Tensor, recipe: FaceRecipe) -> None:
        faces, renders, side, _ = drawn.shape
        trained = renders - recipe.held_out
        self.recipe = recipe
        self.pictures = drawn.reshape(-1, side, side)
        numbers = torch.arange(faces * renders).reshape(faces, renders)
        #: Numbers of the pictures in each part; a picture's label is its number divided by ``renders``.
        self.train_numbers = numbers[:, :trained].flatten()
        self.test_numbers = numbers[:, trained:].flatten()
        self.renders = renders
        self.batch_size = min(recipe.batch_size, len(self.train_numbers))
        self.steps_per_epoch = len(self.train_numbers) // self.batch_size
        self.total_steps = recipe.epochs * self.steps_per_epoch
        torch.manual_seed(seed_from("pretraining start", recipe.seed))
        self.model = timm.create_model(recipe.architecture, img_size=recipe.crop_px, num_classes=faces)
        self.optimizers = _optimizers(self.model, recipe)
        self.peak_rates = [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]
        self.step = 0
        #: Wall and processor time of the epochs so far, over all processes that worked at them.
        self.seconds = self.cpu_seconds = 0.0
        self.history: list[dict[str, float]] = []

    # --- state ------------------------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "history": self.history,
        }

    def load_state(self, step: int, state: dict[str, Any]) -> None:
        self.step = step
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.seconds, self.cpu_seconds = state["seconds"], state["cpu_seconds"]
        self.history = state["history"]

    # --- training ---------------------------------------------------------------------------------
    def train(self, resume: ResumeState, progress: TrainingProgress) -> None:
        """Take every remaining epoch; the state is saved after each.

        Raises FgvcError when the loss is not finite.
        """
        while self.step < self.total_steps:
            epoch = self.step // self.steps_per_epoch
            started, cpu_started = time.monotonic(), time.process_time()
            loss, top1_pct = self._epoch(epoch, progress)
            self.seconds += time.monotonic() - started
            self.cpu_seconds += time.process_time() - cpu_started
            if not math.isfinite(loss):
                raise FgvcError(
                    f"the loss is not finite in epoch {epoch + 1}",
                    cure="lower its learning rates in fgvc/pretraining/recipe.py",
                )
            self.history.append({"epoch": epoch + 1, "train_loss": loss, "train_top1_pct": top1_pct})
            progress.epoch(epoch + 1, self.step, loss, top1_pct)
            resume.save(self.step, self.state())

    def _epoch(self, epoch: int, progress: TrainingProgress) -> tuple[float, float]:
        """One crop of each training picture. Returns (mean loss of the pictures, train accuracy in %)."""
        self.model.train()
        generator = torch.Generator().manual_seed(seed_from("pretraining order", self.recipe.seed, epoch))
        order = torch.randperm(len(self.train_numbers), generator=generator)
        loss_sum, correct, batches = torch.zeros(()), torch.zeros(()), 0

        def so_far() -> tuple[float, float]:
            return loss_sum.item() / batches, 100 * correct.item() / (batches * self.batch_size)

        for number in range(self.steps_per_epoch):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            loss, hits = self._one_step(self.train_numbers[batch])
            self.step += 1
            loss_sum, correct, batches = loss_sum + loss, correct + hits, batches + 1
            progress.step(epoch + 1, self.step, self.batch_size, so_far)
        return so_far()

    def _one_step(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        recipe = self.recipe
        generator = torch.Generator().manual_seed(seed_from("pretraining step", recipe.seed, self.step))
        images = colour(random_crops(self.pictures, chosen, recipe.crop_px, generator), generator)
        labels = chosen // self.renders
        self._set_rate()
        logits = self.model(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        self.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_grad_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.detach(), (logits.detach().argmax(dim=1) == labels).sum()

    def _set_rate(self) -> None:
        factor = one_cycle(self.step / self.total_steps, self.recipe.warmup_share)
        for optimizer, peak in zip(self.optimizers, self.peak_rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor

    # --- what came out ------------------------------------------------------------------------------
    @torch.inference_mode()
    def evaluate(self) -> Accuracy:
        """Accuracy on the held-out pictures, coloured once."""
        self.model.eval()
        generator = torch.Generator().manual_seed(seed_from("pretraining evaluation", self.recipe.seed))
        crop, side = self.recipe.crop_px, self.pictures.shape[-1]
        far, middle = side - crop, (side - crop) // 2
        corners = ((middle, middle), (0, 0), (0, far), (far, 0), (far, far))
        centre_hits, five_hits, count = 0, 0, len(self.test_numbers)
        for start in range(0, count, EVALUATION_BATCH):
            numbers = self.test_numbers[start : start + EVALUATION_BATCH]
            images, labels = colour(self.pictures[numbers], generator), numbers // self.renders
            scores = [
                self.model(images[:, :, top : top + crop, left : left + crop]).log_softmax(dim=1)
                for top, left in corners
            ]
            centre_hits += int((scores[0].argmax(dim=1) == labels).sum())
            five_hits += int((torch.stack(scores).mean(dim=0).argmax(dim=1) == labels).sum())
        return Accuracy(100 * centre_hits / count, 100 * five_hits / count, count)

    def backbone_state(self) -> dict[str, Tensor]:
        """The backbone's tensors as half floats, without classifiers; the position grid is the crop's."""
        return {
            name: tensor.half().contiguous()
            for name, tensor in self.model.state_dict().items()
            if not name.startswith("head.")
        }


def one_cycle(done: float, warmup_share: float, start: float = 0.04) -> float:
    """The learning rate's factor after the share ``done`` of the steps.

    Half a cosine from ``start`` up to 1, half a cosine down to 0. Source: Smith and Topin, Super-convergence,
    2019, with the cosine form of torch's OneCycleLR (whose first division factor is 25).
    """
    if done < warmup_share:
        return start + (1 - start) * (1 - math.cos(math.pi * done / warmup_share)) / 2
    return (1 + math.cos(math.pi * (done - warmup_share) / (1 - warmup_share))) / 2


def _optimizers(model: nn.Module, recipe: FaceRecipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for everything else.

    No weight decay on biases, norms, the CLS token and the position embedding. Source of Muon: Jordan et al.,
    https://kellerjordan.github.io/posts/muon/, as torch has it; embeddings and classifiers are left to AdamW
    there, too.
    """
    matrices = [p for p in model.get_submodule("blocks").parameters() if p.ndim == 2]
    taken = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim in (2, 4)], "weight_decay": recipe.weight_decay},
        {"params": [p for p in rest if p.ndim not in (2, 4)], "weight_decay": 0.0},
    ]
    return [
        torch.optim.Muon(
            matrices, lr=recipe.matrix_learning_rate, momentum=0.95, weight_decay=recipe.weight_decay
        ),
        torch.optim.AdamW(groups, lr=recipe.learning_rate),
    ]
