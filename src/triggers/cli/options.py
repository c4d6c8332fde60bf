"""Where the sessions are: the options that every command has, and the application that they lead to."""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import click

from triggers import Triggers, plugins
from triggers.cli.render import progress
from triggers.core.values import type_name
from triggers.exceptions import ManagerMismatchError, StorageError, TriggersError, UnknownSessionError
from triggers.logs.sanitizing.redact import SecretKeys, hide
from triggers.logs.sanitizing.shapes import message_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from triggers.manager import TriggerManager
    from triggers.session import SessionView

#: How often a command looks whether what it released has ended, in seconds.
PAUSE: Final = 0.02


@dataclass(slots=True)
class Target:
    """What the common options said, wherever they stood.

    Attributes:
        app: ``module:attribute`` of the application, or None.
        storage: URL of the storage, or None.
        json: whether the output is for a program.
    """

    app: str | None = None
    storage: str | None = None
    json: bool = False

    @contextmanager
    def opened(self, *, creating: bool = False, manager: str | None = None) -> Iterator[Triggers]:
        """The application, closed at the end; interrupted, it lets go of what it runs.

        Args:
            creating: whether a file that does not exist is to be made.
            manager: name of the manager that new sessions get.

        Raises:
            click.UsageError: the options lead nowhere.
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
        """The application, for :meth:`opened` or to be closed by the caller."""
        app, storage = self._choice()
        if app is not None:
            if manager is not None:
                message = "--manager goes with --storage; an application has its own manager"
                raise click.UsageError(message)
            return load_app(app)
        if storage is None:
            message = "say where the sessions are: --app module:attribute or --storage URL"
            raise click.UsageError(message)
        return _open_storage(storage, creating=creating, manager=manager)

    def _choice(self) -> tuple[str | None, str | None]:
        """Application and storage, of which at most one is there."""
        if self.app and self.storage:
            message = "--app and --storage exclude each other: the application knows its storage"
            raise click.UsageError(message)
        if self.app or self.storage:
            return self.app, self.storage
        app = os.environ.get("TRIGGERS_APP") or None
        return app, None if app else os.environ.get("TRIGGERS_STORAGE") or None

    @property
    def names_app(self) -> bool:
        """Whether it leads to an application."""
        return self._choice()[0] is not None


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that every command has; they are gathered in :class:`Where`."""

    def keep(context: click.Context, option: click.Parameter, value: Any) -> None:
        where = context.ensure_object(Target)
        if value:
            setattr(where, str(option.name), value)

    kept: dict[str, Any] = {"expose_value": False, "callback": keep}
    options = (
        click.option("--app", metavar="MODULE:ATTRIBUTE", help="The application's Triggers object.", **kept),
        click.option("--storage", metavar="URL", help="The storage alone; nothing runs.", **kept),
        click.option("--json", is_flag=True, help="Output for programs.", **kept),
    )
    for option in reversed(options):
        command = option(command)
    return command


#: Gives a command its :class:`Where`.
pass_where = click.make_pass_decorator(Target, ensure=True)


def load_app(path: str) -> Triggers:
    """The application that ``module:attribute`` names, or that a callable of that name returns.

    Raises:
        click.UsageError: there is nothing of that name, it is something else, or its own code failed.
        TriggersError: what making it raised.
    """
    module, _, attributes = path.partition(":")
    if not (module and attributes):
        message = f"--app {path}: write module:attribute, such as survey.app:triggers"
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
    """Turn what the application's own code raises into one line that says where."""
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


def _open_storage(url: str, *, creating: bool, manager: str | None) -> Triggers:
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        message = "memory:// lives and dies with the process that opened it: there is nothing in it here"
        raise click.UsageError(message)
    kind = {} if manager is None else {"manager": plugins.load(plugins.MANAGERS, manager)}
    try:
        if scheme == "sqlite" and not creating:
            _must_exist(rest)
        return Triggers(url, runner=None, **kind)
    except TriggersError as error:
        raise type(error)(_without_credentials(str(error), url)) from error


def _must_exist(rest: str) -> None:
    """Refuse a file that is not there: a slip of the pen must not look like an empty storage."""
    from triggers.storages.sqlite.url import SqliteUrl  # noqa: PLC0415 - help must not load a storage

    path = Path(SqliteUrl.parse(f"sqlite:{rest}").path)
    if not path.exists():
        message = f"there is no file {str(path.absolute())!r}"
        raise StorageError(message)


def _without_credentials(text: str, url: str) -> str:
    """A message about a URL, of whatever form, as it may be shown."""
    location, _, query = url.partition("?")
    scheme, mark, rest = location.rpartition("://")
    text = text.replace(location, f"{scheme}{mark}{rest.rpartition('@')[2]}")
    is_secret = SecretKeys()
    secrets = (value for key, value in parse_qsl(query) if is_secret(key))
    return hide(text, tuple(secrets))


def own_manager(app: Triggers, uid: str, wanted: str | None) -> TriggerManager:
    """The manager that a session belongs to; of one that does not exist yet, the application's.

    Args:
        app: where the session is.
        uid: the session.
        wanted: the name that the manager must have, None for any.

    Raises:
        ManagerMismatchError: it has another one, or one that this process lacks.
        InvalidNameError: the UID is none.
    """
    fresh = app.session(uid)
    try:
        found = app.existing_session(uid)
    except UnknownSessionError:
        return fresh
    if wanted is not None and found.name != fresh.name:
        message = f"session {uid!r} belongs to manager {found.name!r}, for life, and not to {fresh.name!r}"
        raise ManagerMismatchError(message)
    return found


def existing(app: Triggers, uid: str) -> SessionView:
    """The session as it is stored.

    Raises:
        UnknownSessionError: there is none.
        InvalidNameError: the UID is none.
    """
    view = app.session(uid).storage
    if not view.exists:
        message = f"there is no session {uid!r}"
        raise UnknownSessionError(message)
    return view


@contextmanager
def changing(where: Target, uid: str) -> Iterator[tuple[Triggers, TriggerManager]]:
    """A session that is there, with its own manager.

    Raises:
        UnknownSessionError: there is none.
        InvalidNameError: the UID is none.
        ManagerMismatchError: this process lacks its manager.
    """
    with where.opened() as app:
        app.session(uid)  # refuses what can be no UID
        yield app, app.existing_session(uid)


def wait(where: Target, app: Triggers) -> None:
    """Let the runners of this process run what was released."""
    with progress(quiet=where.json) as bar:
        bar.add_task("running what was released", total=None, left="")
        settle(app)


def settle(app: Triggers, look: Callable[[], None] = lambda: None) -> None:
    """Wait until the runners of this process have nothing left to do.

    Args:
        app: whose runners.
        look: called now and then meanwhile.
    """
    while not app.is_idle():
        look()
        time.sleep(PAUSE)
