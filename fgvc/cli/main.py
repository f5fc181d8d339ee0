"""The command ``fgvc``: one verb a step of the workflow, so that every step also runs by hand."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer import _click as click

from fgvc.cli import (  # noqa: F401 -- the verbs register themselves
    audits,
    cluster,
    data,
    explain,
    pretraining,
    project,
    reports,
    runs,
    speed,
    tracking,
    weights,
)
from fgvc.cli.groups import MAP, app
from fgvc.errors import FgvcError, nearest
from fgvc.provenance.stopping import INTERRUPTED, StoppedError


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; every mistake becomes a message of at most five lines and an exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that the locale lacks is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or os.environ.get("FGVC_DEBUG") == "1"
    given = [argument for argument in given if argument != "--debug"]
    sys.exit(_run(typer.main.get_command(app), given, debug))


def _run(command: Any, arguments: list[str], debug: bool) -> int:
    try:
        code = command.main(args=arguments, prog_name="fgvc", standalone_mode=False)
        if code == INTERRUPTED:  # typer's answer to Ctrl-C
            print("interrupted", file=sys.stderr)
        return code if isinstance(code, int) else 0
    except StoppedError as stopped:
        print(stopped.message, file=sys.stderr)
        return int(stopped.code or 0)
    except FgvcError as error:
        if debug:
            traceback.print_exc()
        print(error, file=sys.stderr)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError:
        return 2  # the help was shown
    except click.exceptions.UsageError as error:
        if debug:
            traceback.print_exc()
        print(_usage_error(error, arguments), file=sys.stderr)
        return 2
    except click.exceptions.ClickException as error:
        print(FgvcError(error.format_message()), file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
            return 1
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
        cure = "this is a defect, not your mistake; add --debug for the traceback, and report it"
        print(FgvcError(f"unexpected {problem}", cure=cure), file=sys.stderr)
        return 1


def _usage_error(error: Any, arguments: list[str]) -> FgvcError:
    """A wrong verb, option or argument, with the nearest right one and the help that lists them."""
    context = error.ctx
    path = context.command_path if context else "fgvc"
    message = error.format_message().rstrip(".")
    cure = f"{path} --help"
    if context and message.startswith("No such command"):
        wrong = next((a for a in arguments if f"'{a}'" in message), "")
        verbs = list(getattr(context.command, "commands", {}))
        guess = (MAP.get(wrong) if path == "fgvc" else None) or nearest(wrong, verbs)
        problem = f"fgvc has no verb '{wrong}'" if path == "fgvc" else f"'{path}' has no verb '{wrong}'"
        return FgvcError(
            problem + (f"; did you mean '{guess}'?" if guess else ""),
            cure=f"available verbs: {', '.join(verbs)} (what they do: {cure})",
        )
    option = getattr(error, "option_name", None)
    if context and option:
        known = [o for p in context.command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")]
        known += ["--help", "--debug"]
        guess = nearest(option, known)
        return FgvcError(
            f"'{path}' has no option '{option}'" + (f"; did you mean '{guess}'?" if guess else ""),
            cure=f"options: {', '.join(known)} (what they do: {cure})",
        )
    return FgvcError(message, cure=cure)


if __name__ == "__main__":
    main()
