"""What a suite will take, before anyone starts it: jobs, images, hours, downloads, disk, and who is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgvc.config.counts import expected_rows
from fgvc.config.dataset import ArchiveSource
from fgvc.config.method import UrlSource
from fgvc.config.project import Project
from fgvc.provenance.digests import value_sha256
from fgvc.provenance.files import read_json, write_json
from fgvc.workflow.jobs import TRAINING, Job, suite_jobs
from fgvc.workflow.speeds import measured_speeds

#: Multiply-accumulates per second in training (forward and backward), where no run was measured here yet:
#: an A100-class GPU in 16 bit, and one core of a 2024 server CPU in fp32.
ASSUMED_GPU_MACS_PER_S = 20e12
ASSUMED_CPU_MACS_PER_S = 20e9

#: A forward and a backward pass, in forward passes: a backward pass costs about two.
STEP_IN_FORWARD_PASSES = 3

#: Bytes on disk of a training run's state while it runs, in units of its checkpoint (weights, momenta, two
#: generations).
STATE_CHECKPOINTS = 6


@dataclass
class Plan:
    """The totals of a suite's plan; hours and images are of the jobs that remain."""

    suite: str
    jobs: dict[str, dict[str, int]] = field(default_factory=dict)
    train_images: int = 0
    uncounted: list[str] = field(default_factory=list)
    gpu_hours: float = 0.0
    cpu_hours: float = 0.0
    basis: list[str] = field(default_factory=list)
    download_gb: float = 0.0
    download_unknown: list[str] = field(default_factory=list)
    disk_gb: float = 0.0
    free_gb: float = 0.0
    attention: list[str] = field(default_factory=list)

    @property
    def remaining(self) -> int:
        return sum(counts["to_do"] for counts in self.jobs.values())


def make_plan(project: Project, suite_name: str) -> Plan:
    """Plan a suite. Jobs whose records are there count as done; hours follow from cost records and from the
    speed of earlier runs of the same variant on this machine, else from the stated assumptions.

    Raises UnknownNameError for a suite that does not exist.
    """
    short = suite_name == project.settings.default_suite
    jobs = suite_jobs(project, suite_name, short)
    plan = Plan(suite_name)
    for job in jobs:
        counts = plan.jobs.setdefault(job.kind, {"to_do": 0, "done": 0})
        counts["done" if job.is_done else "to_do"] += 1
    remaining = [job for job in jobs if not job.is_done]
    costs = Costs(project, remaining)
    for job in remaining:
        if job.kind in TRAINING:
            _add_training(project, plan, job, costs)
    _add_downloads(project, plan, remaining)
    _add_disk(plan, remaining, costs)
    plan.free_gb = _free_bytes(project.root) / 1e9
    plan.basis = sorted(set(plan.basis))
    return plan


class Costs:
    """By variant and size: MACs of an image's forward passes in training, and bytes of the model's state and
    of a checkpoint; from the cost record, else counted now and kept.

    Attributes:
        speeds: images per second of earlier runs here, by variant and size.
    """

    def __init__(self, project: Project, jobs: list[Job]) -> None:
        self.project = project
        self.speeds = measured_speeds(project.root)
        self.cache_path = project.paths.state("plan", "costs.json")
        self.known: dict[str, dict[str, float]] = {}
        if self.cache_path.is_file():
            self.known = read_json(self.cache_path)
        before = dict(self.known)
        for job in jobs:
            if job.kind in TRAINING and job.method and job.size and job.dataset:
                self.of(job)
        if self.known != before:
            write_json(self.cache_path, self.known)

    def of(self, job: Job) -> dict[str, float]:
        assert job.method and job.size and job.dataset
        variant = self.project.variant(job.method)
        classes = self.project.dataset(job.dataset).classes
        facts = variant.model_dump(mode="json", include={"method", "backbone", "options", "train"})
        key = value_sha256(["training", facts, job.size])[:16]
        if key not in self.known:
            record = self.project.paths.cost(job.method, job.size, classes)
            self.known[key] = (
                _from_record(read_json(record)) if record.is_file() else self._count(job, classes)
            )
        return self.known[key]

    def _count(self, job: Job, classes: int) -> dict[str, float]:
        import torch

        from fgvc.methods.build import build_variant
        from fgvc.methods.checkpoints import saved_names

        assert job.method and job.size
        variant = self.project.variant(job.method)
        with torch.device("meta"):
            model = build_variant(self.project, job.method, job.size, classes, with_weights=False)
        state = model.state_dict()
        part = saved_names(model, whole=not variant.keeps_own_part)
        whole = model.closed_form_macs()
        if whole is None:  # the network once, without heads and choices: enough for "about", and quick
            from fgvc.cost import count_products

            one_pass = float(count_products(model.backbone, job.size))
        else:
            one_pass = whole / model.forward_passes()
        training_macs = one_pass * model.training_passes()
        return {
            "training_macs": training_macs,
            "state_bytes": 4 * sum(tensor.numel() for tensor in state.values()),
            "checkpoint_bytes": 4 * sum(state[name].numel() for name in part),
        }


def _from_record(record: dict[str, Any]) -> dict[str, float]:
    macs = record["macs_g"] * 1e9 * record["training_passes"] / record["forward_passes"]
    # Records of earlier versions know one size; they are made again when a target needs them.
    state_mib = record.get("state_mib", record["checkpoint_mib"])
    return {
        "training_macs": macs,
        "state_bytes": state_mib * 2**20,
        "checkpoint_bytes": record["checkpoint_mib"] * 2**20,
    }


def _add_training(project: Project, plan: Plan, job: Job, costs: Costs) -> None:
    images = images_of(project, job)
    if images is None:
        plan.uncounted.append(str(job.dataset))
        return
    plan.train_images += images
    seconds, basis = training_seconds(project, job, costs, images)
    plan.basis.append(basis)
    recipe = project.variant(str(job.method)).recipe_on(str(job.dataset))
    if recipe.precision != "fp32":
        plan.gpu_hours += seconds / 3600
    else:
        plan.cpu_hours += seconds / 3600 * recipe.threads


def images_of(project: Project, job: Job) -> int | None:
    """Images that a training job trains on, epoch after epoch; None while nobody knows the split's size."""
    assert job.method and job.dataset
    rows = expected_rows(project, job.dataset, "train" if job.kind == "search" else "train_val")
    return None if rows is None else rows * project.variant(job.method).recipe_on(job.dataset).epochs


def training_seconds(project: Project, job: Job, costs: Costs, images: int) -> tuple[float, str]:
    """About how long a training job takes on ``images`` images, in seconds, and how that is known."""
    assert job.method and job.size and job.dataset
    measured = costs.speeds.get((job.method, job.size))
    if measured:
        return images / measured, "speeds of earlier runs here"
    recipe = project.variant(job.method).recipe_on(job.dataset)
    on_gpu = recipe.precision != "fp32"
    speed = ASSUMED_GPU_MACS_PER_S if on_gpu else ASSUMED_CPU_MACS_PER_S * recipe.threads
    seconds = images * STEP_IN_FORWARD_PASSES * costs.of(job)["training_macs"] / speed
    if on_gpu:
        return seconds, f"{speed / 1e12:g} TMAC/s on a GPU (assumed)"
    return seconds, f"{speed / 1e9:g} GMAC/s a CPU job (assumed)"


def _add_downloads(project: Project, plan: Plan, jobs: list[Job]) -> None:
    for job in jobs:
        if job.kind == "fetch" and job.dataset:
            dataset = project.dataset(job.dataset)
            if isinstance(dataset.source, ArchiveSource):
                if dataset.download_bytes is None:
                    plan.download_unknown.append(job.dataset)
                else:
                    plan.download_gb += dataset.download_bytes / 1e9
            if dataset.access != "open":
                plan.attention.append(f"{job.dataset}: {dataset.access.replace('_', ' ')}")
        elif job.kind == "weights":
            source = project.weights(job.label).source
            if isinstance(source, UrlSource):
                if source.bytes:
                    plan.download_gb += source.bytes / 1e9
                else:
                    plan.download_unknown.append(job.label)


def _add_disk(plan: Plan, jobs: list[Job], costs: Costs) -> None:
    """Archives beside their contents, one checkpoint a run, and the largest resume state."""
    checkpoints = [costs.of(job)["checkpoint_bytes"] for job in jobs if job.kind == "train"]
    plan.disk_gb = 2 * plan.download_gb + sum(checkpoints) / 1e9
    plan.disk_gb += STATE_CHECKPOINTS * max(checkpoints, default=0) / 1e9


def _free_bytes(root: Path) -> int:
    import shutil

    return shutil.disk_usage(root).free


def plan_lines(plan: Plan) -> list[str]:
    """The plan as text: at most 20 lines of at most 100 columns."""
    lines = [f"suite {plan.suite}: {plan.remaining} jobs to run, {_done(plan)} done"]
    names = {"select_lr": "lr choice", "search": "lr search"}
    for kind, counts in plan.jobs.items():
        lines.append(f"  {names.get(kind, kind):<10} {counts['to_do']:>5} to run  {counts['done']:>5} done")
    uncounted = f", and those of {_few(plan.uncounted)} (counts not known)" if plan.uncounted else ""
    lines.append(f"images to train on: {plan.train_images:,}{uncounted}")
    hours = [f"{_hours(plan.gpu_hours)} on a GPU"] if plan.gpu_hours else []
    hours += [f"{_hours(plan.cpu_hours)} of CPU core time"] if plan.cpu_hours else []
    lines.append("training takes about " + " and ".join(hours) if hours else "nothing left to train")
    if plan.basis:
        lines.append("  because: " + "; ".join(plan.basis))
    unknown = f", and of unknown size: {_few(plan.download_unknown)}" if plan.download_unknown else ""
    lines.append(f"downloads {plan.download_gb:.1f} GB{unknown}")
    lines.append(f"disk about {plan.disk_gb:.1f} GB; free here {plan.free_gb:.0f} GB")
    if plan.attention:
        lines.append(f"need you: {_few(plan.attention)} (what to do: fgvc describe DATASET)")
    return lines


def _done(plan: Plan) -> int:
    return sum(counts["done"] for counts in plan.jobs.values())


def _few(names: list[str], most: int = 4) -> str:
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:most]) + (f" and {len(unique) - most} more" if len(unique) > most else "")


def _hours(hours: float) -> str:
    return f"{hours * 60:.0f} minutes" if hours < 2 else f"{hours:,.0f} hours"
