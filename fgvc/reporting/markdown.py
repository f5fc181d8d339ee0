"""GitHub Markdown of a table."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fgvc.reporting.grid_table import Entry, Grid, GridRow, Note


def escape(text: str) -> str:
    """``text`` so that GitHub prints it as it stands, on one line, also inside a table."""
    clean = " ".join(text.split())
    clean = re.sub(r"([\\`*_\[\]|~])", r"\\\1", clean)
    clean = clean.replace("<", "&lt;").replace(">", "&gt;")
    # Only an ampersand that would begin an entity of the author's is in danger.
    return re.sub(r"&(?=#?\w+;)(?!lt;|gt;)", "&amp;", clean)


def pipe_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str]) -> str:
    """A pipe table from cells that are escaped already; ``align`` holds left, right or center."""
    rules = {"left": ":---", "right": "---:", "center": ":---:"}
    lines = [list(header), [rules[a] for a in align], *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def to_markdown(grid: Grid) -> str:
    """The table as ``.md``: title, caption, a plain line when it is partial, the table, its notes."""
    titles = grid.column_titles
    header = [escape(grid.row_heading), *map(escape, titles)]
    rows = [_row(row) for row in grid.rows]
    named = [group for group, _ in grid.groups if group]
    if len(named) > 1 and titles == [h.one_line for h in grid.headings]:
        rows.insert(0, ["", *(f"*{escape(h.group)}*" if h.group else "" for h in grid.headings)])
    align = ["left", *["center"] * len(grid.headings)]
    blocks = [f"# {escape(grid.title)}", escape(grid.caption)]
    if grid.partial:
        blocks.append(f"**{escape(grid.partial)}**")
    blocks.append(pipe_table(header, rows, align))
    if grid.notes:
        blocks.append("\n".join(f"- {_note(note)}" for note in grid.notes))
    return "\n\n".join(blocks) + "\n"


def _row(row: GridRow) -> list[str]:
    letters = f"<sup>{row.note_letters}</sup>" if row.note_letters else ""
    cells = [escape(row.title) + letters, *(_entry(e) for e in row.entries)]
    return [f"<sub>{cell}</sub>" if cell else "" for cell in cells] if row.quoted else cells


def _entry(entry: Entry) -> str:
    text = escape(entry.text)
    if entry.bold:
        text = f"**{text}**"
    if entry.underlined:
        text = f"<u>{text}</u>"
    text += " †" if entry.dagger else ""
    text += f"<sup>{entry.note_letters}</sup>" if entry.note_letters else ""
    return f"{text} ({escape(entry.remark)})" if entry.remark else text


def _note(note: Note) -> str:
    return (f"<sup>{note.letter}</sup> " if note.letter else "") + escape(note.text)
