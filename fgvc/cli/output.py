"""Printing tables: the one printer, and the options that choose its style."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Any

from fgvc.errors import FgvcError
from fgvc.reporting.printer import Column, Style, render

__all__ = ["Column", "Style", "print_table", "style_of"]


def style_of(as_md: bool = False, as_csv: bool = False, as_json: bool = False) -> Style:
    """The style that --md, --csv and --json choose. Raises FgvcError when two are given."""
    if as_md + as_csv + as_json > 1:
        raise FgvcError("--md, --csv and --json exclude one another")
    return "md" if as_md else "csv" if as_csv else "json" if as_json else "terminal"


def terminal_width() -> int:
    """Columns of the terminal; 80 where there is none."""
    return shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 80


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[Column], style: Style) -> None:
    """Print rows; nothing is hidden, whatever the width."""
    print(render(rows, columns, style, terminal_width() if style == "terminal" else None).rstrip("\n"))
