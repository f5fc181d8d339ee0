"""Batches of P classes with K images each, for losses that compare images of a class.

Source: Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, arXiv 1703.07737, §2 (P×K
batches). How an epoch is made of them is ours: it has as many batches as one of images drawn one by one, and
each class its share of them. Only whole numbers are drawn, so that every machine draws the same.
"""

from __future__ import annotations

from collections import deque

import torch

from fgvc.config.recipe import Recipe
from fgvc.data.loading import EpochBatches, Sample
from fgvc.errors import FgvcError
from fgvc.provenance.digests import seed_from


def batches_of_recipe(recipe: Recipe, samples: list[Sample], seed: int) -> EpochBatches:
    """The batches of a run, images drawn one by one or in groups of a class, as the recipe says.

    Raises FgvcError where there are too few classes for a batch.
    """
    if recipe.samples_per_class is None:
        return EpochBatches(len(samples), recipe.batch_size, recipe.epochs, seed)
    class_ids = [sample.class_id for sample in samples]
    return ClassBatches(class_ids, recipe.batch_size, recipe.samples_per_class, recipe.epochs, seed)


class ClassBatches(EpochBatches):
    """Every batch is K images of each of P = batch_size / K classes, those of a class side by side.

    An epoch has ⌊images / batch_size⌋ batches, at least one. A class takes part in about its share of them,
    rounded up or down by chance, and at least once where there is room for all; in an epoch, its images take
    turns in random order, so that none comes twice before each came once. A class with fewer than K images
    fills its groups with the same ones again. Some images of an epoch are left out, others each epoch.

    Args:
        class_ids: of every sample.
        images: K.
    """

    def __init__(
        self, class_ids: list[int], batch_size: int, images: int, epochs: int, seed: int, first_batch: int = 0
    ) -> None:
        members: dict[int, list[int]] = {}
        for index, class_id in enumerate(class_ids):
            members.setdefault(class_id, []).append(index)
        self.members = [members[class_id] for class_id in sorted(members)]
        self.images, self.classes = images, batch_size // images
        if self.classes > len(self.members):
            raise FgvcError(
                f"a batch of {batch_size} images, {images} of a class, needs {self.classes} classes; "
                f"there are {len(self.members)}",
                key="recipe.samples_per_class",
                cure=f"use a batch_size of at most {images * len(self.members)}, or more samples_per_class",
            )
        super().__init__(max(len(class_ids), batch_size), batch_size, epochs, seed, first_batch)

    def of_epoch(self, epoch: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed_from("class order", self.seed, epoch))
        sizes = [len(indices) for indices in self.members]
        groups = shares(sizes, self.classes, self.batches_per_epoch, generator)
        orders = [torch.randperm(size, generator=generator).tolist() for size in sizes]
        taken = [0] * len(sizes)
        batches = []
        for chosen in arranged(groups, self.classes, self.batches_per_epoch, generator):
            batch = []
            for which in chosen:
                turns = range(taken[which], taken[which] + self.images)
                batch += [self.members[which][orders[which][turn % sizes[which]]] for turn in turns]
                taken[which] += self.images
            batches.append(batch)
        return batches


def shares(sizes: list[int], classes: int, batches: int, generator: torch.Generator) -> list[int]:
    """In how many of an epoch's batches each class takes part; together classes · batches.

    In proportion to ``sizes``, rounded up or down by chance; no class more often than there are batches, and
    each at least once where there is room for all.
    """
    total = classes * batches
    groups = [0] * len(sizes)
    free = torch.randperm(len(sizes), generator=generator).tolist()
    # A class whose share is larger than one in every batch takes part in all, the rest goes to the others.
    while crowded := [c for c in free if sizes[c] * total >= batches * sum(sizes[f] for f in free)]:
        for which in crowded:
            groups[which] = batches
        total -= batches * len(crowded)
        free = [which for which in free if not groups[which]]
    images = sum(sizes[which] for which in free)
    # Marks at equal distances, from a random one on: a class gets those that fall into its stretch.
    passed = int(torch.randint(max(images, 1), (1,), generator=generator))
    for which in free:
        before, passed = passed // images, passed + sizes[which] * total
        groups[which] = passed // images - before
    lacking = [which for which in free if not groups[which]]
    if classes * batches >= len(sizes):
        for which in lacking:
            groups[max(range(len(groups)), key=groups.__getitem__)] -= 1
            groups[which] = 1
    return groups


def arranged(groups: list[int], classes: int, batches: int, generator: torch.Generator) -> list[list[int]]:
    """Which classes each batch holds, all different; class c takes part ``groups[c]`` times.

    All are drawn in random order. A batch takes those that every batch left must have, and then the first
    ones that are not in it yet.
    """
    places = torch.randperm(sum(groups), generator=generator).tolist()
    each = [which for which, count in enumerate(groups) for _ in range(count)]
    queue, left, taken_early = deque(each[place] for place in places), list(groups), [0] * len(groups)
    with_left: dict[int, set[int]] = {}
    for which, count in enumerate(groups):
        with_left.setdefault(count, set()).add(which)
    found = []
    for remaining in range(batches, 0, -1):
        chosen = sorted(with_left.get(remaining, ()))
        for which in chosen:
            taken_early[which] += 1
        waiting = []
        while len(chosen) < classes:
            which = queue.popleft()
            if taken_early[which]:
                taken_early[which] -= 1
            elif which in chosen:
                waiting.append(which)
            else:
                chosen.append(which)
        queue.extendleft(reversed(waiting))
        for which in chosen:
            with_left[left[which]].discard(which)
            left[which] -= 1
            with_left.setdefault(left[which], set()).add(which)
        found.append(chosen)
    return found
