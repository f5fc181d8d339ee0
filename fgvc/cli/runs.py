"""fgvc train, select-lr, evaluate, cost."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from fgvc.cli.groups import REPORTS, RUNS, AsJson, DatasetName, Device, MethodName, Size, app, example
from fgvc.config.grid import Cell, rate_search
from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.provenance.stopping import StopRequest

Seed = Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="seed of the run")]


def checked(project: Project, dataset: str, method: str) -> str:
    """The dataset's id behind a name or alias, after both names and their files were found good."""
    name = project.canonical_dataset(dataset)
    project.dataset(name)
    project.variant(method)
    return name


@app.command(
    rich_help_panel=RUNS,
    epilog=example("fgvc train typefaces vit_pico --size 224 --seed 1 --lr 0.003"),
)
def train(
    dataset: DatasetName,
    method: MethodName,
    size: Size = 224,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", min=0, max=2**31 - 1, help="seed of the run", show_default="the search's, or 1"
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option("--lr", min=0.0, help="peak learning rate", show_default="the one chosen on val"),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            help="train_val: a final run. train: a candidate of the learning-rate search, evaluated on val",
        ),
    ] = "train_val",
    max_seconds: Annotated[
        float | None,
        typer.Option("--max-seconds", help="save and stop in time, to go on later", show_default="no limit"),
    ] = None,
    device: Device = None,
    devices: Annotated[
        int, typer.Option("--devices", min=1, help="GPUs that share each batch; on a CPU, processes")
    ] = 1,
) -> None:
    """Train one run, resume it, or find it already made.

    A run that was killed goes on where its state was last saved and ends with the same bytes. SIGTERM,
    SIGUSR1 and the end of a SLURM job save it first (exit status 75). The test split is never given to this
    verb.
    """
    project = Project.find()
    name = checked(project, dataset, method)
    if split not in ("train_val", "train"):
        raise FgvcError(
            f"--split {split} cannot be trained on",
            cure="train_val (final runs) or train (learning-rate search)",
        )
    with StopRequest(max_seconds) as stop:
        from fgvc.training.run import train_run
        from fgvc.training.search import run_candidate
        from fgvc.training.spec import RunSpec, chosen_rate

        if split == "train":
            search = rate_search(project, Cell(name, method, size))
            if lr is None:
                raise FgvcError("a search's candidate needs --lr", cure="--lr 0.003")
            spec = RunSpec(project, name, method, size, search.seed if seed is None else seed, lr, "train")
            result = run_candidate(spec, device, devices, stop)
        else:
            rate = lr if lr is not None else chosen_rate(project, name, method, size)
            spec = RunSpec(project, name, method, size, 1 if seed is None else seed, rate)
            result = train_run(spec, device=device, devices=devices, stop=stop)
    print(project.paths.shown(spec.directory / "run.json"))
    if result.status == "diverged":
        print(f"diverged: {result.record['cause']}", file=sys.stderr)


@app.command(
    "select-lr", rich_help_panel=RUNS, epilog=example("fgvc select-lr typefaces vit_pico --size 224")
)
def select_lr(dataset: DatasetName, method: MethodName, size: Size = 224) -> None:
    """Choose a learning rate from its candidates on val."""
    project = Project.find()
    cell = Cell(checked(project, dataset, method), method, size)
    from fgvc.training.search import describe_choice, select_learning_rate

    record = select_learning_rate(project, cell)
    print(describe_choice(record, rate_search(project, cell)))
    print(project.paths.shown(project.paths.lr_choice(cell.dataset, method, size)))


@app.command(rich_help_panel=RUNS, epilog=example("fgvc evaluate typefaces vit_pico --size 224 --seed 1"))
def evaluate(
    dataset: DatasetName,
    method: MethodName,
    size: Size = 224,
    seed: Seed = 1,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, help="1: one image at a time", show_default="the recipe's"),
    ] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Predict the test split with a frozen checkpoint.

    Writes predictions.parquet and metrics.json beside it.
    """
    project = Project.find()
    name = checked(project, dataset, method)
    directory = project.paths.run_dir(name, method, size, seed)
    with StopRequest():
        from fgvc.evaluation.predict import evaluate_directory

        metrics = evaluate_directory(project, directory, "test", device=device, batch_size=batch_size)
    if as_json:
        print(json.dumps(metrics, indent=2))
    elif metrics["status"] == "diverged":
        print(f"the run diverged: {metrics['cause']}")
    else:
        _print_metrics(metrics)
        print(project.paths.shown(directory / "metrics.json"))


def _print_metrics(metrics: dict[str, Any]) -> None:
    top5 = f", top-5 {metrics['top5_pct']:.2f} %" if metrics["top5_pct"] is not None else ""
    print(
        f"top-1 {metrics['top1_pct']:.2f} %{top5}, macro {metrics['macro_accuracy_pct']:.2f} %, "
        f"NLL {metrics['nll_nats']:.3f} nats, ECE {metrics['ece_pct']:.2f} % on {metrics['images']} images"
    )


@app.command(
    rich_help_panel=REPORTS,
    epilog=example(
        "fgvc cost vit --backbone vit_base_patch16_224 --size 224 --classes 1000 --json",
        "fgvc cost vit_pico glsim_pico --size 224 --size 448",
    ),
)
def cost(
    methods: Annotated[
        list[str] | None,
        typer.Argument(metavar="METHOD", help="variants, or one method class with --backbone"),
    ] = None,
    sizes: Annotated[
        list[int] | None,
        typer.Option(
            "--size", "-s", min=16, max=2048, help="image size in pixels; may be repeated", show_default="224"
        ),
    ] = None,
    classes: Annotated[int, typer.Option("--classes", "-c", min=2, help="number of classes K")] = 1000,
    backbone: Annotated[str | None, typer.Option("--backbone", help="timm name, with a method class")] = None,
    every: Annotated[bool, typer.Option("--all", help="every variant in params/methods")] = False,
    write: Annotated[
        bool, typer.Option("--write", help="write results/cost/METHOD/SIZE/CLASSES.json")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """MACs, FLOPs and parameters, by three counts."""
    project = Project.find()
    named = project.names("method") if every else methods or []
    _check_cost(project, named, methods, backbone, every=every, write=write)
    from fgvc.cost import cost_record, write_cost

    records = []
    for method in named:
        for size in sizes or [224]:
            records.append(
                write_cost(project, method, size, classes)
                if write
                else cost_record(project, method, size, classes, backbone=backbone)
            )
            if not as_json:
                _print_cost(records[-1])
                if write:
                    print(project.paths.shown(project.paths.cost(method, size, classes)))
    if as_json:
        print(json.dumps(records[0] if len(records) == 1 else records, indent=2))


def _check_cost(
    project: Project,
    named: list[str],
    methods: list[str] | None,
    backbone: str | None,
    *,
    every: bool,
    write: bool,
) -> None:
    """Refuse what cannot be counted before anything is."""
    if every and (methods or backbone):
        raise FgvcError("--all is every variant, and takes no METHOD and no --backbone")
    if not named:
        raise FgvcError("Missing argument 'METHOD'", cure="fgvc cost --help; --all counts every variant")
    if backbone is None:
        for method in named:
            project.variant(method)
    elif write:
        raise FgvcError(
            "--write is for variants; a class with --backbone has no path", cure="leave out --write"
        )


def _print_cost(record: dict[str, Any]) -> None:
    print(
        f"{record['method']} on {record['backbone']} at {record['image_size']} px, {record['classes']} "
        f"classes: {record['macs_g']:.4g} GMACs ({record['flops_g']:.4g} GFLOPs), {record['params_m']:.4g} M "
        f"parameters ({record['trainable_params_m']:.4g} M train), {record['forward_passes']} pass(es)"
    )
    print(f"counts agree within {record['agreement_pct']:.2f} %; other ops: {record['other_ops_g']:.3g} G")
