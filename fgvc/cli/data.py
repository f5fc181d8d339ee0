"""fgvc data fetch, split, stats, audit, add."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fgvc.cli.groups import AsJson, DatasetName, FromLocal, Mirror, data_app, example
from fgvc.cli.output import terminal_width
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
    if done.record.unverified:
        print(f"warning: nobody verified: {'; '.join(done.record.unverified)}", file=sys.stderr)
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
    print(f"{name}: {sizes} images; split: {record['provenance']}{_same_parts(record)}")
    print(project.paths.shown(project.paths.split_record(name)))


def _same_parts(record: dict[str, Any]) -> str:
    """Which parts of a split that is ours are the published ones all the same."""
    from fgvc.reporting.split_label import published_parts

    same = published_parts(record)
    return f" ({' and '.join(same)} as published)" if same and record["provenance"] == "ours" else ""


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


@data_app.command(epilog=example("fgvc data audit typefaces", "fgvc data audit typefaces --json"))
def audit(dataset: DatasetName, as_json: AsJson = False) -> None:
    """Find copies and near-copies within and across parts, and files that decode in an unusual way."""
    from fgvc.data.audit import audit_dataset
    from fgvc.reporting.data_audit import audit_lines, write_audit

    project = Project.find()
    record = audit_dataset(project, dataset, Watcher())
    files = write_audit(project, record)
    if as_json:
        print(json.dumps(record, indent=2, ensure_ascii=False))
        return
    print(audit_lines(record, terminal_width()))
    print("\n" + "\n".join(project.paths.shown(file) for file in files))


@data_app.command(
    epilog=example("fgvc data add my_birds path/to/folder", "fgvc data add my_bugs path/to/folder/labels.csv")
)
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="id of the new dataset: a-z, 0-9 and _")],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="a folder of class folders, or a CSV")],
    title: Annotated[
        str | None, typer.Option("--title", help="as tables show it", show_default="NAME")
    ] = None,
) -> None:
    """Make a dataset of your own images: PATH/class/image, or PATH/train|val|test/class/image.

    Or a CSV beside or above them, with the columns path,label or path,label,split.
    """
    from fgvc.data.add import add_dataset

    project = Project.find()
    dataset = add_dataset(project, name, path, title)
    print(
        f"{name}: {dataset.classes} classes; written to {project.paths.shown(project.file('dataset', name))}"
    )
    print(f"next: snakemake --cores 2 -- results/runs/{name}/METHOD/224/seed1/metrics.json")
    print("      (METHOD is one of: fgvc list methods; the images are linked and split on the way)")
