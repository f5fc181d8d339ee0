"""What a run looks like on a terminal, and what it leaves of the terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pexpect
import pytest
from workflowkit import BIN, SIZE, TIMEOUT_S, environment, variant, write_params

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

ROWS, COLUMNS = 30, 100
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def spawn(root: Path, *targets: str) -> pexpect.spawn:
    env = environment(TERM="xterm-256color")
    del env["COLUMNS"]
    return pexpect.spawn(
        str(BIN / "snakemake"),
        ["--cores", "2", "--", *targets],
        cwd=str(root),
        env=env,
        dimensions=(ROWS, COLUMNS),
        encoding="utf-8",
        timeout=TIMEOUT_S,
    )


def rest_of(child: pexpect.spawn) -> str:
    child.expect(pexpect.EOF)
    text = child.before or ""
    child.close()
    return text


def test_progress_and_ctrl_c(copy: Path) -> None:
    write_params(copy, "methods/vit_long", variant(recipe={"epochs": 9000}))
    run = f"results/runs/shapes/vit_long/{SIZE}/seed1/metrics.json"
    child = spawn(copy, run)
    child.expect_exact("3 jobs to run: 1 select_lr, 1 train, 1 evaluate")
    child.expect(r"job 2 of 3, about [\d:]+( s)? left")
    child.expect(
        rf"train shapes/vit_long/{SIZE} seed 1  epoch \d+/9000  train acc [\d.]+ %  [\d:]+( s)? left"
    )
    child.sendintr()
    ending = rest_of(child)
    assert child.exitstatus == 1
    # The cursor is shown again, nothing is left in another mode, and the last words are whole lines.
    modes = re.findall(r"\x1b\[\?(\d+)([hl])", ending)
    assert modes and modes[-1] == ("25", "h") and {number for number, _ in modes} == {"25"}
    lines = [line for line in ESCAPE.sub("", ending).replace("\r", "").splitlines() if line.strip()]
    assert lines[-1].startswith("stopped on request; the same command goes on from here"), lines[-12:]
    assert "Traceback" not in ending and "FAILED" not in ending
    assert list(copy.glob(f"state/runs/shapes/vit_long/{SIZE}/seed1/*/step-*.pt"))


def test_no_line_is_wider_than_the_terminal_while_it_is_redrawn(copy: Path) -> None:
    (copy / "results/tables/acc_32.md").unlink()
    child = spawn(copy)
    text = rest_of(child)
    assert child.exitstatus == 0
    drawn, _, closing = text.partition("Suite:")
    assert closing and "\x1b" not in closing, "the summary is plain text, as it can be copied"
    assert 4 <= len(f"Suite:{closing}".strip().splitlines()) <= 10
    for line in ESCAPE.sub("", drawn).replace("\r", "\n").splitlines():
        assert len(line) <= COLUMNS
