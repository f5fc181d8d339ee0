"""fgvc weights fetch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from fgvc.cli.groups import AsJson, FromLocal, Mirror, example, weights_app
from fgvc.cli.watch import Watcher, resumable
from fgvc.config.project import Project


@weights_app.command(epilog=example("fgvc weights fetch tf_efficientnet_lite0.in1k"))
def fetch(
    weights: Annotated[str, typer.Argument(metavar="WEIGHTS", help="id in params/weights")],
    mirror: Mirror = None,
    from_local: FromLocal = None,
    force: Annotated[bool, typer.Option("--force", help="fetch and convert again")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring pre-trained weights here and convert them to safetensors under timm's names."""
    project = Project.find()
    project.weights(weights)
    from fgvc.backbones.fetch_weights import fetch_weights, weights_notes

    with resumable(f"fgvc weights fetch {weights}"):
        record, cached = fetch_weights(
            project,
            weights,
            Path(mirror) if mirror else None,
            Watcher(),
            force=force,
            local=Path(from_local) if from_local else None,
        )
    for note in weights_notes(project, weights, record):
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        print(json.dumps(record, indent=2))
        return
    state = "(cached) there already" if cached else f"from {record['source']}"
    print(f"{weights}: {state}; {record['tensors']} tensors, {record['licence']}")
    print(project.paths.shown(project.paths.weights(weights)))


@weights_app.callback()
def weights_verbs() -> None:
    """Pre-trained weights: fetch."""
