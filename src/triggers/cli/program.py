"""The program: its commands, its exit codes and its error messages."""

from __future__ import annotations

import errno
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from triggers import __version__
from triggers.cli import check, draw, import_v2, logs, read, run, timers, write
from triggers.cli.options import common
from triggers.cli.render import visible
from triggers.exceptions import (
    ConfigurationError,
    InvalidNameError,
    InvalidValueError,
    PluginError,
    TriggersError,
)
from triggers.redaction import hide

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

#: The condition does not hold, or the output cannot be written.
FAILED: Final = 1
#: Wrong usage.
WRONG_USAGE: Final = 2
#: The exit codes that a shell reports for a program that SIGINT or SIGPIPE has ended.
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

#: What a write fails with if the disk is full or broken. Such an error has no file name.
_UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})

_WRONG_USAGE = (InvalidNameError, InvalidValueError, PluginError)


class Program(click.Group):
    """A group of commands that ends every error with an exit code and one line."""

    def main(  # type: ignore[override]  # it always ends the process
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run the command that the arguments name, and exit.

        Args:
            args: the arguments, by default those of the process.
            prog_name: the name of the program in its own texts.
            extra: settings for the context of click.
        """
        if "_TRIGGERS_COMPLETE" in os.environ:  # a shell needs completions
            super().main(args, "triggers", **extra)
        given = list(sys.argv[1:] if args is None else args)
        _open_closed_streams()
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        sys.exit(self._run(given, prog_name or "triggers", extra))

    def _run(self, given: list[str], prog_name: str, extra: dict[str, Any]) -> int:
        as_json = "--json" in given
        try:
            return self._invoke(given, prog_name, extra, as_json=as_json)
        except BrokenPipeError:
            _discard(sys.stdout)
            return BROKEN_PIPE
        except OSError as error:
            if error.errno not in _UNWRITABLE or error.filename is not None:
                raise
            _discard_unwritten(sys.stdout)
            message = f"the output could not be written: {error.strerror}"
            return _fail(click.ClickException(message), "OutputError", FAILED, as_json=as_json)

    def _invoke(self, given: list[str], prog_name: str, extra: dict[str, Any], *, as_json: bool) -> int:
        code = 0
        try:
            with self.make_context(prog_name, list(given), **extra) as context:
                self.invoke(context)
        except click.exceptions.Exit as end:
            code = end.exit_code
        except (KeyboardInterrupt, click.Abort):
            code = INTERRUPTED
        except click.ClickException as error:
            return _fail(error, "UsageError", WRONG_USAGE, as_json=as_json)
        except TriggersError as error:
            code = WRONG_USAGE if isinstance(error, _WRONG_USAGE) else FAILED
            return _fail(error, type(error).__name__, code, as_json=as_json)
        sys.stdout.flush()
        return code


def _fail(error: TriggersError | click.ClickException, kind: str, code: int, *, as_json: bool) -> int:
    """Print an error on standard error, as one line or as a document; return the exit code."""
    message = hide(error.format_message() if isinstance(error, click.ClickException) else str(error), ())
    if as_json:
        document: dict[str, Any] = {"type": kind, "message": message}
        if isinstance(error, ConfigurationError):
            document["problems"] = [{"path": path, "message": text} for path, text in error.problems]
        text = json.dumps({"error": document})
    else:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "triggers"
        hint = f" (see {command} --help)" if isinstance(error, click.UsageError) else ""
        lines = [visible(line) for line in message.splitlines()] or [kind]
        text = f"{command}: " + "\n".join(lines) + hint
    try:
        click.echo(text, err=True)
    except OSError:  # the exit code is all that is left
        _discard(sys.stderr)
    return code


def _open_closed_streams() -> None:
    """Open the null device for each standard stream that was closed when the process started.

    In this order, each gets its own descriptor. Otherwise the next file that is opened, such as the storage,
    would get it, and what is written to standard output would go into that file.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - open until the end


def _discard_unwritten(stream: TextIO) -> None:
    """Discard what is in the buffer of the stream if it cannot be written."""
    try:
        stream.flush()
    except OSError:
        _discard(stream)


def _discard(stream: TextIO) -> None:
    """Discard what is in the buffer; otherwise the interpreter prints an error about it when it ends."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a descriptor is needed
        os.dup2(nowhere.fileno(), stream.fileno())


@click.group(cls=Program, invoke_without_command=True)
@click.version_option(__version__, package_name="session-triggers", message="%(prog)s %(version)s")
@common
@click.pass_context
def main(context: click.Context) -> None:
    """Inspect the sessions of Triggers and act on them.

    \b
    Say where the sessions are with one of these, before or after the command:
      --app module:attribute     the application (or TRIGGERS_APP)
      --storage URL              only its storage (or TRIGGERS_STORAGE)

    \b
    Exit codes:
      0   success
      1   the condition does not hold, such as an unknown session, or a
          status that does not allow the action
      2   wrong usage
    """  # noqa: D301 - \b keeps click from filling the lines
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(WRONG_USAGE)


for _module in (read, draw, logs, check, write, timers, run, import_v2):
    for _command in _module.COMMANDS:
        main.add_command(_command)
