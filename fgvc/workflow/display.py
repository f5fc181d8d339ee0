"""What a run of the workflow looks like: job i of N, what each job is at, and the time left for the whole.

On a terminal a few lines that are redrawn; elsewhere a line when a job ends. Fed by the logger plugin with
Snakemake's events, and by the progress files of the training jobs.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, cast

from rich.console import Console
from rich.live import Live
from rich.text import Text

from fgvc.config.project import Project
from fgvc.provenance.durations import duration_text
from fgvc.workflow.estimate import Estimate
from fgvc.workflow.jobs import Job, JobKind, suite_jobs
from fgvc.workflow.messages import was_stopped
from fgvc.workflow.targets import Asked

#: Words for rules whose names are not verbs.
_WORDS = {
    "search": "try",
    "select_lr": "choose lr",
    "fetch": "fetch",
    "stats": "measure",
    "audit_data": "audit",
    "audit_published": "audit published numbers",
    "audit_suite": "audit",
    "cka": "compare layers",
    "weights": "fetch weights",
}


@dataclass
class JobView:
    """One job as it is shown."""

    rule: str
    wildcards: dict[str, str]
    log: str
    threads: int = 1
    started: float = field(default_factory=time.monotonic)
    progress: dict[str, Any] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Its rule and what it is about, spelled as `fgvc.workflow.jobs` does."""
        return plain_rule(self.rule), self.about

    @property
    def label(self) -> str:
        """``train typefaces/vit_pico/224 seed 1``."""
        rule, about = self.key
        suite = f"{self.wildcards['suite']}/" if "suite" in self.wildcards else ""
        return f"{_WORDS.get(rule, rule)} {suite}{about}".strip().removesuffix("/")

    @property
    def about(self) -> str:
        w = self.wildcards
        names = ("dataset", "weights", "method", "size", "classes", "table", "figure")
        text = "/".join(w[name] for name in names if name in w)
        text += f" seed {w['seed']}" if "seed" in w else ""
        return text + (f" lr {w['lr']}" if "lr" in w else "")

    def state_directory(self, project: Project) -> Path | None:
        w = self.wildcards
        if self.rule == "train":
            target = project.paths.run_dir(w["dataset"], w["method"], w["size"], w["seed"])
        elif self.rule == "search":
            target = project.paths.sweep_dir(w["dataset"], w["method"], w["size"], w["lr"])
        else:
            return None
        return project.paths.state_dir(target)

    @property
    def job(self) -> Job:
        """What the estimate needs to know of it."""
        w = self.wildcards
        size = int(w["size"]) if "size" in w else None
        kind, about = self.key
        return Job(cast(JobKind, kind), about, Path(), w.get("dataset"), w.get("method"), size)

    def was_stopped(self, project: Project) -> bool:
        """Whether its log says that it was asked to stop."""
        try:
            return was_stopped((project.root / self.log).read_text(encoding="utf-8", errors="replace"))
        except OSError:
            return False

    def look(self, project: Project) -> None:
        """Read how far the job is."""
        folder = self.state_directory(project)
        if folder is None:
            return
        try:
            self.progress = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return

    def line(self) -> str:
        running = duration_text(time.monotonic() - self.started)
        if not self.progress:
            return f"{self.label}  {running}"
        p = self.progress
        # What matters most comes first: a narrow terminal cuts the end.
        return (
            f"{self.label}  epoch {p['epoch']}/{p['epochs']}  train acc {p['top1_pct']:.1f} %  "
            f"{duration_text(p['left_s'])} left  loss {p['loss']:.3f}  {p['images_per_s']:.0f} images/s"
        )


@dataclass
class Display:
    """The state of the whole, and its drawing."""

    project: Project
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    total: int = 0
    done: int = 0
    running: dict[int, JobView] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    cores: int = 1
    stopping: bool = False

    def __post_init__(self) -> None:
        self.console = Console(file=self.stream, highlight=False, soft_wrap=not self.stream.isatty())
        self.estimate = Estimate(self.project)
        self.live: Live | None = None
        self._lock = threading.RLock()

    # --- events -----------------------------------------------------------------------------------
    def begin(self, counts: Mapping[str, int], asked: Iterable[Asked]) -> None:
        """The DAG is known: ``counts`` jobs of each rule are to run, for the suites in ``asked``."""
        to_run = _merged(counts)
        self.total = sum(to_run.values())
        jobs: dict[Path, Job] = {}
        for suite in asked:
            listed = suite_jobs(self.project, suite.name, suite.suite is None)
            wanted = {"table": suite.tables, "figure": suite.figures}
            jobs |= {job.record: job for job in listed if job.label in wanted.get(job.kind, (job.label,))}
        self.estimate.begin(jobs.values(), to_run)
        reused = _reused(jobs.values(), to_run)
        if reused:
            self.say(f"{reused} results are there already and are used as they are")
        kinds = ", ".join(f"{count} {rule}" for rule, count in to_run.items())
        self.say(f"{self.total} job{'s' * (self.total != 1)} to run: {kinds}")
        if self.console.is_terminal and self.live is None:
            self.live = Live(
                get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True
            )
            self.live.start()

    def start(self, job_id: int, job: JobView) -> None:
        with self._lock:
            self.running[job_id] = job
            if job_id in self.failed:
                self.failed.discard(job_id)
                self.say(f"trying again: {job.label}")
            if job.rule != "all":
                self.estimate.start(job.job)

    def finish(self, job_id: int) -> None:
        with self._lock:
            job = self.running.pop(job_id, None)
            if job is None or job.rule == "all":
                return
            self.done += 1
            took = time.monotonic() - job.started
            self.estimate.finished(job.key, took)
            self.say(
                f"[{self.done}/{self.total}] {job.label}: done in {duration_text(took)}{self._left_text()}"
            )

    def fail(self, job_id: int, rule: str) -> None:
        with self._lock:
            job = self.running.pop(job_id, None)
            label = job.label if job else rule
            if job is not None:
                self.estimate.finished(job.key, None)
            if self.stopping or (job is not None and job.was_stopped(self.project)):
                self.say(f"stopped {label}")
                return
            if job and job.log and not (self.project.root / job.log).is_file():
                self.say(f"not run: {label}")  # of a group on a cluster, of which another job failed
                return
            self.failed.add(job_id)
            log = f"; its log: {job.log}" if job and job.log else ""
            self.say(f"FAILED {label}{log}; the others go on")

    def stop(self, why: str) -> None:
        """The user wants to end; jobs that fail from now on were stopped."""
        self.stopping = True
        self.say(why)

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(Text(text))

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    # --- drawing ----------------------------------------------------------------------------------
    def _render(self) -> Text:
        with self._lock:
            left = self._left_text()
            lines = [f"  {job.line()}" for job in self.running.values() if job.rule != "all"]
            head = f"job {self.done + 1} of {self.total}" if self.done < self.total else f"{self.total} jobs"
            failed = f", {len(self.failed)} failed" if self.failed else ""
            whole = [f"{head}{failed}{left}", *lines]
        # Room for the ^C that the terminal itself writes at the end: it must not begin a new line.
        room = self.console.width - 4
        return Text("\n".join(line if len(line) <= room else line[: room - 1] + "…" for line in whole))

    def _left_text(self) -> str:
        for job in self.running.values():
            job.look(self.project)
        progress = {job.key: job.progress for job in self.running.values() if job.progress}
        running_s = {job.key: time.monotonic() - job.started for job in self.running.values()}
        left = self.estimate.seconds_left(self.cores, running_s, progress)
        return f", about {duration_text(left)} left" if left else ""


def _reused(jobs: Iterable[Job], to_run: Mapping[str, int]) -> int:
    """How many of ``jobs`` are done and will not run again; which ones do is known by their number only."""
    done: dict[str, list[bool]] = {}
    for job in jobs:
        done.setdefault(job.kind, []).append(job.is_done)
    return sum(max(0, min(sum(made), len(made) - to_run.get(rule, 0))) for rule, made in done.items())


def plain_rule(rule: str) -> str:
    """A rule without its variants: for the default suite, and for figures that have their numbers as CSV."""
    return rule.removesuffix("_default").removesuffix("_with_csv")


def _merged(counts: Mapping[str, int]) -> dict[str, int]:
    """Jobs by rule; its variant for the default suite counts with it, the final target not at all."""
    merged: dict[str, int] = {}
    for rule, count in counts.items():
        if rule != "all":
            key = plain_rule(rule)
            merged[key] = merged.get(key, 0) + count
    return merged
