"""Decisions and the storages' `commit` as a type checker sees them: mypy reads this file, nothing runs it.

An ignored error that is not there is an error, so each line with one proves that the line is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from triggers.core import decisions
from triggers.core.exchange import Changes, Decision, Need
from triggers.core.state import Firing
from triggers.storages.memory import MemoryStorage
from triggers.storages.postgres import PostgresStorage
from triggers.storages.redis import RedisStorage
from triggers.storages.sqlite import SqliteStorage
from triggers.testing.faults import Faults, FaultyStorage

if TYPE_CHECKING:
    from triggers.core.exchange import DecisionRun
    from triggers.core.state import Session
    from triggers.storages.base import Storage


def exclusiveness_belongs_to_the_decision(decision: Decision, storage: Storage) -> None:
    """No `commit` has a parameter that overrides it, and a decision that was made cannot be changed."""
    memory = MemoryStorage()
    memory.commit("s", decision, exclusive=False)  # type: ignore[call-arg]
    SqliteStorage("").commit("s", decision, exclusive=False)  # type: ignore[call-arg]
    PostgresStorage("").commit("s", decision, exclusive=False)  # type: ignore[call-arg]
    RedisStorage("").commit("s", decision, exclusive=False)  # type: ignore[call-arg]
    FaultyStorage(memory, Faults()).commit("s", decision, exclusive=False)  # type: ignore[call-arg]
    storage.commit("s", decision, exclusive=False)  # type: ignore[call-arg]
    storage.commit("s", decision, 1.0, False)  # type: ignore[call-arg]
    decisions.fire(decisions.Policy(), Firing(0, "a", "{}", 0), exclusive=False)  # type: ignore[call-arg]
    decision.exclusive = False  # type: ignore[misc]


def a_commit_takes_a_decision(storage: Storage) -> None:
    """A function that begins a run does not say what a storage must know, so it is not enough."""

    def begin(session: Session) -> DecisionRun:
        yield Need()
        return Changes(session)

    storage.commit("s", begin)  # type: ignore[arg-type]
    assert_type(storage.commit("s", Decision("test", begin), timeout=1.5), Changes)


def policies() -> None:
    """A policy and a function that finds one are taken alike."""
    firing = Firing(0, "a", "{}", 0)
    assert_type(decisions.fire(decisions.Policy(), firing), Decision)
    assert_type(decisions.fire(lambda manager: decisions.Policy(manager), firing), Decision)  # noqa: PLW0108 - typed by its use
    assert_type(decisions.claim(lambda _: None, "t", 0, "worker", lambda *_: decisions.Terms(1)), Decision)
