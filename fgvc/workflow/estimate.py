"""How long the rest of a workflow will take.

A training job's work is its images times the seconds an image of that variant takes, as measured by jobs that
ended or are under way, or by runs of an earlier day; other jobs are taken to last as long as their like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fgvc.config.counts import expected_rows
from fgvc.config.project import Project
from fgvc.workflow.jobs import TRAINING, Job
from fgvc.workflow.speeds import measured_speeds

#: Seconds of a job whose like was never seen: starting a process and little else.
DEFAULT_SECONDS = 8.0

#: A job is known by its rule and by what it is about.
Key = tuple[str, str]


@dataclass
class _Job:
    rule: str
    variant: tuple[str, int] | None
    images: int
    threads: int


class Estimate:
    """Learns from the jobs that end and says what is left."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.open: dict[Key, _Job] = {}
        self.seconds_per_image: dict[tuple[str, int], float] = {}
        self.seconds_of_rule: dict[str, list[float]] = {}

    def begin(self, jobs: list[Job]) -> None:
        """The jobs that are to run, as far as they are known beforehand."""
        speeds = measured_speeds(self.project.root)
        self.seconds_per_image = {variant: 1 / speed for variant, speed in speeds.items()}
        for job in jobs:
            self.add((job.kind, job.label), job)

    def add(self, key: Key, job: Job | None) -> None:
        """One more job; None for one of which nothing but its key is known."""
        if key in self.open:
            return
        if job is None or job.kind not in TRAINING or not (job.dataset and job.method and job.size):
            self.open[key] = _Job(key[0], None, 0, 1)
            return
        recipe = self.project.variant(job.method).recipe
        rows = expected_rows(self.project, job.dataset, "train" if job.kind == "search" else "train_val")
        self.open[key] = _Job(key[0], (job.method, job.size), recipe.epochs * (rows or 0), recipe.threads)

    def finished(self, key: Key, seconds: float | None) -> None:
        """A job ended after ``seconds`` (None: it failed, which teaches nothing)."""
        job = self.open.pop(key, None)
        if job is None or seconds is None:
            return
        if job.variant and job.images:
            self.seconds_per_image[job.variant] = seconds / job.images
        else:
            self.seconds_of_rule.setdefault(job.rule, []).append(seconds)

    def seconds_left(
        self, cores: int, running_s: Mapping[Key, float], progress: Mapping[Key, dict[str, Any]]
    ) -> float | None:
        """Wall time until all is done on ``cores`` cores; None while some variant's speed is unknown.

        Args:
            running_s: for how long each running job has run.
            progress: the progress records of running training jobs.
        """
        for key, record in progress.items():
            job = self.open.get(key)
            if job and job.variant and record.get("images_per_s"):
                self.seconds_per_image.setdefault(job.variant, 1 / record["images_per_s"])
        work = longest = 0.0
        for key, job in self.open.items():
            seconds = self._expected(job)
            if seconds is None:
                return None
            if key in progress:
                seconds = float(progress[key]["left_s"])
            elif key in running_s:
                seconds = max(seconds - running_s[key], 1.0)
            work += seconds * min(job.threads, cores)
            longest = max(longest, seconds)
        return max(work / max(cores, 1), longest)

    def _expected(self, job: _Job) -> float | None:
        if job.variant:
            rate = self.seconds_per_image.get(job.variant)
            return None if rate is None else rate * job.images
        seen = self.seconds_of_rule.get(job.rule)
        return sum(seen) / len(seen) if seen else DEFAULT_SECONDS
