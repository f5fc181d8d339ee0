"""docs/reliability.md says what the fault tests say."""

from __future__ import annotations

from pathlib import Path

import pytest
import table


def test_the_page_is_up_to_date() -> None:
    text = table.PAGE.read_text(encoding="utf-8")
    assert table.page(text) == text, "python -m tests.faults.table"


def test_a_test_is_found_by_its_name_and_read_by_its_docstring() -> None:
    found = {(test.fault, test.words): test for test in table.fault_tests()}
    killed = found[24, "the workflow makes a killed table again"]
    assert killed.file == "tests/faults/test_fault_results.py"
    assert killed.promise.startswith("A job that is killed between two files of a table is told")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def test_f07_something() -> None:\n    pass\n", "needs a docstring"),
        ('def test_f99_something() -> None:\n    """A promise."""\n', "does not name"),
    ],
)
def test_a_test_without_a_promise_or_of_no_fault_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_new.py").write_text(text)
    monkeypatch.setattr(table, "ROOT", tmp_path)
    with pytest.raises(ValueError, match=rf"tests/test_new\.py:1: test_f.*{says}"):
        table.fault_tests()
