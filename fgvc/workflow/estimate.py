"""How long the rest of a workflow will take.

A training job's work is its images times the seconds an image of that variant takes, as measured by jobs that
ended or are under way, or by runs of an earlier day; other jobs are taken to last as long as their like.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc.config.counts import expected_rows
from fgvc.config.dataset import SplitName
from fgvc.config.project import Project

#: Seconds of a job whose like was never seen.
DEFAULT_SECONDS = 6.0


@dataclass
class _Job:
    rule: str
    key: tuple[str, str]
    images: int
    threads: int
    open: bool = True


class Estimate:
    """Learns from the jobs that end and says what is left."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.jobs: dict[int, _Job] = {}
        self.seconds_per_image: dict[tuple[str, str], float] = {}
        self.seconds_of_rule: dict[str, list[float]] = {}
        self._looked_up: set[tuple[str, str]] = set()

    def add(self, job_id: int, rule: str, wildcards: Mapping[str, str], threads: int) -> None:
        images, key = 0, ("", "")
        if rule in ("search", "train"):
            key = (wildcards["method"], wildcards["size"])
            images = self._images(rule, wildcards)
            self._look_up(key)
        self.jobs[job_id] = _Job(rule, key, images, threads)

    def finished(self, job_id: int, seconds: float | None) -> None:
        """A job ended after ``seconds`` (None: it failed, which teaches nothing)."""
        job = self.jobs.get(job_id)
        if job is None:
            return
        job.open = False
        if seconds is None:
            return
        if job.images:
            self.seconds_per_image[job.key] = seconds / job.images
        else:
            self.seconds_of_rule.setdefault(job.rule, []).append(seconds)

    def seconds_left(
        self, cores: int, running_s: Mapping[int, float], progress: Mapping[int, dict[str, Any]]
    ) -> float | None:
        """Wall time until all is done on ``cores`` cores; None while nothing is known about some variant.

        Args:
            running_s: for how long each running job has run.
            progress: the progress records of running training jobs.
        """
        for job_id, record in progress.items():
            job = self.jobs.get(job_id)
            if job and job.images and record.get("images_per_s"):
                self.seconds_per_image.setdefault(job.key, 1 / record["images_per_s"])
        work = 0.0
        longest = 0.0
        for job_id, job in self.jobs.items():
            if not job.open:
                continue
            seconds = self._expected(job)
            if seconds is None:
                return None
            if job_id in progress:
                seconds = float(progress[job_id]["left_s"])
            elif job_id in running_s:
                seconds = max(seconds - running_s[job_id], 1.0)
            work += seconds * min(job.threads, cores)
            longest = max(longest, seconds)
        return max(work / max(cores, 1), longest)

    def _expected(self, job: _Job) -> float | None:
        if job.images:
            rate = self.seconds_per_image.get(job.key)
            return None if rate is None else rate * job.images
        seen = self.seconds_of_rule.get(job.rule)
        return sum(seen) / len(seen) if seen else DEFAULT_SECONDS

    def _images(self, rule: str, wildcards: Mapping[str, str]) -> int:
        """Images that a training job sees over all its epochs, as far as the counts are known."""
        part: SplitName = "train" if rule == "search" else "train_val"
        epochs = self.project.variant(wildcards["method"]).recipe.epochs
        return max(1, epochs * (expected_rows(self.project, wildcards["dataset"], part) or 0))

    def _look_up(self, key: tuple[str, str]) -> None:
        """The speed of this variant in runs of an earlier day."""
        if key in self._looked_up:
            return
        self._looked_up.add(key)
        method, size = key
        for pattern in (
            f"results/runs/*/{method}/{size}/seed*/run.json",
            f"results/sweeps/*/{method}/{size}/lr*/run.json",
        ):
            for path in self.project.root.glob(pattern):
                speed = _speed(path)
                if speed:
                    self.seconds_per_image[key] = 1 / speed
                    return


def _speed(path: Path) -> float | None:
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["images_per_s"]) or None
    except (OSError, ValueError, KeyError):
        return None
