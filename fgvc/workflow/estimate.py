"""How long the rest of a workflow will take.

A training job's work is its images times the seconds an image of that variant takes, as measured by jobs that
ended or are under way, or by runs of an earlier day; other jobs are taken to last as long as their like.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fgvc.config.counts import expected_rows
from fgvc.config.layout import SplitName
from fgvc.config.project import Project
from fgvc.workflow.jobs import TRAINING, Job
from fgvc.workflow.speeds import measured_speeds

#: Seconds of a job whose like was never seen: starting a process and little else.
DEFAULT_SECONDS = 8.0

#: A job is known by its rule and by what it is about.
Key = tuple[str, str]


@dataclass
class _Job:
    """A job of which ``variant`` is known when it trains one."""

    rule: str
    dataset: str | None = None
    variant: tuple[str, int] | None = None
    epochs: int = 0
    threads: int = 1

    @property
    def trains(self) -> bool:
        return self.rule in TRAINING


class Estimate:
    """Learns from the jobs that end and says what is left."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.open: dict[Key, _Job] = {}
        self.started: set[Key] = set()
        self.seconds_per_image: dict[tuple[str, int], float] = {}
        self.seconds_of_rule: dict[str, list[float]] = {}
        self.rows: dict[tuple[str, SplitName], int] = {}

    def begin(self, jobs: Iterable[Job], counts: Mapping[str, int]) -> None:
        """What is to run, as far as it is known beforehand.

        Args:
            jobs: the jobs of what was asked for; not all of them need run.
            counts: how many jobs of each rule will run. Which ones is not known: those without results come
                first, and jobs that stand in no suite are counted without a name.
        """
        self.seconds_per_image = {v: 1 / speed for v, speed in measured_speeds(self.project.root).items()}
        by_rule: dict[str, list[Job]] = {}
        for job in sorted(jobs, key=lambda job: job.is_done):
            by_rule.setdefault(job.kind, []).append(job)
        for rule, count in counts.items():
            chosen = by_rule.get(rule, [])[:count]
            self.open |= {(rule, job.label): self._described(job) for job in chosen}
            self.open |= {(rule, f"?{n}"): _Job(rule) for n in range(count - len(chosen))}

    def start(self, job: Job) -> None:
        """A job starts; it takes the place of one of its rule that was expected and has not started."""
        key = (job.kind, job.label)
        if key not in self.open:
            guessed = [k for k in self.open if k[0] == job.kind and k not in self.started]
            if guessed:
                del self.open[guessed[-1]]
            self.open[key] = self._described(job)
        self.started.add(key)

    def _described(self, job: Job) -> _Job:
        if job.kind not in TRAINING or not (job.dataset and job.method and job.size):
            return _Job(job.kind)
        recipe = self.project.variant(job.method).recipe_on(job.dataset)
        return _Job(job.kind, job.dataset, (job.method, job.size), recipe.epochs, recipe.threads)

    def _images(self, job: _Job) -> int | None:
        """Images that a job trains on, epoch after epoch; None while its dataset is not split."""
        if job.dataset is None:
            return None
        part: SplitName = "train" if job.rule == "search" else "train_val"
        rows = self.rows.get((job.dataset, part)) or expected_rows(self.project, job.dataset, part)
        if rows:
            self.rows[job.dataset, part] = rows
        return job.epochs * rows if rows else None

    def finished(self, key: Key, seconds: float | None) -> None:
        """A job ended after ``seconds`` (None: it failed, which teaches nothing)."""
        job = self.open.pop(key, None)
        if job is None or seconds is None:
            return
        images = self._images(job)
        if job.variant and images:
            self.seconds_per_image[job.variant] = seconds / images
        self.seconds_of_rule.setdefault(job.rule, []).append(seconds)

    def seconds_left(
        self, cores: int, running_s: Mapping[Key, float], progress: Mapping[Key, dict[str, Any]]
    ) -> float | None:
        """Wall time until all is done on ``cores`` cores; None while no training has shown its speed.

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
        images = self._images(job)
        if job.variant and images:
            rate = self.seconds_per_image.get(job.variant)
            if rate is None and self.seconds_per_image:  # better a rough answer than none
                rate = sum(self.seconds_per_image.values()) / len(self.seconds_per_image)
            if rate is not None:
                return rate * images
        seen = self.seconds_of_rule.get(job.rule)
        if seen:
            return sum(seen) / len(seen)
        return None if job.trains else DEFAULT_SECONDS
