"""Applications on every storage, for code that was written for version 2."""

from __future__ import annotations

import pytest

from triggers import Registry, TriggerManager, Triggers
from triggers.testing.tasks import ready_made

STORAGES = ("memory", "sqlite", "postgres", "redis")


@pytest.fixture
def tasks():
    """The tasks of the test, and the ready-made ones."""
    return ready_made(Registry())


@pytest.fixture(params=STORAGES)
def url(request, tmp_path):
    if request.param == "memory":
        return "memory://"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/s.db?synchronous=normal"
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def opened(url, tasks):
    """Open an application, which runs every task before `fire` returns."""
    made = []

    def open_(manager=TriggerManager, **settings):
        made.append(Triggers(url, runner="inline", registry=tasks, manager=manager, **settings))
        return made[-1]

    yield open_
    for triggers in made:
        triggers.close()


@pytest.fixture
def trigger_manager(opened):
    return opened().session("respondent-17")
