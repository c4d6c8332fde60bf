"""What a fork waits for, and what it does not."""

from __future__ import annotations

import os
import threading
import warnings

from triggers import fork
from triggers.storages.sqlite import SqliteStorage
from triggers.testing.conformance.steps import Steps


def forked(act):
    """Do something in a forked process; returns its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tested
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_children_of_a_process_that_commits_can_commit(tmp_path):
    """SQLite keeps in memory which locks a process has: a child that inherited them would wait for itself."""
    storage = SqliteStorage(f"sqlite:///{tmp_path}/a.db?synchronous=normal&busy_timeout=20")
    ending = threading.Event()

    def commit():
        busy = Steps(storage, "busy")
        while not ending.is_set():
            busy.fire("page")

    threads = [threading.Thread(target=commit) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(20):
            assert forked(lambda: Steps(storage, "child").fire("page")) == 0
            assert len(Steps(storage, "child").firings()) == number + 1
    finally:
        ending.set()
        for thread in threads:
            thread.join()
        storage.close()


def test_a_fork_does_not_wait_for_ever(monkeypatch):
    """Something that hangs, in another thread or in the one that forks, holds it up for a moment alone."""
    monkeypatch.setattr(fork, "WAIT", 0.01)
    with fork.unforked:
        assert forked(lambda: None) == 0
    with fork.unforked:
        pass


def test_nothing_begins_while_the_process_is_forked():
    """What would begin then begins after it, and in the child nothing is held."""
    gate = fork.ForkGuard()
    gate.before_fork()
    begun = threading.Event()

    def begin():
        with gate:
            begun.set()

    thread = threading.Thread(target=begin)
    thread.start()
    assert not begun.wait(0.05)
    gate.after_in_parent()
    assert begun.wait(60)
    thread.join()
