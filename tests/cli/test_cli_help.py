"""Helps: short, complete, and with examples that run."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from clikit import BIN, Verb, examples, fgvc, process, verbs

VERBS = verbs()


def help_of(verb: Verb, root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "200")  # so that no example is broken
    return fgvc(root, *verb.path, "--help").check().out


def test_the_main_help_fits_on_a_screen_and_names_every_verb(tmp_path: Path) -> None:
    said = process(tmp_path, "--help").check()
    lines = said.out.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 80
    first_words = {line.strip("│ ").partition(" ")[0]: line for line in lines}
    for verb in VERBS:
        assert verb.path[0] in first_words, f"{verb.name} is not in the main help"
        assert "…" not in first_words[verb.path[0]]
    assert said.err == ""


@pytest.mark.parametrize("group", sorted({v.path[0] for v in VERBS if len(v.path) > 1}))
def test_the_help_of_a_group_names_its_verbs(group: str, tmp_path: Path) -> None:
    inner = {v.path[1] for v in VERBS if v.path[0] == group and len(v.path) > 1}
    lines = [line.strip("│ ") for line in fgvc(tmp_path, group, "--help").check().out.splitlines()]
    assert inner <= {line.partition(" ")[0] for line in lines}
    main_line = next(x for x in fgvc(tmp_path, "--help").out.splitlines() if x.startswith(f"│ {group} "))
    assert all(name in main_line for name in inner), "the main help shows what is in the group"


def test_no_argument_shows_the_help_and_no_empty_error(tmp_path: Path) -> None:
    for arguments in ((), ("data",)):
        said = fgvc(tmp_path, *arguments)
        assert said.status == 2 and "Usage: fgvc" in said.out + said.err
        assert "error" not in said.out + said.err


@pytest.mark.parametrize("verb", VERBS, ids=lambda v: v.name)
def test_every_verb_has_a_help_with_an_example_of_itself(
    verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = help_of(verb, tmp_path, monkeypatch)
    found = examples(text)
    assert found, f"'fgvc {verb.name}' has no example: epilog=example(\"fgvc {verb.name} …\")"
    for line in found:
        assert shlex.split(line)[1 : 1 + len(verb.path)] == list(verb.path), line
    for option in verb.options:
        assert option in text


def test_every_verb_knows_its_help_outside_a_project(tmp_path: Path) -> None:
    for verb in VERBS:
        assert "Example:" in fgvc(tmp_path, *verb.path, "--help").check().out


#: What must have run before an example does.
FIRST = {"evaluate": ["train"], "explain cka": ["train"]}
#: Verbs whose examples need more than this project: fonts that few machines have (tests/pretraining runs it
#: on pretended ones), a repository of git and DVC (tests/docs and tests/workflow make one), and a run of a
#: method that classifies every place (test_cli_own_pim.py).
ELSEWHERE = ("pretrain", "track", "explain heatmap")


@pytest.mark.parametrize("verb", [v for v in VERBS if v.name not in ELSEWHERE], ids=lambda v: v.name)
def test_the_examples_of_a_help_run(verb: Verb, ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand there, and with --json, --md and --csv where the verb has them: what comes parses."""
    for name in [*FIRST.get(verb.name, []), verb.name]:
        one = next(v for v in VERBS if v.name == name)
        lines = examples(help_of(one, ready, monkeypatch))
        monkeypatch.setenv("COLUMNS", "80")
        for line in lines:
            arguments = shlex.split(line)[1:]
            said = fgvc(ready, *arguments).check()
            assert said.out.strip() and "Traceback" not in said.err, line
            if "--json" in arguments:
                assert json.loads(said.out)
            else:
                assert_it_parses(one, arguments, ready)


def assert_it_parses(verb: Verb, arguments: list[str], root: Path) -> None:
    plain = [a for a in arguments if a not in ("--json", "--md", "--csv")]
    if "--json" in verb.options:
        assert json.loads(fgvc(root, *plain, "--json").check().out)
    if "--csv" in verb.options:
        rows = list(csv.reader(io.StringIO(fgvc(root, *plain, "--csv").check().out)))
        assert len(rows) > 1 and len({len(row) for row in rows}) == 1
    if "--md" in verb.options:
        text = fgvc(root, *plain, "--md").check().out
        table = [line for line in text.splitlines() if line.startswith("|")]
        assert len(table) > 2 and len({line.replace("\\|", "").count("|") for line in table}) == 1


def test_a_reader_that_goes_away_is_no_error(shipped: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as stream:
        done = subprocess.run(
            [BIN / "fgvc", "list", "datasets"], cwd=shipped, stdout=stream, stderr=subprocess.PIPE, timeout=60
        )
    assert done.stderr == b""
