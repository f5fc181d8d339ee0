"""Running DVC: by its command line, beside this Python, waiting where another DVC process holds its lock."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fgvc.errors import FgvcError

#: How long another DVC process (a large push, say) is waited for.
LOCK_WAIT_S = 2 * 3600.0
#: Between two attempts; DVC itself waits three seconds before it gives up.
RETRY_S = 1.0
#: DVC's words where another process of it has the repository or a file.
_LOCKED = ("Unable to acquire lock", "is busy, it is being blocked by")
#: Targets of one command: far below any limit of a command line.
BATCH = 200

Say = Callable[[str], None]


class Dvc:
    """The DVC repository of a project.

    Args:
        root: the project's folder.
        say: takes a sentence for the user.
        wait_s: how long to wait for another DVC process.

    Raises FgvcError when ``root`` is no DVC repository.
    """

    def __init__(self, root: Path, say: Say, wait_s: float = LOCK_WAIT_S) -> None:
        if not (root / ".dvc" / "config").is_file():
            raise FgvcError(
                "there is no DVC repository here",
                file=root / ".dvc",
                cure="work in a clone of the repository, or start one here: git init && dvc init",
            )
        self.root, self.say, self.wait_s = root, say, wait_s

    def add(self, paths: Sequence[Path]) -> None:
        """Copy files (reflink where the file system can) into the cache and write their ``.dvc`` files.

        The files themselves are left as they are, with their hard links and times: a job may be reading
        them (DVC would otherwise replace each by a link to its cache).
        """
        for start in range(0, len(paths), BATCH):
            batch = [str(path.relative_to(self.root)) for path in paths[start : start + BATCH]]
            self.run("add", "--quiet", "--no-relink", "--", *batch)

    def remote(self) -> str | None:
        """The name of the default remote."""
        done = self._call(["config", "core.remote"])
        return done.stdout.strip() or None if done.returncode == 0 else None

    def not_in_remote(self) -> list[str]:
        """Tracked files that the default remote lacks, as paths; folders are left out. Asks the remote."""
        text = self.run("data", "status", "--not-in-remote", "--granular", "--json")
        found: dict[str, Any] = json.loads(text or "{}")
        return [path for path in found.get("not_in_remote", []) if not path.endswith("/")]

    def push(self, pointers: Sequence[Path]) -> None:
        """Send what ``pointers`` name to the default remote."""
        for start in range(0, len(pointers), BATCH):
            batch = [str(path.relative_to(self.root)) for path in pointers[start : start + BATCH]]
            self.run("push", "--quiet", *batch)

    def run(self, *arguments: str) -> str:
        """What a DVC command prints. Waits while another DVC process holds the lock.

        Raises FgvcError with DVC's own error when the command fails, or the lock is not freed.
        """
        deadline = time.monotonic() + self.wait_s
        told = False
        while True:
            done = self._call(arguments)
            if done.returncode == 0:
                return done.stdout
            locked = any(words in done.stderr for words in _LOCKED)
            if not locked:
                raise FgvcError(
                    f"dvc {arguments[0]} failed: {_error_in(done.stderr)}",
                    file=self.root,
                    cure="nothing is lost; mend that and run the same command again",
                )
            if not told:
                self.say("waiting: another DVC process is at work in this repository")
                told = True
            if time.monotonic() >= deadline:
                raise FgvcError(
                    "another DVC process has held this repository's lock for too long",
                    file=self.root / ".dvc" / "tmp",
                    cure="wait until it ends, or stop it, and run the same command again",
                )
            time.sleep(RETRY_S)

    def _call(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dvc", *arguments]
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)


def _error_in(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["no message"])[0]
