"""Whether an exception of a task leads to a retry, by the policy of its rule or its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from triggers.core.decisions import RetryTerms
from triggers.core.names import instance_name
from triggers.core.retries import names_of
from triggers.exceptions import CascadeDepthError, MaxRetriesExceeded

if TYPE_CHECKING:
    from triggers.core.rules import Rule
    from triggers.core.state import Instance
    from triggers.task import TriggerTask

#: Exceptions after which no policy starts another retry.
_FINAL: Final = (CascadeDepthError, MaxRetriesExceeded)


def terms_after(  # noqa: PLR0917 - the exception, and what it happened to
    error: BaseException,
    uid: str,
    claimed: Instance,
    rule: Rule | None,
    task: TriggerTask | None,
    exhausted: str,
) -> RetryTerms | None:
    """Return the terms of a retry after an exception; None if no policy applies.

    Args:
        error: the exception.
        uid: the session.
        claimed: the instance that raised it.
        rule: the rule of its task, None if the task is no longer configured.
        task: the task, None if this process does not have it.
        exhausted: the encoded exception, with which the instance fails if no retry is left.
    """
    kind = type(error)
    if rule is None or not issubclass(kind, Exception) or issubclass(kind, _FINAL):
        return None
    policy = rule.retry or (task.own_retries if task else None)
    if policy is None or not policy.matches(names_of(kind)):
        return None
    pause = policy.pause(uid, instance_name(claimed.task, claimed.root), claimed.retries + 1)
    return RetryTerms(pause, policy.limit, exhausted)
