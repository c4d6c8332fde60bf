"""The failure of an instance: its encoded error, its line in the application's logging, and what follows."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from triggers.core.status import Status
from triggers.core.values import Limits, decode, encode
from triggers.exceptions import WorkerLost
from triggers.fired_by import FiredBy, firing_as
from triggers.logs import LogSettings, RemoteFailure, exception_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggers.core.exchange import Changes
    from triggers.core.state import Instance
    from triggers.manager import TriggerManager
    from triggers.task import Registry

_log = logging.getLogger(__name__)

#: The limits of an error with all its causes. It can be larger than a payload; the log's limits bound it.
ERROR_LIMITS = Limits(payload=16 * 1024 * 1024)


def lost_failure(tasks: Registry) -> RemoteFailure:
    """Return the log of the failure of an instance that has lost too many workers."""
    return RemoteFailure(lambda failed: WorkerLost(decode(failed.error or "{}")["message"]), tasks.logger_of)


def forward_failure(failure: RemoteFailure, changes: Changes) -> None:
    """Forward a failure to the application's logging, if the commit has failed the instance."""
    failed = failed_in(changes)
    if failed is not None:
        failure.forward(changes.session, failed)


def failed_in(changes: Changes) -> Instance | None:
    """Return the instance that a commit about one instance has failed; None if it has not."""
    own = None if changes.refused or not changes.transitioned else changes.transitioned[0][0]
    return own if own is not None and own.status is Status.FAILED else None


def publish_failure(changes: Changes, manager_of: Callable[[str, str, FiredBy], TriggerManager]) -> None:
    """Dispatch what the outcomes of a failed instance have released, and call the hooks of its manager.

    An exception is logged, because the failure is stored.
    """
    failed = failed_in(changes)
    if failed is None or not changes.fired:
        return
    uid = changes.session.uid
    fired_by = FiredBy(uid, failed.name, failed.cascade_depth + 1)
    try:
        with firing_as(fired_by):
            manager_of(changes.session.manager, uid, fired_by).publish(changes)
    except Exception:  # noqa: BLE001 - a hook can raise anything
        _log.exception("a hook of session %r raised an exception after %s had failed", uid, failed.name)


def worker_lost(what: str) -> str:
    """Encode the error of an instance that has lost too many workers."""
    return error_payload(WorkerLost(what))


def error_payload(
    error: BaseException, settings: LogSettings | None = None, secrets: tuple[str, ...] = ()
) -> str:
    """Encode an exception, with its causes and groups, as the error of an instance.

    Args:
        error: the exception.
        settings: the log settings of the session; None for the defaults.
        secrets: values to mask.
    """
    return encode(
        dict(exception_record(error, settings or LogSettings(), secrets)), "the error", ERROR_LIMITS
    )
