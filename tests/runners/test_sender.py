"""The courier that carries hints to the broker: it never keeps anybody waiting, and begins again after everything."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from tests.runners.conftest import PATIENCE, until
from tests.worker.threads import Shortage, named
from triggers.runners import sender as celery_courier
from triggers.runners.sender import MAX_HANGING, BackgroundSender


class Other:
    """The other side: what it got, whether it is away, and a door at which deliveries hang."""

    def __init__(self):
        self.got = []
        self.away = False
        self.connections = 0
        self.door = threading.Event()
        self.door.set()
        self.at_the_door = threading.Semaphore(0)

    @contextmanager
    def connect(self):
        self._check()
        self.connections += 1
        yield self.deliver

    def deliver(self, thing):
        self._check()
        if not self.door.is_set():
            self.at_the_door.release()
            assert self.door.wait(PATIENCE)
        self.got.append(thing)

    def _check(self):
        if self.away:
            raise ConnectionError("nobody there")


@pytest.fixture
def other():
    return Other()


@pytest.fixture
def courier(other, monkeypatch):
    monkeypatch.setattr(celery_courier, "BACKOFF", (0.01,))
    made = []

    def courier(**settings):
        made.append(BackgroundSender("things to nobody", other.connect, **settings))
        return made[-1]

    yield courier
    other.door.set()
    for one in made:
        one.close(0)


def test_everything_is_delivered_in_order_over_one_connection(courier, other):
    """As long as nothing happens to it."""
    carry = courier()
    for number in range(100):
        carry.submit(number)
    assert carry.flush(PATIENCE)
    assert other.got == list(range(100))
    assert other.connections == 1
    assert carry.is_idle()


def test_no_thread_begins_before_there_is_something(courier):
    """So that an application can be made before a fork."""
    before = set(threading.enumerate())
    courier()
    assert set(threading.enumerate()) <= before


def test_while_the_other_side_is_away_things_wait(courier, other, caplog):
    """They are delivered when it is back, each once, and the log says what is going on."""
    other.away = True
    carry = courier()
    for number in [*range(10), *range(10)]:
        carry.submit(number)
    until(lambda: "things to nobody could not be sent" in caplog.text)
    assert not carry.is_idle()
    assert not carry.flush(0.01)
    other.away = False
    assert carry.flush(PATIENCE)
    assert other.got == list(range(10))


def test_what_does_not_fit_is_dropped(courier, other, caplog):
    """Nobody waits for room; the log says so, less and less often."""
    other.door.clear()
    carry = courier(room=4)
    for number in range(12):
        carry.submit(number)
    other.door.set()
    assert carry.flush(PATIENCE)
    assert other.got == [0, 1, 2, 3]
    said = [record.args[0] for record in caplog.records if "dropped" in record.message]
    assert said == [1, 2, 4, 8]


def test_a_delivery_that_hangs_is_given_up(courier, other, caplog):
    """Another thread begins with another connection; what hangs is delivered again, and nothing else twice."""
    other.door.clear()
    carry = courier(deadline=0.0)
    carry.submit("hangs")
    assert other.at_the_door.acquire(timeout=PATIENCE)
    other.door.set = other.door.set
    with caplog.at_level(logging.WARNING):
        carry.submit("next")
        assert other.at_the_door.acquire(timeout=PATIENCE)
    assert "has taken more than 0.0 s" in caplog.text
    other.door.set()
    assert carry.flush(PATIENCE)
    until(lambda: len(other.got) == 3)
    assert sorted(other.got) == ["hangs", "hangs", "next"]


def test_hanging_threads_do_not_pile_up(courier, other):
    """There are never more of them than a few, however much is submitted."""
    other.door.clear()
    carry = courier(deadline=0.0)
    before = set(threading.enumerate())
    for number in range(50):
        carry.submit(number)
        other.at_the_door.acquire(timeout=0.01)
    assert len(set(threading.enumerate()) - before) <= MAX_HANGING + 1


def test_a_thread_without_work_ends_and_another_begins(courier, other, monkeypatch):
    """With its connection; nothing is lost in between."""
    monkeypatch.setattr(celery_courier, "IDLE", 0.0)
    carry = courier()
    for number in range(50):
        carry.submit(number)
        assert carry.flush(PATIENCE)
    assert other.got == list(range(50))
    until(lambda: carry._round is None)


def test_after_close_nothing_is_taken(courier, other):
    """What was there before is delivered in the time that close is given, or not at all."""
    carry = courier()
    carry.submit(1)
    assert carry.close(PATIENCE)
    carry.submit(2)
    assert carry.is_idle()
    assert other.got == [1]
    other.away = True
    late = courier()
    late.submit(3)
    assert not late.close(0.01)
    assert other.got == [1]


def test_a_forked_child_begins_anew(courier, other):
    """It has neither the things nor the thread of its parent, and delivers its own."""
    other.door.clear()
    carry = courier()
    carry.submit("of the parent")
    assert other.at_the_door.acquire(timeout=PATIENCE)
    pid = os.fork()
    if pid == 0:
        other.door = threading.Event()
        other.door.set()
        carry.submit("of the child")
        os._exit(not (carry.flush(PATIENCE) and other.got == ["of the child"]))
    assert os.waitpid(pid, 0)[1] == 0
    other.door.set()
    assert carry.flush(PATIENCE)
    assert other.got == ["of the parent"]


def test_at_the_end_of_a_process_there_is_a_moment(tmp_path):
    """What was submitted last is still delivered; what cannot be does not keep the process."""
    program = """
import sys
from contextlib import contextmanager
from triggers.runners.sender import BackgroundSender

@contextmanager
def connect():
    yield lambda thing: print(thing, flush=True)

@contextmanager
def nowhere():
    raise ConnectionError
    yield

lasting, lost = BackgroundSender("a to b", connect), BackgroundSender("a to c", nowhere)
lasting.submit("delivered")
lost.submit("not delivered")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "delivered\n"


def test_a_sender_whose_thread_cannot_start_begins_later(other, courier, monkeypatch):
    """What was submitted while the system had no thread left is delivered with the next thing, also if it repeats."""
    with monkeypatch.context() as patch:
        shortage = Shortage(patch, named("triggers-things"))
        carry = courier()
        carry.submit("a")
        carry.submit("a")
        assert shortage.failures == 2
        assert [problem.kind for problem in carry.problems.list()] == ["thread"]
    carry.submit("a")
    assert until(lambda: other.got == ["a"])
    assert len(carry.problems) == 0


def test_a_courier_that_was_closed_can_be_opened_again(other, courier):
    """Between its close and its opening it takes nothing; afterwards it delivers as before."""
    carry = courier()
    carry.submit("a")
    assert carry.close(PATIENCE)
    carry.submit("b")
    carry.open()
    carry.submit("c")
    assert carry.flush(PATIENCE)
    assert other.got == ["a", "c"]
