"""Which logger is current: in nested calls, threads, asyncio tasks, and outside of blocks."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import logging.config
import threading
from concurrent.futures import ThreadPoolExecutor
from inspect import currentframe

from triggers.logs import bind, current_logger, detached, propagate


def here():
    """The line that calls this."""
    return currentframe().f_back.f_lineno


def test_the_current_logger(kit, name):
    """Below a block the current logger is the block's; outside it hands on and records nothing."""

    def helper():
        current_logger().info("helper")
        current_logger(f"{name}.module").info("module")
        bind(step=2).info("bound")

    with kit.log.block({"block": 1}):
        helper()
    assert [(entry.logger, entry.context) for entry in kit.finish()] == [
        (name, {"block": 1}),
        (f"{name}.module", {"block": 1}),
        (name, {"block": 1, "step": 2}),
    ]


def test_outside_of_a_block_it_is_a_plain_logger(caplog):
    """Outside, the calling module's logger gets everything, with its context."""
    with caplog.at_level(logging.INFO):
        current_logger().info("plain %s", 1, context={"password": "hunter22"})
        bind(page=1).warning("bound")
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        (__name__, "plain 1"),
        (__name__, "bound"),
    ]
    assert caplog.records[0].context == {"password": "[redacted]"}


def test_threads_get_the_logger_by_propagate(kit):
    """A thread has no current logger of its own; `propagate` carries the block's, as often as it is called."""

    def work(number):
        current_logger().info("work", context={"number": number})

    with kit.log.block({"block": 1}), ThreadPoolExecutor(4) as pool:
        list(pool.map(propagate(work), range(20)))
        pool.submit(work, 99).result()
    assert sorted(entry.context["number"] for entry in kit.finish()) == list(range(20))


def test_asyncio_tasks_have_their_own_blocks(kit):
    """A plain `with` works in coroutines: tasks inherit the block they are begun in, and do not see each other's."""

    async def work(number, gate):
        with kit.log.block({"number": number}) as logger:
            gate.set() if number else await gate.wait()
            assert current_logger() is logger
            current_logger().info("work")

    async def main():
        gate = asyncio.Event()
        with kit.log.block({"outer": 1}):
            await asyncio.gather(work(0, gate), work(1, gate))
            current_logger().info("main")

    asyncio.run(main())
    assert [entry.context for entry in kit.finish()] == [
        {"outer": 1, "number": 1},
        {"outer": 1, "number": 0},
        {"outer": 1},
    ]


def test_propagate_keeps_coroutine_functions(kit):
    """A coroutine function stays one, and has the logger while it runs."""

    async def work():
        await asyncio.sleep(0)
        current_logger().info("work")

    with kit.log.block():
        carried = propagate(work)
    contextvars.Context().run(asyncio.run, carried())
    (entry,) = kit.finish()
    assert entry.late


def test_a_block_of_an_asynchronous_generator_may_end_elsewhere(kit):
    """A block that is left in another context than it was entered in is no error."""

    async def generate():
        with kit.log.block() as logger:
            logger.info("begun")
            yield 1

    async def main():
        generator = generate()
        await asyncio.create_task(anext(generator))
        await generator.aclose()

    asyncio.run(main())
    assert [entry.message for entry in kit.finish()] == ["begun"]


def test_sixteen_threads_on_one_logger(kit, application):
    """No record of 16 threads is lost, counted twice or given another's number."""
    start = threading.Barrier(16)

    def work(logger, thread):
        start.wait()
        for number in range(40):
            logger.info("%s of %s", number, thread)
            if number == 20:
                logger.warning("odd")

    with kit.log.block() as logger:
        threads = [threading.Thread(target=work, args=(logger, thread)) for thread in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    entries = kit.finish()
    assert kit.counts == {logging.INFO: 640, logging.WARNING: 16}
    assert len(entries) + kit.dropped == 656
    assert len({entry.seq for entry in entries}) == len(entries)
    assert len(application.collector.records) == 656


def test_what_runs_detached_is_outside(kit):
    """Inside `detached` there is no current logger; after it there is again."""
    with kit.log.block() as logger:
        with detached():
            current_logger().warning("outside")
        assert current_logger() is logger
    assert kit.finish() == []
