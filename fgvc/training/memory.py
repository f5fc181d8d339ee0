"""When a micro-batch does not fit into memory: it is split, the pictures and the effective batch stay."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fgvc.errors import FgvcError
from fgvc.methods import Method

#: What the record of a run says about it.
NOTE = (
    "micro-batches were halved from these steps on: the same pictures, augmentations, mixing and effective "
    "batch; dropout and stochastic depth draw other numbers, and sums are taken in another order. "
    "The same halvings at the same steps give the same bytes"
)


@dataclass
class MicroBatches:
    """Into how many parts each micro-batch is split so that a pass fits into memory.

    Attributes:
        parts: a power of two.
        halvings: step (1-based) and images a pass since then, for the record.
    """

    parts: int = 1
    halvings: list[dict[str, int]] = field(default_factory=list)

    def halve(self, model: Method, step: int, images: int) -> int:
        """Split twice as much from ``step`` on; micro-batches have ``images`` images.

        Returns the images of a pass. Raises FgvcError where the batch may not be split, or not further.
        """
        # Parts are as torch.chunk makes them.
        size = -(-images // self.parts)
        if model.batch_coupled:
            raise FgvcError(
                f"out of memory at step {step} with {size} images a pass, and '{model.name}' couples the "
                "images of a batch, so that they cannot be given in parts",
                key="recipe.batch_size",
                cure="use a device with more memory, or a variant with a smaller batch_size",
            )
        if size == 1:
            raise FgvcError(
                f"out of memory at step {step} with a single image",
                key="recipe.precision",
                cure="use a device with more memory, or a variant with a smaller image size or backbone",
            )
        self.parts *= 2
        self.halvings.append({"step": step, "images_per_pass": -(-images // self.parts)})
        return self.halvings[-1]["images_per_pass"]

    def join(self, step: int, images: int) -> None:
        """From ``step`` on, micro-batches of ``images`` are whole again: several devices have more memory."""
        if self.parts > 1:
            self.parts = 1
            self.halvings.append({"step": step, "images_per_pass": images})

    def record(self) -> dict[str, Any] | None:
        """For run.json; None where everything fitted."""
        return {"halvings": self.halvings, "parts": self.parts, "note": NOTE} if self.halvings else None

    def state(self) -> dict[str, Any]:
        return {"parts": self.parts, "halvings": self.halvings}


def too_large(step: int) -> FgvcError:
    """The error of a run whose optimizer step, which no smaller batch makes smaller, does not fit."""
    return FgvcError(
        f"out of memory at step {step}, in the update of the weights",
        key="recipe.optimizer",
        cure="use a device with more memory, or a variant with another optimizer or a smaller backbone",
    )


def shared_out_of_memory(step: int, devices: int) -> FgvcError:
    """The error of a run on several devices: the others cannot know that one of them would begin anew."""
    return FgvcError(
        f"out of memory at step {step} on one of {devices} devices, which do not give their images in parts",
        key="recipe.batch_size",
        cure="use more devices; or one (--devices 1), which takes as many passes as it needs",
    )
