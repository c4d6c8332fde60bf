"""What a fork waits for, and what it does not."""

from __future__ import annotations

import os
import threading
import time
import warnings
from contextlib import contextmanager

import pytest

from triggers import fork
from triggers.exceptions import StorageError
from triggers.storages.sqlite import SqliteStorage
from triggers.testing.conformance.steps import Steps

#: For the whole module: `catch_warnings` is not safe where several threads fork.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@contextmanager
def quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "SQLite .* can corrupt", RuntimeWarning)
        yield


def forked(act):
    """Do something in a forked process; returns its exit code."""
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


def test_a_child_of_a_process_that_commits_for_long_is_refused(tmp_path, monkeypatch):
    """A fork waits for another thread's transaction, though not for ever; then the child must not use the file."""
    monkeypatch.setattr(fork, "WAIT", 0.2)
    storage = SqliteStorage(f"sqlite:///{tmp_path}/a.db?synchronous=normal")
    Steps(storage, "a").fire("page")
    inside, ending = threading.Event(), threading.Event()

    def hold():
        with storage._file.transaction():
            inside.set()
            ending.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(60)

    def refused():
        for url in (storage._file.url, f"sqlite:///{tmp_path}/another.db"):
            with pytest.raises(
                StorageError, match=r"this process was forked while .*a\.db was in use.*'spawn'"
            ):
                Steps(SqliteStorage(url), "a").fire("page")
        with pytest.raises(StorageError, match="this process was forked"):
            Steps(storage, "a").fire("page")

    try:
        assert forked(refused) == 0
    finally:
        ending.set()
        thread.join()
    assert forked(lambda: Steps(storage, "a").fire("page")) == 0, "once it has ended a child may"
    assert Steps(storage, "a").head.firings == 2
    storage.close()


@pytest.mark.parametrize("driver", ["pysqlite3", "sqlite3"])
def test_a_fork_waits_for_a_commit_of_more_than_a_second(tmp_path, driver):
    """The child of a process that is in the middle of a long commit can write once that has ended."""
    with quiet():
        storage = SqliteStorage(f"sqlite:///{tmp_path}/a.db?driver={driver}")
    Steps(storage, "a").fire("page")
    inside = threading.Event()

    def hold():
        with storage._file.transaction():
            inside.set()
            time.sleep(1.3)  # what is measured here is that it is longer than a fork used to wait

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(60)
    assert forked(lambda: Steps(storage, "a").fire("page")) == 0
    thread.join()
    assert Steps(storage, "a").head.firings == 2
    storage.close()


def test_a_thread_that_waits_for_the_lock_lets_a_fork_pass(tmp_path):
    """A writer that waits for another process is not waited for: it lets go between two slices, and waits on."""
    storage = SqliteStorage(f"sqlite:///{tmp_path}/a.db?synchronous=normal")
    Steps(storage, "a").fire("page")
    ready, leave = os.pipe(), os.pipe()
    holder = os.fork()
    if holder == 0:
        with storage._file.transaction():
            os.write(ready[1], b"x")
            os.read(leave[0], 1)
        os._exit(0)
    assert os.read(ready[0], 1) == b"x"
    thread = threading.Thread(target=Steps(storage, "a").fire, args=("page",))
    thread.start()
    while not storage._file._pool.users:
        time.sleep(0.001)
    begun = time.monotonic()
    assert forked(lambda: None) == 0
    assert time.monotonic() - begun < fork.WAIT
    assert thread.is_alive()
    os.write(leave[1], b"x")
    os.waitpid(holder, 0)
    thread.join()
    assert Steps(storage, "a").head.firings == 2
    storage.close()


def test_a_child_that_is_forked_within_a_transaction_is_refused(tmp_path):
    """What a child inherits in the middle of a transaction it can neither go on with nor commit."""
    storage = SqliteStorage(f"sqlite:///{tmp_path}/a.db?synchronous=normal")
    Steps(storage, "a").fire("page")
    with storage._file.transaction() as run:

        def refused():
            with pytest.raises(StorageError, match="do not fork within a transaction"):
                run("UPDATE sessions SET firings = 7")
            with pytest.raises(StorageError, match="do not fork within a transaction"):
                Steps(storage, "a").fire("page")

        assert forked(refused) == 0
        run("UPDATE sessions SET firings = 9")
    assert Steps(storage, "a").head.firings == 9
    storage.close()


def test_nothing_begins_while_the_process_is_forked(tmp_path):
    """What would begin then waits until the fork is over."""
    storage = SqliteStorage(f"sqlite:///{tmp_path}/a.db?synchronous=normal")
    Steps(storage, "a").fire("page")
    fork.unforked.before_fork()
    assert storage._file._pool.connections == []
    thread = threading.Thread(target=Steps(storage, "a").fire, args=("page",))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    assert storage._file._pool.connections == []
    fork.unforked.after_in_parent()
    thread.join(60)
    assert Steps(storage, "a").head.firings == 2
    storage.close()


def test_a_fork_that_never_came_stops_nobody(tmp_path, monkeypatch):
    """Where an exception ended the hook after a fork, others go on when its time is up, and its thread at once."""
    monkeypatch.setattr("triggers.storages.sqlite.file.WAIT", 0.1)
    monkeypatch.setattr(fork, "WAIT", 0.1)
    storage = SqliteStorage(f"sqlite:///{tmp_path}/a.db?synchronous=normal")
    Steps(storage, "a").fire("page")
    fork.unforked.before_fork()
    thread = threading.Thread(target=Steps(storage, "a").fire, args=("page",))
    thread.start()
    thread.join(60)
    fork.unforked.before_fork()
    Steps(storage, "a").fire("page")
    assert Steps(storage, "a").head.firings == 3
    storage.close()


def test_threads_that_fork_at_once_do_so_one_after_the_other(tmp_path):
    """Both children can use the file."""
    storage = SqliteStorage(f"sqlite:///{tmp_path}/a.db?synchronous=normal")
    Steps(storage, "a").fire("page")
    gate, codes = threading.Barrier(3), []

    def fork_some():
        gate.wait()
        codes.extend(forked(lambda: Steps(storage, "a").fire("page")) for _ in range(10))

    threads = [threading.Thread(target=fork_some) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 30
    assert Steps(storage, "a").head.firings == 31
    storage.close()
