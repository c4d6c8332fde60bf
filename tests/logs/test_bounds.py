from __future__ import annotations

import itertools
import json
import logging
import os
import threading
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggers.core.records import LogBatch
from triggers.logs import InstanceLog, LogIdentity, LogSettings
from triggers.logs.sanitizing.sanitizer import sanitizer

SECOND = 1_000_000


def sequences(entries):
    return [entry.seq for entry in entries]


def test_nothing_is_written_before_the_end(kit):
    """A few records below WARNING ride in the commit of the end; a block without a record writes nothing."""
    with kit.log.block() as logger:
        assert not kit.log.drain()
        logger.info("one")
        logger.info("two")
    assert kit.batches == []
    assert sequences(kit.finish()) == [1, 2]
    assert kit.counts == {logging.INFO: 2}
    assert not kit.log.drain()


@pytest.mark.parametrize("first", [logging.WARNING, logging.ERROR, logging.CRITICAL, 55])
def test_the_first_record_to_cross_a_level_is_written_at_once(kit, first):
    """A crossing takes along what was said before it; the next of the same level waits; each level crosses once."""
    with kit.log.block() as logger:
        logger.info("before")
        logger.log(first, "crossing")
        assert [sequences(batch.entries) for batch in kit.batches] == [[1, 2]]
        logger.log(first, "again")
        logger.info("after")
        assert len(kit.batches) == 1
        logger.critical("the end")
    assert len(kit.batches) == (2 if first < logging.CRITICAL else 1)
    assert sequences(kit.finish()) == [1, 2, 3, 4, 5]
    assert kit.log.current_log_level == max(first, logging.CRITICAL)


def test_sixty_four_records_are_written(kit):
    """The 64th waiting record has all of them written."""
    with kit.log.block() as logger:
        for number in range(130):
            logger.info("number %s", number)
    assert [len(batch.entries) for batch in kit.batches] == [64, 64]
    assert len(kit.finish()) == 130


def test_sixty_four_kibibytes_are_written(kit):
    """Waiting records of more than 64 KiB in all are written."""
    with kit.log.block() as logger:
        for _ in range(40):
            logger.info("x" * 4_000)
    assert 15 <= len(kit.batches[0].entries) <= 17
    assert len(kit.finish()) == 40


def test_records_that_waited_a_second_are_written(kit):
    """The first record after a second takes the waiting ones along; a clock that was set back does too."""
    with kit.log.block() as logger:
        logger.info("first")
        kit.clock[0] += SECOND - 1
        logger.info("second")
        assert kit.batches == []
        kit.clock[0] += 1
        logger.info("third")
        assert sequences(kit.entries) == [1, 2, 3]
        logger.info("fourth")
        kit.clock[0] -= SECOND
        logger.info("fifth")
    assert sequences(kit.entries) == [1, 2, 3, 4, 5]


def test_a_hundred_thousand_records(kit):
    """Memory is bounded: the first, the latest and those at WARNING are kept, the others are counted."""
    with kit.log.block() as logger:
        for number in range(100_000):
            logger.info("number %s", number)
            if number % 1_000 == 999:
                logger.warning("odd %s", number)
    entries = kit.finish()
    infos = [entry.seq for entry in entries if entry.level == logging.INFO]
    assert len([entry for entry in entries if entry.level == logging.WARNING]) == 100
    assert infos[:250] == list(range(1, 251))
    assert infos[250:] == list(range(100_100 - 250, 100_100))
    assert kit.counts == {logging.INFO: 100_000, logging.WARNING: 100}
    assert kit.dropped == 100_100 - len(entries)


def test_more_warnings_than_there_is_room_for(kit):
    """Of more than 500 warnings the first 500 are kept and the latest; the count is right."""
    with kit.log.block() as logger:
        for number in range(2_000):
            logger.warning("number %s", number)
    kept = sequences(kit.finish())
    assert kept == [*range(1, 501), *range(1_751, 2_001)]
    assert (kit.counts, kit.dropped) == ({logging.WARNING: 2_000}, 1_250)


def test_a_mebibyte_is_kept(kit):
    """Large records are bounded by their size, and the last error is among them."""
    with pytest.raises(ValueError, match="the end"), kit.log.block() as logger:  # noqa: PT012 - all of it is the task
        for number in range(3_000):
            logger.log(20 + 10 * (number % 2), "large", context={str(part): "x" * 3_900 for part in range(4)})
        raise ValueError("the end")
    entries = kit.finish()
    assert sum(sum(map(len, entry.context.values())) for entry in entries) <= 1024 * 1024
    assert entries[-1].exception["message"] == "the end"
    assert sum(kit.counts.values()) == 3_001 == len(entries) + kit.dropped


@given(
    st.lists(st.sampled_from([10, 20, 30, 40, 50]), max_size=80),
    st.integers(1, 20),
    st.integers(1, 20),
    st.lists(st.booleans(), max_size=80),
)
def test_every_record_is_counted_once_whatever_fails(levels, most, important, failures):
    """Kept and dropped add up to what was said, counts are exact, nothing is stored twice, whatever writes fail."""
    batches, clock, outcomes = [], [0], iter(failures)

    def write(batch):
        if next(outcomes, False):
            raise OSError
        batches.append(batch)

    settings = LogSettings(max_records=most, max_important=important, flush_records=3, record_level=0)
    log = InstanceLog(LogIdentity("u", "t", "t#0"), write=write, now=lambda: clock[0], settings=settings)
    with log.block() as logger:
        for level in levels:
            clock[0] += 400_000
            logger.log(level, "said")
    batches.append(log.drain())
    entries = [entry for batch in batches for entry in batch.entries]
    kept = sequences(entries)
    assert len(kept) == len(set(kept)) <= most
    assert len(kept) + sum(batch.dropped for batch in batches) == len(levels)
    for level in set(levels):
        assert sum(batch.counts.get(level, 0) for batch in batches) == levels.count(level)
    assert all(sequences(batch.entries) == sorted(sequences(batch.entries)) for batch in batches)
    assert log.current_log_level == max(levels, default=0)


def test_a_storage_that_is_down_never_reaches_the_task(make, capsys):
    """A write that fails is reported once, tried again with growing delays, and loses nothing."""
    attempts = []

    def write(batch):
        attempts.append(kit.clock[0])
        raise OSError("no database")

    kit = make(write=write)
    with kit.log.block() as logger:
        logger.warning("one")
        logger.error("in the pause, although it crosses a level")
        for _ in range(100):
            kit.clock[0] += SECOND
            logger.info("later")
    waits = [after - before for before, after in itertools.pairwise(attempts)]
    assert len(attempts) < 12
    assert waits == sorted(waits)
    assert waits[0] >= 500_000
    assert max(waits) <= 31 * SECOND
    assert capsys.readouterr().err.count("OSError: no database") == 1
    batch = kit.log.drain()
    assert sequences(batch.entries) == list(range(1, 103))
    assert batch.counts == {logging.WARNING: 1, logging.ERROR: 1, logging.INFO: 100}


def test_a_storage_that_comes_back_gets_everything_in_order(make):
    """After failures the next batch has what the failed ones had, counted once."""
    down, stored = [True], []

    def write(batch):
        if down[0]:
            raise OSError
        stored.append(batch)

    kit = make(write=write)
    with kit.log.block() as logger:
        logger.warning("one")
        kit.clock[0] += 10 * SECOND
        down[0] = False
        logger.info("two")
    (batch,) = stored
    assert sequences(batch.entries) == [1, 2]
    assert batch.counts == {logging.WARNING: 1, logging.INFO: 1}
    assert kit.finish() == []


def test_an_interrupted_write_keeps_the_records(make):
    """A KeyboardInterrupt in the middle of a write goes on, as it must, and the records stay."""

    def write(batch):
        raise KeyboardInterrupt

    kit = make(write=write)
    with pytest.raises(KeyboardInterrupt), kit.log.block() as logger:
        logger.warning("kept")
    assert "kept" in [entry.message for entry in kit.finish()]


def test_a_slow_write_holds_up_nobody_else(make):
    """While one thread writes, another's records gather; at the end `drain` waits for the write."""
    writing, go_on, stored = threading.Event(), threading.Event(), []

    def write(batch):
        writing.set()
        assert go_on.wait(10)
        stored.append(batch)

    kit = make(write=write)
    with kit.log.block() as logger:
        thread = threading.Thread(target=logger.warning, args=("slow",))
        thread.start()
        assert writing.wait(10)
        for _ in range(200):
            logger.info("quick")
        go_on.set()
        batch = kit.log.drain()
        thread.join()
    assert [entry.message for entry in stored[0].entries] == ["slow"]
    assert len(batch.entries) + sum(len(other.entries) for other in stored[1:]) == 200


def test_a_write_that_logs_does_not_wait_for_itself(make):
    """What the storage logs while it writes, to the very same logger, is recorded and written with the next batch."""
    stored, loggers = [], []

    def write(batch):
        stored.append(batch)
        loggers[0].error("the storage complains")

    kit = make(write=write)
    with kit.log.block() as logger:
        loggers.append(logger)
        logger.warning("one")
    assert [entry.message for batch in stored for entry in batch.entries] == ["one"]
    assert [entry.message for entry in kit.log.drain().entries] == ["the storage complains"]


def test_records_after_the_end_are_late_and_written_at_once(kit):
    """After `close` every record is stored on its own, marked late, and raises the level; closing twice is nothing."""
    with kit.log.block() as logger:
        logger.info("in time")
        kit.finish()
        logger.info("between the commit and the end")
        kit.log.close()
        kit.log.close()
        assert len(kit.batches) == 2
        logger.error("too late")
    assert [(entry.message, entry.late) for entry in kit.entries] == [
        ("in time", False),
        ("between the commit and the end", False),
        ("too late", True),
    ]
    assert kit.log.current_log_level == logging.ERROR
    for _ in range(300):
        logger.info("much too late")
    assert kit.dropped == 201
    assert kit.counts[logging.INFO] == 302


def test_a_batch_knows_whether_it_is_worth_a_commit():
    """A batch is false exactly if it says nothing."""
    assert not LogBatch([], {}, 0)
    assert LogBatch([], {20: 1}, 0)
    assert LogBatch([], {}, 1)


def test_settings_are_shared():
    """Logs of equal settings share one sanitiser, so what it has learned about keys serves them all."""
    assert sanitizer(LogSettings()) is sanitizer(LogSettings(flush_interval=timedelta(seconds=1)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_goes_on_by_itself(make):
    """In a child, what waits is the parent's; its own records are written at once, late, with numbers of their own."""
    reading, writing = os.pipe()
    parent = os.getpid()
    stored = []

    def write(batch):
        if os.getpid() == parent:
            stored.append(batch)
        else:
            os.write(
                writing,
                json.dumps([(entry.seq, entry.message, entry.late) for entry in batch.entries]).encode(),
            )

    kit = make(write=write)
    with kit.log.block() as logger:
        logger.info("the parent's")
        kit.log._lock.acquire()
        child = os.fork()
        if child == 0:
            logger.info("the child's")
            os._exit(0)
        kit.log._lock.release()
        os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        ((number, message, late),) = json.loads(pipe.read())
    assert (message, late) == ("the child's", True)
    assert number > child
    assert [entry.message for entry in kit.log.drain().entries] == ["the parent's"]
