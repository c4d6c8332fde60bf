"""Names and URLs to things: storages, runners and managers by their entry points.

Only the one that is asked for is imported. Whoever ships one registers it in the entry-point group
``triggers.storages`` (by URL scheme), ``triggers.runners`` or ``triggers.managers``.
"""

from __future__ import annotations

import difflib
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from triggers.exceptions import PluginError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from triggers.storages.base import Storage

STORAGES = "triggers.storages"
RUNNERS = "triggers.runners"
MANAGERS = "triggers.managers"


def load(group: str, name: str) -> Any:
    """What the entry point of that group and name leads to.

    Raises:
        PluginError: there is none, or what it needs is not installed; the message says what is there.
    """
    found = _entry_points(group)
    what = group.removeprefix("triggers.").removesuffix("s")
    if name not in found:
        close = difflib.get_close_matches(name, found, n=1)
        hint = (
            f"did you mean {close[0]!r}?" if close else f"installed are: {', '.join(sorted(found)) or 'none'}"
        )
        message = f"there is no {what} {name!r}; {hint}"
        raise PluginError(message)
    try:
        return found[name].load()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "triggers":
            raise
        message = f"the {what} {name!r} needs {error.name or error}, which is not installed"
        raise PluginError(message) from error


def _entry_points(group: str) -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - it imports the e-mail package and more

    return {entry.name: entry for entry in entry_points(group=group)}


@cache
def names(group: str) -> frozenset[str]:
    """The names in a group; nothing is imported. What is installed later is for the next process."""
    return frozenset(_entry_points(group))


def manager_named(name: str) -> Any:
    """The manager class of that name; its own name must be that of its entry point.

    Raises:
        PluginError: there is none, or it calls itself something else.
    """
    kind = load(MANAGERS, name)
    if kind.name != name:
        message = f"the entry point {name!r} leads to a manager named {kind.name!r}: give them one name"
        raise PluginError(message)
    return kind


def storage_from_url(url: str) -> Storage:
    """Open the storage that a URL names by its scheme.

    Raises:
        PluginError: no storage has that scheme.
        StorageError: it cannot be opened.
    """
    try:
        scheme = urlsplit(url).scheme
    except ValueError:  # a host that is none, such as [
        scheme = ""
    if not scheme:
        message = f"{url!r} is no URL of a storage: write for example sqlite:///file.db or memory://"
        raise PluginError(message)
    storage: Storage = load(STORAGES, scheme).from_url(url)
    return storage
