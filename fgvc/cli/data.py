"""fgvc data fetch, split, stats, add."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from fgvc.cli.groups import AsJson, DatasetName, FromLocal, Mirror, data_app, example
from fgvc.cli.watch import Watcher, resumable
from fgvc.config.project import Project


@data_app.command(epilog=example("fgvc data fetch typefaces", "fgvc data fetch grocery35 --mirror DIR"))
def fetch(
    dataset: DatasetName,
    mirror: Mirror = None,
    from_local: FromLocal = None,
    verify: Annotated[bool, typer.Option("--verify", help="hash every file again")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="put a fresh copy in the place of data/D")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring a dataset here: from a mirror, else from the network; checked against its digests."""
    from fgvc.data.fetch import fetch as fetch_dataset

    project = Project.find()
    name = project.canonical_dataset(dataset)
    with resumable(f"fgvc data fetch {name}"):
        done = fetch_dataset(
            project,
            name,
            Path(mirror) if mirror else None,
            Watcher(),
            verify=verify,
            replace=replace,
            local=Path(from_local) if from_local else None,
        )
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        print(json.dumps(done.record.model_dump(mode="json"), indent=2))
        return
    words = {"present": "(cached) there already", "verified": "every file verified", "recorded": "recorded"}
    outcome = words.get(done.outcome, "fetched")
    print(f"{name}: {outcome}; {done.record.images} images of {done.record.classes} classes")
    print(project.paths.shown(project.paths.data_record(name)))


@data_app.command(epilog=example("fgvc data split typefaces"))
def split(dataset: DatasetName, as_json: AsJson = False) -> None:
    """Prepare train, val, train_val and test lists, checked for leaks and against published digests."""
    from fgvc.data.splits import prepare_splits

    project = Project.find()
    name = project.canonical_dataset(dataset)
    record = prepare_splits(project, name)
    if as_json:
        print(json.dumps(record, indent=2))
        return
    sizes = ", ".join(f"{part} {facts['rows']}" for part, facts in record["parts"].items())
    print(f"{name}: {sizes} images; split: {record['provenance']}")
    print(project.paths.shown(project.paths.split_record(name)))


@data_app.command(epilog=example("fgvc data stats typefaces"))
def stats(dataset: DatasetName, as_json: AsJson = False) -> None:
    """Heights, widths and aspect ratios of a split dataset's images."""
    from fgvc.data.stats import size_statistics

    project = Project.find()
    name = project.canonical_dataset(dataset)
    record = size_statistics(project, name)
    if as_json:
        print(json.dumps(record, indent=2))
        return
    whole = record["all"]
    height, width = whole["height_px"], whole["width_px"]
    print(
        f"{name}: {whole['images']} images, height {height['mean']:.0f} ± {height['std']:.0f} px, "
        f"width {width['mean']:.0f} ± {width['std']:.0f} px"
    )
    print(project.paths.shown(project.paths.stats(name)))


@data_app.command(epilog=example("fgvc data add my_birds path/to/folder"))
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="id of the new dataset: a-z, 0-9 and _")],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="a folder of class folders")],
    title: Annotated[
        str | None, typer.Option("--title", help="as tables show it", show_default="NAME")
    ] = None,
) -> None:
    """Make a dataset of your own folder of images: PATH/class/image, or PATH/train|val|test/class/image."""
    from fgvc.data.add import add_folder

    project = Project.find()
    dataset = add_folder(project, name, path, title)
    print(
        f"{name}: {dataset.classes} classes; written to {project.paths.shown(project.file('dataset', name))}"
    )
    print(f"next: snakemake --cores 2 -- results/runs/{name}/METHOD/224/seed1/metrics.json")
    print("      (METHOD is one of: fgvc list methods; the images are linked and split on the way)")
