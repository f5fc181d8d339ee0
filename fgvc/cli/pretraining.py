"""fgvc pretrain."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fgvc.cli.groups import DATA, AsJson, app, example
from fgvc.cli.watch import Watcher
from fgvc.config.project import Project


@app.command(
    rich_help_panel=DATA,
    epilog=example(
        "fgvc pretrain", "fgvc pretrain --faces-limit 10 --renders 6 --epochs 2 --output results/try"
    ),
)
def pretrain(
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="fewer for a quick try", show_default="the recipe's")
    ] = None,
    renders: Annotated[
        int | None,
        typer.Option("--renders", min=2, help="pictures a face; a tenth is held out", show_default="60"),
    ] = None,
    faces_limit: Annotated[
        int | None, typer.Option("--faces-limit", min=2, help="at most so many faces", show_default="all")
    ] = None,
    packages: Annotated[
        list[str] | None,
        typer.Option("--package", help="draw from this package only (repeatable)", show_default="62 of them"),
    ] = None,
    root: Annotated[
        Path, typer.Option("--root", metavar="DIR", help="root of the Debian system with the fonts")
    ] = Path("/"),
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", show_default="results/pretraining")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pre-train vit_pico on the typefaces of Debian.

    Makes the weights vit_pico_patch16_224.debian_faces and their card again. No face of the dataset typefaces
    is trained on, and none like them. A run that was killed goes on after its last epoch.
    """
    project = Project.find()
    # Before torch is loaded. Its threads spin while they wait for one another, which on shared cores takes
    # the time from the thread that is waited for: a fifth of the speed, where another job runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from fgvc.pretraining.packages import PACKAGES
    from fgvc.pretraining.recipe import WEIGHTS, FaceRecipe
    from fgvc.pretraining.run import pretrain as run

    recipe = FaceRecipe()
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    if renders is not None:
        recipe = replace(recipe, renders=renders, held_out=max(1, renders // 10))
    folder = output or project.root / "results" / "pretraining"
    record = run(
        recipe,
        folder,
        project.paths.state("pretrain"),
        packages=packages or PACKAGES,
        root=root,
        faces=faces_limit,
        progress=Watcher(),
    )
    if as_json:
        print(json.dumps(record, indent=2))
        return
    accuracy = record["accuracy"]
    print(
        f"{len(record['faces'])} faces, top-1 {accuracy['centre_pct']:.1f} % (centre crop), "
        f"{accuracy['five_crops_pct']:.1f} % (five crops) on {accuracy['pictures']} held-out pictures"
    )
    print(f"SHA-256 {record['sha256']}")
    print(project.paths.shown(folder / f"{WEIGHTS}.md"))
