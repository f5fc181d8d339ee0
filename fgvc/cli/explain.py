"""fgvc explain cka, heatmap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fgvc.cli.groups import AsJson, DatasetName, Device, MethodName, Size, example, explain_app
from fgvc.cli.runs import Seed, checked
from fgvc.config.project import Project
from fgvc.provenance.stopping import StopRequest


@explain_app.command(epilog=example("fgvc explain cka typefaces vit_pico --size 224 --seed 1"))
def cka(
    dataset: DatasetName,
    method: MethodName,
    size: Size = 224,
    seed: Seed = 1,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Compare the blocks of a trained ViT by CKA.

    Of its attention maps and of its features, on up to 256 test images. Writes results/cka/….
    """
    project = Project.find()
    name = checked(project, dataset, method)
    with StopRequest():
        from fgvc.explain.layer_similarity import write_layer_similarity

        record = write_layer_similarity(project, name, method, size, seed, device=device)
    if as_json:
        print(json.dumps(record, indent=2))
        return
    if record["status"] == "diverged":
        print(f"the run diverged: {record['cause']}")
    else:
        print(
            f"mean CKA of different blocks: attention maps {record['attention_mean_off_diagonal']:.3f}, "
            f"features {record['features_mean_off_diagonal']:.3f} "
            f"({len(record['tokens'])} blocks, {record['images']} images)"
        )
    print(project.paths.shown(project.paths.layer_similarity(name, method, size, seed)))


@explain_app.command(
    epilog=example(
        "fgvc explain heatmap results/runs/cub/pim_swin/384/seed1 001.Black_footed_Albatross/1.jpg"
        " --class 002.Laysan_Albatross"
    )
)
def heatmap(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a run, with its run.json")],
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="a file, or its path in the run's dataset")],
    class_name: Annotated[
        str | None, typer.Option("--class", metavar="NAME", show_default="the predicted one")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="the picture, PNG")] = Path(
        "heatmap.png"
    ),
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Draw where a run sees a class in an image.

    For methods that classify every place (pim). --json prints the map itself.
    """
    project = Project.find()
    from fgvc.explain.heatmap import heat_of_image

    found = heat_of_image(project, run.resolve(), image, class_name, device)
    if as_json:
        record = {"class": found.class_name, "predicted": found.predicted, "probability": found.probability}
        print(json.dumps({**record, "heat": found.heat.tolist()}))
        return
    from fgvc.reporting.heat_figure import write_heat

    write_heat(found, output)
    print(f"{found.class_name}: {output} (predicted: {found.predicted})")
