"""fgvc explain heatmap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fgvc.cli.groups import AsJson, Device, example, explain_app
from fgvc.config.project import Project


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
