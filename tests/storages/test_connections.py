"""The life of a connection: forks, interrupts, threads and greenlets that end, files that are replaced.

Where the same causes could be, and what was found there:

* A fork: SQLite keeps locks in the process's memory. PostgreSQL and Redis keep none: there a child leaves its
  parent's sockets alone (`test_postgres_processes`; psycopg and redis-py compare process ids).
* An interrupt between taking something and the `try`: the pool of connections and the lock of writers
  (:mod:`triggers.storages.checkout`); the pool of PostgreSQL, which now is the same; the counters that a fork
  waited for, which are gone. Redis has no lock and no limit: a connection that is lost is closed, and never
  used again. A savepoint in the application's transaction.
* Closing by the liveness of a thread: nowhere else; PostgreSQL and Redis never knew whose a connection is.
* A file that is replaced: SQLite alone has files, of which what was written is in two.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path

import pytest

from tests.storages.scripts import DRIVERS, counted, opened, run
from triggers.exceptions import StorageError
from triggers.storages.checkout import Checkout, Checkouts
from triggers.storages.postgres import PostgresStorage
from triggers.storages.postgres.connection import PipelineConnection
from triggers.storages.redis import RedisStorage
from triggers.testing.conformance.steps import Steps

pytestmark = pytest.mark.filterwarnings(
    "ignore:SQLite .* can corrupt:RuntimeWarning",
    "ignore:This process .* is multi-threaded:DeprecationWarning",
)


@pytest.fixture(params=DRIVERS)
def url(request, tmp_path):
    return f"sqlite:///{tmp_path}/a.db?synchronous=normal&driver={request.param}"


@pytest.fixture
def wal_url(tmp_path):
    return f"sqlite:///{tmp_path}/a.db?synchronous=normal"


# -- forks --------------------------------------------------------------------------------------------------

#: The library as it would be without what it does at a fork.
INHERITING = """
from triggers.storages.sqlite import file as sqlite_file
sqlite_file.SqliteFile.before_fork = lambda self, until: None
def after_fork(self):
    kept, self._pool = self._pool, self._new_pool()
    sqlite_file.inherited.append(kept)
sqlite_file.SqliteFile.after_fork = after_fork
"""

FORK = """
    import subprocess
    triggers = Triggers(url, runner=None)
    manager = triggers.session("s")
    manager.fire("a")
    told, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        for number in range(100):
            manager.fire("a")
            if number in (20, 50):
                os.write(told[1], b"x")
                os.read(go[0], 1)
        (triggers.close if sys.argv[2] == "child closes" else lambda: None)()
        sys.exit(0)
    os.close(told[1])  # a child that fails is noticed
    os.read(told[0], 1)
    if sys.argv[2] == "parent fires":
        manager.fire("a")
    triggers.close()
    os.write(go[1], b"x")
    os.read(told[0], 1)
    other = "import sys; from triggers import Triggers; t = Triggers(sys.argv[1], runner=None);" \\
        "t.session('s').fire('a'); t.close()"
    subprocess.run([sys.executable, "-W", "ignore", "-c", other, url], check=True)
    os.write(go[1], b"x")
    print(end_of(pid))
"""


@pytest.mark.parametrize("which", ["child closes", "parent closes", "parent fires"])
def test_what_a_child_has_confirmed_is_stored(url, which):
    """Whoever closes first, also a process that comes by: all that the child has fired is there."""
    assert run(FORK, url, which) == ("0\n", 0)
    assert counted(url) == 102 + (which == "parent fires")


def test_without_closing_before_the_fork_firings_are_lost(wal_url):
    """The test above sees it: without that the file lacks what was confirmed, or the child fails."""
    said = run(FORK, wal_url, "parent closes", mutant=INHERITING)
    assert said != ("0\n", 0) or counted(wal_url) != 102


DAEMON = """
    triggers = Triggers(url, runner=None)
    triggers.session("s").fire("a")
    end = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for _ in range(50):
                triggers.session("s").fire("a")
            os.write(end[1], b"x")
        os._exit(0)
    assert os.read(end[0], 1) == b"x"
"""

MULTIPROCESSING = """
    import multiprocessing, pathlib
    pathlib.Path(sys.argv[3], "fires_here.py").write_text(
        "import warnings; warnings.simplefilter('ignore')\\n"
        "from triggers import Triggers\\n"
        "triggers = None\\n"
        "def fire(url, n):\\n"
        "    manager = (triggers or Triggers(url, runner=None)).session('s')\\n"
        "    for _ in range(n):\\n"
        "        manager.fire('a')\\n"
    )
    sys.path.insert(0, sys.argv[3])
    import fires_here
    fires_here.triggers = Triggers(url, runner=None)
    fires_here.triggers.session("s").fire("a")
    sys.modules["__main__"].__file__ = None
    context = multiprocessing.get_context(sys.argv[2])
    workers = [context.Process(target=fires_here.fire, args=(url, 10)) for _ in range(2)]
    [worker.start() for worker in workers]
    fires_here.fire(url, 10)
    [worker.join() for worker in workers]
    assert [worker.exitcode for worker in workers] == [0, 0]
"""

PRELOADED = """
    import signal
    triggers = Triggers(url, runner=None)
    triggers.session("s").fire("a")
    busy = threading.Thread(target=lambda: [triggers.session("s").fire("a") for _ in range(40)])
    busy.start()
    def serve():
        ends = []
        for _ in range(10):
            triggers.session("s").fire("a")
        os._exit(0)
    pids = [os.fork() or serve() for _ in range(4)]
    busy.join()
    assert [end_of(pid) for pid in pids] == [0] * 4
"""


def test_a_daemon_goes_on(url):
    """A process that forks twice and leaves: what its grandchild fires is stored."""
    assert run(DAEMON, url) == ("", 0)
    assert counted(url) == 51


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_works_by_every_method(wal_url, tmp_path, method):
    """Parent and children fire at once, whichever way the children are made."""
    assert run(MULTIPROCESSING, wal_url, method, str(tmp_path)) == ("", 0)
    assert counted(wal_url) == 31


def test_a_server_that_loads_first_and_forks_then_works(url):
    """Four workers are forked while another thread fires; each of them fires, and nothing is lost."""
    assert run(PRELOADED, url) == ("", 0)
    assert counted(url) == 81


APPLICATION = """
    import importlib
    module = importlib.import_module(sys.argv[2])
    triggers = Triggers(url, runner=None)
    triggers.session("s").fire("a")
    own = module.connect(triggers.storage._file.path, isolation_level=None)
    own.execute(sys.argv[3])
    own.execute("SELECT 1 FROM sessions").fetchone()
    pid = os.fork()
    if pid == 0:
        try:
            triggers.session("s").fire("a")
        except StorageError as error:
            print(error, flush=True)
        os._exit(0)
    assert end_of(pid) == 0
    own.execute("ROLLBACK") if own.in_transaction else None
    triggers.session("s").fire("a")
"""


@pytest.mark.parametrize(("driver", "statement"), [("pysqlite3", "SELECT 1"), ("sqlite3", "BEGIN IMMEDIATE")])
def test_a_child_refuses_a_file_that_the_application_had_open(tmp_path, driver, statement):
    """In WAL mode, or with a lock, the application's own connection is inherited; the message says what to do."""
    url = f"sqlite:///{tmp_path}/a.db?driver={driver}"
    said, code = run(APPLICATION, url, driver, statement)
    assert "close the application's own connections to the file before the fork" in said
    assert (code, counted(url)) == (0, 2)


def test_a_child_may_use_a_file_that_the_application_only_had_open(tmp_path):
    """Without WAL and without a lock there is nothing to inherit."""
    url = f"sqlite:///{tmp_path}/a.db?driver=sqlite3"
    assert run(APPLICATION, url, "sqlite3", "SELECT 1") == ("", 0)
    assert counted(url) == 3


UNTOLD = """
    triggers = Triggers(url, runner=None)
    triggers.session("s").fire("a")
    from triggers.fork import unforked
    unforked._pid = -1  # as if a C library had forked, which calls no hooks
    try:
        triggers.session("s").fire("a")
    except StorageError as error:
        print(error)
"""


def test_a_child_that_nobody_told_refuses(url):
    """A process that was forked without any hook finds out by its number, and does not use what it inherited."""
    said, code = run(UNTOLD, url)
    assert "this process was forked while" in said
    assert (code, counted(url)) == (0, 1)


# -- threads, the end of the process, greenlets ---------------------------------------------------------------

AT_EXIT = """
    import atexit
    triggers = Triggers(url, runner=None)
    manager = triggers.session("s")
    manager.fire("a")

    def fire(n=50):
        for _ in range(n):
            manager.fire("a")

    def at_exit():
        threads = [threading.Thread(target=fire) for _ in range(3)] if sys.version_info < (3, 12) else []
        [thread.start() for thread in threads]
        fire()
        [thread.join() for thread in threads]
        print(50 * (1 + len(threads)))

    atexit.register(at_exit)
    for _ in range(3):
        threading.Thread(target=fire).start()  # they outlive the main thread
"""


@pytest.mark.parametrize("attempt", range(3))
def test_firing_works_at_the_end_of_the_process(url, attempt):
    """In an `atexit` handler, and in threads that outlive the main one; the interpreter ends as it should."""
    said, code = run(AT_EXIT, url)
    assert code == 0, f"{attempt}: {said}"
    assert counted(url) == 151 + int(said)


THREADS = """
    triggers = Triggers(url, runner=None)
    gate = threading.Barrier(40)
    def fire():
        gate.wait()
        for _ in range(5):
            triggers.session("s").fire("a")
            triggers.storage.session("s")
    for _ in range(2):
        threads = [threading.Thread(target=fire) for _ in range(40)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    print(len(triggers.storage._file._pool.connections) <= 16, descriptors() <= 33)
    triggers.close()
    print(descriptors())
"""

GREENLETS = """
    from gevent import monkey
    if sys.argv[2] == "patched":
        monkey.patch_all()
    import gevent, resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    triggers = Triggers(url, runner=None)
    def fire():
        triggers.session("s").fire("a")
        gevent.sleep(0)
        triggers.session("s").fire("a")
        gevent.sleep(0.01)
    gevent.joinall([gevent.spawn(fire) for _ in range(300)], raise_error=True)
    print(descriptors() <= 33)
    triggers.close()
    print(descriptors())
"""


def test_forty_threads_use_a_bounded_number_of_connections(url):
    """At most 16 connections, with at most 33 descriptors; none after `close()`."""
    assert run(THREADS, url) == ("True True\n0\n", 0)
    assert counted(url) == 400


@pytest.mark.parametrize("how", ["patched", "unpatched"])
def test_three_hundred_greenlets_use_a_bounded_number_of_connections(url, how):
    """With 64 descriptors in all, greenlets fire as threads do; none is left after `close()`."""
    assert run(GREENLETS, url, how) == ("True\n0\n", 0)
    assert counted(url) == 600


# -- interrupts ---------------------------------------------------------------------------------------------


class InterruptError(BaseException):
    """As a signal handler raises it."""


class Struck:
    """A connection that is interrupted before or after one statement."""

    def __init__(self, connection, statement, when):
        self._connection = connection
        self._statement = statement
        self._when = when

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, statement, given=()):
        strikes = self._when and statement.startswith(self._statement)
        when, self._when = self._when, "" if strikes else self._when
        if strikes and when == "before":
            raise InterruptError
        cursor = self._connection.execute(statement, given)
        if strikes:
            raise InterruptError
        return cursor


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("statement", ["BEGIN", "INSERT INTO firings", "COMMIT", "SELECT", "ROLLBACK"])
@pytest.mark.parametrize("act", ["fire", "read"])
def test_an_interrupted_call_leaves_nothing_behind(wal_url, act, statement, when):
    """Wherever it strikes: within its handler the next call works, of any process, and a note says what was stored."""
    storage = opened(wal_url)
    steps = Steps(storage, "s")
    steps.fire("a")
    acts = {"fire": lambda: steps.fire("a"), "read": steps.firings}
    (link,) = storage._file._pool.connections
    link.connection = Struck(link.connection, statement, when)
    try:
        acts[act]()
    except InterruptError as error:
        before = steps.head.firings
        stored = "was committed" in "".join(getattr(error, "__notes__", ()))
        assert before == 1 + stored
        assert stored == (act == "fire" and (statement, when) == ("COMMIT", "after"))
        steps.fire("a")
        assert counted(wal_url) == before + 1
    else:
        assert (act, statement) in {("fire", "ROLLBACK"), ("read", "COMMIT"), ("read", "INSERT INTO firings")}
    assert storage._file._pool._held == {}
    storage.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupted_commit_on_postgresql_says_whether_it_was_stored(postgres_url, monkeypatch, when):
    """The server is asked on another connection; the interrupted one is not used again, and its place is free."""
    storage = PostgresStorage(f"{postgres_url}&pool_size=2")
    steps = Steps(storage, "s")
    steps.fire("a")
    call, armed = PipelineConnection.__call__, [True]

    def struck(wire, given, until=None):
        strikes = armed and given and given[-1][0] == "commit" and armed.pop()
        if strikes and when == "before":
            raise InterruptError
        rows = call(wire, given, until)
        if strikes:
            raise InterruptError
        return rows

    monkeypatch.setattr(PipelineConnection, "__call__", struck)
    with pytest.raises(InterruptError) as caught:
        steps.fire("a")
    assert caught.value.__notes__ == [
        f"The commit to session 's' was {'not ' if when == 'before' else ''}stored."
    ]
    assert steps.head.firings == 1 + (when == "after")
    assert storage._pool._checkouts._held == {}
    for _ in range(3):
        steps.fire("a")
    storage.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupted_commit_on_redis_says_that_it_is_stored(valkey_url, monkeypatch, when):
    """It is sent again under its number, so it is done once, and that is what the note says."""
    storage = RedisStorage(valkey_url)
    steps = Steps(storage, "s")
    steps.fire("a")
    run_script, armed = storage._store.run, [True]

    def struck(name, *given):
        strikes = armed and name == "commit" and armed.pop()
        if strikes and when == "before":
            raise InterruptError
        said = run_script(name, *given)
        if strikes:
            raise InterruptError
        return said

    monkeypatch.setattr(storage._store, "run", struck)
    with pytest.raises(InterruptError) as caught:
        steps.fire("a")
    assert caught.value.__notes__ == ["The commit to session 's' was stored."]
    assert [firing.number for firing in steps.firings()] == [1, 2]
    storage.close()


DROPPED = """
    import gc
    triggers = Triggers(url, runner=None)
    triggers.session("s").fire("a")
    before = descriptors("socket:")
    del triggers
    gc.collect()
    print(before > 0, descriptors("socket:"))
"""


def test_a_storage_that_is_dropped_leaves_no_socket(valkey_url):
    """The client closes what nobody refers to; a finaliser of our own would swallow an interrupt."""
    assert run(DROPPED, valkey_url) == ("True 0\n", 0)


INTERRUPTED_WAIT = """
    import signal
    storage = Triggers(url, runner=None).storage
    from triggers.testing.conformance.steps import Steps
    Steps(storage, "s").fire("a")
    ready, leave = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        with storage._file.transaction():
            os.write(ready[1], b"x")
            os.read(leave[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    def interrupt():
        while not storage._file._pool.users:
            time.sleep(0.001)
        time.sleep(0.1)
        signal.pthread_kill(main, signal.SIGINT)

    main = threading.get_ident()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupter = threading.Thread(target=interrupt)
    begun = time.monotonic()
    try:
        interrupter.start()
        Steps(storage, "s").fire("a")
    except KeyboardInterrupt as error:
        print(time.monotonic() - begun < 20, *error.__notes__)
        os.write(leave[1], b"x")
        assert end_of(pid) == 0
        Steps(storage, "s").fire("a")
"""


def test_a_call_that_waits_for_the_lock_is_interrupted_at_once(url, tmp_path):
    """Ctrl-C while another process holds the lock does not wait for it, and the next call works."""
    said, code = run(INTERRUPTED_WAIT, url)
    assert (said, code) == (
        f"True The transaction on {tmp_path}/a.db is rolled back; nothing was changed.\n",
        0,
    )
    assert counted(url) == 2


def test_what_both_finallys_have_missed_is_found_by_the_next_call(wal_url, monkeypatch):
    """A checkout whose function has ended is cleaned up after, also while the traceback keeps its frames alive."""
    storage = opened(wal_url)
    steps = Steps(storage, "s")
    steps.fire("a")

    def interrupted():
        user = Checkout()
        file = storage._file
        assert file._pool.lock("write", user, 0)
        link = file._pool.check_out(user, 0, lambda keep: None)
        link.connection.execute("BEGIN IMMEDIATE")("never checked in")

    try:
        interrupted()
    except TypeError:
        assert len(storage._file._pool._held) == 2
        monkeypatch.setattr(Checkout, "is_over", lambda _: False)
        with pytest.raises(StorageError, match="wait for itself"):
            steps.fire("a")
        monkeypatch.undo()
        steps.fire("a")
        assert counted(wal_url) == 2
    assert storage._file._pool._held == {}


def test_an_heir_that_is_interrupted_has_an_heir():
    """Whoever cleans up may be interrupted, too: the next one goes on where it was."""
    closed = []
    pool = Checkouts(1, lambda _: True, closed.append)

    def interrupted():
        user = Checkout()
        assert pool.check_out(user, 0, lambda keep: keep(object())) is not None
        return user

    def cleans_up(after):
        heir = Checkout()
        assert heir.inherits_from(after)
        return heir

    left = interrupted()
    heir = cleans_up(left)
    user = Checkout()
    assert heir.is_over()
    assert pool.check_out(user, 0, lambda keep: keep(object())) is not None
    assert len(closed) == 1
    pool.check_in(user)
    user.end()
    assert pool.idle == pool.connections != []


def test_an_exception_of_another_thread_leaves_nothing(url):
    """A thread that is told to raise, wherever it is, holds nothing afterwards."""
    said, code = run(OTHERS, url)
    assert (said, code) == ("done\n", 0)


OTHERS = """
    import ctypes, random
    triggers = Triggers(url, runner=None)
    manager = triggers.session("s")
    manager.fire("a")
    class Stop(Exception): pass
    confirmed = []
    def work():
        while True:
            confirmed.append(manager.fire("a"))
            triggers.storage.session("s")
    def stopped():
        try:
            work()
        except Stop:
            pass
    for seed in range(40):
        thread = threading.Thread(target=stopped)
        thread.start()
        time.sleep(random.Random(seed).uniform(0, 0.02))
        while thread.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Stop))
            thread.join(0.05)
        manager.fire("a")
    assert triggers.storage._file._pool._held == {}
    assert triggers.storage.session("s").firings >= len(confirmed)
    triggers.close()
    assert descriptors() == 0
    print("done")
"""


# -- files that are replaced ----------------------------------------------------------------------------------


def replaced(path, how):
    if how == "deleted":
        path.unlink()
    elif how == "moved":
        path.rename(path.with_name("elsewhere"))
    else:
        shutil.copy(path, path.with_name("copy"))
        path.with_name("copy").replace(path)


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_nothing_is_confirmed_into_a_file_that_is_not_there(url, tmp_path, how, suffix):
    """A file that was deleted, moved or replaced while it was open is an error, until the right one is there."""
    path = Path(f"{tmp_path}/a.db{suffix}")
    storage = opened(url)
    steps = Steps(storage, "s")
    steps.fire("a")
    if not path.exists():
        pytest.skip("only in WAL mode is there such a file")
    kept = os.open(tmp_path / "a.db", os.O_PATH)  # so that no other file gets its number
    replaced(path, how)
    with pytest.raises(StorageError, match=r"was deleted or replaced .* nothing was changed: put it back"):
        steps.fire("a")
    if not suffix:
        for _ in range(2):
            with pytest.raises(StorageError, match="was deleted or replaced"):
                steps.fire("a")
            with pytest.raises(StorageError, match="was deleted or replaced"):
                steps.firings()
        storage.close()
        with pytest.raises(StorageError, match="was deleted or replaced"):
            steps.fire("a")
        assert path.exists() is (how == "replaced"), "none is made in its place"
    os.close(kept)


def test_a_file_that_is_replaced_amid_a_transaction_confirms_nothing(url, tmp_path):
    """It is looked at just before the commit."""
    storage = opened(url)
    Steps(storage, "s").fire("a")

    def move():
        with storage._file.transaction() as run:
            run("UPDATE sessions SET firings = 7")
            replaced(tmp_path / "a.db", "moved")

    with pytest.raises(StorageError, match="was deleted or replaced"):
        move()
    (tmp_path / "elsewhere").rename(tmp_path / "a.db")
    assert Steps(storage, "s").head.firings == 1, "once it is there again, it is used again"


def test_without_the_comparison_firings_go_into_the_deleted_file(wal_url, tmp_path, monkeypatch):
    """The tests above see it."""
    monkeypatch.setattr("triggers.storages.sqlite.file.SqliteFile._check_same", lambda *_: None)
    storage = opened(wal_url)
    Steps(storage, "s").fire("a")
    replaced(tmp_path / "a.db", "deleted")
    Steps(storage, "s").fire("a")
    storage.close()


def test_who_fires_within_its_own_commit_is_told_so(wal_url):
    """A signal handler that fires amid a commit of the same thread is refused at once, and the commit goes on."""
    storage = opened(wal_url)
    steps = Steps(storage, "s")
    steps.fire("a")
    caught = []

    def handler(*_):
        with pytest.raises(StorageError, match="do not fire in a signal handler"):
            steps.fire("a")
        caught.append(threading.current_thread().name)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with storage._file.transaction() as run:
            signal.raise_signal(signal.SIGUSR1)
            run("UPDATE sessions SET firings = 7")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert caught == ["MainThread"]
    assert steps.head.firings == 7
