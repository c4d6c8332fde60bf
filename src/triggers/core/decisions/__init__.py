"""Decisions: everything that can change a session.

Each function of this package returns a :class:`~triggers.core.exchange.Decision`. A run of a decision is a
generator. It gets the head of a session, yields what it :class:`needs <triggers.core.exchange.Need>` to know,
and returns the :class:`changes <triggers.core.exchange.Changes>`. It does no input or output. So a storage
can run it inside a transaction and repeat it after a conflict, and a test can run it without a storage.

The first argument of each function is the manager's policy, or a function that returns the policy for the
name of a manager. In a process that does not have the manager, that function returns None, and the default
policy applies. The exceptions in a function's docstring are raised by the run, not by the function.

Six modules contain the decisions: `firing` those of the application, `timing` those about timers, `review`
those of a person, `attempt` those of a worker, `rescue` those about an instance whose worker was lost, and
`importing` that of a session which another system has begun. `unit_of_work` contains the steps they share.

A decision about a session as a whole raises :class:`~triggers.core.exchange.TimersDue` if timers of the
session must elapse before it.
"""

from __future__ import annotations

from triggers.core.decisions.attempt import claim, fail, finish, keep_logs, release, skip_running
from triggers.core.decisions.firing import configure, fire
from triggers.core.decisions.importing import ImportedSession, import_session
from triggers.core.decisions.rescue import (
    MUST_RUN_ALONE,
    NO_MANAGER,
    SUSPECTED_AT,
    TRIAL,
    abort,
    alone,
    is_alone,
    is_labelled,
    labelled,
    lose,
    recover,
)
from triggers.core.decisions.review import (
    add_metadata,
    add_session_metadata,
    reopen_logs,
    replay,
    resolve_logs,
    set_status,
    skip,
)
from triggers.core.decisions.timing import AT_ONCE, cancel_timer, elapse, set_timer
from triggers.core.terms import AttemptReport, Finalizing, Policy, PolicyOf, RetryTerms, Terms

__all__ = [
    "AT_ONCE",
    "MUST_RUN_ALONE",
    "NO_MANAGER",
    "SUSPECTED_AT",
    "TRIAL",
    "AttemptReport",
    "Finalizing",
    "ImportedSession",
    "Policy",
    "PolicyOf",
    "RetryTerms",
    "Terms",
    "abort",
    "add_metadata",
    "add_session_metadata",
    "alone",
    "cancel_timer",
    "claim",
    "configure",
    "elapse",
    "fail",
    "finish",
    "fire",
    "import_session",
    "is_alone",
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
    "set_timer",
    "skip",
    "skip_running",
]
