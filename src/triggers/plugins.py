"""Finds storages, runners and managers by the names of their entry points.

A package registers them in the entry-point groups ``triggers.storages`` (by URL scheme), ``triggers.runners``
and ``triggers.managers``. Only those that are needed are imported. Stored data (the name of a session's
manager, a `using`) can import those of this distribution, and those that the application lists.
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from triggers.core.similar_names import did_you_mean
from triggers.exceptions import PluginError
from triggers.redaction import shown_scheme

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from importlib.metadata import EntryPoint

    from triggers.storages.base import Storage

STORAGES = "triggers.storages"
RUNNERS = "triggers.runners"
MANAGERS = "triggers.managers"

#: Version 2's name of a runner → its name.
RUNNER_ALIASES = {"threading": "threads"}

#: A scheme. A longer one is not shown in messages.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}")
#: What no entry point has in its name, and every URL and connection string has.
_NO_NAME = re.compile(r"[:@=]")

#: Package that an extra of this distribution installs → the extra.
EXTRAS = {
    "psycopg": "postgres",
    "psycopg_pool": "postgres",
    "redis": "redis",
    "celery": "celery",
    "kombu": "celery",
    "billiard": "celery",
    "filters": "filters",
}


def load(group: str, name: str) -> Any:
    """Import the object of an entry point.

    Args:
        group: the entry-point group, such as :data:`STORAGES`.
        name: the name of the entry point.

    Raises:
        PluginError: the entry point does not exist, or a package that it needs is not installed. The message
            lists the names that exist.
    """
    found = _entry_points(group)
    what = group.removeprefix("triggers.").removesuffix("s")
    if name not in found:
        close = difflib.get_close_matches(name, found, n=1)
        hint = (
            f"did you mean {close[0]!r}?"
            if close
            else f"the installed ones are: {', '.join(sorted(found)) or 'none'}"
        )
        message = f"there is no {what} {_shown(name)!r}; {hint}"
        raise PluginError(message)
    try:
        return found[name].load()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "triggers":
            raise
        raise PluginError(missing(f"the {what} {name!r}", error.name or str(error))) from error


def _shown(name: str) -> str:
    """Return what messages show of a name. A URL that was given instead of one may have a password."""
    return shown_scheme(name) if _NO_NAME.search(name) else name


def missing(what: str, module: str) -> str:
    """Return the message of an error: something needs a module that is not installed, and how to install it.

    Args:
        what: what needs it, such as ``the storage 'redis'``.
        module: the name of the module; the extra of this distribution that installs it is named, if any.
    """
    extra = EXTRAS.get(module.partition(".")[0])
    hint = (
        f": install Triggers with the extra {extra!r}, for example with pip install '.[{extra}]'"
        if extra
        else ""
    )
    return f"{what} needs {module}, which is not installed{hint}"


def _entry_points(group: str) -> dict[str, EntryPoint]:
    """Name → entry point of a group. No other distribution can take a name of this one."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - it imports the e-mail package and more

    return {entry.name: entry for entry in sorted(entry_points(group=group), key=_is_own)}


def _is_own(entry: EntryPoint) -> bool:
    return entry.value.partition(":")[0].partition(".")[0] == "triggers"


@cache
def names(group: str) -> frozenset[str]:
    """Return the names in an entry-point group, without importing anything.

    The result is cached, so that a process does not see packages that are installed later.
    """
    return frozenset(_entry_points(group))


@cache
def _own_names(group: str) -> frozenset[str]:
    return frozenset(name for name, entry in _entry_points(group).items() if _is_own(entry))


def runner_names() -> frozenset[str]:
    """Return the names of the installed runners, and their aliases."""
    return names(RUNNERS) | RUNNER_ALIASES.keys()


def runner_of_alias(name: str, known: Collection[str] = ()) -> str:
    """Return the name of the runner that an alias stands for, and any other name unchanged.

    Args:
        name: the name or alias.
        known: names of the application's own runners. Like an installed runner, they win over an alias.
    """
    return name if name in known or name in names(RUNNERS) else RUNNER_ALIASES.get(name, name)


def manager_class(given: Any) -> Any:
    """Return a manager class, given the class or the name of an installed one, which code may choose freely.

    Raises:
        PluginError: no manager with this name is installed, or its `name` is different.
    """
    return manager_named(given, (given,)) if isinstance(given, str) else given


def check_chosen(chosen: Iterable[str]) -> None:
    """Check the names that an application lists for stored data.

    Raises:
        PluginError: no installed runner or manager has one of these names.
    """
    known = names(RUNNERS) | names(MANAGERS)
    for name in chosen:
        if name not in known:
            hint = did_you_mean(name, known) or f"; the installed ones are: {', '.join(sorted(known))}"
            raise PluginError(f"plugins: no runner or manager {_shown(name)!r} is installed{hint}")


def is_refused(group: str, name: str, chosen: Collection[str]) -> bool:
    """Whether a plugin is installed that stored data may not import."""
    return name in names(group) and name not in chosen and name not in _own_names(group)


def load_stored(group: str, name: str, chosen: Collection[str]) -> Any:
    """Import the object of an entry point that stored data names.

    Args:
        group: the entry-point group.
        name: the name of the entry point.
        chosen: the names that the application permits, beside those of this distribution.

    Raises:
        PluginError: the plugin may not be imported, or :func:`load` raised it.
    """
    if is_refused(group, name, chosen):
        what = group.removeprefix("triggers.").removesuffix("s")
        raise PluginError(f"the {what} {name!r} is not imported for stored data: {permit(name)}")
    return load(group, name)


def permit(name: str) -> str:
    """What to do so that stored data can import a plugin."""
    return f"if you trust it, permit it with Triggers(…, plugins=[{name!r}]) or --plugin {name}"


def manager_named(name: str, chosen: Collection[str]) -> Any:
    """Import the manager class that a session names. Its `name` must be the name of its entry point.

    Raises:
        PluginError: the manager does not exist or may not be imported, or its `name` is different.
    """
    kind = load_stored(MANAGERS, name, chosen)
    if kind.name != name:
        message = f"the entry point {name!r} leads to a manager named {kind.name!r}: give both the same name"
        raise PluginError(message)
    return kind


def storage_from_url(url: str) -> Storage:
    """Open the storage for a URL. The scheme of the URL is the name of the storage.

    Raises:
        PluginError: no storage has this scheme.
        StorageError: the storage cannot be opened.
    """
    # Without ://, the text before the first colon can be a user, or a part of a password.
    scheme, mark, _ = url.partition("://")
    if not mark or _SCHEME.fullmatch(scheme) is None:
        message = (
            f"{shown_scheme(url)!r} is not a valid storage URL; examples are sqlite:///file.db and memory://"
        )
        raise PluginError(message)
    storage: Storage = load(STORAGES, scheme.lower()).from_url(url)
    return storage
