"""A Snakemake profile for a SLURM cluster, with the time and memory that the jobs of a suite will need."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.workflow.cluster import keeps_accounts
from fgvc.workflow.jobs import TRAINING, Job, suite_jobs
from fgvc.workflow.plan import Costs, images_of, training_seconds
from fgvc.workflow.speeds import measured_memory

#: Minutes kept free in every job: Python starts, the node's disks are slow, the state is saved at the end.
SPARE_MINUTES = 15
#: Tries besides those that a long training needs.
SPARE_TRIES = 2
#: A job that cannot succeed is tried this often, too: a still longer training is asked for again by hand.
MOST_TRIES = 5
#: Seconds before its time limit at which a job is told to end, so that a training can save its state.
GRACE_S = 120

#: Host memory of a training, in MB: Python and torch with its CUDA libraries; besides the image cache.
BASE_MB = 6000
#: Copies of the model's state in host memory: weights, gradients, two moments, and a state being written.
STATE_COPIES = 6
#: What earlier runs took at most is multiplied by this.
MEMORY_MARGIN = 1.5

#: What rules other than trainings need, in minutes and MB; of the first some run in one SLURM job.
COST = (5, 4000)
AUDIT = (60, 4000)
THROUGHPUT = (30, 8000)
LAYERS = (30, 8000)
#: Cost jobs that one SLURM job runs, one after the other.
COSTS_IN_A_JOB = 20


@dataclass(frozen=True)
class Cluster:
    """What the estimate cannot know.

    Attributes:
        gpus: GPUs of a training or an evaluation; 0 for a cluster without.
        gres: how the cluster names its GPUs where it knows no ``--gpus``, such as ``gpu:a100:1``.
        gpu_model: the GPUs' model where it knows ``--gpus``.
        time_factor: estimates are multiplied by this.
        max_hours: the longest job that the cluster takes; a longer training goes on in the next.
        jobs: SLURM jobs at once, waiting ones included.
    """

    account: str | None = None
    partition: str | None = None
    gpu_partition: str | None = None
    gpus: int = 1
    gres: str | None = None
    gpu_model: str | None = None
    time_factor: float = 3.0
    max_hours: float = 24.0
    jobs: int = 100

    def __post_init__(self) -> None:
        if self.gres and self.gpu_model:
            raise FgvcError("--gres and --gpu-model exclude one another", cure="--gres gpu:MODEL:1")
        if self.gres and not self.gres.startswith("gpu"):
            raise FgvcError(f"--gres {self.gres} names no GPU", cure="write it like gpu:1 or gpu:a100:1")
        if self.gpus == 0 and (self.gres or self.gpu_model or self.gpu_partition):
            raise FgvcError("with --gpus 0 nothing asks for a GPU", cure="leave out the other GPU options")
        for option in ("account", "partition", "gpu_partition", "gpu_model"):
            word = getattr(self, option)
            if word is not None and (not word or not word.replace("-", "").replace("_", "").isalnum()):
                name = f"--{option.replace('_', '-')}"
                raise FgvcError(f"{name} '{word}' is no name", cure="what the cluster has: sinfo, sacctmgr")


@dataclass
class Needs:
    """What jobs of one rule need at most.

    Attributes:
        minutes: without margins.
        memory_mb: of the host.
        because: how each is known.
        uncounted: datasets of which nobody knows the number of images yet.
    """

    minutes: float = 0.0
    memory_mb: float = 0.0
    because: set[str] = field(default_factory=set)
    uncounted: set[str] = field(default_factory=set)


def training_needs(project: Project, suite: str) -> tuple[dict[str, Needs], int]:
    """By rule (search, train, evaluate) what the jobs of a suite need, finished ones included, and how many
    of them train."""
    jobs = [job for job in suite_jobs(project, suite, short=False) if job.kind in TRAINING]
    costs, memory = Costs(project, jobs), measured_memory(project.root)
    needs = {rule: Needs() for rule in ("search", "train", "evaluate")}
    for job in dict.fromkeys(Job(j.kind, "", Path(), j.dataset, j.method, j.size) for j in jobs):
        _add(project, job, costs, memory, needs)
    return needs, len(jobs)


def _add(
    project: Project,
    job: Job,
    costs: Costs,
    memory: dict[tuple[str, int], float],
    needs: dict[str, Needs],
) -> None:
    assert job.dataset and job.method and job.size
    known_mb = memory.get((job.method, job.size))
    state_mb = costs.of(job)["state_bytes"] / 1e6
    wanted_mb = BASE_MB + project.settings.image_cache_gib * 1074 + STATE_COPIES * state_mb
    memory_mb = known_mb * MEMORY_MARGIN if known_mb else wanted_mb
    images = images_of(project, job)
    seconds, basis = training_seconds(project, job, costs, images) if images else (0.0, "")
    epochs = project.variant(job.method).recipe_on(job.dataset).epochs
    # Test splits are about as large as training splits, and a forward pass is quicker than a step.
    shares = {job.kind: 1.0, **({"evaluate": 1 / epochs} if job.kind == "train" else {})}
    for rule, share in shares.items():
        found = needs[rule]
        found.minutes = max(found.minutes, seconds / 60 * share)
        found.memory_mb = max(found.memory_mb, memory_mb)
        found.because.add(basis)
        if images is None:
            found.uncounted.add(job.dataset)


def profile_text(project: Project, suite: str, cluster: Cluster) -> str:
    """The profile: YAML with comments, to stand in ``profiles/NAME/config.yaml``.

    Raises FgvcError for a suite that does not exist.
    """
    needs, trainings = training_needs(project, suite)
    uncounted = sorted(set().union(*(need.uncounted for need in needs.values())))
    basis = sorted(set().union(*(need.because for need in needs.values())) - {""})
    head = [
        f"# For the suite '{suite}' on a SLURM cluster, by `fgvc slurm-profile`; yours to edit.",
        f"# Times: the longest of {trainings} trainings, {cluster.time_factor:g} times over; because:",
        *(f"#   {line}" for line in basis or ["nothing is to be trained"]),
    ]
    if uncounted:
        head.append(f"# Not counted, because their images are not: {', '.join(uncounted)}")
    defaults: dict[str, object] = {"mem_mb": 2000, "runtime": 30}
    if cluster.account:
        defaults["slurm_account"] = cluster.account
    if cluster.partition:
        defaults["slurm_partition"] = cluster.partition
    rules = {rule: dict(_asked(need, cluster)) for rule, need in needs.items()}
    longest = max(need.minutes * cluster.time_factor for need in needs.values())
    retries = min(SPARE_TRIES + math.floor(longest / (60 * cluster.max_hours)), MOST_TRIES)
    status = "" if keeps_accounts() else _NO_ACCOUNTS
    rules["throughput"] = {
        **_plain(THROUGHPUT),
        **dict(_gpu(cluster)),
        "slurm_extra": "--exclusive",
        "cpus_per_task": 8,
    }
    rules["cka"] = _plain(LAYERS) | dict(_gpu(cluster))
    rules["cost"] = _plain(COST) | {"small": 1}
    rules["audit_data"] = _plain(AUDIT)
    fixed = _TEMPLATE.format(jobs=cluster.jobs, retries=retries, costs=COSTS_IN_A_JOB, status=status)
    asked = {"default-resources": defaults, "set-resources": rules}
    return "\n".join([*head, fixed]) + yaml.safe_dump(asked, sort_keys=False, width=100)


def _plain(needed: tuple[int, int]) -> dict[str, object]:
    minutes, memory_mb = needed
    return {"runtime": minutes, "mem_mb": f"{memory_mb} * attempt"}


def _asked(need: Needs, cluster: Cluster) -> Iterator[tuple[str, object]]:
    minutes = need.minutes * cluster.time_factor + SPARE_MINUTES
    step = 10 if minutes < 120 else 60
    yield "runtime", min(math.ceil(minutes / step) * step, round(60 * cluster.max_hours))
    # A job that was killed for lack of memory is tried again with more.
    yield "mem_mb", f"{math.ceil(max(need.memory_mb, 2000) / 1000) * 1000} * attempt"
    yield "slurm_extra", f"--signal=TERM@{GRACE_S}"
    yield from _gpu(cluster)


def _gpu(cluster: Cluster) -> Iterator[tuple[str, object]]:
    if cluster.gres:
        yield "gpu", 0  # asked for by its other name
        yield "gres", cluster.gres
    else:
        yield "gpu", cluster.gpus
        if cluster.gpu_model:
            yield "gpu_model", cluster.gpu_model
    if cluster.gpu_partition:
        yield "slurm_partition", cluster.gpu_partition


def write_profile(project: Project, name: str, text: str) -> Path:
    """Write ``profiles/NAME/config.yaml``, which must not be there yet; gives its path.

    Raises FgvcError where it is.
    """
    folder = name.removesuffix("/").removesuffix("/config.yaml")
    path = project.root / folder / "config.yaml"
    if not path.resolve().is_relative_to((project.root / "profiles").resolve()) or folder == "profiles":
        raise FgvcError(f"{name} is not below profiles/", cure="--write profiles/mine")
    if path.exists():
        shown = project.paths.shown(path)
        raise FgvcError("this profile is there already", file=shown, cure="take another name, or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


_NO_ACCOUNTS = "slurm-status-command: squeue  # this cluster keeps no accounts, which sacct would ask\n"

_TEMPLATE = """
# Given as --workflow-profile: it takes the place of profiles/default, whose gpu cap is for one machine.
executor: slurm
jobs: {jobs}                 # in the queue at once
local-cores: 1            # of the machine with the driver: tables, figures, splits, downloads
max-jobs-per-timespan: 5/1s
latency-wait: 60          # shared file systems show new files late
retries: {retries}                # time limit, dead node, too little memory: trainings go on from their state
slurm-requeue: true       # what a job of higher priority pushes out goes back into the queue
{status}
# One SLURM job trains a run and evaluates it; another counts the costs of many methods, one by one.
groups: [train=run, evaluate=run, cost=cost]
group-components: [cost={costs}]
resources: [small=1]
set-resource-scopes: [small=local]

# As in profiles/default.
keep-going: true
rerun-incomplete: true
nolock: true
rerun-triggers: [mtime, params, input]
max-checksum-file-size: 10000000
scheduler: greedy
logger: fgvc

"""
