"""The law: what one firing, one end of a run, one decision of a person changes in a session.

Each function here makes a :class:`~triggers.core.exchange.Decision`. A run of it is a generator that is given
the head of a session, yields what it :class:`needs <triggers.core.exchange.Need>` to see and returns the
:class:`changes <triggers.core.exchange.Changes>`. It does no input or output, so a storage can run it
inside its transaction, a second time after a conflict, and a test without any storage at all.

Each takes the manager's policy first, or a function that finds it by the manager's name. In a process that
lacks the manager, that function returns None, and the default policy counts. What a function is said to
raise, the run raises.
"""

from __future__ import annotations

from triggers.core.decisions.attempt import claim, fail, finish, keep_logs, release, skip_running
from triggers.core.decisions.firing import configure, fire
from triggers.core.decisions.rescue import abort, is_labelled, labelled, lose, recover
from triggers.core.decisions.review import (
    add_metadata,
    add_session_metadata,
    reopen_logs,
    replay,
    resolve_logs,
    set_status,
    skip,
)
from triggers.core.terms import AttemptReport, Finalizing, Policy, PolicyOf, RetryTerms, Terms

__all__ = [
    "AttemptReport",
    "Finalizing",
    "Policy",
    "PolicyOf",
    "RetryTerms",
    "Terms",
    "abort",
    "add_metadata",
    "add_session_metadata",
    "claim",
    "configure",
    "fail",
    "finish",
    "fire",
    "is_labelled",
    "keep_logs",
    "labelled",
    "lose",
    "recover",
    "release",
    "reopen_logs",
    "replay",
    "resolve_logs",
    "set_status",
    "skip",
    "skip_running",
]
