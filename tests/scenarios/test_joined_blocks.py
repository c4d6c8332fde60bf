"""The limits of a block: its thread, its transaction, its end, and the end of its process."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.scenarios.applications import KINDS, RolledBackError, application_of
from triggers import Registry, TriggerManager, Triggers
from triggers.exceptions import StorageBusyError, StorageError
from triggers.storages.memory import MemoryStorage
from triggers.task import task
from triggers.testing.faults import Faults, FaultyStorage, InjectedCrash

RULES = {"t_page": {"andEvery": "pageReceived", "run": "page"}}


@pytest.fixture(params=KINDS)
def application(request, tmp_path):
    with application_of(request.param, request, tmp_path) as made:
        yield made


@pytest.fixture
def registry():
    found = Registry()

    @task(name="page", registry=found)
    def page(context):
        return context.trigger_kwargs["pageReceived"]

    return found


@pytest.fixture
def triggers(application, registry):
    made = Triggers(application.url, runner=None, registry=registry)
    yield made
    made.close()


@pytest.fixture
def manager(triggers):
    made = triggers.session("respondent-17")
    made.update_configuration(RULES)
    return made


def numbers(manager):
    found = manager.storage.find(task="t_page")
    return [instance.kwargs["pageReceived"].get("number") for instance in found]


# -- threads --------------------------------------------------------------------------------------------


def elsewhere(call):
    """Call it on another thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def test_in_another_thread_the_manager_is_as_it_was(application, manager):
    """A thread that knows nothing of the block does not see what is fired in it, with the very same manager."""
    with application.transaction() as connection, manager.joined(connection):
        manager.fire("pageReceived")
        assert elsewhere(lambda: manager.storage.head.firings) == 0
        assert manager.storage.head.firings == 1
    assert elsewhere(lambda: manager.storage.head.firings) == 1


def test_a_thread_that_took_over_the_block_is_refused(application, manager):
    """Where another thread runs in the context of the block, the manager says so instead of using the connection."""
    with application.transaction() as connection, manager.joined(connection):
        context = contextvars.copy_context()
        with pytest.raises(StorageError, match="belongs to the thread that joined it"):
            elsewhere(lambda: context.run(manager.fire, "pageReceived"))
        manager.fire("pageReceived", {"number": 1})
    assert numbers(manager) == [1]


def not_for_django(application):
    if hasattr(application, "atomic"):
        pytest.skip("Django itself refuses to work inside of an event loop")


def test_the_async_face_is_refused_inside(application, manager):
    """`afire` works on another thread, and so it cannot take part."""
    not_for_django(application)

    async def main():
        with application.transaction() as connection, manager.joined(connection):
            with pytest.raises(StorageError, match=r"inside the block, call fire\(\)"):
                await manager.afire("pageReceived")
            manager.fire("pageReceived", {"number": 1})
        await manager.afire("pageReceived", {"number": 2})

    asyncio.run(main())
    assert numbers(manager) == [1, 2]


def test_another_asyncio_task_is_outside_of_the_block(application, manager):
    """While a block is open in one asyncio task, others on the same thread read and fire as always."""
    not_for_django(application)

    async def other(opened, looked):
        await opened.wait()
        seen = manager.storage.head.firings
        looked.set()
        return seen

    async def main():
        opened, looked = asyncio.Event(), asyncio.Event()
        watching = asyncio.create_task(other(opened, looked))
        with application.transaction() as connection, manager.joined(connection):
            manager.fire("pageReceived")
            opened.set()
            await looked.wait()
        return await watching

    assert asyncio.run(main()) == 0


def test_what_outlives_the_block_is_outside_of_it(application, manager):
    """A task of asyncio that was begun inside a block finds the manager as it was, once the block has ended."""
    not_for_django(application)

    async def later(ended):
        await ended.wait()
        return manager.fire("pageReceived", {"number": 2}).number

    async def main():
        ended = asyncio.Event()
        with application.transaction() as connection, manager.joined(connection):
            manager.fire("pageReceived", {"number": 1})
            task = asyncio.create_task(later(ended))
        ended.set()
        return await task

    assert asyncio.run(main()) == 2
    assert numbers(manager) == [1, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_outside_of_the_block(application, manager):
    """A child that inherits an open block is refused: the connection is its parent's."""
    with application.transaction() as connection, manager.joined(connection):
        manager.fire("pageReceived", {"number": 1})
        child = os.fork()
        if not child:
            code = 1
            try:
                manager.fire("pageReceived", {"number": 2})
            except StorageError:
                code = 17
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
    assert numbers(manager) == [1]


# -- one transaction --------------------------------------------------------------------------------------


def test_once_the_transaction_has_ended_the_block_is_of_no_use(application, manager):
    """What is asked of the manager after that, and inside the block, is refused; after the block it works."""
    with application.transaction() as connection:
        block = manager.joined(connection)
        block.__enter__()
        manager.fire("pageReceived", {"number": 1})
    with pytest.raises(StorageError):
        manager.fire("pageReceived", {"number": 2})
    with pytest.raises(StorageError):
        manager.storage["t_page#0"]
    block.__exit__(None, None, None)
    manager.fire("pageReceived", {"number": 3})
    assert numbers(manager) == [1, 3]


def test_what_was_read_in_the_block_can_be_used_after_it(application, manager):
    """An instance from inside reads on from what is stored."""
    with application.transaction() as connection, manager.joined(connection):
        manager.fire("pageReceived", {"number": 1})
        instance = manager.storage["t_page#0"]
    assert instance.kwargs == {"pageReceived": {"number": 1}}


@pytest.fixture(params=["sqlite", "postgres"])
def bare(request, tmp_path):
    with application_of(request.param, request, tmp_path) as made:
        yield made


def play(connected, manager, number, kept):
    """Transactions in one thread, of which every third is rolled back; adds to `kept` what was committed."""
    for turn in range(25):
        with suppress(RolledBackError):
            with connected.transaction() as connection, manager.joined(connection):
                manager.fire("pageReceived", {"number": 100 * number + turn})
                if turn % 3 == 0:
                    raise RolledBackError
            kept.append(100 * number + turn)
    connected.close()


def test_many_threads_each_with_a_transaction_of_its_own(bare, registry, tmp_path):
    """Transactions on several connections, some rolled back, leave one firing for each commit, without gaps."""
    triggers = Triggers(bare.url, runner=None, registry=registry)
    session = triggers.session("respondent-17")
    session.update_configuration(RULES)
    place = tmp_path / "survey.db" if bare.url.startswith("sqlite") else bare.url
    kept = []
    with ThreadPoolExecutor(4) as pool:
        for number in range(4):
            pool.submit(play, type(bare)(place), triggers.session("respondent-17"), number, kept)
    assert len(kept) == 4 * 16
    assert sorted(numbers(session)) == sorted(kept)
    assert [firing.number for firing in triggers.storage.reader.firings("respondent-17", limit=100)] == list(
        range(1, 65)
    )
    triggers.close()


# -- the end of the process -------------------------------------------------------------------------------

KILLED = """
    import os, signal, sys, types
    from pathlib import Path
    from tests.scenarios.applications import ON_A_FILE, ON_A_SERVER
    from triggers import Registry, Triggers
    from triggers.task import task
    import warnings
    warnings.simplefilter("ignore")

    kind, place, when = sys.argv[1:]
    registry = Registry()

    @task(name="page", registry=registry)
    def page(context):
        raise SystemExit("not in this process")

    class Runner:
        def start(self, work): ...
        def submit(self, due):
            os.kill(os.getpid(), signal.SIGKILL)  # at the hand-over, after the commit
        def is_idle(self): return True
        def close(self, timeout): return True

    application = ON_A_FILE[kind](Path(place)) if kind in ON_A_FILE else ON_A_SERVER[kind](place)
    triggers = Triggers(application.url, runner=Runner(), registry=registry)
    manager = triggers.session("respondent-17")
    with application.transaction() as connection:
        application.write(1)
        with manager.joined(connection):
            manager.fire("pageReceived", {"number": 1})
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
"""


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_that_is_killed_around_the_commit(request, tmp_path, application, manager, when):
    """Killed right after the commit, the next sweep runs what was fired; killed before it, nothing has happened."""
    kind = request.node.callspec.params["application"]
    place = str(tmp_path / "survey.db") if kind.startswith("sqlite") else application.url
    program = tmp_path / "killed.py"
    program.write_text(textwrap.dedent(KILLED), "utf-8")
    command = [sys.executable, str(program), kind, place, when]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    registry = request.getfixturevalue("registry")
    with Triggers(application.url, runner="inline", registry=registry):  # sweeps for what was left
        statuses = [instance.status for instance in manager.storage]
    assert statuses == ([] if when == "before" else ["finished"])
    assert application.pages() == ([] if when == "before" else [1])


# -- the plug -----------------------------------------------------------------------------------------------


def test_a_faulty_storage_dies_inside_a_block_too(application, triggers, registry):
    """The points of a storage that may fail are reached by what a joined manager does."""
    triggers.session("respondent-17").update_configuration(RULES)
    faults = Faults()
    manager = Triggers(FaultyStorage(triggers.storage, faults), runner=None, registry=registry).session(
        "respondent-17"
    )
    faults.die_at("after commit of fire")
    with suppress(InjectedCrash), application.transaction() as connection, manager.joined(connection):
        manager.fire("pageReceived")
    assert faults.reached == ["before commit of fire", "after commit of fire"]
    assert triggers.session("respondent-17").storage.head.firings == 0


def test_a_storage_without_transactions_says_so():
    """Memory has none that an application could have begun."""
    with pytest.raises(StorageError, match="memory:// cannot join"):
        MemoryStorage().joined(object())


def test_what_is_no_connection_is_refused(triggers, manager):
    """It is said what was given, and what is needed."""
    with pytest.raises(StorageError, match=r"needed, not a object"), manager.joined(object()):
        raise AssertionError


class Quick(TriggerManager):
    name = "tests.quick"


def test_a_subclass_is_given_back_as_itself(application, triggers):
    """The block yields the manager itself, of whatever class."""
    made = Triggers(triggers.storage, runner=None, manager=Quick).session("s")
    with application.transaction() as connection, made.joined(connection) as joined:
        assert joined is made


def test_a_manager_that_has_not_joined_would_wait_for_itself(application, triggers, manager):
    """With a file, firing by another manager of the same thread is refused at once."""
    if "sqlite" not in application.url:
        pytest.skip("a server has a lock for each session")
    other = triggers.session("respondent-18")
    with application.transaction() as connection, manager.joined(connection):
        manager.fire("pageReceived", {"number": 1})
        with pytest.raises(StorageBusyError, match="would wait for itself"):
            other.fire("pageReceived")
    other.fire("pageReceived")
    assert numbers(manager) == [1]
