"""The one table printer of all verbs: for terminals of any width, and as Markdown, CSV or JSON.

On a terminal nothing is hidden: long texts are shortened in their middle as long as they stay distinct, and
columns that do not fit go to a further block that repeats the first column. No control characters are ever
written, so that the same text serves a pipe or a log.
"""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from rich.cells import cell_len, chop_cells

from fgvc.reporting import markdown

Style = Literal["terminal", "md", "csv", "json"]
GAP = "  "
#: Texts are shortened to this before a table is split into blocks, to less only when that is not enough.
READABLE_TEXT = 24
SHORTEST_TEXT = 8
#: Nor are they broken into lines shorter than this.
SHORTEST_LINE = 4
DEFAULT_WIDTH = 80


@dataclass(frozen=True)
class Column:
    """A column: its key in the rows, its heading, its alignment, and decimals for floats.

    ``rigid`` columns (always those aligned right: numbers) are never shortened; instead their heading breaks.
    ``prose`` columns hold sentences: they are wrapped between words, and never shortened either.
    """

    key: str
    heading: str
    align: Literal["left", "right"] = "left"
    decimals: int | None = None
    rigid: bool = False
    prose: bool = False

    @property
    def is_rigid(self) -> bool:
        return self.rigid or self.align == "right"


def render(rows: Sequence[dict[str, Any]], columns: Sequence[Column], style: Style, width: int | None) -> str:
    """The rows as text that ends with a newline.

    Args:
        rows: a mapping a row; a key that a row lacks counts as None.
        columns: at least one; the first names the rows.
        style: terminal (aligned to ``width``), md, csv or json (both with the values as they are).
        width: columns of the terminal; None is 80.
    """
    if style == "json":
        values = [{c.key: row.get(c.key) for c in columns} for row in rows]
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    if style == "csv":
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(c.key for c in columns)
        writer.writerows(["" if row.get(c.key) is None else row[c.key] for c in columns] for row in rows)
        return stream.getvalue()
    texts = [[_text(row.get(c.key), c) for c in columns] for row in rows]
    if style == "md":
        header = [markdown.escape(c.heading) for c in columns]
        body = [[markdown.escape(t) for t in line] for line in texts]
        return markdown.pipe_table(header, body, [c.align for c in columns]) + "\n"
    return _terminal(texts, columns, width or DEFAULT_WIDTH)


def shorten_distinct(texts: Sequence[str], limit: int) -> list[str] | None:
    """The texts cut in their middle to at most ``limit`` cells each, or None if two would read alike.

    When the ends are what tells them apart they are kept: the share of the head is tried from half down.
    """
    whole = len(set(texts))
    for head in dict.fromkeys((limit // 2, limit // 3, 2 * limit // 3, limit - 2, 1)):
        cut = [_cut(text, limit, head) for text in texts]
        if len(set(cut)) == whole and all(cell_len(c) <= limit for c in cut):
            return cut
    return None


def _cut(text: str, limit: int, head: int) -> str:
    if cell_len(text) <= limit:
        return text
    tail = limit - head - 1
    return text[:head].rstrip() + "…" + (text[-tail:].lstrip() if tail > 0 else "")


def _text(value: Any, column: Column) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and column.decimals is not None:
        return f"{value:.{column.decimals}f}"
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


def _terminal(texts: list[list[str]], columns: Sequence[Column], width: int) -> str:
    """One block when everything fits, else as few stacked blocks as possible."""
    filled = [_Filled(c, [line[i] for line in texts]) for i, c in enumerate(columns)]
    blocks = [filled] if _total([f.narrow for f in filled]) <= width else _split(filled, width)
    return "\n".join(_block(members, _widths(members, width)) for members in blocks)


@dataclass(frozen=True)
class _Filled:
    """A column with its texts."""

    column: Column
    texts: list[str]

    @cached_property
    def natural(self) -> int:
        """Width at which nothing is cut; the heading of a rigid column breaks rather than widen it."""
        heading = self.column.heading
        words = heading.split() if self.column.is_rigid else [heading]
        return max(map(cell_len, [*self.texts, *words]), default=1)

    @cached_property
    def narrow(self) -> int:
        """The least width at which the texts stay distinct and readable."""
        return self._distinct_from(READABLE_TEXT)

    @cached_property
    def narrowest(self) -> int:
        """The least width at which the texts stay distinct."""
        return self._distinct_from(SHORTEST_TEXT)

    def _distinct_from(self, least: int) -> int:
        if self.column.is_rigid:
            return self.natural
        if self.column.prose:
            return min(self.natural, least)
        limits = range(max([least, *map(cell_len, self.column.heading.split())]), self.natural)
        return next((n for n in limits if shorten_distinct(self.texts, n) is not None), self.natural)

    def lines(self, width: int) -> list[list[str]]:
        """Each text as lines of at most ``width``: whole, else shortened, else broken."""
        if max(map(cell_len, self.texts), default=0) <= width:
            return [[text] for text in self.texts]
        if self.column.prose:
            return [textwrap.wrap(text, width) or [""] for text in self.texts]
        short = shorten_distinct(self.texts, width) if not self.column.is_rigid else None
        return [[t] for t in short] if short is not None else [_broken(t, width) for t in self.texts]

    def heading(self, width: int) -> list[str]:
        lines: list[str] = []
        for word in self.column.heading.split() or [""]:
            for part in _broken(word, width):
                if lines and cell_len(lines[-1]) + 1 + cell_len(part) <= width:
                    lines[-1] += " " + part
                else:
                    lines.append(part)
        return lines


def _broken(text: str, width: int) -> list[str]:
    return chop_cells(text, width) or [""]


def _block(members: list[_Filled], widths: list[int]) -> str:
    headings = [m.heading(w) for m, w in zip(members, widths, strict=True)]
    bodies = [m.lines(w) for m, w in zip(members, widths, strict=True)]
    rows = [headings, [["-" * w] for w in widths], *map(list, zip(*bodies, strict=True))]
    lines = []
    for row in rows:
        for level in range(max(map(len, row))):
            cells = [cell[level] if level < len(cell) else "" for cell in row]
            padded = [_pad(c, w, m.column.align) for c, w, m in zip(cells, widths, members, strict=True)]
            lines.append(GAP.join(padded).rstrip())
    return "\n".join(lines) + "\n"


def _pad(text: str, width: int, align: str) -> str:
    space = " " * (width - cell_len(text))
    return space + text if align == "right" else text + space


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _widths(members: list[_Filled], width: int) -> list[int]:
    """Natural widths, less until they fit: texts to where they stay distinct, then to where they break."""
    widths = [m.natural for m in members]
    levels = ([m.narrow for m in members], [m.narrowest for m in members], [SHORTEST_LINE] * len(members))
    for floors in levels:
        while _total(widths) > width:
            giving = [i for i in range(len(widths)) if widths[i] > floors[i]]
            if not giving:
                break
            widths[max(giving, key=lambda i: widths[i])] -= 1
    return widths


def _split(filled: list[_Filled], width: int) -> list[list[_Filled]]:
    """Blocks that repeat the first column; a column too wide to stand beside it gets a block of its own."""
    first, *rest = filled
    blocks: list[list[_Filled]] = []
    for column in rest:
        if blocks and _total([m.narrow for m in [*blocks[-1], column]]) <= width:
            blocks[-1].append(column)
        else:
            blocks.append([first, column])
    return blocks or [[first]]
