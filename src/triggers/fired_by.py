"""The running instance that fires: its depth travels with everything that is fired from inside its task."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FiredBy:
    """The running instance whose task fires, and the depth of its firings, which stops endless cascades.

    Attributes:
        uid: the session of the instance; "" if the application fires.
        name: the name of the instance.
        depth: how many firings lead to a firing of its task; 0 if the application fires.
    """

    uid: str = ""
    name: str = ""
    depth: int = 0


#: The instance whose task the calling code is part of; None outside of any task. It travels as every context
#: variable does: into coroutines and asyncio tasks, and into a thread only with a copy of the context.
FIRED_BY: ContextVar[FiredBy | None] = ContextVar("triggers_fired_by", default=None)


class firing_as:  # noqa: N801 - used like a function
    """Run code as a part of an instance's task, or as a part of none; afterwards, the thread is as before.

    This is a class because contextlib sets attributes of the exceptions that pass, which some classes refuse.

    Args:
        fired_by: the instance; None for none.
    """

    def __init__(self, fired_by: FiredBy | None) -> None:
        self._fired_by = fired_by

    def __enter__(self) -> None:
        self._token = FIRED_BY.set(self._fired_by)

    def __exit__(self, *_: object) -> None:
        FIRED_BY.reset(self._token)
