"""fgvc slurm-profile."""

from __future__ import annotations

from typing import Annotated

import typer

from fgvc.cli.groups import PROJECT, app, example
from fgvc.config.project import Project


@app.command(
    "slurm-profile",
    rich_help_panel=PROJECT,
    epilog=example(
        "fgvc slurm-profile sota --account birds --gpu-partition gpu",
        "fgvc slurm-profile --gres gpu:a100:1 --write profiles/mine",
    ),
)
def slurm_profile(
    suite: Annotated[
        str | None, typer.Argument(help="suite in params/suites", show_default="the default suite")
    ] = None,
    account: Annotated[str | None, typer.Option("--account", help="SLURM account that pays")] = None,
    partition: Annotated[
        str | None, typer.Option("--partition", help="partition of all jobs", show_default="the cluster's")
    ] = None,
    gpu_partition: Annotated[
        str | None, typer.Option("--gpu-partition", help="partition of jobs with a GPU")
    ] = None,
    gpus: Annotated[int, typer.Option("--gpus", min=0, max=16, help="GPUs of a training; 0: on CPUs")] = 1,
    gres: Annotated[
        str | None, typer.Option("--gres", help="how to ask where --gpus is unknown, like gpu:a100:1")
    ] = None,
    gpu_model: Annotated[str | None, typer.Option("--gpu-model", help="model asked for with --gpus")] = None,
    time_factor: Annotated[
        float, typer.Option("--time-factor", min=1.0, help="time asked for, in estimated times")
    ] = 3.0,
    max_hours: Annotated[
        float, typer.Option("--max-hours", min=0.5, help="longest job; longer trainings go on in the next")
    ] = 24.0,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="jobs in the queue at once")] = 100,
    write: Annotated[
        str | None, typer.Option("--write", metavar="DIR", help="write DIR/config.yaml, below profiles/")
    ] = None,
) -> None:
    """A profile for your cluster: partitions, times, memory."""
    project = Project.find()
    name = suite or project.settings.default_suite
    project.suite(name)
    from fgvc.workflow.slurm_profile import Cluster, profile_text, write_profile

    cluster = Cluster(account, partition, gpu_partition, gpus, gres, gpu_model, time_factor, max_hours, jobs)
    text = profile_text(project, name, cluster)
    if write is None:
        print(text, end="")
        return
    shown = project.paths.shown(write_profile(project, write, text))
    print(shown)
    print(f"now: snakemake --workflow-profile {shown.removesuffix('/config.yaml')} -- TARGET")
