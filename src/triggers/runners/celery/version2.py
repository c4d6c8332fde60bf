"""Answers messages of version 2, which are in the queues while an application moves to this version.

Such a message cannot be followed: it names a storage and a manager of version 2. Its instance is scheduled
again when its session is imported. So the message is dropped, and one line for each task says so.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery import signals

from triggers.core.values import shown

if TYPE_CHECKING:
    from celery import Celery

_log = logging.getLogger(__name__)

#: The keyword arguments that only messages of version 2 have.
_OWN = frozenset({"instance_name", "storage_uid"})


def is_of_version2(kwargs: object) -> bool:
    """Return whether a message with these keyword arguments was sent by version 2."""
    return isinstance(kwargs, dict) and kwargs.keys() >= _OWN


class Version2Messages:
    """Logs the first message of version 2 for each task, in the main process of a worker.

    Args:
        app: the Celery application.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._told: set[str] = set()

    def watch(self) -> None:
        """Look at every message from now on, as long as this object exists."""
        signals.task_received.connect(self._received)
        signals.task_unknown.connect(self._unknown)

    def _received(self, sender: Any, request: Any, **_: object) -> None:
        # Decoding takes a while, so it is left out for messages of this version.
        if sender.app is self._app and "triggers" not in request.request_dict:
            self._tell(request.name, request.kwargs)

    def _unknown(self, sender: Any, message: Any, name: str, **_: object) -> None:
        if sender.app is self._app:
            payload = message.payload
            self._tell(name, payload.get("kwargs") if isinstance(payload, dict) else payload[1])

    def _tell(self, name: str, kwargs: Any) -> None:
        if is_of_version2(kwargs) and name not in self._told:
            self._told.add(name)
            what = (
                "dropped a message of version 2 for task %s (%s of session %s), and will drop further ones "
                "for it: import the sessions with `triggers import-v2`, which schedules their instances again"
            )
            _log.warning(what, name, shown(kwargs["instance_name"]), shown(kwargs["storage_uid"]))
