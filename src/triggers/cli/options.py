"""The options that every command has, and the application or storage that they open."""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from triggers import Triggers, plugins
from triggers.cli.render import plural, progress
from triggers.core.values import type_name
from triggers.exceptions import (
    ManagerMismatchError,
    StorageError,
    TriggersError,
    UnknownInstanceError,
    UnknownSessionError,
)
from triggers.logs.sanitizing.shapes import message_of
from triggers.redaction import shown_scheme

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from triggers.manager import TriggerManager
    from triggers.session import SessionView, TaskInstance

#: Seconds between two checks whether the instances that a command scheduled have ended.
PAUSE: Final = 0.02

_APP: Final = re.compile(r"[\w.]+:[\w.]+")


@dataclass(slots=True)
class Target:
    """The values of the common options, given before or after the command.

    Attributes:
        app: ``module:attribute`` of the application, or None.
        storage: URL of the storage, or None.
        plugin: names of plugins that data in the storage may import.
        json: whether the output is for a program.
    """

    app: str | None = None
    storage: str | None = None
    plugin: tuple[str, ...] = ()
    json: bool = False

    @contextmanager
    def opened(self, *, creating: bool = False, manager: str | None = None) -> Iterator[Triggers]:
        """Open the application, and close it at the end; an interrupt releases its running instances.

        Args:
            creating: whether to create a file that does not exist.
            manager: name of the manager that new sessions get.

        Raises:
            click.UsageError: the options name no application and no storage, or both.
            TriggersError: the storage cannot be opened.
        """
        found = self.open(creating=creating, manager=manager)
        timeout = None
        try:
            yield found
        except KeyboardInterrupt:
            timeout = 0.0
            raise
        finally:
            found.close(timeout)

    def open(self, *, creating: bool = False, manager: str | None = None) -> Triggers:
        """Return the application, which the caller closes; :meth:`opened` does that itself."""
        app, storage = self._choice()
        if app is not None:
            for option, given in (("manager", manager), ("plugin", self.plugin)):
                if given:
                    message = f"--{option} needs --storage: an application has its own {option}s"
                    raise click.UsageError(message)
            return load_app(app)
        if storage is None:
            message = "say where the sessions are: --app module:attribute or --storage URL"
            raise click.UsageError(message)
        return _open_storage(storage, creating=creating, manager=manager, permitted=self.plugin)

    def _choice(self) -> tuple[str | None, str | None]:
        """Return the application and the storage that were given; at most one of them is not None."""
        if self.app and self.storage:
            message = "--app and --storage exclude each other: the application has its storage"
            raise click.UsageError(message)
        if self.app or self.storage:
            return self.app, self.storage
        app = os.environ.get("TRIGGERS_APP") or None
        return app, None if app else os.environ.get("TRIGGERS_STORAGE") or None

    @property
    def names_app(self) -> bool:
        """Whether an application was given, by option or environment."""
        return self._choice()[0] is not None


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that every command has; :class:`Target` holds their values."""

    def keep(context: click.Context, option: click.Parameter, value: Any) -> None:
        where = context.ensure_object(Target)
        if value:
            setattr(where, str(option.name), value)

    kept: dict[str, Any] = {"expose_value": False, "callback": keep}
    options = (
        click.option("--app", metavar="MODULE:ATTRIBUTE", help="The application's Triggers object.", **kept),
        click.option("--storage", metavar="URL", help="Only a storage; no task runs.", **kept),
        click.option(
            "--plugin",
            metavar="NAME",
            multiple=True,
            help="An installed manager that sessions of the storage may import; can be repeated.",
            **kept,
        ),
        click.option("--json", is_flag=True, help="Print JSON, for programs.", **kept),
    )
    for option in reversed(options):
        command = option(command)
    return command


#: Passes the :class:`Target` to a command.
pass_where = click.make_pass_decorator(Target, ensure=True)


def load_app(path: str) -> Triggers:
    """Return the application that ``module:attribute`` names, or that a callable of that name returns.

    Raises:
        click.UsageError: nothing has that name, it is not an application, or its own code failed.
        TriggersError: creating the application raised it.
    """
    module, _, attributes = path.partition(":")
    if not _APP.fullmatch(path):  # it may be a URL with a password
        message = f"--app {shown_scheme(path)}: write module:attribute, such as survey.app:triggers"
        raise click.UsageError(message)
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    with _own_code(path):
        found = _import(module)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
        if callable(found) and not isinstance(found, Triggers):
            found = found()
    if not isinstance(found, Triggers):
        message = f"--app {path} is a {type_name(type(found))}, not a Triggers object"
        raise click.UsageError(message)
    return found


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            message = f"there is no module {error.name}, neither in {Path.cwd()} nor installed"
            raise click.UsageError(message) from None
        raise


@contextmanager
def _own_code(path: str) -> Iterator[None]:
    """Turn an exception of the application's own code into a usage error of one line, with file and line."""
    try:
        yield
    except (click.ClickException, TriggersError, KeyboardInterrupt):
        raise
    except BaseException as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
        inside = (
            f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames[-1].filename != __file__ else ""
        )
        message = f"--app {path}: {type_name(type(error))}: {message_of(error)}{inside}"
        raise click.UsageError(message) from error


def _open_storage(url: str, *, creating: bool, manager: str | None, permitted: tuple[str, ...]) -> Triggers:
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        message = "memory:// exists only within one process, so it has no sessions here"
        raise click.UsageError(message)
    kind = {} if manager is None else {"manager": plugins.load(plugins.MANAGERS, manager)}
    if scheme == "sqlite" and not creating:
        _must_exist(rest)
    return Triggers(url, runner=None, plugins=permitted, **kind)


def _must_exist(rest: str) -> None:
    """Refuse a file that does not exist: a typo must not look like an empty storage."""
    from triggers.storages.sqlite.url import SqliteUrl  # noqa: PLC0415 - help must not load a storage

    path = Path(SqliteUrl.parse(f"sqlite:{rest}").path)
    if not path.exists():
        message = f"there is no file {str(path.absolute())!r}"
        raise StorageError(message)


def own_manager(app: Triggers, uid: str, wanted: str | None) -> TriggerManager:
    """Return the manager that a session belongs to; for a new session, the application's.

    Args:
        app: the application.
        uid: the session.
        wanted: the name that the manager must have, None for any.

    Raises:
        ManagerMismatchError: the session has another manager, or one that this process does not have.
        InvalidNameError: the UID is not valid.
    """
    fresh = app.session(uid)
    try:
        found = app.existing_session(uid)
    except UnknownSessionError:
        return fresh
    if wanted is not None and found.name != fresh.name:
        message = f"session {uid!r} belongs to manager {found.name!r}, not to {fresh.name!r}, and keeps it"
        raise ManagerMismatchError(message)
    return found


def existing(app: Triggers, uid: str) -> SessionView:
    """Return the stored session.

    Raises:
        UnknownSessionError: the session does not exist.
        InvalidNameError: the UID is not valid.
    """
    view = app.session(uid).storage
    if not view.exists:
        message = f"there is no session {uid!r}"
        raise UnknownSessionError(message)
    return view


@contextmanager
def changing(where: Target, uid: str) -> Iterator[tuple[Triggers, TriggerManager]]:
    """Open an existing session with its own manager.

    Raises:
        UnknownSessionError: the session does not exist.
        InvalidNameError: the UID is not valid.
        ManagerMismatchError: this process does not have its manager.
    """
    with where.opened() as app:
        app.session(uid)  # refuses a UID that is not valid
        yield app, app.existing_session(uid)


def instance_of(app: Triggers, view: SessionView, name: str) -> TaskInstance:
    """Return an instance of a session.

    Raises:
        UnknownInstanceError: there is no such instance; the message names those that the task has.
    """
    try:
        return view[name]
    except UnknownInstanceError as error:
        # The example in the message of the core names another task.
        problem = str(error).partition(";")[0]
        message = problem + _instances_hint(app, view, name.rpartition("#")[0] or name)
    raise UnknownInstanceError(message)


def _instances_hint(app: Triggers, view: SessionView, task: str) -> str:
    counter = app.storage.reader.counters(view.uid).get(task)
    if counter is not None:
        last = f" to {task}#{counter.created - 1}" if counter.created > 1 else ""
        return f"; task {task!r} has {plural(counter.created, 'instance')}: {task}#0{last}"
    return f"; task {task!r} has no instance yet" if task in view.tasks else did_you_mean(view, task)


def did_you_mean(view: SessionView, task: str) -> str:
    """Return a hint with the configured task whose name is most like this one; empty if none is."""
    close = difflib.get_close_matches(task, view.tasks, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def wait(where: Target, app: Triggers) -> None:
    """Wait until the runners of this process have run what was scheduled."""
    with progress(quiet=where.json) as bar:
        bar.add_task("running scheduled instances", total=None, left="")
        settle(app)


def settle(app: Triggers, look: Callable[[], None] = lambda: None) -> None:
    """Wait until the runners of this process have nothing left to do.

    Args:
        app: the application that has the runners.
        look: called at every check.
    """
    while not app.is_idle():
        look()
        time.sleep(PAUSE)
