"""The format of a message, which says that an instance may be ready.

In every version, the first two arguments are the UID and the name of the instance (``"task#0"``), and nothing
else is required. Whatever a later version adds is a keyword argument or a header, which an earlier version
ignores. So all workers understand all messages during an upgrade, in any order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from triggers.core.names import instance_name, is_name, split_instance_name
from triggers.exceptions import TriggersError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from triggers.storages.base import ReadyInstance

#: The version of the format, as a header. It is for people who read messages; the code does not use it.
HEADERS: Final = {"triggers": 1}

#: The names of the two arguments, for messages that a person writes.
NAMES: Final = ("uid", "instance")


class Hint(NamedTuple):
    """The instance that a message names."""

    uid: str
    task: str
    number: int


def arguments(due: ReadyInstance) -> tuple[str, str]:
    """Return the UID and the name of the instance, as the message carries them."""
    return due.uid, instance_name(due.task, due.number)


def understood(args: object, kwargs: object) -> Hint | None:
    """Return the instance that the arguments of a message name, or None if they name none.

    Args:
        args: the positional arguments.
        kwargs: the keyword arguments.
    """
    given: Sequence[Any] = args if isinstance(args, list | tuple) else ()
    named: Mapping[str, Any] = kwargs if isinstance(kwargs, dict) else {}
    uid, instance = [*given, *(named.get(name) for name in NAMES[len(given) :])][:2]
    try:
        return Hint(uid, *split_instance_name(instance)) if is_name(uid) else None
    except (TriggersError, TypeError, AttributeError):
        return None
