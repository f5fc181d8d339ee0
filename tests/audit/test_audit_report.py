"""The report of an audit as files, and the verb that makes it."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fgvc.audit.finding import KEYS
from fgvc.audit.report import Report, to_html, to_json, to_markdown
from fgvc.cli.main import main
from fgvc.config.project import Project


class Page(HTMLParser):
    """What a page loads, and its findings in order."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.verdicts: list[str] = []
        self.open: list[bool] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        self.loads += [str(facts[key]) for key in ("src", "href") if key in facts]
        if tag == "details":
            self.verdicts.append(str(facts["data-verdict"]))
            self.open.append("open" in facts)


def test_the_page_loads_nothing_and_shows_contradictions_first(published: Report) -> None:
    html = to_html(published)
    page = Page()
    page.feed(html)
    assert page.loads == [] and "@import" not in html and "url(" not in html
    assert Counter(page.verdicts) == published.counts
    wrong = published.counts["contradicted"]
    assert set(page.verdicts[:wrong]) == {"contradicted"} and all(page.open[:wrong])
    assert not any(page.open[wrong:])
    for check in published.checks:
        assert f'data-choose="{check.id}"' in html


def test_foreign_text_is_escaped() -> None:
    from fgvc.audit.finding import Finding
    from fgvc.audit.registry import Check

    check: Check[None] = Check("a", "A & B", "<b>why</b>", (), lambda _: ())
    finding = Finding(
        subject="<script>alert(1)</script>", verdict="confirmed", explanation="a | b", source="s", check="a"
    )
    report = Report("T", "about", (check,), (finding,))
    assert "<script>alert" not in to_html(report) and "&lt;script&gt;alert" in to_html(report)
    assert "<script>" not in to_markdown(report) and "a \\| b" in to_markdown(report)


def test_the_same_findings_give_the_same_bytes(published: Report) -> None:
    for made in (to_html, to_markdown, to_json):
        assert made(published) == made(published)


def test_the_json_is_a_list_of_findings(published: Report) -> None:
    listed = json.loads(to_json(published))
    assert all(tuple(entry) == KEYS for entry in listed)
    assert len(listed) == len(published.findings)


def test_markdown_has_every_finding_and_the_counts(published: Report) -> None:
    text = to_markdown(published)
    for check in published.checks:
        assert f"(`{check.id}`)" in text
    assert len(re.findall(r"^\| contradicted \|", text, re.M)) == 2 * published.counts["contradicted"]


def run(monkeypatch: pytest.MonkeyPatch, project: Project, *arguments: str) -> int:
    monkeypatch.setenv("FGVC_PROJECT", str(project.root))
    with pytest.raises(SystemExit) as ended:
        main(["audit", *arguments])
    return int(ended.value.code or 0)


def test_the_verb_writes_the_three_files(
    audited: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, audited, "published", "--write") == 0
    said = capsys.readouterr().out.split()
    assert said == [f"results/audit/published.{suffix}" for suffix in ("md", "json", "html")]
    assert all((audited.root / file).stat().st_size > 10_000 for file in said)


def test_the_verb_checks_a_table_and_strict_makes_it_an_exit_status(
    audited: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    paper = tmp_path / "paper.csv"
    paper.write_text("method,accuracy\nIELT,91.856\nOther,91.802\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    asked = ("paper.csv", "--dataset", "cub", "--seeds", "1")
    assert run(monkeypatch, audited, *asked) == 0
    out = capsys.readouterr().out
    assert "contradicted: paper.csv: IELT, cub" in out and "1 contradicted of" in out
    assert max(map(len, out.splitlines())) <= 80
    assert run(monkeypatch, audited, *asked, "--strict") == 1
    capsys.readouterr()
    assert run(monkeypatch, audited, *asked, "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert {entry["verdict"] for entry in listed} >= {"contradicted"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("publishd",), "did you mean 'published'"),
        (("published", "--seeds", "3"), "--seeds is for a CSV"),
        (("nothing.csv",), "does not exist"),
        (("nothing.csv", "--write"), "--write is for published and suites"),
    ],
)
def test_mistakes_are_answered(
    arguments: tuple[str, ...],
    words: str,
    audited: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, audited, *arguments) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error and len(error.splitlines()) <= 5
