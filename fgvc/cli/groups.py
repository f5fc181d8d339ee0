"""The map of verbs. Nothing heavy is imported until a verb runs."""

from __future__ import annotations

from typing import Annotated

import typer

PROJECT, DATA, RUNS, REPORTS = "Project", "Data and weights", "Runs", "Reports"

app = typer.Typer(
    name="fgvc",
    help="Reproducible, auditable benchmarks for fine-grained visual classification.\n"
    "Every verb is one step, with an example in its --help (--debug: tracebacks); "
    "`snakemake --cores 2` runs them all in order.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
data_app = typer.Typer(no_args_is_help=True, help="Datasets: fetch, split, stats, audit, add (your own).")
weights_app = typer.Typer(no_args_is_help=True, help="Pre-trained weights: fetch.")
explain_app = typer.Typer(no_args_is_help=True, help="Look into trained models: cka, heatmap.")
app.add_typer(data_app, name="data", rich_help_panel=DATA)
app.add_typer(weights_app, name="weights", rich_help_panel=DATA)
app.add_typer(explain_app, name="explain", rich_help_panel=REPORTS)

#: Words that newcomers try, and the verb that does it.
MAP = {
    "run": "train",
    "test": "evaluate",
    "eval": "evaluate",
    "flops": "cost",
    "bench": "benchmark",
    "speed": "benchmark",
    "throughput": "benchmark",
    "download": "data fetch",
    "fetch": "data fetch",
    "split": "data split",
    "stats": "data stats",
    "add": "data add",
    "plot": "figure",
    "heatmap": "explain heatmap",
    "show": "describe",
    "info": "doctor",
    "ls": "list",
    "check": "doctor",
    "lr": "select-lr",
    "sweep": "select-lr",
    "dvc": "track",
    "cka": "explain cka",
    "push": "track",
}

# --- options that mean the same in every verb --------------------------------------------------------

DatasetName = Annotated[str, typer.Argument(metavar="DATASET", help="id or alias in params/datasets")]
MethodName = Annotated[str, typer.Argument(metavar="METHOD", help="variant in params/methods")]
Size = Annotated[int, typer.Option("--size", "-s", min=16, max=2048, help="image size in pixels")]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", help="auto (cuda, mps, cpu), cuda, cuda:1, mps or cpu", show_default="params/config.yaml"
    ),
]
Mirror = Annotated[
    str | None,
    typer.Option("--mirror", metavar="DIR", help="look here before the network", show_default="$FGVC_MIRROR"),
]
FromLocal = Annotated[
    str | None,
    typer.Option("--from-local", metavar="DIR", help="folder with the files that you downloaded yourself"),
]
SuiteName = Annotated[
    str | None, typer.Option("--suite", help="suite in params/suites", show_default="the default suite")
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
AsMarkdown = Annotated[bool, typer.Option("--md", help="print Markdown")]
AsCsv = Annotated[bool, typer.Option("--csv", help="print CSV")]


def example(*lines: str) -> str:
    """The epilog of a verb's help."""
    return "[bold]Example:[/bold] " + "\n\n".join(lines)
