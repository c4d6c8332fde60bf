"""What a message says: which instance may be ready. The form, and the rule by which forms may change.

The rule: in every version, the first two arguments are the UID and the name of the instance (``"task#0"``),
and they are all that is needed. Whatever else a later version sends has a name of its own, as a keyword
argument or a header, and is ignored by a version that does not know it. So workers understand messages from
before and from after an upgrade, whichever of them is updated first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from triggers.core.names import instance_name, is_name, split_instance_name
from triggers.exceptions import TriggersError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from triggers.storages.base import ReadyInstance

#: The version of the form, as a header; for people who look at messages: nothing decides by it.
HEADERS: Final = {"triggers": 1}

#: The names of the two arguments, for messages that are written by hand.
NAMES: Final = ("uid", "instance")


class Hint(NamedTuple):
    """Which instance a message is about."""

    uid: str
    task: str
    number: int


def arguments(due: ReadyInstance) -> tuple[str, str]:
    """The arguments of the message about an instance."""
    return due.uid, instance_name(due.task, due.number)


def understood(args: object, kwargs: object) -> Hint | None:
    """Which instance the arguments of a message are about; None if they make no sense.

    Args:
        args: the positional ones.
        kwargs: the named ones.
    """
    given: Sequence[Any] = args if isinstance(args, list | tuple) else ()
    named: Mapping[str, Any] = kwargs if isinstance(kwargs, dict) else {}
    uid, instance = [*given, *(named.get(name) for name in NAMES[len(given) :])][:2]
    try:
        return Hint(uid, *split_instance_name(instance)) if is_name(uid) else None
    except (TriggersError, TypeError, AttributeError):
        return None
