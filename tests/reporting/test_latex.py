"""LaTeX that compiles: by a TeX when there is one, and by a strict reading everywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgvc.config.project import Project
from fgvc.reporting.grid_table import Entry, Grid, GridRow, Heading, Note
from fgvc.reporting.latex import escape, standalone, to_latex
from fgvc.reporting.tables import read_table

NASTY = r"R&D_50% {of} $5 #1 ~ ^ \ <a|b> ± † – -- --- 'x' " "q" " α → …"


def grid(columns: int = 4, text: str = NASTY) -> Grid:
    groups = ["", "CNN & co", "ViT_based", "ViT_based"]
    headings = tuple(
        Heading(f"m{i}", groups[i % 4] if columns == 4 else "All", f"{text} {i}", text if i % 2 else "")
        for i in range(columns)
    )
    entries = tuple(
        Entry("90.12 ± 0.34", bold=i == 0, underlined=i == 1, dagger=i < 3, remark="n=1/3" if i == 2 else "")
        for i in range(columns)
    )
    return Grid(
        name="nasty",
        title=text + "\nsecond line",
        caption=text,
        row_heading="Dataset",
        headings=headings,
        rows=(
            GridRow(text, entries, note_letters="a,b"),
            GridRow("Average", (Entry("–"),) * columns, rule_above=True),
        ),
        notes=(Note(text), Note(text, "a")),
        partial="PARTIAL: 1 of 2 cells",
    )


def check(tex: str) -> None:
    """Refuse what LaTeX would: braces, environments, column counts, unescaped specials, raw Unicode."""
    lines = [line for line in tex.splitlines() if not line.startswith("%")]
    bare = "\n".join(lines)
    assert not re.search(r"(?<!\\)[%#]", bare), "an unescaped special"
    without_escapes = re.sub(r"\\[\\{}&%$#_]", "", bare)
    assert "_" not in without_escapes and "~" not in without_escapes
    assert without_escapes.count("$") % 2 == 0
    math = re.findall(r"\$[^$]*\$", without_escapes)
    assert "^" not in re.sub(r"\$[^$]*\$", "", without_escapes), "a superscript outside mathematics"
    assert all("±" not in m for m in math)
    assert re.sub(r"[\x00-\x7f]", "", bare) == "", "characters that pdflatex may not know"
    depth = 0
    for sign in re.findall(r"[{}]", without_escapes):
        depth += 1 if sign == "{" else -1
        assert depth >= 0
    assert depth == 0
    opened = re.findall(r"\\(begin|end)\{(\w+)\}", bare)
    assert [o for o in opened if o[0] == "begin"] and len(opened) % 2 == 0
    assert bare.count(r"\begingroup") == bare.count(r"\endgroup") == 1

    preamble = re.search(r"\\begin\{tabular\}\{@\{\}([lc ]+)@\{\}\}", bare)
    assert preamble
    columns = len(preamble[1].replace(" ", ""))
    inside = bare[bare.index(r"\begin{tabular}") : bare.index(r"\end{tabular}")].splitlines()[1:]
    for line in inside:
        if line.startswith((r"\toprule", r"\midrule", r"\bottomrule", r"\cmidrule")):
            continue
        assert line.endswith(r" \\"), line
        cells = re.split(r"(?<!\\)&", line.removesuffix(r" \\"))
        spans = [int(m[1]) if (m := re.search(r"\\multicolumn\{(\d+)\}", c)) else 1 for c in cells]
        assert sum(spans) == columns, line


@pytest.mark.parametrize("columns", [1, 4, 12])
def test_strictly_read(columns: int) -> None:
    tex = to_latex(grid(columns))
    check(tex)
    assert r"\textbf{90.12\,$\pm$\,0.34}" in tex
    assert ("\\cmidrule(lr){3-3}" in tex) == (columns == 4)


@given(st.text(st.characters(codec="ascii"), max_size=40))
def test_any_ascii_name_is_safe(name: str) -> None:
    check(to_latex(grid(4, name)))


@pytest.mark.parametrize(("suite", "table"), [("sota", "sota_224"), ("quick", "published_sota_224")])
def test_shipped_tables_with_published_numbers(tmp_path: Path, suite: str, table: str) -> None:
    """Their notes hold signs of their own (√, ², ‡), their cells letters and small rows."""
    (tmp_path / "params").symlink_to(Path(__file__).resolve().parents[2] / "params")
    tex = to_latex(read_table(Project(tmp_path), suite, table, allow_missing=True).grid)
    check(tex)
    if table == "sota_224":
        assert (
            r"\quad{\scriptsize published} & {\scriptsize 82.71\,$\pm$\,0.06\,{\scriptsize (not run)}}" in tex
        )
        assert r"$\surd$(our std$^{2}$ + published std$^{2}$)" in tex
    else:
        assert r"90.84\,$\pm$\,8.29\textsuperscript{$\ddagger$" in tex
        assert r"GMACs, recounted & not counted & not counted &" in tex


def test_escapes() -> None:
    assert escape("a_b & 50% {x}") == r"a\_b \& 50\% \{x\}"
    assert escape("--cores\x1b\n3") == "-{}-cores  3"
    assert escape("90 ± 1") == r"90 $\pm$ 1"


def compilers() -> list[list[str]]:
    known = (["pdflatex", "-interaction=nonstopmode", "-halt-on-error"], ["tectonic", "--only-cached"])
    return [c for c in known if shutil.which(c[0])]


@pytest.mark.skipif(not compilers(), reason="neither pdflatex nor tectonic is installed")
def test_compiles(tmp_path: Path) -> None:
    document = tmp_path / "proof.tex"
    document.write_text(standalone("\n\n".join(to_latex(grid(c)) for c in (1, 4, 12))), encoding="utf-8")
    done = subprocess.run(
        [*compilers()[0], document.name], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "proof.pdf").stat().st_size > 1000
    assert "Missing character" not in done.stdout
