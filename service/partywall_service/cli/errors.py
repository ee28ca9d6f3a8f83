"""How the command line fails: one plain sentence on stderr, never a traceback for a user's mistake.

Exit codes: 0 done, 1 an error, 2 a wrong use of the command line, 3 denied by a quota, 130 Ctrl-C
(as shells do).
"""

import os
import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

# Typer has two homes for it (click's own and its copy), and only this name is public in both.
_UsageError: Any = typer.BadParameter.__base__


class CliError(Exception):
    """A command cannot do what it was asked; each line of the message is one plain sentence."""


class UsageError(CliError):
    """The command line itself is wrong."""


class Commands(TyperGroup):
    """The root command: runs the one that was asked for, and tells every failure the same way."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:  # noqa: ANN401 - the base's own signature
        """Run, then exit."""
        extra["standalone_mode"] = False  # errors come to us
        try:
            # A number when Typer ended the command itself, as it does on Ctrl-C; else None.
            code = super().main(*args, **extra)
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a failure can still be told
        except _UsageError as exc:
            _say(_usage(exc))
            sys.exit(2)
        except CliError as exc:
            _say(str(exc))
            sys.exit(2 if isinstance(exc, UsageError) else 1)
        except typer.Abort:
            _say("nothing was changed")
            sys.exit(1)
        except BrokenPipeError:  # `| head` has seen enough
            _drop_stdout()
            sys.exit(1)
        except OSError as exc:  # what is read is told where it is read: this is a full disk
            _drop_stdout()
            _say(f"cannot write the result: {exc.strerror or exc}")
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)


def _usage(exc: Any) -> str:  # noqa: ANN401 - see _UsageError
    if type(exc).__name__ == "NoArgsIsHelpError":  # its message is the whole help
        return str(exc.format_message())
    message = " ".join(str(exc.format_message()).split()).rstrip(".")
    message = message.replace("Value error, ", "")  # typer passes on whose words they are
    command = exc.ctx.command_path if exc.ctx is not None else "partywall"
    return f"{message}; see `{command} --help`"


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - this is the command line


def _drop_stdout() -> None:
    """Lets Python's own flush at exit succeed, or it would report the same failure once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
