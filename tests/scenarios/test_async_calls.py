"""The async methods: their own threads, which nothing else blocks and which block nothing else."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.worker.threads import Shortage, named
from triggers import Triggers, task
from triggers.async_calls import THREADS
from triggers.manager import TriggerManager

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

RULES = {"t": {"after": ["go"], "run": "plain"}}
request_id = contextvars.ContextVar("request_id", default="none")


class Held(TriggerManager):
    """Its firings are stored, and then held until `released`."""

    name = "held"
    released: threading.Event
    running: threading.Semaphore
    seen: list

    def _post_fire(self, name, tasks_scheduled):
        self.seen.append((threading.current_thread().name, request_id.get()))
        self.running.release()
        if not self.released.wait(60):
            raise TimeoutError
        if name == "bad":
            raise ValueError("the hook failed")


@pytest.fixture
def held():
    Held.released, Held.running, Held.seen = threading.Event(), threading.Semaphore(0), []
    yield Held
    Held.released.set()


@pytest.fixture
def app(held, tasks):
    with Triggers("memory://", runner=None, manager=held, registry=tasks) as app:
        yield app
        held.released.set()
    for thread in own_threads():  # the next test counts its own
        thread.join(60)


def until_running(held, count=1):
    """Wait, in a coroutine, until so many firings are stored."""
    return asyncio.gather(*[asyncio.to_thread(held.running.acquire, timeout=60) for _ in range(count)])


def own_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("triggers-async")]


def test_a_blocked_default_executor_does_not_delay_a_firing(app, held):
    """The application may block it for as long as it likes."""
    held.released.set()

    async def fire():
        executor, blocked = ThreadPoolExecutor(1), threading.Event()
        asyncio.get_running_loop().set_default_executor(executor)
        waiting = asyncio.ensure_future(asyncio.to_thread(blocked.wait))
        try:
            return await asyncio.wait_for(app.session("s").afire("go"), 30)
        finally:
            blocked.set()
            await waiting

    assert asyncio.run(fire()).number == 1


def test_blocked_firings_do_not_delay_the_default_executor(app, held):
    """However many there are; and not more of them run at once than there are threads."""

    async def fire():
        firings = [asyncio.ensure_future(app.session("s").afire("go")) for _ in range(3 * THREADS)]
        await until_running(held, THREADS)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "at once"), 30) == "at once"
        assert len(held.seen) == len(own_threads()) == THREADS
        held.released.set()
        return await asyncio.gather(*firings)

    assert {result.number for result in asyncio.run(fire())} == set(range(1, 3 * THREADS + 1))


def test_context_variables_are_carried_over(app, held):
    """A hook sees those of the coroutine that fires, and the coroutine none that the hook sets."""
    held.released.set()

    async def fire(name):
        request_id.set(name)
        await app.session("s").afire("go")

    async def both():
        await asyncio.gather(fire("one"), fire("other"))

    asyncio.run(both())
    assert sorted(name for _, name in held.seen) == ["one", "other"]
    assert request_id.get() == "none"


def test_a_cancelled_firing_that_has_begun_is_told_of(app, held, caplog):
    """It is stored, the log says so, and a note on the exception says that it has begun."""
    caplog.set_level(logging.INFO, "triggers.async_calls")

    async def fire(trigger):
        firing = asyncio.ensure_future(app.session("s").afire(trigger))
        await until_running(held)
        firing.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await firing
        return caught.value

    for trigger in ("good", "bad"):
        error = asyncio.run(fire(trigger))
        assert "fire on session 's' had begun and continues" in "".join(traceback.format_exception(error))
    assert not caplog.records, "neither has ended"
    held.released.set()
    app.close()
    for thread in own_threads():
        thread.join(60)
    told = {record.levelname: (record.getMessage(), record.exc_info) for record in caplog.records}
    assert told["WARNING"] == (
        "fire on session 's' was cancelled after it had begun; it has ended, and its change is stored",
        None,
    )
    assert told["ERROR"][0] == "fire on session 's' was cancelled after it had begun, and has failed"
    assert "the hook failed" in str(told["ERROR"][1][1])
    assert app.session("s").storage.exists


def test_a_cancelled_firing_that_has_not_begun_never_begins(app, held, caplog):
    """Nothing is stored, and a note on the exception says so."""

    async def fire():
        busy = [asyncio.ensure_future(app.session("s").afire("go")) for _ in range(THREADS)]
        await until_running(held, THREADS)
        with pytest.raises(TimeoutError) as caught:
            await asyncio.wait_for(app.session("other").afire("go"), 0.01)
        held.released.set()
        await asyncio.gather(*busy)
        return caught.value

    error = asyncio.run(fire())
    assert "fire on session 'other' had not begun; nothing was changed." in "".join(
        traceback.format_exception(error)
    )
    assert not app.session("other").storage.exists
    assert not [record for record in caplog.records if record.name == "triggers.async_calls"]


def test_a_firing_that_gets_no_thread_never_begins(app, held, monkeypatch):
    """Not even when a thread is free again: its caller knows that nothing was changed, and may repeat it."""
    shortage = Shortage(monkeypatch, named("triggers-async-0_1"))

    async def run():
        session = app.session("one")
        first = asyncio.create_task(session.afire("first"))
        await until_running(held)
        with pytest.raises(RuntimeError) as error:
            await session.afire("second")
        assert error.value.__notes__ == [
            "fire on session 'one' had not begun, and never begins; nothing was changed."
        ]
        shortage.over = True
        held.released.set()
        await first
        await session.afire("third")

    asyncio.run(run())
    assert sorted(app.session("one").storage.latest_kwargs) == ["first", "third"]


def test_firings_within_firings_never_wait_for_each_other(tasks):
    """A task runs inline, in the thread of a firing, and fires from a coroutine, in every thread at once."""
    everywhere = threading.Barrier(THREADS, timeout=60)

    @task(name="outer", registry=tasks)
    async def outer(context):
        everywhere.wait()
        await context.manager.afire("next")

    async def fire(app):
        sessions = [app.session(f"s{number}") for number in range(THREADS)]
        rules = {"t_outer": {"after": ["go"], "run": "outer"}}
        await asyncio.gather(*[session.aupdate_configuration(rules) for session in sessions])
        await asyncio.wait_for(asyncio.gather(*[session.afire("go") for session in sessions]), 60)
        return [session.storage["t_outer#0"].status for session in sessions]

    with Triggers("memory://", runner="inline", registry=tasks) as app:
        assert asyncio.run(fire(app)) == ["finished"] * THREADS


def test_closing_ends_the_threads_and_firing_starts_new_ones(app, held):
    """Firing still works after `close`, as it does without a coroutine."""
    held.released.set()
    asyncio.run(app.session("s").afire("go"))
    threads = own_threads()
    assert threads
    app.close()
    for thread in threads:
        thread.join(60)
    assert not own_threads()
    assert asyncio.run(app.session("s").afire("go")).number == 2
    app.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_has_threads_of_its_own(held, tasks, tmp_path):
    """Those of its parent do not exist there."""
    held.released.set()
    with Triggers(f"sqlite:///{tmp_path}/s.db", runner=None, manager=held, registry=tasks) as app:
        asyncio.run(app.session("s").afire("go"))
        child = os.fork()
        if not child:
            code = 1
            try:
                code = 0 if asyncio.run(asyncio.wait_for(app.session("s").afire("go"), 30)).number == 2 else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert asyncio.run(app.session("s").afire("go")).number == 3
