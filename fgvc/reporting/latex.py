"""LaTeX of a table: a float-free ``tabular`` with its notes, to be ``\\input`` where the author wants it.

Needs the package booktabs and nothing else.
"""

from __future__ import annotations

import re

from fgvc.reporting.grid_table import Entry, Grid, GridRow, Note

#: What a plain sign becomes. Characters that are not here and not ASCII are left to the document's engine.
_SIGNS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",  # OT1, the default encoding, has no straight one
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "≈": r"$\approx$",
    "→": r"$\rightarrow$",
    "α": r"$\alpha$",
    "∝": r"$\propto$",
    "†": r"$^{\dagger}$",
    "‡": r"$\ddagger$",
    "√": r"$\surd$",
    "²": r"$^{2}$",
    "−": r"$-$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "“": "``",
    "”": "''",
    "’": "'",
    "‘": "`",
    "\u00a0": "~",
    "\u2009": r"\,",
}


def escape(text: str) -> str:
    """``text`` so that LaTeX prints it as it stands: every special escaped, no hyphen joined to a dash."""
    clean = " ".join("".join(c if c.isprintable() or c in _SIGNS else " " for c in text).split(" "))
    escaped = "".join(_SIGNS.get(c, c) for c in re.sub(r"-(?=-)", "-\u200b", clean))
    return escaped.replace("\u200b", "{}")


def to_latex(grid: Grid) -> str:
    """The table as ``.tex``: a comment with its caption, the tabular, the notes under it."""
    width = len(grid.headings) + 1
    many = width > 9  # wider than a column of text: closer columns
    lines = [
        f"% {grid.name}: {_comment(grid.title)}",
        f"% Suggested caption: {_comment(grid.caption)}",
        r"% Use: \usepackage{booktabs}, then \input this file, in a table environment if it shall float.",
        r"\begingroup",
        r"\setlength{\tabcolsep}{3pt}\footnotesize" if many else r"\setlength{\tabcolsep}{5pt}",
        r"\begin{tabular}{@{}l" + "".join(" " + "c" * span for _, span in grid.groups) + "@{}}",
    ]
    if grid.partial:
        lines.append(rf"\multicolumn{{{width}}}{{@{{}}l@{{}}}}{{\textbf{{{escape(grid.partial)}}}}} \\")
    lines += [r"\toprule", *_headings(grid), r"\midrule"]
    for row in grid.rows:
        lines += [*([r"\midrule"] if row.rule_above else []), _row(row)]
    lines += [r"\bottomrule", r"\end{tabular}"]
    if grid.notes:
        # A blank line ends the paragraph, so that the notes stand under the table, not beside it.
        lines += ["", r"\vspace{2pt}", r"{\scriptsize\raggedright"]
        lines += [rf"\noindent {_note(note)}\par" for note in grid.notes]
        lines += ["}"]
    return "\n".join([*lines, r"\endgroup", ""])


def standalone(table: str) -> str:
    """A whole document around the text of a table, wide enough for any; for proofs and tests."""
    return "\n".join(
        [
            r"\documentclass{article}",
            r"\usepackage{booktabs}",
            r"\setlength{\paperwidth}{80cm}\setlength{\textwidth}{75cm}",
            r"\setlength{\oddsidemargin}{0pt}\pagestyle{empty}\setlength{\parindent}{0pt}",
            r"\begin{document}",
            table,
            r"\end{document}",
            "",
        ]
    )


def _headings(grid: Grid) -> list[str]:
    lines = []
    named = [span for span in grid.groups if span[0]]
    if named:
        cells, rules, column = [""], [], 2
        for group, span in grid.groups:
            cells.append(rf"\multicolumn{{{span}}}{{c}}{{{escape(group)}}}" if group else " & " * (span - 1))
            if group:
                rules.append(rf"\cmidrule(lr){{{column}-{column + span - 1}}}")
            column += span
        lines += [" & ".join(cells).strip() + r" \\", " ".join(rules)]
    titles = [escape(grid.row_heading), *(escape(h.title) for h in grid.headings)]
    lines.append(" & ".join(titles) + r" \\")
    if any(h.subtitle for h in grid.headings):
        small = [rf"{{\scriptsize {escape(h.subtitle)}}}" if h.subtitle else "" for h in grid.headings]
        lines.append(" & ".join(["", *small]).strip() + r" \\")
    return lines


def _row(row: GridRow) -> str:
    title = escape(row.title)
    if row.note_letters:
        title += rf"\textsuperscript{{{escape(row.note_letters)}}}"
    cells = [title, *(_entry(e) for e in row.entries)]
    if row.quoted:
        cells = [rf"{{\scriptsize {cell}}}" if cell else "" for cell in cells]
        cells[0] = rf"\quad{cells[0]}"
    return " & ".join(cells).rstrip() + r" \\"


def _entry(entry: Entry) -> str:
    text = escape(entry.text).replace(r" $\pm$ ", r"\,$\pm$\,")
    if entry.bold:
        text = rf"\textbf{{{text}}}"
    if entry.underlined:
        text = rf"\underline{{{text}}}"
    if entry.dagger:
        # Without width, so that the numbers of a column stay under one another.
        text += r"$^{\dagger}$" if entry.remark else r"\rlap{$^{\dagger}$}"
    if entry.note_letters:
        text += rf"\textsuperscript{{{escape(entry.note_letters)}}}"
    if entry.remark:
        text += rf"\,{{\scriptsize ({escape(entry.remark)})}}"
    return text


def _note(note: Note) -> str:
    return (rf"\textsuperscript{{{escape(note.letter)}}}" if note.letter else "") + escape(note.text)


def _comment(text: str) -> str:
    return " ".join(text.split())
