"""fgvc explain: the group of verbs that look into trained models."""

from __future__ import annotations

import typer

from fgvc.cli.groups import REPORTS, app

explain_app = typer.Typer(no_args_is_help=True, help="Looks into trained models: heatmap.")
app.add_typer(explain_app, name="explain", rich_help_panel=REPORTS)
