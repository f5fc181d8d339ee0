"""fgvc benchmark."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from fgvc.cli.groups import REPORTS, AsJson, DatasetName, Device, MethodName, Size, app, example
from fgvc.config.project import Project
from fgvc.errors import FgvcError


@app.command(
    rich_help_panel=REPORTS, epilog=example("fgvc benchmark typefaces vit_pico --size 224 --batch-size 8")
)
def benchmark(
    dataset: DatasetName,
    method: MethodName,
    size: Size = 224,
    device: Device = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="fp32, fp16, bf16", show_default="bf16 on cuda, else fp32"),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", "-b", min=1, help="images of a batch", show_default="64, CPU: 8"),
    ] = None,
    conditions: Annotated[
        str | None, typer.Option("--conditions", help="all of these in one: cpu-fp32-b8-t2, cuda-bf16-b64")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, max=100, help="of each measurement")] = 5,
    write: Annotated[bool, typer.Option("--write", help="write it below results/throughput/")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure throughput, latency and memory here.

    Decodes the dataset's test images; give the machine a rest from other work meanwhile.
    """
    project = Project.find()
    name = project.canonical_dataset(dataset)
    project.dataset(name)
    project.variant(method)
    if conditions is not None and (device or precision or batch_size):
        raise FgvcError(
            "--conditions says device, precision and batch size at once", cure="give one or the other"
        )
    from fgvc.config.conditions import Conditions
    from fgvc.cost.throughput import Measured, default_conditions, measure, write_throughput

    under = (
        Conditions.parse(conditions)
        if conditions is not None
        else default_conditions(device or project.settings.device, precision, batch_size)
    )
    what = Measured(project, name, method, size, under)
    record = write_throughput(what, repeats=repeats) if write else measure(what, repeats=repeats)
    if as_json:
        print(json.dumps(record, indent=2))
        return
    _print(record, under.title)
    if write:
        print(project.paths.shown(project.paths.throughput(name, method, size, under.text)))


def _print(record: dict[str, Any], title: str) -> None:
    run = f"{record['dataset']}/{record['method']}/{record['image_size']}"
    print(f"{run} on {record['device']['name']}: {title}")
    for words, key, unit in (
        ("model throughput", "model_throughput_images_s", "images/s"),
        ("end to end, decoding too", "end_to_end_throughput_images_s", "images/s"),
        ("training step", "training_step_ms", "ms"),
    ):
        if record[key] is None:
            print(f"{words:<26}not measured: {record['training_step_reason']}")
        else:
            spread = f"({record[f'{key}_min']:.4g} to {record[f'{key}_max']:.4g})"
            print(f"{words:<26}{record[key]:.4g} {unit} {spread}")
    print(
        f"{'latency of one image':<26}{record['latency_ms_p50']:.4g} ms p50, "
        f"{record['latency_ms_p95']:.4g} ms p95"
    )
    memory = (record["peak_memory_inference_mib"], record["peak_memory_training_mib"])
    inference, training = ("not known" if m is None else f"{m:.0f} MiB" for m in memory)
    print(f"{'peak memory':<26}{inference}, in training {training}")
