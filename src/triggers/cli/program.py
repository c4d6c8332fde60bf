"""The program: its commands, and how it ends when something is wrong."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from triggers import __version__
from triggers.cli import logs, run
from triggers.cli import read as look
from triggers.cli import write as act
from triggers.cli.options import common
from triggers.cli.render import visible
from triggers.exceptions import (
    ConfigurationError,
    InvalidNameError,
    InvalidValueError,
    PluginError,
    TriggersError,
)
from triggers.logs.sanitizing.redact import hide

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

#: The thing asked about is not so.
NOT_SO: Final = 1
#: Wrong use.
WRONG_USE: Final = 2
#: What a shell reports of a program that SIGINT, or SIGPIPE, has ended.
INTERRUPTED: Final = 130
NOBODY_READS: Final = 141

_WRONG_USE = (InvalidNameError, InvalidValueError, PluginError)


class Program(click.Group):
    """A group of commands that ends with an exit code and one line, whatever happens in them."""

    def main(  # type: ignore[override]  # it only ever ends the process
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run the command that the arguments name, and exit.

        Args:
            args: the arguments, by default those of the process.
            prog_name: how the program is called in its own texts.
            extra: settings of click's contexts.
        """
        if "_TRIGGERS_COMPLETE" in os.environ:  # a shell asks for completions
            super().main(args, "triggers", **extra)
        given = list(sys.argv[1:] if args is None else args)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        sys.exit(self._run(given, prog_name or "triggers", extra))

    def _run(self, given: list[str], prog_name: str, extra: dict[str, Any]) -> int:
        try:
            with self.make_context(prog_name, list(given), **extra) as context:
                self.invoke(context)
            sys.stdout.flush()
        except click.exceptions.Exit as end:
            return end.exit_code
        except (KeyboardInterrupt, click.Abort):
            return INTERRUPTED
        except BrokenPipeError:
            _read_by_nobody(sys.stdout)
            return NOBODY_READS
        except (TriggersError, click.ClickException) as error:
            return _fail(error, as_json="--json" in given)
        return 0


def _fail(error: TriggersError | click.ClickException, *, as_json: bool) -> int:
    wrong_use = isinstance(error, (click.ClickException, *_WRONG_USE))
    message = error.format_message() if isinstance(error, click.ClickException) else str(error)
    message = hide(message, ())
    kind = "UsageError" if isinstance(error, click.ClickException) else type(error).__name__
    if as_json:
        document: dict[str, Any] = {"type": kind, "message": message}
        if isinstance(error, ConfigurationError):
            document["problems"] = [{"path": path, "message": text} for path, text in error.problems]
        click.echo(json.dumps({"error": document}), err=True)
    else:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "triggers"
        hint = f" (see {command} --help)" if isinstance(error, click.UsageError) else ""
        lines = [visible(line) for line in message.splitlines()] or [kind]
        click.echo(f"{command}: " + "\n".join(lines) + hint, err=True)
    return WRONG_USE if wrong_use else NOT_SO


def _read_by_nobody(stream: TextIO) -> None:
    """Let what is still in the buffer go nowhere, or the interpreter would complain about it at its end."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a descriptor is what is needed
        os.dup2(nowhere.fileno(), stream.fileno())


@click.group(cls=Program, invoke_without_command=True)
@click.version_option(__version__, package_name="session-triggers", message="%(prog)s %(version)s")
@common
@click.pass_context
def main(context: click.Context) -> None:
    """Look into sessions of Triggers and act on them.

    \b
    Say where they are, before the command or after it:
      --app module:attribute     the application (or TRIGGERS_APP)
      --storage URL              its storage (or TRIGGERS_STORAGE)

    Exit codes: 0 done; 1 the thing asked about is not so; 2 wrong use.
    """  # noqa: D301 - \b keeps click from filling the lines
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(WRONG_USE)


for _command in (*look.COMMANDS, *logs.COMMANDS, *act.COMMANDS, *run.COMMANDS):
    main.add_command(_command)
