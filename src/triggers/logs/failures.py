"""Logs the failure of an instance that another process than its worker decides: lost, killed or revoked."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from triggers.logs.log import InstanceLog
from triggers.logs.logger import TriggersLogger
from triggers.logs.settings import LogIdentity
from triggers.logs.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggers.core.records import LogBatch
    from triggers.core.state import Instance, Session


@dataclass(frozen=True, slots=True)
class RemoteFailure:
    """The log of a failure that a process decides for a worker that cannot say so.

    The record is stored by the commit that fails the instance. Only after it is the failure forwarded to the
    application's logging, because of several processes that try to decide, one succeeds.

    Attributes:
        error_of: returns the error of an instance that was just failed.
        logger_of: returns the name of a task's logger, given the `run` of its rule; "" if the task has been
            removed from the configuration.
    """

    error_of: Callable[[Instance], BaseException]
    logger_of: Callable[[str], str]

    def record(self, session: Session, instance: Instance) -> LogBatch:
        """Return the record of the failure, for its commit. Nothing is forwarded.

        Args:
            session: the session.
            instance: the instance, with its error.
        """
        log = self._log(session, instance)
        mute = logging.Logger(log.logger_name)  # noqa: LOG001 - forwarding is for later
        mute.disabled = True
        log.log_failure(self.error_of(instance), mute)
        return log.drain()

    def forward(self, session: Session, instance: Instance) -> None:
        """Log the failure at ERROR on the task's logger; for after the commit. It stores nothing."""
        log = self._log(session, instance)
        sink = Sink(log.sanitizer, log.attributes)
        TriggersLogger(logging.getLogger(log.logger_name), sink).leave(self.error_of(instance), logging.ERROR)

    def _log(self, session: Session, instance: Instance) -> InstanceLog:
        rule = session.rules.rules.get(instance.task)
        return InstanceLog(
            LogIdentity(session.uid, instance.task, instance.name, instance.attempt, instance.fence),
            write=_never,
            now=lambda: session.now,
            logger_name=self.logger_of(rule.run if rule else ""),
        )


def _never(_: LogBatch) -> NoReturn:
    """Refuse to write: the commit of the failure does it."""
    raise NotImplementedError
