"""``snakemake --report``: one file, with captions, that needs no network."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from workflowkit import call

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


class Sources(HTMLParser):
    """Everything that a browser would load on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "src" or (name == "href" and tag == "link"):
                self.found.append(value or "")


def test_report(module_copy: Path) -> None:
    outcome = call("snakemake", module_copy, "--report", "report.html").check()
    assert "Report created" in outcome.text
    html = (module_copy / "report.html").read_text()
    sources = Sources()
    sources.feed(html)
    assert not [source for source in sources.found if not source.startswith("data:")]
    assert "@import" not in html
    # Each has its own caption; what is said of costs and of accuracies stands with these alone.
    captions = re.findall(r'"caption": "<p>(.*?)</p>', html)
    begins = ["Made for a test.", "Heights, widths and aspect ratios", "Made for a test."]
    assert [text.startswith(begin) for text, begin in zip(captions, begins, strict=True)] == [True] * 3
    assert ["One row a cell" in text for text in captions].count(True) == 1
    assert ["One MAC is two FLOPs" in text for text in captions].count(True) == 1
